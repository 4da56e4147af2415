"""What lies in a run's folder and is no object that the run wrote: each is found, and nothing is passed over."""

import os
from pathlib import Path
from typing import Any

import pytest

from deid.errors import InputError
from tests.unit.privacy.sealed import Sealed


@pytest.fixture
def run(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path / "run").make()


@pytest.mark.parametrize(
    "name",
    [
        "shards/new.tar",
        "audit/part-99999.parquet",
        "notes.txt",
        ".hidden",
        "a/b/.deid-part-0",
        "manifest.json2",
    ],
)
def test_an_added_object_is_found(run: Sealed, name: str) -> None:
    (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (run.folder / name).write_bytes(b"x")
    assert run.faults() == {name: ["is not in the manifest: it was added after the run"]}


def test_an_added_copy_and_added_links_are_found(run: Sealed, tmp_path: Path) -> None:
    added = "is not in the manifest: it was added after the run"
    copy = run.folder / "shards" / "copy.tar"
    copy.write_bytes(run.objects[run.shards[0]])
    assert run.faults() == {"shards/copy.tar": [added]}
    copy.unlink()
    (run.folder / "broken").symlink_to(tmp_path / "none")
    (run.folder / "folder").symlink_to(tmp_path)
    found = run.faults()
    assert found["broken"] == found["folder"] == [added]


def test_an_object_that_is_a_link_is_found(run: Sealed, tmp_path: Path) -> None:
    """What it leads to can be changed without anything in the folder."""
    for name in (run.shards[0], "people.json", "manifest.json"):
        (run.folder / name).rename(tmp_path / "elsewhere")
        (run.folder / name).symlink_to(tmp_path / "elsewhere")
        assert "is no plain file" in run.faults()[name]
        run.write()
    (run.folder / "audit").rename(tmp_path / "audit")
    (run.folder / "audit").symlink_to(tmp_path / "audit")
    found = run.faults()
    assert {"is missing", "is not in the manifest: it was added after the run"} <= set(found["audit"])
    assert all("is missing" in found[name] for name in run.parts)


def test_folders_that_hold_nothing_are_found(run: Sealed) -> None:
    (run.folder / "Anna" / "Berlin").mkdir(parents=True)
    (run.folder / "shards" / "empty").mkdir()
    added = ["is not in the manifest: it was added after the run"]
    assert run.faults() == {"Anna/Berlin/": added, "shards/empty/": added}


@pytest.mark.parametrize("name", ["", "shards", "locked"])
def test_a_folder_that_cannot_be_read_is_refused(
    run: Sealed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.folder / "locked").mkdir()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == run.folder / name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match="Permission denied; it cannot be checked"):
        run.faults()


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt", "keys.json", "shards/anna.tar", "shards/x/" + "0" * 32 + ".tar", "shards/" + "0" * 32,
        "audit/raw.parquet", "audit/part-00009.parquet/x", "audit/part-00007.csv", "people.json\n", "x/people.json",
        "shards/" + "A" * 32 + ".tar",
    ],
)  # fmt: skip
def test_an_object_that_no_run_writes_is_found_even_where_it_was_signed(run: Sealed, name: str) -> None:
    run.reseal({name: b"Anna"})
    assert run.faults() == {name: ["is no object of a run"]}
