"""The audit of a run: raw rows, their release with k-anonymity, and the public counts."""

import collections
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deid import records
from deid.config import Assignment
from deid.errors import PromiseError
from deid.evaluation.expression import SMILING, smile
from deid.interfaces import Face
from deid.privacy import audit, audit_release, keys, shuffle, suppress
from deid.privacy.suppress import ORDER
from tests.unit.privacy.released import Scratch, files, release, summary
from tests.unit.privacy.released import table as table_of

SECRET = b"s" * 32
WORDS = {
    "status": ["replaced", "covered", "dropped"],
    "anonymizer": ["surrogate", "solid", "*"],
    "k_class": ["none", "5-9", "50+"],
    "sex": ["male", "female", "unknown", "*"],
    "age_band": ["<18", "18-29", ">=60", "unknown"],
    "expression": ["smiling", "neutral", "unknown"],
    "face_size": ["<20", "20-39", ">=160"],
    "reason": ["", "turned"],
    "gate": ["passed", "missed"],
}
PERSON = ("sex", "age_band", "expression", "face_size")


def raw(rows: list[dict[str, Any]]) -> pa.Table:
    common = {"shard": "shards/a.tar", "position": 0, "number": 0, "surrogate_id": 3}
    words = {name: values[0] for name, values in WORDS.items()}
    numbered = [{"output_id": f"{n:032x}", **common, **words, **row} for n, row in enumerate(rows)]
    return pa.Table.from_pylist(numbered, schema=records.AUDIT_RAW)


def combinations(table: pa.Table) -> collections.Counter[tuple[str, ...]]:
    columns = [table[name].to_pylist() for name in ORDER]
    return collections.Counter(zip(*columns, strict=True))


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    values = {name: st.sampled_from(words) for name, words in WORDS.items()}
    few = {name: st.just(words[0]) for name, words in WORDS.items()}
    varied = draw(st.sets(st.sampled_from(sorted(WORDS))))
    row = st.fixed_dictionaries({name: values[name] if name in varied else few[name] for name in WORDS})
    ids = st.fixed_dictionaries({"output_id": st.sampled_from([f"{n:032x}" for n in range(9)])})
    return raw(draw(st.lists(st.tuples(row, ids).map(lambda pair: pair[0] | pair[1]), max_size=60)))


@settings(deadline=None, max_examples=100)
@given(tables(), st.integers(1, 9))
def test_every_combination_is_frequent_or_nothing_is_released(table: pa.Table, k: int) -> None:
    released = release([table], k)
    assert released.schema.equals(records.AUDIT, check_metadata=True)
    assert len(released) == (len(table) if len(table) >= k else 0)
    assert min(combinations(released).values(), default=k) >= k


@settings(deadline=None, max_examples=60)
@given(tables(), st.integers(1, 9), st.randoms(use_true_random=False))
def test_order_and_units_of_the_raw_rows_do_not_matter(table: pa.Table, k: int, rng: random.Random) -> None:
    released = release([table], k)
    ids = released["output_id"].to_pylist()
    assert ids == sorted(ids)
    shuffled = table.take(pa.array(rng.sample(range(len(table)), len(table)), pa.int64()))
    cut = rng.randint(0, len(table))
    assert release([shuffled.slice(0, cut), shuffled.slice(cut)], k).equals(released)


@settings(deadline=None, max_examples=60)
@given(tables(), st.integers(1, 9))
def test_nothing_is_invented(table: pa.Table, k: int) -> None:
    table = table.set_column(
        0, records.AUDIT_RAW.field(0), pa.array([f"{n:032x}" for n in range(len(table))], pa.string())
    )
    for before, after in zip(table.to_pylist(), release([table], k).to_pylist(), strict=False):
        assert (before["output_id"], before["shard"]) == (after["output_id"], after["shard"])
        assert all(after[name] in ("*", before[name]) for name in ORDER)


@settings(deadline=None, max_examples=200)
@given(tables(), st.integers(1, 9))
def test_the_summary_describes_no_small_group(table: pa.Table, k: int) -> None:
    found = summary([table], k, {"pictures_in": 4})
    assert found.schema.equals(records.SUMMARY, check_metadata=True)
    faces = sum(status != "dropped" for status in table["status"].to_pylist())
    for name in PERSON:
        counts = [row["faces"] for row in found.to_pylist() if row["name"] == name]
        assert min(counts, default=k) >= k
        assert sum(counts) == (faces if faces >= k else 0)


def test_frequent_groups_lose_nothing_and_rare_ones_as_little_as_the_order_says() -> None:
    table = raw([{}] * 5 + [{"expression": "smiling", "face_size": s} for s in ("<20", "20-39", ">=160")])
    table = table.set_column(
        table.column_names.index("expression"),
        records.AUDIT_RAW.field("expression"),
        pa.array(["neutral"] * 5 + ["smiling"] * 3, pa.string()),
    )
    released = release([table], 3).to_pylist()
    assert [(row["expression"], row["face_size"]) for row in released] == [("neutral", "<20")] * 5 + [
        ("*", "*")
    ] * 3
    assert {row["age_band"] for row in released} == {"<18"}


