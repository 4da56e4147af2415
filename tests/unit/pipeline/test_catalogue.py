"""The catalogue: what it says of a release, that nothing is added twice, and what a damaged one does."""

import hashlib
import json
from pathlib import Path

import pytest

from deid.errors import InputError
from deid.pipeline import catalogue
from deid.privacy import seal


def manifest(run: str, day: str = "2026-11-29", out: int = 3) -> bytes:
    value = {
        "run": run,
        "day": day,
        "merkle_root": "ab" * 32,
        "counts": {"pictures_in": 4, "pictures_out": out},
        "config": {"quality": 95},
        "code": {"deid": "0.1.0", "sha256": "cd" * 32},
    }
    return json.dumps(seal.sign(value, seal.new_key()), indent=2).encode()


def test_a_release_is_known_by_its_manifest(tmp_path: Path) -> None:
    written = manifest("5f0c")
    catalogue.add(str(tmp_path), catalogue.release(written))
    (found,) = catalogue.read(str(tmp_path))
    assert found.manifest_sha256 == hashlib.sha256(written).hexdigest()
    assert found.config_sha256 == hashlib.sha256(b'{"quality":95}').hexdigest()
    assert json.loads((tmp_path / "catalogue.json").read_bytes()) == {
        "catalogue_version": 1,
        "releases": [
            {
                "run": "5f0c",
                "day": "2026-11-29",
                "manifest_sha256": found.manifest_sha256,
                "merkle_root": "ab" * 32,
                "counts": {"pictures_in": 4, "pictures_out": 3},
                "config_sha256": found.config_sha256,
                "deid": "0.1.0",
            }
        ],
    }


def test_the_order_in_which_they_were_added_does_not_show(tmp_path: Path) -> None:
    entries = [catalogue.release(manifest(run, day)) for run, day in (("ff", "2026-11-29"), ("aa", "2026-11-29"),
                                                                      ("cc", "2026-11-28"))]  # fmt: skip
    for name, order in (("one", entries), ("two", entries[::-1])):
        for entry in order:
            catalogue.add(str(tmp_path / name), entry)
    assert [entry.run for entry in catalogue.read(str(tmp_path / "one"))] == ["cc", "aa", "ff"]
    one, two = (tmp_path / name / "catalogue.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_run_has_one_entry_its_last(tmp_path: Path) -> None:
    entry = catalogue.release(manifest("aa"))
    for _ in range(2):
        catalogue.add(str(tmp_path), entry)
    assert catalogue.read(str(tmp_path)) == [entry]
    other = catalogue.release(manifest("aa", out=2))
    catalogue.add(str(tmp_path), other)
    assert catalogue.read(str(tmp_path)) == [other] != [entry]


def test_no_catalogue_is_an_empty_one(tmp_path: Path) -> None:
    assert catalogue.read(str(tmp_path / "none")) == []


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "[]",
        "{}",
        '{"catalogue_version": 2, "releases": []}',
        '{"catalogue_version": 1, "releases": [{"run": "a"}]}',
    ],
)
def test_a_damaged_catalogue_is_neither_read_nor_overwritten(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "catalogue.json").write_text(damaged)
    with pytest.raises(InputError, match="move it away"):
        catalogue.read(str(tmp_path))
    with pytest.raises(InputError, match="move it away"):
        catalogue.add(str(tmp_path), catalogue.release(manifest("aa")))
    assert (tmp_path / "catalogue.json").read_text() == damaged
