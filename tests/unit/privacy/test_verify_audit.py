"""Runs that were signed by the right key and yet whose tables break a promise: each is found and named."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deid import records
from deid.privacy import audit
from tests.unit.privacy.sealed import Sealed

Rows = list[dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path / "run").make()


def test_an_audit_that_is_not_sorted(run: Sealed) -> None:
    name = run.parts[0]
    run.reseal({name: run.edited(name, lambda rows: rows.reverse())})
    assert "is not sorted by output_id" in run.faults()[name]
    held, names = dict(run.objects), run.parts
    run.reseal({name: run.edited(name, lambda rows: rows.reverse())})
    run.reseal({names[0]: held[names[1]], names[1]: run.objects[names[0]]})
    assert run.faults() == {names[1]: ["is not sorted by output_id over the whole audit"]}


def rewritten(data: bytes, change: Callable[[pa.Table], pa.Table]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(data))), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t.replace_schema_metadata({"deid.audit.version": "2"}), "is no audit of version"),
        (lambda t: t.replace_schema_metadata(None), "is no audit of version"),
        (lambda t: t.replace_schema_metadata(t.schema.metadata | {b"by": b"Anna"}), "holds metadata beside"),
        (lambda t: t.append_column("source", t["shard"]), "has other columns than the audit's"),
        (lambda t: t.drop_columns(["sex"]), "has other columns than the audit's"),
    ],
)
def test_an_audit_of_another_form(run: Sealed, change: Callable[[pa.Table], pa.Table], fault: str) -> None:
    name = run.parts[0]
    run.reseal({name: rewritten(run.objects[name], change)})
    assert any(line.startswith(fault) for line in run.faults()[name])


def test_an_audit_that_is_no_parquet(run: Sealed) -> None:
    name = run.parts[0]
    run.reseal({name: b"PAR1 no"})
    assert "cannot be read as Parquet" in run.faults()[name]


def test_a_combination_that_is_too_rare(run: Sealed) -> None:
    def edit(rows: Rows) -> None:
        for row in rows[:4]:
            row["age_band"] = "<18"

    name = run.parts[0]
    run.reseal({name: run.edited(name, edit)})
    (fault,) = (line for line in run.faults()["audit"] if "combinations" in line)
    assert "fewer than 5 rows" in fault


def edits(**values: str) -> Callable[[Rows], None]:
    return lambda rows: next(row for row in rows if row["status"] != "dropped").update(values)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (
            edits(output_id="0" * 32),
            "a row of " + "0" * 32 + " is of no picture in the shard that it names",
        ),
        (edits(shard="shards/none.tar"), "is of no picture in the shard that it names"),
        (edits(shard=""), "names no shard, but its picture is in one"),
        (edits(status="dropped"), "1 rows of status dropped name a shard"),
        (lambda rows: rows.pop(0), "has 71 faces, the manifest counts 72"),
        (lambda rows: rows.append(rows[-1]), "the manifest counts"),
    ],
)
def test_rows_and_pictures_that_do_not_belong_together(
    run: Sealed, edit: Callable[[Rows], Any], fault: str
) -> None:
    name = next(
        part for part in run.parts if "replaced" in str(pq.read_table(io.BytesIO(run.objects[part]))[2])
    )

    def sorted_edit(rows: Rows) -> None:
        edit(rows)
        rows.sort(key=lambda row: str(row["output_id"]))

    run.reseal({name: run.edited(name, sorted_edit)})
    assert any(fault in line for line in run.faults()["audit"])


def test_a_row_that_names_another_picture_s_shard(run: Sealed) -> None:
    def edit(rows: Rows) -> None:
        row = next(row for row in rows if row["shard"] == run.shards[0])
        row["shard"] = run.shards[1]

    name = run.parts[0]
    run.reseal({name: run.edited(name, edit)})
    assert any("is of no picture in the shard" in line for line in run.faults()["audit"])


def test_many_faulty_rows_are_not_all_listed(run: Sealed) -> None:
    def edit(rows: Rows) -> None:
        for row in rows:
            row["shard"] = row["shard"] and "shards/none.tar"

    name = run.parts[0]
    run.reseal({name: run.edited(name, edit)})
    lines = [line for line in run.faults()["audit"] if "is of no picture" in line]
    assert len(lines) == 4
    assert any("more such pictures" in line for line in lines)


@pytest.mark.parametrize("status", ["dropped", "*"])
def test_pictures_that_were_dropped_are_as_many_as_counted(run: Sealed, status: str) -> None:
    """That a picture was dropped shows in its empty shard, be its status taken out or not."""
    for name in run.parts:

        def edit(rows: Rows) -> None:
            for row in rows:
                row["status"] = status if row["shard"] == "" else row["status"]

        run.reseal({name: run.edited(name, edit)})
    assert run.faults() == {}
    counts = run.manifest["counts"]
    for number in (0, 5, 7):
        run.reseal(counts=counts | {"pictures_dropped": number})
        assert run.faults()["audit"] == [f"has 6 pictures dropped, the manifest counts {number}"]


def summary_with(run: Sealed, **values: int) -> bytes:
    rows = pq.read_table(io.BytesIO(run.objects["summary.parquet"])).to_pylist()
    for row in rows:
        row["faces"] = values.get(f"{row['name']}_{row['value']}", row["faces"])
    return audit.to_bytes(pa.Table.from_pylist(rows, schema=records.SUMMARY))


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("status_replaced", "status replaced: 3, the manifest counts 60"),
        ("gate_passed", "gate passed: 3, the manifest counts 60"),
        ("anonymizer_solid", "anonymizer solid: 3, the manifest counts 12"),
        ("counts_pictures_out", "counts pictures_out: 3, the manifest counts 36"),
        ("rows_released", "rows released: 3, the audit has 78"),
    ],
)
def test_a_summary_with_another_count(run: Sealed, cell: str, line: str) -> None:
    run.reseal({"summary.parquet": summary_with(run, **{cell: 3})})
    assert run.faults() == {"summary.parquet": [line]}


def test_a_summary_that_is_none(run: Sealed) -> None:
    for data in (b"", run.objects[run.parts[0]]):
        run.reseal({"summary.parquet": data})
        assert run.faults() == {"summary.parquet": ["is missing, or is no summary of this version"]}


def test_an_audit_that_was_withheld(run: Sealed) -> None:
    """Fewer than k rows are not released; an empty audit of more faces is a fault."""
    for name in run.parts[1:]:
        del run.objects[name]
    run.reseal({run.parts[0]: audit.to_bytes(records.AUDIT.empty_table())})
    assert "has 0 faces, the manifest counts 72" in run.faults()["audit"]
    counts = run.manifest["counts"] | {"faces": 4, "replaced": 3, "covered": 1}
    run.reseal(counts=counts)  # with the pictures that were dropped they are 10 rows
    assert "has 0 faces, the manifest counts 4" in run.faults()["audit"]
    counts |= {"pictures_dropped": 0}
    run.reseal(
        {"summary.parquet": summary_with(run, status_replaced=3, status_covered=1, rows_released=0)},
        counts=counts,
    )
    assert not {"audit", run.parts[0]} & run.faults().keys()


def test_no_audit_at_all(run: Sealed) -> None:
    for name in run.parts:
        del run.objects[name]
    run.reseal()
    assert "is missing" in run.faults()["audit"]
