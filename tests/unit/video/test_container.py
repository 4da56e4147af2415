"""Video files: every frame once and in order, wherever one begins; damage is said."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deid.errors import PictureError
from deid.interfaces import Picture
from deid.shards import storage
from deid.video import container, source
from tests.unit.video.clips import clip, hum, picture


def decoded(data: bytes) -> dict[int, Picture]:
    return dict(container.decode(data, container.probe(data)))


def apart(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("kind", ["mp4", "matroska", "mov"])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p", "yuv420p10le", "yuv422p", "yuv444p"])
def test_pixels_are_those_that_were_encoded(kind: str, pixels: str) -> None:
    """8 and 10 bit, limited and full range, with B-frames (libx264's default)."""
    data = clip(kind=kind, pixels=pixels)
    video = container.probe(data)
    assert (video.width, video.height, video.frames, video.codec) == (96, 64, 50, "h264")
    assert (video.rate, video.audio, video.damaged, video.rotation) == (25, "", False, 0)
    found = dict(container.decode(data, video))
    assert list(found) == list(range(50))
    assert max(apart(found[n], picture(n)) for n in found) < 6


def test_grey_stays_grey() -> None:
    found = decoded(clip(pixels="gray"))
    assert all(np.ptp(frame, axis=2).max() == 0 for frame in found.values())
    full = picture(9) @ [0.299, 0.587, 0.114]  # what is written, and H.264 says that it is of limited range
    assert apart(found[9][..., 0], np.clip((full - 16) * 255 / 219, 0, 255)) < 2


@pytest.mark.parametrize("codec", ["mpeg4", "libvpx-vp9", "libsvtav1", "mjpeg"])
def test_other_codecs_and_odd_sizes(codec: str) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    data = clip(20, "matroska", (97, 71), codec, pixels, crf="20")
    found = decoded(data)
    assert [frame.shape for frame in found.values()] == [(71, 97, 3)] * 20
    assert max(apart(found[n], picture(n, 97, 71)) for n in found) < 12


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
@pytest.mark.parametrize("structure", ["bframes=3", "open-gop=1:bframes=3", "intra-refresh=1:bframes=0"])
def test_each_frame_alone_is_the_frame_of_the_whole(kind: str, structure: str) -> None:
    """Also where a keyframe needs what stands before it."""
    data = clip(kind=kind, **{"x264-params": f"{structure}:scenecut=0"})
    video = container.probe(data)
    assert len(np.unique(video.keys)) == 5
    whole = dict(container.decode(data, video))
    for number in range(50):
        alone = dict(container.decode(data, video, [number]))
        assert list(alone) == [number]
        assert np.array_equal(alone[number], whole[number])
    parts: dict[int, Picture] = {}
    for start in range(0, 50, 7):
        parts |= container.decode(data, video, range(start, min(50, start + 7)))
    assert list(parts) == list(whole)
    assert all(np.array_equal(parts[number], whole[number]) for number in whole)


def test_uneven_times() -> None:
    times = np.cumsum(np.random.default_rng(0).integers(10, 90, 50)).tolist()
    video = container.probe(clip(kind="matroska", times=times, base=Fraction(1, 1000)))
    assert (video.pts - video.pts[0]).tolist() == [time - times[0] for time in times]
    assert abs(video.rate - Fraction(49_000, times[-1] - times[0])) < 0.01


def test_a_frame_an_hour_has_a_rate() -> None:
    video = container.probe(clip(2, kind="matroska", times=[0, 3_600_000], base=Fraction(1, 1000)))
    assert (video.pts.tolist(), video.rate) == ([0, 3_600_000], Fraction(1, 1001))


@pytest.mark.parametrize(("counter_clockwise", "clockwise"), [(90, 270), (180, 180), (270, 90)])
def test_rotation_is_applied(counter_clockwise: int, clockwise: int) -> None:
    upright, stored = (decoded(clip(5, rotation=angle)) for angle in (counter_clockwise, 0))
    video = container.probe(clip(5, rotation=counter_clockwise))
    assert (video.rotation, (video.width, video.height)) == (clockwise, upright[0].shape[1::-1])
    turns = counter_clockwise // 90
    assert all(np.array_equal(upright[n], np.rot90(stored[n], turns)) for n in range(5))


@pytest.mark.parametrize(
    ("matrix", "mirror"), [((-1, 0, 0, 1), np.fliplr), ((1, 0, 0, -1), np.flipud), ((0, 1, 1, 0), None)]
)
def test_mirrored(matrix: tuple[int, ...], mirror: object) -> None:
    """Front cameras mirror; a transposition is both a turn and a mirror."""
    a, b, c, d = (value << 16 for value in matrix)
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        out.mux(stream.encode(None))
    (frame,) = decoded(sink.getvalue()).values()
    wanted = mirror(picture(0)) if callable(mirror) else picture(0).transpose(1, 0, 2)
    assert apart(frame, wanted) < 6


def test_first_video_stream_counts() -> None:
    """Sound is known of and not read; a cover picture is no video."""
    video = container.probe(clip(sound="aac"))
    assert (video.frames, video.audio) == (50, "aac")
    with pytest.raises(PictureError, match="no_image"):
        container.probe(hum(0.5))
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        out.mux(stream.encode(None))
    with pytest.raises(PictureError, match="no_image"):
        container.probe(sink.getvalue())


def test_what_is_no_video() -> None:
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n"
    for data, reason in [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0 no video at all", "not_an_image"),
        (playlist, "not_an_image"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "not_an_image"),
        (clip(1, size=(640, 480)), "too_large"),
    ]:
        with pytest.raises(PictureError, match=reason):
            container.probe(data, max_pixels=640 * 480 - 1)


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_no_frames(kind: str) -> None:
    sink = io.BytesIO()
    with av.open(sink, "w", format=kind) as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        out.start_encoding()
    with pytest.raises(PictureError, match="no_image"):
        container.probe(sink.getvalue())


FAST = {"movflags": "+frag_keyframe+empty_moov"}


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
@pytest.mark.parametrize("share", [0.99, 0.6, 0.3])
def test_cut_short(kind: str, share: float) -> None:
    data = clip(kind=kind, container=FAST if kind == "mp4" else None)
    cut = data[: int(share * len(data))]
    video = container.probe(cut)
    assert video.damaged
    assert 0 < video.frames < 50 or share == 0.99
    whole, found = decoded(data), dict(container.decode(cut, video))
    assert set(found) <= set(range(video.frames))
    assert len(found) >= video.frames - 1
    numbers = {int(time): n for n, time in enumerate(container.probe(data).pts)}
    assert all(np.array_equal(found[n], whole[numbers[int(video.pts[n])]]) for n in found)


def test_index_at_the_end_is_cut_off() -> None:
    data = clip()
    assert data.index(b"mdat") < data.index(b"moov")
    with pytest.raises(PictureError, match="shard_damaged"):
        container.probe(data[:-100])


def test_hole_in_matroska() -> None:
    """FFmpeg looks for the next cluster, and says nothing."""
    data = bytearray(clip(200, "matroska", container={"cluster_time_limit": "500"}))
    clusters = [n for n in range(len(data)) if data[n : n + 4] == b"\x1f\x43\xb6\x75"]
    data[clusters[4] : clusters[6]] = bytes(clusters[6] - clusters[4])
    video = container.probe(bytes(data))
    assert video.damaged
    assert 100 < video.frames < 200


def test_damaged_frames_are_left_out() -> None:
    data = bytearray(clip(kind="matroska"))
    whole = decoded(bytes(data))
    start = len(data) // 2
    data[start : start + 40] = bytes(40)
    video = container.probe(bytes(data))
    found = dict(container.decode(bytes(data), video))
    lost = set(range(video.frames)) - set(found)
    assert lost
    assert all(np.array_equal(found[n], whole[n]) for n in range(12))


@pytest.fixture
def file(tmp_path: Path) -> storage.Object:
    storage.write_bytes(f"{tmp_path}/a.mp4", clip(sound="aac"))
    return storage.list_files(str(tmp_path))[0]


def test_reads_by_ranges(file: storage.Object) -> None:
    reader = source.Ranged(file, block=1000)
    data = storage.read_bytes(file.uri)
    assert reader.read() == data
    assert reader.seek(-1500, 2) == file.size - 1500 == reader.tell()
    assert (reader.read(10), reader.read(1200)) == (data[-1500:-1490], data[-1490:-290])
    assert reader.read(5000) == data[-290:]
    assert reader.read(1) == b""
    video = container.probe(file)
    whole = decoded(data)
    assert all(np.array_equal(pixels, whole[n]) for n, pixels in container.decode(file, video))
    storage.write_bytes(file.uri, data + b"\0", overwrite=True)
    with pytest.raises(storage.ObjectChanged):
        container.probe(file)
    with pytest.raises(storage.ObjectChanged):
        list(container.decode(file, video, [20]))
