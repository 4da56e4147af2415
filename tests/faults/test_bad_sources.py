"""Hostile archives, and models and galleries that are cut short: found before anything is made of them."""

import io
import tarfile
import time
from importlib import resources
from pathlib import Path

import pytest

from deid import config as configuration
from deid.errors import ModelError
from deid.models.store import default_store
from deid.pipeline import parts
from deid.pipeline import plan as planning
from deid.shards import storage, webdataset
from deid.shards.formats import Layout
from tests.e2e import corpus


def scanned(folder: Path, data: bytes) -> list[tuple[str, str]]:
    """Key and reason of each row of the index."""
    (folder / "a.tar").write_bytes(data)
    (file,) = storage.list_files(str(folder), "*.tar")
    table = webdataset.scan(file, Layout())
    return list(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True))


def test_names_that_lead_out_links_and_devices_are_refused_and_the_rest_is_read(tmp_path: Path) -> None:
    sink, picture = io.BytesIO(), b"a picture"
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name in ("good.jpg", "../out.jpg", "/etc/passwd.jpg", "a/../../b.jpg", "last.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(picture)
            archive.addfile(info, io.BytesIO(picture))
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
        for number, kind in enumerate(kinds):
            info = tarfile.TarInfo(f"link{number}.jpg")
            info.type, info.linkname = kind, "good.jpg"
            archive.addfile(info)
    found = scanned(tmp_path, sink.getvalue())
    assert [key for key, reason in found if not reason] == ["good", "last"]
    assert [reason for _, reason in found if reason] == ["unsafe_member"] * 7
    assert [path.name for path in tmp_path.rglob("*")] == ["a.tar"], "nothing is unpacked"


def test_a_key_that_is_there_twice_is_two_samples(tmp_path: Path) -> None:
    """Neither hides the other: a reader that keeps the last would lose the first in silence."""
    members = [("a.jpg", b"first"), ("b.jpg", b"between"), ("a.jpg", b"second"), ("a.jpg", b"third")]
    (tmp_path / "a.tar").write_bytes(corpus.tar(members))
    (file,) = storage.list_files(str(tmp_path), "*.tar")
    table = webdataset.scan(file, Layout())
    pictures = {picture for _, picture, _, reason in webdataset.read(table, Layout()) if not reason}
    assert pictures == {data for _, data in members}


def test_a_hundred_thousand_members_are_scanned_in_seconds(tmp_path: Path) -> None:
    count = 100_000
    data = corpus.tar([(f"{n:06d}.jpg", b"%06d" % n) for n in range(count)])
    began = time.process_time()
    found = scanned(tmp_path, data)
    seconds = time.process_time() - began
    assert len(found) == count
    assert {reason for _, reason in found} == {""}
    assert seconds < 30, f"{seconds:.1f} s of this process"


def settings(folder: Path, **changes: object) -> configuration.Config:
    base = {
        "input": {"uri": str(folder / "raw")},
        "output": {"uri": str(folder / "out")},
        "state": str(folder / "state"),
        "models": {"accept": ["clean", "permissive", "restricted"]},
    }
    return configuration.parse(base | changes)


@pytest.mark.parametrize("left", [0, 100, 0.5, 0.999])
def test_a_gallery_that_is_cut_short_stops_before_any_work(tmp_path: Path, left: float) -> None:
    whole = resources.files("deid.gallery").joinpath("data/gallery.parquet").read_bytes()
    path = tmp_path / "gallery.parquet"
    path.write_bytes(whole)
    planning.check(settings(tmp_path, gallery=str(path)))
    path.write_bytes(whole[: int(left * len(whole)) if left < 1 else int(left)])
    with pytest.raises(ModelError, match=r"gallery\.parquet: .*build the gallery again") as caught:
        planning.check(settings(tmp_path, gallery=str(path)))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_a_model_that_is_cut_short_is_not_loaded(tmp_path: Path) -> None:
    (file,) = default_store().files("centerface").values()
    copy = tmp_path / "cache" / file.parent.name / file.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(file.read_bytes()[:100_000])
    models = {"accept": ["clean", "permissive", "restricted"], "cache": str(tmp_path / "cache")}
    config = settings(tmp_path, models=models)
    with pytest.raises(ModelError, match=r"model centerface: .*refused.*deid models fetch") as caught:
        parts.build(config, "detector", config.stages.analyse)
    assert caught.value.exit_code == 3
