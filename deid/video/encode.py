"""Frames to one MP4 file: encoded in segments, each by itself, and joined without encoding again.

A segment begins with a keyframe and refers to nothing outside. Pictures are stored in the order in which they are
shown (no B-frames), so that joining is a matter of setting times. What goes out holds no time of creation and no name
of a program: the same frames give the same bytes with the same PyAV.
"""

import heapq
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.codec import Codec
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from deid.errors import ModelError, PictureError, PromiseError
from deid.interfaces import Picture
from deid.video import container as containers

QUALITY = 18  # x264's CRF, 0 to 51, less is better; 18 is hard to tell from the source
GROUP_S = 2  # seconds between keyframes, at most
EMPTY = bytes(8)  # a segment without a frame
MP4_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"})  # codecs that MP4 carries

_ENCODER = "libx264"
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
_PLAIN = {"fflags": "+bitexact"}  # no name of a program
_THREADS = "2"  # fixed, since the result depends on it
_BASES = (Fraction(1, 90_000), Fraction(1, 10_000))  # for times that are too far apart in that of the source
_SCALE = 10_000  # least ticks a second that FFmpeg's MP4 has: fewer are doubled until they are as many
_TICKS = 1 << 31  # from one frame to the next, and a second, that MP4 cannot hold any more
_HELD_S = Fraction(1)  # seconds for which the last frame stays where nothing says more, at most


@dataclass(frozen=True)
class Shape:
    """What all segments of one output have in common."""

    width: int  # px
    height: int  # px
    rate: Fraction  # frames a second, on average
    time_base: Fraction  # seconds, unit of times
    aspect: Fraction = Fraction(1)  # width of a pixel by its height

    @classmethod
    def of(cls, video: containers.Video) -> "Shape":
        bases = (video.time_base, *_BASES)
        longest = int(np.diff(video.pts).max(initial=0)) * video.time_base
        base = next((base for base in bases if _holds(base, longest)), bases[-1])
        return cls(video.width, video.height, video.rate, base, video.aspect)

    def time(self, given: int, base: Fraction) -> int:
        """A time in units of `base`, in those of `time_base`."""
        return round(given * base / self.time_base)

    @property
    def tick(self) -> int:
        """Usual time from one frame to the next, in units of `time_base`."""
        return max(1, round(min(1 / self.rate, _HELD_S) / self.time_base))

    @property
    def pixel_format(self) -> str:
        """Colour at half resolution, which every player shows; at full where a side is odd: H.264 halves none."""
        return "yuv444p" if self.width % 2 or self.height % 2 else "yuv420p"


def segment(frames: Iterable[tuple[int, Picture]], shape: Shape, quality: int = QUALITY) -> bytes:
    """Frames (time, pixels [H, W, 3] RGB upright) in order, as H.264 in BT.709, limited range, 8 bit.

    Without a frame it is a segment, too.

    Args:
        quality: CRF, see QUALITY.

    Raises:
        PictureError: "encode_failed".
        ModelError: the installed PyAV has no H.264 encoder.
    """
    times: list[int] = []
    sink = io.BytesIO()
    try:
        Codec(_ENCODER, "w")
    except ValueError:
        raise ModelError(f"PyAV comes without {_ENCODER}; install the wheel of the package av") from None
    try:
        with av.open(sink, "w", format="mp4", options=_PLAIN) as out:
            stream = _video(out, shape, quality)
            clean = BitStreamFilterContext(
                "filter_units=remove_types=6", stream
            )  # x264 writes its settings there
            for number, (time, pixels) in enumerate(frames):
                times.append(time)
                _mux(out, clean, stream.encode(_frame(pixels, shape, number)))
            if times:
                _mux(out, clean, [*stream.encode(None), None])
    except (av.error.FFmpegError, ValueError):
        raise PictureError("encode_failed") from None
    return np.array([len(times), *times], "<i8").tobytes() + (sink.getvalue() if times else b"")


def join(
    segments: Iterable[bytes],
    shape: Shape,
    origin: int | None = None,
    sound: containers.Source | None = None,
) -> bytes:
    """One MP4 of the segments in order, ready to stream, without encoding again: each frame at its time.

    Args:
        origin: time that becomes zero; None: that of the first frame.
        sound: the source, to copy its first sound track as it is: voices identify people, words name them, and
            whatever a camera wrote between the samples comes along. None drops it, as is the default.

    Raises:
        PictureError: "no_image": no segment has a frame. "encode_failed": the source's sound or its times fit no MP4.
        PromiseError: the segments are not of one kind, or have more or fewer frames than times.
    """
    parts = (part for part in map(_unpacked, segments) if len(part[0]))
    first = next(parts, None)
    if first is None:
        raise PictureError("no_image")
    start = int(first[0][0]) if origin is None else origin
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "joined.mp4")
        try:
            with av.open(path, "w", format="mp4", options=_PLAIN | {"movflags": "+faststart"}) as out:
                _joined(out, chain([first], parts), shape, start, sound)
        except (av.error.FFmpegError, ValueError, OverflowError):
            raise PictureError("encode_failed") from None
        return path.read_bytes()


