"""The ledger of what was released, against a plain dictionary; its keys, its parts, and a record that was cut off."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deid.errors import ConfigError
from deid.pipeline import ledger
from deid.privacy import wrapping
from deid.privacy.vault import StateError
from deid.shards import storage

Rows = dict[str, tuple[str, int]]  # uri: version, size

CANARY = "canary-4f1e"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("keys") / "state.key"
    wrapping.new_key_file(path)
    return str(path)


@pytest.fixture
def book(tmp_path: Path, key_file: str) -> ledger.Ledger:
    return ledger.open(str(tmp_path / "state"), key_file)


def table(rows: Rows) -> pa.Table:
    """With columns as a listing may bring them: plain strings, another order, one more."""
    return pa.table(
        {
            "size": pa.array([size for _, size in rows.values()], pa.int64()),
            "uri": pa.array(list(rows), pa.string()),
            "version": pa.array([version for version, _ in rows.values()], pa.string()),
            "more": pa.array([0] * len(rows), pa.int8()),
        }
    )


def files(book: ledger.Ledger) -> list[Path]:
    return [path for path in Path(book.vault.uri).rglob("*") if path.is_file()]


def expected(runs: list[Rows], listed: Rows) -> dict[str, Any]:
    known: Rows = {}
    for rows in runs:
        known |= rows
    return {
        "new": [uri for uri in listed if uri not in known],
        "changed": {uri: (*known[uri], *listed[uri]) for uri in listed if known.get(uri, listed[uri]) != listed[uri]},
        "known": sum(known.get(uri) == value for uri, value in listed.items()),
        "gone": len(known.keys() - listed.keys()),
    }  # fmt: skip


def summary(found: ledger.Comparison) -> dict[str, Any]:
    assert found.new.schema == ledger.SCHEMA
    assert found.changed.schema == ledger.CHANGED
    rows = found.changed.to_pylist()
    columns = ("old_version", "old_size", "new_version", "new_size")
    changed = {row["uri"]: tuple(row[column] for column in columns) for row in rows}
    assert len(changed) == len(rows)
    return {
        "new": found.new["uri"].to_pylist(),
        "changed": changed,
        "known": found.known,
        "gone": found.gone,
    }


ROWS = st.dictionaries(
    st.text("abA /.%", min_size=1, max_size=3),
    st.tuples(st.sampled_from("xy"), st.integers(0, 1)),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(runs=st.lists(ROWS, max_size=5), listed=ROWS, part=st.integers(1, 5))
def test_it_says_what_a_dictionary_says(
    tmp_path_factory: pytest.TempPathFactory, key_file: str, runs: list[Rows], listed: Rows, part: int
) -> None:
    book = ledger.open(str(tmp_path_factory.mktemp("state")), key_file)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(ledger, "PART_ROWS", part)
        for number, rows in enumerate(runs):
            book.record(f"run-{number}", table(rows))
        found = book.compare(table(listed))
    assert summary(found) == expected(runs, listed)
    assert found.new["size"].to_pylist() == [listed[uri][1] for uri in found.new["uri"].to_pylist()]


def test_it_lasts_and_says_nothing_in_the_clear(book: ledger.Ledger, tmp_path: Path, key_file: str) -> None:
    rows = {f"s3://raw/{CANARY}/{n}.tar": (f"{CANARY}-{n}", n) for n in range(100)}
    book.record("5f0c", table(rows))
    again = ledger.open(str(tmp_path / "state"), key_file)
    assert summary(again.compare(table(rows))) == {"new": [], "changed": {}, "known": 100, "gone": 0}
    assert again.runs() == ["5f0c"]
    assert files(book)
    for path in files(book):
        assert CANARY.encode() not in path.read_bytes()
        assert CANARY not in str(path.relative_to(tmp_path))


def test_a_run_of_few_objects_is_one_object_and_a_large_one_has_parts(
    book: ledger.Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PART_ROWS", 10)
    book.record("one", table({f"a{n}": ("v", n) for n in range(10)}))
    assert book.vault.names() == ["runs/0000000001-one"]
    book.record("two", table({f"b{n}": ("v", n) for n in range(21)}))
    assert book.vault.names() == [
        "parts/two/0",
        "parts/two/1",
        "runs/0000000001-one",
        "runs/0000000002-two",
    ]


def test_the_latest_counts_whatever_the_runs_are_called(book: ledger.Ledger) -> None:
    for number, run in enumerate(("ff", "aa", "00", "bb")):
        book.record(run, table({"a": ("v", number)}))
    assert book.runs() == ["ff", "aa", "00", "bb"]
    assert book.compare(table({"a": ("v", 3)})).known == 1
    assert summary(book.compare(table({"a": ("v", 2)})))["changed"] == {"a": ("v", 3, "v", 2)}


def test_a_run_is_noted_once(book: ledger.Ledger) -> None:
    book.record("one", table({"a": ("v", 1)}))
    before = {path: path.read_bytes() for path in files(book)}
    book.record("one", table({"a": ("v", 1)}))
    assert {path: path.read_bytes() for path in files(book)} == before


def test_a_run_is_forgotten_with_all_its_parts(book: ledger.Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PART_ROWS", 2)
    old, new = {"a": ("v", 1), "b": ("v", 1)}, dict.fromkeys("abcde", ("v", 2))
    book.record("one", table(old))
    book.record("one-more", table(new))
    assert summary(book.compare(table(new)))["known"] == 5
    book.forget("one-more")
    assert summary(book.compare(table(old))) == {"new": [], "changed": {}, "known": 2, "gone": 0}
    assert book.vault.names() == ["runs/0000000001-one"]
    book.forget("one-more")
    book.record("one-more", table(new))
    assert summary(book.compare(table(new)))["known"] == 5


def test_a_record_that_was_cut_off_counts_for_nothing_and_is_made_again(
    book: ledger.Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PART_ROWS", 2)
    rows = dict.fromkeys("abcde", ("v", 1))
    book.record("one", table(rows))
    storage.delete(storage.join(book.vault.uri, "runs/0000000001-one"))  # what is written last
    assert summary(book.compare(table(rows))) == {"new": list("abcde"), "changed": {}, "known": 0, "gone": 0}
    book.record("one", table(dict.fromkeys("abc", ("w", 1))))
    assert summary(book.compare(table(dict.fromkeys("abcde", ("w", 1)))))["new"] == ["d", "e"]


def test_what_cannot_be_noted_is_refused(book: ledger.Ledger) -> None:
    twice = pa.concat_tables([table({"a": ("v", 1)})] * 2)
    with pytest.raises(ValueError, match="twice"):
        book.record("one", twice)
    for run in ("", "a/b"):
        with pytest.raises(ValueError, match="no id"):
            book.record(run, table({}))
    with pytest.raises((ValueError, KeyError)):
        book.record("one", table({"a": ("v", 1)}).drop(["version"]))
    assert book.runs() == []


def test_another_key_or_none_is_refused(book: ledger.Ledger, tmp_path: Path, key_file: str) -> None:
    state = str(tmp_path / "state")
    with pytest.raises(ConfigError, match="deid keys new"):
        ledger.open(state, None)
    other = tmp_path / "other.key"
    wrapping.new_key_file(other)
    with pytest.raises(ConfigError, match="not the key file"):
        ledger.open(state, str(other))
    book.record("one", table({"a": ("v", 1)}))
    os.remove(Path(state, "ledger", "key.json"))
    with pytest.raises(StateError, match="json is missing"):
        ledger.open(state, key_file)


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_ledger_that_lacks_something_is_refused(
    book: ledger.Ledger, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(ledger, "PART_ROWS", 2)
    book.record("one", table(dict.fromkeys("abc", ("v", 1))))
    part = Path(book.vault.uri, "parts", "one", "0")
    if harm == "gone":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(StateError, match="parts/one/0 is missing, damaged"):
        book.compare(table({"a": ("v", 1)}))