def test_a_single_row_takes_the_smallest_group_with_it() -> None:
    rows = [{"status": "covered", "sex": "unknown"}] + [{"sex": "male"}] * 6 + [{"sex": "female"}] * 5
    released = release([raw(rows)], 5)
    assert combinations(released).total() == 12
    assert combinations(released)[("*",) * 7] == 6
    found = summary([raw(rows)], 5, {})
    assert {row["value"]: row["faces"] for row in found.to_pylist() if row["name"] == "suppressed"} == (
        dict.fromkeys(ORDER, 6)
    )


def test_fewer_than_k_rows_are_withheld_and_the_summary_says_so() -> None:
    table = raw([{}] * 4)
    assert len(release([table], 5)) == 0
    found = {(row["name"], row["value"]): row["faces"] for row in summary([table], 5, {}).to_pylist()}
    assert (found["rows", "released"], found["rows", "withheld"]) == (0, 4)
    assert not {name for name, _ in found} & {*PERSON, "suppressed"}
    assert found["status", "replaced"] == 4


def test_no_table_at_all() -> None:
    assert len(release([], 5)) == 0
    assert summary([], 5, {"pictures_in": 0}).to_pylist()[0] == {
        "name": "counts",
        "value": "pictures_in",
        "faces": 0,
    }
    with pytest.raises(ValueError, match="at least 1"):
        release([], 0)


def test_small_counts_of_people_are_folded_until_other_is_not_small() -> None:
    ages = ["<18"] * 3 + ["18-29"] * 6 + [">=60"] * 9
    table = raw([{"age_band": age, "gate": "missed" if n == 0 else "passed"} for n, age in enumerate(ages)])
    found = summary([table], 5, {}).to_pylist()
    assert {row["value"]: row["faces"] for row in found if row["name"] == "age_band"} == {
        "other": 9,
        ">=60": 9,
    }
    assert {row["value"]: row["faces"] for row in found if row["name"] == "gate"} == {
        "missed": 1,
        "passed": 17,
    }
    assert {row["value"]: row["faces"] for row in found if row["name"] == "reason"} == {"none": 18}


def face(**fields: Any) -> Face:
    box = np.array([10, 10, 40, 60], np.float32)
    defaults = {"anonymizer": "surrogate", "gate": "passed", "status": "replaced"}
    return Face(box, 0.9, np.zeros((5, 2), np.float32), **(defaults | fields))


def test_raw_rows() -> None:
    options = Assignment(k=5)
    replaced = face(surrogate_id=4, sex=1, age=33.3, expression="smiling")
    covered = face(surrogate_id=4, anonymizer="solid", status="covered", failure="missed", gate="missed")
    table = audit.rows(
        SECRET, 2, "shards/a.tar", [((0, 0), [replaced, covered]), ((3, 3), [])], [(1, 1)], options
    )
    assert table.schema.equals(records.AUDIT_RAW, check_metadata=True)
    shared = {
        "k_class": "none",
        "face_size": "40-79",
        "shard": "shards/a.tar",
        "output_id": keys.output_id(SECRET, 2, 0),
    }
    unknown = dict.fromkeys(("sex", "age_band", "expression"), "unknown")
    expected = [
        {
            **shared,
            **unknown,
            "status": "covered",
            "anonymizer": "solid",
            "reason": "missed",
            "gate": "missed",
        }
        | {"position": 0, "number": 1, "surrogate_id": -1},
        dict.fromkeys((*ORDER, "reason", "gate"), "*")
        | {"status": "dropped", "shard": "", "output_id": keys.output_id(SECRET, 2, 1)}
        | {"position": 1, "number": -1, "surrogate_id": -1},
        {**shared, "status": "replaced", "anonymizer": "surrogate", "sex": "male", "age_band": "30-44"}
        | {"expression": "smiling", "reason": "", "gate": "passed"}
        | {"position": 0, "number": 0, "surrogate_id": 4},
    ]
    assert sorted(table.to_pylist(), key=lambda row: str(row["status"])) == expected


def test_the_class_is_that_of_the_people_counted() -> None:
    pictures = [
        ((0, 0), [face(surrogate_id=4), face(surrogate_id=8), face(surrogate_id=4, status="covered")])
    ]
    raw = audit.rows(SECRET, 0, "shards/a.tar", pictures, [(1, 1)], Assignment(k=5))
    classed = audit.classed(raw, audit.classes({4: 12, 8: 5}, 5))
    assert classed.schema.equals(records.AUDIT_RAW, check_metadata=True)
    found = {(row["position"], row["number"]): row["k_class"] for row in classed.to_pylist()}
    assert found == {(0, 0): "10-19", (0, 1): "5-9", (0, 2): "none", (1, -1): "*"}


