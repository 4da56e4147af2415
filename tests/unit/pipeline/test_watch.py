"""When a run that goes wrong is stopped, and when what was seen tells too little of what was not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deid import config, records
from deid.errors import PromiseError
from deid.pipeline import lease, plan
from deid.pipeline.watch import REPAIR, Watch
from deid.privacy.vault import Vault
from tests.writing import writing

UNIT = 50  # pictures


@contextmanager
def watching(tmp_path: Path, windows: list[dict[str, Any]], form: str = "webdataset") -> Iterator[Watch]:
    """A watch that allows a tenth to be lost; windows: shards, and groups of units."""
    settings = {"input": {"uri": "raw", "format": form}, "output": {"uri": "out"}, "state": str(tmp_path)}
    settings["limits"] = {"max_quarantine_fraction": 0.1}
    rows = [{"refused": 0, "reasons": [], "pictures": UNIT * sum(w["groups"])} | w for w in windows]
    made = plan.Plan(Vault("", b"k" * 32), pa.Table.from_pylist(rows, schema=plan.WINDOWS), "a")
    with lease.hold(str(tmp_path), "run") as held, writing(str(tmp_path), "run", 60) as writer:
        yield Watch(config.parse(settings), made, held, writer)


def done(unit: int, lost: int) -> pa.Table:
    row = dict.fromkeys((field.name for field in records.COMMIT if pa.types.is_int64(field.type)), 0)
    row |= {"pictures_in": UNIT, "pictures_out": UNIT - lost, "pictures_quarantined": lost}
    lists = {"reasons": [{"name": "empty", "pictures": lost}]}
    return pa.Table.from_pylist([row | {"unit": unit} | lists], schema=records.COMMIT)


def stopped(watch: Watch, lost: list[int]) -> int:
    """After how many units; those of `lost` that do not stop it are all."""
    watch.begin("replace", watch.plan.units)
    for unit, pictures in enumerate(lost):
        try:
            watch(done(unit, pictures), "replace")
        except PromiseError:
            return unit + 1
    return len(lost) + 1


def test_one_window_tells_soon(tmp_path: Path) -> None:
    with watching(tmp_path, [{"shards": 3, "groups": [1] * 1000}]) as watch:
        assert stopped(watch, [20] * 100) == 10, "500 pictures"
        assert stopped(watch, [5] * 100) == 101, "as much as is allowed"


def test_a_bad_shard_in_the_first_of_many_windows_is_no_sign(tmp_path: Path) -> None:
    windows = [{"shards": 4, "groups": [1] * 40} for _ in range(25)]
    with watching(tmp_path, windows) as watch:
        assert stopped(watch, [12] * 40 + [0] * 60) == 101, "a shard of a hundred"
        assert stopped(watch, [50] * 1000) == 41, (
            "two windows that lose all are, long before a tenth of all is lost"
        )
    small = [{"shards": 400, "groups": [1] * 40} for _ in range(25)]
    with watching(tmp_path / "small", small) as watch:
        assert stopped(watch, [25] * 1000) == 10, "hundreds of shards are"


def test_row_groups_that_are_read_together_count_once(tmp_path: Path) -> None:
    with watching(tmp_path, [{"shards": 1, "groups": [20] * 50}], "parquet") as watch:
        assert stopped(watch, [25] * 20 + [0] * 80) == 101, "one group is no sample"


def test_a_repair_loses_nothing_twice(tmp_path: Path) -> None:
    with watching(tmp_path, [{"shards": 1, "groups": [1] * 20}]) as watch:
        assert stopped(watch, [4] * 20) == 21
        watch.begin(REPAIR, 12)
        for unit in range(12):
            watch(done(unit, 6), REPAIR)
        found = watch.progress.now()
    assert (found.phase, found.units_total, found.counts.units_done) == ("repair", 12, 12)
    assert found.quarantine == {"empty": 72}


def test_refused_entries_are_pictures_that_came_in(tmp_path: Path) -> None:
    window = {"shards": 1, "groups": [1] * 20, "refused": 3, "reasons": [{"name": "no_image", "pictures": 3}]}
    with watching(tmp_path, [window]) as watch:
        watch.check(0, 0)
        stopped(watch, [1, 0])
        counts = watch.progress.now().counts
        assert counts.pictures_in == counts.pictures_out + counts.pictures_quarantined == 103
        with pytest.raises(PromiseError, match="98 of 1000 pictures seen and 3 entries"):
            watch.check(1000, 98)
