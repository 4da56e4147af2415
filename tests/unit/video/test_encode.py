"""What goes out: the same frames, times and size, in one file, and nothing else."""

import dataclasses
import io
from fractions import Fraction

import av
import numpy as np
import pytest

from deid.errors import PictureError, PromiseError
from deid.interfaces import Picture
from deid.video import container, encode
from deid.video.encode import Shape
from tests.unit.video.clips import clip, hum, picture

RATE = Fraction(30_000, 1001)
SHAPES = {
    "milliseconds": Shape(96, 64, Fraction(25), Fraction(1, 1000)),
    "odd": Shape(97, 71, RATE, Fraction(1, 90_000)),
    "ntsc": Shape(96, 64, RATE, Fraction(1001, 30_000), Fraction(4, 3)),
}
TIMES = {
    "milliseconds": [40 * n + n % 7 for n in range(60)],
    "odd": [777 + 3003 * n for n in range(60)],
    "ntsc": [n + n // 9 for n in range(60)],
}


def frames(name: str) -> list[tuple[int, Picture]]:
    shape = SHAPES[name]
    return [(time, picture(n, shape.width, shape.height)) for n, time in enumerate(TIMES[name])]


def segments(name: str) -> list[bytes]:
    """One without a frame, one of a single frame, and one longer than a group of pictures."""
    given = frames(name)
    parts = (given[:3], [], given[3:4], given[4:])
    return [encode.segment(part, SHAPES[name]) for part in parts]


@pytest.mark.parametrize("name", SHAPES)
def test_same_frames_times_and_size(name: str) -> None:
    shape, times = SHAPES[name], TIMES[name]
    data = encode.join(segments(name), shape)
    video = container.probe(data)
    assert (video.width, video.height, video.aspect) == (shape.width, shape.height, shape.aspect)
    seconds = [int(time) * video.time_base for time in video.pts]
    assert seconds == [(time - times[0]) * shape.time_base for time in times]
    found = dict(container.decode(data, video))
    assert list(found) == list(range(60))
    errors = [np.abs(found[n].astype(int) - pixels).mean() for n, (_, pixels) in enumerate(frames(name))]
    assert max(errors) < 4
    assert {int(n) for n in np.flatnonzero(np.isin(video.pts, video.keys))} >= {0, 3, 4}
    with av.open(io.BytesIO(data)) as opened:
        stream = opened.streams.video[0]
        assert stream.codec_context.pix_fmt == ("yuv444p" if name == "odd" else "yuv420p")
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)
        assert (stream.codec_context.color_primaries, stream.codec_context.color_trc) == (1, 1)
        last = (times[-1] - times[0]) * shape.time_base + shape.tick * shape.time_base
        assert abs(stream.duration * stream.time_base - last) < Fraction(1, 1000)


