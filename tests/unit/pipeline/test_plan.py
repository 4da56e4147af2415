from pathlib import Path, PurePosixPath

import pyarrow as pa
import pytest
import ray

from deid import config
from deid.errors import ConfigError
from deid.pipeline import plan
from deid.privacy.vault import Vault
from deid.shards import storage, webdataset

MINIMAL = {"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state"}


@pytest.mark.parametrize(
    ("anonymizer", "text"),
    [
        ("surrogate", "surrogate"),
        ("solid", "solid"),
        ("blur", "blur, sigma 0.15 face heights: a baseline, people may stay recognizable"),
        ("pixelate", "pixelate, 8 blocks a face height: a baseline, people may stay recognizable"),
    ],
)
def test_a_baseline_is_called_one(anonymizer: str, text: str) -> None:
    assert plan.anonymizer(config.parse(MINIMAL | {"anonymizer": anonymizer})) == text


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        ("parquet", {"pictures": ["id"]}),
        ("parquet", {"pictures": ["image"]}),
        ("parquet", {"sidecar_fields": {"image": "int"}}),
        ("folder", {"pictures": ["train"]}),
        ("folder", {"sidecar_fields": {"file_name": "int"}}),
    ],
)
def test_what_the_writer_has_no_place_for_is_known_before_any_work(
    kind: str, metadata: dict[str, object]
) -> None:
    models = {"accept": ["clean", "permissive", "restricted"]}
    given = MINIMAL | {"input": {"uri": "raw", "format": kind}, "metadata": metadata, "models": models}
    with pytest.raises(ConfigError, match="rename"):
        plan.check(config.parse(given))
    plan.check(config.parse(given | {"input": {"uri": "raw", "format": "webdataset"}}))


def layout(tmp_path: Path, shards: int, **changes: object) -> tuple[config.Config, pa.Table]:
    """A source of so many shards, of two samples each, the first with two pictures; as it is listed."""
    for n in range(shards):
        members = [(f"{n}a", {"jpg": b"%d" % n, "left.jpg": b"left"}), (f"{n}b", {"jpg": b"x" * 900})]
        storage.write_bytes(str(tmp_path / "raw" / f"{n:03}.tar"), webdataset.write_shard(members))
    uris = {"input": {"uri": str(tmp_path / "raw")} | changes.pop("input", {}), "output": {"uri": "out"}}  # type: ignore[operator]
    settings = config.parse(MINIMAL | uris | changes)
    return settings, plan.shards(settings)


def test_windows_hold_every_shard_once_in_an_order_of_the_secret(tmp_path: Path) -> None:
    _, listed = layout(tmp_path, 20)
    size = listed["size"][0].as_py()
    found = list(plan.windows(listed, 3 * size, b"s" * 32))
    assert [len(table) for _, table in found] == [3] * 6 + [2]
    order = [uri for _, table in found for uri in table["uri"].to_pylist()]
    assert sorted(order) == listed["uri"].to_pylist() != order
    again = list(plan.windows(listed, 3 * size, b"s" * 32))
    assert all(a[1].equals(b[1]) for a, b in zip(found, again, strict=True))
    assert [len(table) for _, table in plan.windows(listed, 1, b"s" * 32)] == [1] * 20, "one at least"
    assert not list(plan.windows(listed.slice(0, 0), size, b"s" * 32))


def test_units_hold_whole_samples_and_every_picture_once(tmp_path: Path) -> None:
    settings, _ = layout(tmp_path, 10, unit_size=3, input={"window_gib": 16_000 / 2**30})
    units = list(plan.again(settings, b"s" * 32))
    assert [unit for unit, _ in units] == list(range(len(units)))
    seen = [
        (row["key"], row["name"], unit, row["unit_sample"])
        for unit, table in units
        for row in table.to_pylist()
    ]
    keys = [f"{n}{letter}" for n in range(10) for letter in "ab"]
    assert sorted(row[:2] for row in seen) == sorted(
        [(k, "") for k in keys] + [(f"{n}a", "1") for n in range(10)]
    )
    assert len({(key, unit, sample) for key, _, unit, sample in seen}) == 20, "a sample lies in one unit"
    assert all(table["unit_sample"].to_pylist()[-1] < 3 for _, table in units)
    assert [key for key, *_ in seen] != sorted(key for key, *_ in seen)


def test_pictures_of_too_many_bytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    settings, listed = layout(tmp_path, 2, limits={"max_bytes": 899})
    lost = pa.table({"uri": ["gone"], "size": [1024], "version": ["0"]}).select(listed.column_names)
    index = plan.scanned((0, pa.concat_tables([listed, lost.cast(listed.schema)])), settings)
    pairs = zip(index["key"].to_pylist(), index["reason"].to_pylist(), strict=True)
    small = [("0a", ""), ("0a", ""), ("0b", "too_large"), ("1a", ""), ("1a", ""), ("1b", "too_large")]
    assert list(pairs) == [*small, ("", "shard_changed")]


def test_the_plan_lies_in_the_state_and_the_driver_holds_counts(tmp_path: Path) -> None:
    settings, listed = layout(tmp_path, 10, unit_size=3, input={"window_gib": 16_000 / 2**30})
    (tmp_path / "raw" / "004.tar").write_bytes(b"damaged")
    listed = plan.shards(settings)
    (tmp_path / "raw" / "007.tar").unlink()
    state = Vault(str(tmp_path / "state"), b"k" * 32)
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20)
    try:
        made = plan.make(settings, b"s" * 32, state, listed)
        names = ("shard", "key", "reason")
        with pytest.raises(storage.AlreadyThere):
            plan.make(settings, b"s" * 32, state, listed.slice(0, 3))  # by a driver that was gone for a while
        lost = plan.quarantine(made, [], None).select(names).to_pylist()
    finally:
        ray.shutdown()
    assert (made.pictures, made.refused, made.several) == (24, 2, 2)
    assert made.reasons() == {"shard_changed": 1, "shard_damaged": 1}
    assert {(PurePosixPath(row["shard"]).name, row["reason"]) for row in lost} == {
        ("004.tar", "shard_damaged"),
        ("007.tar", "shard_changed"),
    }
    loaded = plan.load(state)
    assert loaded is not None
    assert loaded.windows.equals(made.windows)
    assert loaded.taken().equals(listed)
    units = [loaded.unit(unit) for unit in range(loaded.units)]
    assert sum(map(len, units)) == 24
    assert loaded.groups(range(loaded.units)) == [[unit] for unit in range(loaded.units)]
    assert plan.load(Vault(str(tmp_path / "other"), b"k" * 32)) is None


def test_units_that_are_read_together_stay_together() -> None:
    rows = [{"groups": [2, 3]}, {"groups": []}, {"groups": [1]}]
    made = plan.Plan(Vault("nowhere", b"k" * 32), pa.Table.from_pylist(rows, schema=plan.WINDOWS), "a")
    assert made.units == 6
    assert [made.name(unit)[7:] for unit in (0, 4, 5)] == [
        "0000000/0000000",
        "0000000/0000004",
        "0000002/0000000",
    ]
    assert made.groups([5, 3, 0, 4]) == [[0], [3, 4], [5]]
