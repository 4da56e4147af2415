"""Frames as records: all are listed, those asked for are read, and what is lost is said."""

from pathlib import Path

import numpy as np
import pytest

from deid import records
from deid.shards import formats, pictures, storage
from deid.video import container, frames
from tests.conftest import S3
from tests.unit.video.clips import clip, hum


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path)
    s3: S3 = request.getfixturevalue("s3")
    return f"s3://{s3.bucket()}/videos"


def put(folder: str, data: bytes, name: str = "a.mp4") -> storage.Object:
    storage.write_bytes(storage.join(folder, name), data, overwrite=True)
    (file,) = storage.list_files(folder, name)
    return file


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_reads_what_was_listed(folder: str, kind: str) -> None:
    data = clip(kind=kind, sound="aac")
    table = frames.scan(put(folder, data))
    assert table.schema == formats.INDEX
    assert table["offset"].to_pylist() == table["sample"].to_pylist() == list(range(50))
    assert table["reason"].to_pylist() == [""] * 50
    whole = dict(container.decode(data, container.probe(data)))
    rows = [30, 31, 32, 17, 45]
    read = list(frames.read(table.take(rows)))
    assert sorted(place for place, *_ in read) == [0, 1, 2, 3, 4]
    for place, encoded, sidecars, reason in read:
        assert (sidecars, reason) == ({}, "")
        assert np.array_equal(pictures.decode(encoded, 10**6).pixels, whole[rows[place]])
    file, video = frames.video_of(table)
    assert file.size == len(data)
    assert (video.frames, video.width, video.height, video.rate) == (50, 96, 64, 25)


def test_refused_files(tmp_path: Path) -> None:
    for name, data, reason in [
        ("empty.mp4", b"", "empty"),
        ("text.mp4", b"no video", "not_an_image"),
        ("sound.mp4", hum(0.3), "no_image"),
        ("cut.mp4", clip()[:-500], "shard_damaged"),
    ]:
        table = frames.scan(put(str(tmp_path), data, name))
        assert table["reason"].to_pylist() == [reason]
        assert list(frames.read(table)) == []
        assert reason in records.QUARANTINE
    assert frames.scan(put(str(tmp_path), clip()), max_pixels=99)["reason"].to_pylist() == ["too_large"]


def test_damage_is_a_row(tmp_path: Path) -> None:
    data = clip(kind="matroska")
    table = frames.scan(put(str(tmp_path), data[: len(data) // 2]))
    reasons = table["reason"].to_pylist()
    assert reasons[-1] == "shard_damaged"
    assert 5 < reasons.count("") == len(reasons) - 1 < 50
    assert sum(reason == "" for *_, reason in frames.read(table)) >= len(reasons) - 2


def test_frames_that_cannot_be_decoded(tmp_path: Path) -> None:
    """Each row has an answer: in = out + refused."""
    data = bytearray(clip(kind="matroska"))
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    read = list(frames.read(frames.scan(put(str(tmp_path), bytes(data)))))
    reasons = [reason for *_, reason in read]
    assert sorted(place for place, *_ in read) == list(range(len(read)))
    assert 0 < reasons.count("truncated_image") < 20
    assert all(bool(picture) != bool(reason) for _, picture, _, reason in read)


def test_changed_file(tmp_path: Path) -> None:
    table = frames.scan(put(str(tmp_path), clip()))
    put(str(tmp_path), clip(49))
    assert [reason for *_, reason in frames.read(table)] == ["record_changed"] * 50