def test_colours_do_not_drift() -> None:
    """Grey and the six corners of the cube come back within two levels, on average."""
    corners = np.array([[0, 0, 0], [255, 255, 255], [128, 128, 128], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    flat = corners.astype(np.uint8).repeat(16, 0).repeat(96, 1).reshape(6 * 16, 3, 96).transpose(0, 2, 1)
    shape = Shape(96, 96, Fraction(25), Fraction(1, 25))
    data = encode.join([encode.segment([(0, np.ascontiguousarray(flat))], shape, quality=4)], shape)
    (found,) = dict(container.decode(data, container.probe(data))).values()
    inner = [found[16 * n + 4 : 16 * n + 12, 4:-4].mean((0, 1)) for n in range(6)]
    assert np.abs(np.array(inner) - [flat[16 * n, 0] for n in range(6)]).max() < 2


def test_bits_are_the_same_and_name_nothing() -> None:
    first, second = (encode.join(segments("ntsc"), SHAPES["ntsc"]) for _ in range(2))
    assert first == second
    for trace in (b"Lav", b"x264", b"crf", b"PyAV"):
        assert trace not in first
    header = first.index(b"mvhd") + 8
    assert first[header : header + 8] == bytes(8)  # times of creation and change
    assert first.index(b"moov") < first.index(b"mdat")


def test_dropped_frames_leave_a_gap() -> None:
    """The frames around stay at their times; `origin` keeps the start, too."""
    shape, given = SHAPES["milliseconds"], frames("milliseconds")
    kept = given[5:20] + given[30:]
    data = encode.join([encode.segment(kept, shape)], shape, origin=given[0][0])
    video = container.probe(data)
    seconds = [int(time) * video.time_base for time in video.pts]
    assert seconds == [(time - given[0][0]) * shape.time_base for time, _ in kept]


def test_times_that_repeat_go_up() -> None:
    shape = SHAPES["ntsc"]
    part = [(time, picture(n)) for n, time in enumerate([0, 1, 1, 2])]
    video = container.probe(encode.join([encode.segment(part, shape)], shape))
    assert [int(time) * video.time_base / shape.time_base for time in video.pts] == [0, 1, 2, 3]


def test_nothing_let_out() -> None:
    with pytest.raises(PictureError, match="no_image"):
        encode.join([encode.segment([], SHAPES["ntsc"])], SHAPES["ntsc"])


def test_refuses_what_does_not_belong_together() -> None:
    shape = SHAPES["ntsc"]
    part = encode.segment(frames("ntsc")[:2], shape)
    other = Shape(64, 64, RATE, shape.time_base)
    with pytest.raises(PromiseError, match="differ in kind"):
        encode.join([part, encode.segment([(9, picture(0, 64, 64))], other)], shape)
    more = np.array([3, 0, 1, 2], "<i8").tobytes() + part[24:]
    with pytest.raises(PromiseError, match="more or fewer"):
        encode.join([more], shape)
    with pytest.raises(PictureError, match="encode_failed"):
        encode.segment([(0, picture(0, 95, 64))], shape)


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_sound_is_dropped_or_copied(kind: str) -> None:
    source = clip(kind=kind, sound="aac")
    video = container.probe(source)
    shape = Shape.of(video)
    part = encode.segment(
        ((int(video.pts[n]), pixels) for n, pixels in container.decode(source, video)), shape
    )
    assert container.probe(encode.join([part], shape)).audio == ""
    data = encode.join([part], shape, sound=source)
    after = container.probe(data)
    assert (after.audio, after.frames) == ("aac", 50)
    assert b"Lav" not in data.replace(b"Lavc", b"", 1)  # the encoder's name within the sound itself
    before, now = ([bytes(packet) for packet in container.sound(file)] for file in (source, data))
    assert len(before) > 90
    assert now == before[-len(now) :]
    assert len(now) >= len(before) - 2


def test_sound_that_mp4_does_not_carry() -> None:
    shape = SHAPES["ntsc"]
    part = encode.segment(frames("ntsc")[:2], shape)
    with pytest.raises(PictureError, match="encode_failed"):
        encode.join([part], shape, sound=hum(0.5, "pcm_s16le", "matroska"))
    assert container.probe(encode.join([part], shape, sound=clip(2))).audio == ""


FAR = {  # seconds between two frames, and the unit of times
    "hours in microseconds": (7_200, Fraction(1, 1_000_000)),
    "a day in milliseconds": (86_400, Fraction(1, 1000)),
    "seconds in nanoseconds": (3, Fraction(1, 10**9)),
    "a unit that MP4 has not": (3, Fraction(1, 2**32 - 1)),
    "a frame's time as unit": (100_000, Fraction(1001, 30_000)),
}


@pytest.mark.parametrize("name", FAR)
def test_frames_far_apart_keep_their_times(name: str) -> None:
    gap, base = FAR[name]
    pts = np.array([0, round(Fraction(1, 25) / base), round(gap / base)])
    made = container.probe(clip(3))
    shape = Shape.of(dataclasses.replace(made, pts=pts, time_base=base, rate=Fraction(1, 1001)))
    times = [shape.time(int(time), base) for time in pts]
    encode.check(shape, times)
    part = encode.segment(((time, picture(n)) for n, time in enumerate(times)), shape)
    video = container.probe(encode.join([part], shape))
    seconds = [float(time * video.time_base) for time in video.pts.tolist()]
    assert seconds == pytest.approx([float(time * base) for time in pts.tolist()], abs=1e-4)


def test_frames_too_far_apart_are_found_before_anything_is_made() -> None:
    shape = Shape.of(dataclasses.replace(container.probe(clip(2)), pts=np.array([0, 40, 2**31 + 40])))
    for times in ([0, 40, 2**33], [0, 2**40, 2**40 + 40]):
        with pytest.raises(PictureError, match="encode_failed"):
            encode.check(shape, times)
    encode.check(shape, [7])
