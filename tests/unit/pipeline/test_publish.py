"""The end of a run over units that lie in the state: counted, searched and released in batches, by tasks."""

from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks import scale_state
from deid import config, records
from deid.pipeline import publish
from deid.pipeline.publish import Commits
from deid.pipeline.write import commit_name
from deid.privacy import audit, check, shuffle
from deid.shards import tables

UNITS = 4
SETTINGS = config.parse(
    {"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state", "assignment": {"k": 2}}
)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    folder = tmp_path_factory.mktemp("state")
    return folder, scale_state.write(folder, UNITS * scale_state.FACES)


def test_people_are_counted_over_all_units(
    state: tuple[Path, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, commits = state
    vault = scale_state.vault(folder)
    read = Commits(vault)
    before = vault.names()
    persons = defaultdict(set)
    for unit in range(UNITS):
        worn, seen = publish.worn_and_seen(read, unit)
        counts = dict(zip(_places(seen), zip(seen["counts"].to_pylist(), seen["person"].to_pylist(), strict=True),
                          strict=True))  # fmt: skip
        for place, surrogate in zip(_places(worn), worn["surrogate_id"].to_pylist(), strict=True):
            if surrogate >= 0 and counts[place][0]:
                persons[surrogate].add(counts[place][1])
    found = publish.recount(SETTINGS, read, commits)
    assert found.people == {surrogate: len(people) for surrogate, people in persons.items()}
    assert max(found.people.values()) == scale_state.SHARED_BY
    monkeypatch.setattr(check, "ROWS", 1500)
    assert publish.recount(SETTINGS, read, commits) == found
    shuffled = commits.take(pa.array([2, 0, 3, 1]))
    assert publish.recount(SETTINGS, read, shuffled) == found, "whatever unit was done first"
    assert vault.names() == before, "what the tasks left one another is gone"


def _places(table: pa.Table) -> list[tuple[int, int]]:
    return list(zip(table["position"].to_pylist(), table["number"].to_pylist(), strict=True))


def test_units_that_wear_a_surrogate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = scale_state.write(tmp_path, UNITS * scale_state.FACES)
    read, place = Commits(scale_state.vault(tmp_path)), records.AUDIT_RAW.get_field_index("surrogate_id")
    for unit, own in enumerate((7, 8, 7, 9)):
        raw = read.audit(unit)
        ids = pa.array([own] * len(raw), pa.int64())
        raw = raw.set_column(place, records.AUDIT_RAW.field(place), ids)
        row = {"unit": unit, "audit": audit.to_bytes(raw)}
        read.vault.put(commit_name(unit), tables.to_bytes(pa.Table.from_pylist([row])), overwrite=True)
    for size in (shuffle.BATCH, 1100):
        monkeypatch.setattr(shuffle, "BATCH", size)
        assert publish.wearing(read, commits, {7}) == [0, 2]
        assert publish.wearing(read, commits, {8, 9}) == [1, 3]
        assert publish.wearing(read, commits.slice(1, 2), {7, 9}) == [2]
        assert publish.wearing(read, commits, {10}) == []