def check(shape: Shape, times: Sequence[int]) -> None:
    """Whether frames at these times, ascending, can become one video: two black ones do, as far apart as any are.

    Raises:
        PictureError: "encode_failed".
    """
    at = int(np.argmax(np.diff(times))) if len(times) > 1 else 0
    black = np.zeros((shape.height, shape.width, 3), np.uint8)
    join([segment(((time, black) for time in times[at : at + 2]), shape)], shape)


def _holds(base: Fraction, longest: Fraction) -> bool:
    """Whether MP4 can hold frames so far apart (seconds) with times in units of `base`."""
    scale = base.denominator
    while scale < _SCALE:
        scale *= 2
    return scale < _TICKS and longest * scale < _TICKS


def _video(out: OutputContainer, shape: Shape, quality: int) -> Any:
    rate = shape.rate.limit_denominator(1001)
    options = {"crf": str(quality), "preset": "veryfast", "bf": "0", "threads": _THREADS}
    stream: Any = out.add_stream(_ENCODER, rate=rate, options=options)
    context = stream.codec_context
    stream.width, stream.height, stream.pix_fmt = shape.width, shape.height, shape.pixel_format
    context.time_base = 1 / rate
    context.gop_size = max(1, round(rate * GROUP_S))
    context.sample_aspect_ratio = shape.aspect
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    out.start_encoding()
    return stream


def _frame(pixels: Picture, shape: Shape, number: int) -> VideoFrame:
    if pixels.shape != (shape.height, shape.width, 3):
        raise ValueError("a frame of another size")
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        format=shape.pixel_format,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=int(_SCALING),
        threads=1,
    )
    frame.pts, frame.time_base = number, 1 / shape.rate.limit_denominator(1001)
    return frame


def _mux(out: OutputContainer, clean: BitStreamFilterContext, packets: Iterable[Packet | None]) -> None:
    for packet in packets:
        for cleaned in clean.filter(packet):
            cleaned.stream = out.streams.video[0]
            out.mux(cleaned)


def _unpacked(data: bytes) -> tuple[list[int], bytes]:
    """Times of the frames, and their MP4."""
    count = int.from_bytes(data[:8], "little")
    return np.frombuffer(data, "<i8", count, offset=8).tolist(), data[8 * (count + 1) :]


def _joined(
    out: OutputContainer,
    parts: Iterable[tuple[list[int], bytes]],
    shape: Shape,
    start: int,
    sound: containers.Source | None,
) -> None:
    pictures = _pictures(out, parts, shape, start)
    head = next(pictures)
    tracks: list[Iterator[tuple[Fraction, Any]]] = [chain([head], pictures)]
    if sound is not None:
        tracks.append(_sound(out, sound, start * shape.time_base))
    for _, packet in heapq.merge(*tracks, key=lambda item: item[0]):
        out.mux(packet)


def _pictures(
    out: OutputContainer, parts: Iterable[tuple[list[int], bytes]], shape: Shape, start: int
) -> Iterator[tuple[Fraction, Any]]:
    """Packets of all segments with their final times, and these in seconds."""
    stream: Any = None
    last = -1
    held: Any = None
    for times, data in parts:
        with av.open(io.BytesIO(data), "r", format="mp4") as part:
            source = part.streams.video[0]
            if stream is None:
                stream = out.add_stream_from_template(source)
                stream.time_base = shape.time_base
                header = source.codec_context.extradata
            if source.codec_context.extradata != header:
                raise PromiseError("segments of one video differ in kind; all workers need the same PyAV")
            packets = [packet for packet in part.demux(source) if packet.size]
            if len(packets) != len(times):
                raise PromiseError("a segment of a video has more or fewer frames than were encoded")
            for time, packet in zip(times, packets, strict=True):
                last = max(time - start, last + 1)
                if held is not None:
                    held.duration = last - held.pts
                    yield held.pts * shape.time_base, held
                packet.stream, packet.time_base = stream, shape.time_base
                packet.pts = packet.dts = last
                held = packet
    if held is not None:
        held.duration = shape.tick
        yield held.pts * shape.time_base, held


def _sound(
    out: OutputContainer, source: containers.Source, start: Fraction
) -> Iterator[tuple[Fraction, Any]]:
    """Packets of the source's first sound track from `start` (seconds) on."""
    stream: Any = None
    last: int | None = None
    for packet in containers.sound(source):
        if stream is None:
            if packet.stream.codec_context.codec.canonical_name not in MP4_AUDIO:
                raise PictureError("encode_failed")
            stream = out.add_stream_from_template(packet.stream)
            stream.metadata.clear()
            base = Fraction(packet.time_base)
            stream.time_base = base
        time = packet.pts - round(start / base)
        if time < 0 or (last is not None and time <= last):
            continue
        packet.stream = stream
        packet.pts = packet.dts = last = time
        yield time * base, packet