@pytest.mark.parametrize(
    ("people", "k", "band"),
    [
        (0, 5, "none"),
        (5, 5, "5-9"),
        (9, 5, "5-9"),
        (10, 5, "10-19"),
        (20, 5, "20-49"),
        (49, 5, "20-49"),
        (50, 5, "50+"),
        (10**9, 5, "50+"),
        (2, 2, "2-3"),
        (19, 2, "8-19"),
        (4, 5, "<5"),
    ],
)
def test_k_classes(people: int, k: int, band: str) -> None:
    assert audit.k_class(people, k) == band


@pytest.mark.parametrize(
    ("years", "band"),
    [
        (0, "<18"),
        (17.9, "<18"),
        (18, "18-29"),
        (44.99, "30-44"),
        (59, "45-59"),
        (60, ">=60"),
        (float("nan"), "unknown"),
    ],
)
def test_age_bands(years: float, band: str) -> None:
    assert audit.age_band(years, Assignment().age_bands) == band


def test_one_age_band_or_none() -> None:
    assert [audit.age_band(years, (18,)) for years in (3, 30)] == ["<18", ">=18"]
    assert audit.age_band(30, ()) == ">=0"


def test_expression_of_the_source_mesh() -> None:
    rng = np.random.default_rng(0)
    mesh = rng.normal(0, 1, (468, 3))
    for index, place in ((33, (-30, -20)), (263, (30, -20)), (234, (-60, 0)), (454, (60, 0)), (10, (0, -70))):
        mesh[index, :2] = place
    mesh[2, :2] = 0, 10
    mesh[[13, 14], 1], mesh[[61, 291], 1] = 30, 30
    smiling = mesh.copy()
    smiling[[61, 291], 1] = 22
    assert smile(mesh) < SMILING < smile(smiling)
    assert [audit.expression(m) for m in (mesh, smiling, None, mesh * np.nan)] == [
        "neutral",
        "smiling",
        "unknown",
        "unknown",
    ]


def spread(rows: int) -> pa.Table:
    """Raw rows of few combinations, with ids as random as a run's."""
    ids = [keys.output_id(SECRET, 0, n // 2) for n in range(rows)]
    found = [
        {
            "output_id": ids[n],
            "shard": f"shards/{n % 3}.tar",
            "sex": ("male", "female")[n % 2],
            "number": n % 2,
        }
        for n in range(rows)
    ]
    return raw(found)


def test_parts_are_parquet_without_traces() -> None:
    made = files([spread(7)], 3, 3)
    assert list(made) == [f"audit/part-0000{n}.parquet" for n in range(3)]
    read = [pq.ParquetFile(io.BytesIO(data)) for data in made.values()]
    assert all(file.schema_arrow.equals(records.AUDIT, check_metadata=True) for file in read)
    assert all(file.metadata.metadata.keys() == {b"deid.audit.version", b"ARROW:schema"} for file in read)
    released = release([spread(7)], 3)
    pandas = released.replace_schema_metadata({**released.schema.metadata, b"pandas": b"index"})
    assert audit.to_bytes(pandas) == audit.to_bytes(released)
    assert [len(table_of({name: data})) for name, data in files([raw([{}])], 5).items()] == [0]


def test_the_table_is_the_same_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches and parts: the rows of one part go on where those of the one before it end."""
    table = spread(3000)
    whole = files([table], 5)
    monkeypatch.setattr(shuffle, "BATCH", 500)
    units = [table.slice(start, 200) for start in range(0, 3000, 200)]
    assert files(units, 5) == whole
    assert files(units[::-1], 5) == whole
    made = files(units, 5, 200)
    assert len(made) == 15
    assert table_of(made).equals(table_of(whole))
    assert max(len(table_of({name: data})) for name, data in made.items()) < 300


def test_rows_that_no_commit_counts_are_not_released(tmp_path: Path) -> None:
    units, none = [spread(30)], audit.classes({}, 5)
    for rows in (29, 31):
        with pytest.raises(PromiseError, match=f"30 rows were counted, the commits have {rows}"):
            audit_release.release(Scratch(), units.__getitem__, [0], [rows], none, 5, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_lost_stops_the_release(tmp_path: Path) -> None:
    class Losing(Scratch):
        def put(self, name: str, data: bytes, overwrite: bool = False) -> None:
            if not name.endswith("/1/0"):
                super().put(name, data, overwrite)

    units, none = [spread(30)], audit.classes({}, 5)
    with pytest.raises(PromiseError, match="rows were written, the commits have 30"):
        audit_release.release(Losing(), units.__getitem__, [0], [30], none, 5, str(tmp_path), part_rows=10)


def test_a_combination_that_nobody_counted_is_no_row_of_the_release() -> None:
    counts = suppress.Counts().add(spread(10))
    rule = suppress.rule(counts, 5).to_table()
    assert suppress.numbers(spread(10), rule).null_count == 0
    with pytest.raises(RuntimeError, match="not counted"):
        suppress.numbers(raw([{"status": "covered"}]), rule)
