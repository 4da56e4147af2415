"""What a video file holds, and its frames as pixels: MP4, QuickTime, Matroska and WebM through PyAV (FFmpeg).

A frame is known by its presentation time. Frames that an edit list hides are no frames: no player shows them. The
first video stream counts; others, subtitles, chapters, cover pictures and metadata are not read.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type as SideData
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from deid.errors import PictureError
from deid.interfaces import Picture
from deid.shards import storage
from deid.video import source as sources

EXTENSIONS = frozenset({"mp4", "m4v", "mov", "mkv", "webm"})
Source = storage.Object | bytes
Times = NDArray[np.int64]

_BUFFER = 1 << 18  # bytes that FFmpeg asks for at once
_TRIES = 3  # keyframes from which decoding is tried, going back, before it begins at the start
# 10 ms for 1080p; without the last two it takes 3, and each pass darkens by one level in 256
_SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_RGB, _BT709, _BT601, _UNKNOWN = 0, 1, 5, (2, 3)  # matrix coefficients as in ITU-T H.273
_FROM_HEIGHT = 720  # px: from here on a video that does not say its matrix is taken for BT.709
_SLOWEST = Fraction(1, 1001)  # frames a second, as slow as a rate can be said
_FAILED = (av.error.FFmpegError, EOFError, ValueError)
_Turn = tuple[bool, bool, bool]  # transpose, then mirror left to right, then top to bottom


@dataclass(frozen=True)
class Video:
    """A video file; sizes are those of the upright picture."""

    width: int  # px
    height: int  # px
    rate: Fraction  # frames a second, on average
    time_base: Fraction  # seconds, unit of all times below
    aspect: Fraction  # width of a pixel by its height
    rotation: int  # degrees clockwise that make the stored picture upright: 0, 90, 180, 270
    codec: str
    audio: str  # codec of the first sound track; "": none
    damaged: bool  # cut short or damaged; `pts` holds what could be found
    pts: Times = field(repr=False)  # [frames] ascending
    keys: Times = field(repr=False)  # [frames] of the frame where decoding can begin, itself or before
    sizes: NDArray[np.int64] = field(repr=False)  # [frames] encoded bytes; 0: not known
    stored: tuple[int, int] = field(repr=False)  # px, width and height before it is made upright

    @property
    def frames(self) -> int:
        return len(self.pts)


def probe(source: Source, max_pixels: int = 1 << 30, known: tuple[Times, Times] | None = None) -> Video:
    """The file's description, by reading it from end to end and decoding its first picture.

    Args:
        known: `pts` and `keys` of some frames as found before: the file is not read to its end, and frames count
            from the first of these.

    Raises:
        PictureError: "empty", "not_an_image" (no such container, or a codec that is not known), "no_image" (no video
            stream, or no frame in it), "too_large" (found before anything is decoded), "shard_damaged" (cut short
            or damaged so that no picture can be read).
        ObjectChanged: the file is not the one that was listed.
    """
    with _opened(source) as container:
        stream = _stream(container)
        if stream.width * stream.height > max_pixels:
            raise PictureError("too_large")
        if known is not None:
            (pts, keys), sizes, complete = known, np.zeros(len(known[0]), np.int64), True
        else:
            pts, keys, sizes, complete = _packets(container, stream)
            complete = complete and _whole(source)
        video = Video(
            width=stream.width,
            height=stream.height,
            rate=_rate(stream, pts),
            time_base=Fraction(stream.time_base or 0),
            aspect=Fraction(stream.sample_aspect_ratio or 1),
            rotation=0,
            codec=stream.codec_context.codec.canonical_name,
            audio=_audio(container),
            damaged=not complete,
            pts=pts,
            keys=keys,
            sizes=sizes,
            stored=(stream.width, stream.height),
        )
    if not video.frames:
        raise PictureError("shard_damaged" if video.damaged else "no_image")
    return _upright(video, source)


def decode(
    source: Source, video: Video, wanted: Sequence[int] | None = None, threads: int = 1
) -> Iterator[tuple[int, Picture]]:
    """Number and pixels [H, W, 3] of frames, in order: upright, sRGB, each once, the same wherever one begins.

    A frame that cannot be decoded, or is put together from neighbours because its own bytes are damaged, is not given.

    Args:
        wanted: numbers of frames, all that lie between them are decoded, too; None: all.

    Raises:
        ObjectChanged: the file is not the one that was listed.
    """
    numbers = np.unique(np.arange(video.frames) if wanted is None else np.asarray(wanted, np.int64))
    if not len(numbers):
        return
    left: dict[int, list[int]] = {}  # frames with the same time come in the order in which they are stored
    for number in numbers[::-1]:
        left.setdefault(int(video.pts[number]), []).append(int(number))
    for frame in _decoded(source, video, int(numbers[0]), int(numbers[-1]), threads):
        if frame.pts in left and not frame.is_corrupt:
            number = left[frame.pts].pop()
            if not left[frame.pts]:
                del left[frame.pts]
            yield number, _pixels(frame, video.stored)


def sound(source: Source) -> Iterator[Any]:
    """Encoded packets of the first sound track, as stored, those that have a time; up to the end or the damage."""
    with _opened(source) as container:
        tracks = [stream for stream in container.streams.audio if stream.codec_context]
        for other in container.streams:
            if other not in tracks[:1]:
                other.discard = Discard.all
        if tracks:
            yield from (
                packet for packet in _demuxed(container, tracks[0]) if packet.size and packet.pts is not None
            )


def _decoded(source: Source, video: Video, first: int, last: int, threads: int = 1) -> Iterator[VideoFrame]:
    """Frames from `first` or before to `last`, as stored; the first one may be missing where it is damaged."""
    begin: int | None = int(video.keys[first])
    for back in range(1, _TRIES + 1):
        frames = _from_key(source, begin, int(video.pts[last]), threads)
        head = next(frames, None)
        if begin is None or _sound(head, begin, int(video.pts[first])):
            break
        begin = _before(source, begin) if back + 1 < _TRIES else None
    if head is not None:
        yield head
    yield from frames


def _sound(head: VideoFrame | None, begin: int, first: int) -> bool:
    """Whether decoding from the keyframe `begin` gave a picture in time for `first`. It does not where the keyframe
    needs what stands before it (open groups, gradual refresh); then the picture asked for may even be wrong."""
    return head is not None and head.pts is not None and (head.pts == begin or head.pts < first)


def _before(source: Source, key: int) -> int | None:
    """Time of the keyframe before; None: the start."""
    with _opened(source) as container:
        stream = _stream(container)
        container.seek(key - 1, stream=stream)
        packet = next((packet for packet in _demuxed(container, stream) if packet.is_keyframe), None)
    return packet.pts if packet is not None and packet.pts is not None and packet.pts < key else None


def _from_key(source: Source, begin: int | None, end: int, threads: int) -> Iterator[VideoFrame]:
    """Frames in the order of their times, from a keyframe (None: the start) to `end`."""
    with _opened(source) as container:
        stream = _stream(container)
        stream.codec_context.thread_count = threads
        if begin is not None:
            container.seek(begin, stream=stream)
        for packet in _demuxed(container, stream):
            if begin is not None:
                if not packet.is_keyframe or packet.pts is None:
                    continue
                if packet.pts > begin:  # the file's own index leads astray
                    break
                begin = None
            for frame in _frames(packet):
                if frame.pts is not None and frame.pts > end:
                    return
                yield frame
        else:
            return
    yield from _from_key(source, None, end, threads)


def _frames(packet: Packet) -> list[VideoFrame]:
    try:
        return packet.decode()
    except _FAILED:  # its frame stays out
        return []


def _demuxed(container: InputContainer, stream: Stream) -> Iterator[Packet]:
    """Packets up to the end or the damage, and an empty one that asks the decoder for what it holds back."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, *_FAILED):
            break
        if packet.size:
            yield packet
    last = Packet()
    last.stream = stream
    yield last


def _packets(container: InputContainer, stream: VideoStream) -> tuple[Times, Times, NDArray[np.int64], bool]:
    """Times, those of the keyframes before, and bytes, in the order of the times; and whether that is all."""
    found: list[tuple[int, bool, int]] = []
    complete = True
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except _FAILED:
            complete = False
            break
        if packet.size == 0 or packet.is_discard:
            continue
        if packet.is_corrupt or packet.pts is None:
            complete = False
            continue
        found.append((packet.pts, packet.is_keyframe, packet.size))
    pts, marks, sizes = np.array(sorted(found, key=lambda item: item[0]), np.int64).reshape(-1, 3).T
    keys = np.maximum.accumulate(np.where(marks > 0, pts, pts[:1]))
    return pts, keys, sizes, complete


def _whole(source: Source) -> bool:
    file = sources.reader(source, block=1 << 16)
    return sources.whole(file, sources.kind(file))


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[InputContainer]:
    file = sources.reader(source)
    kind = sources.kind(file)
    if not kind:
        raise PictureError("not_an_image" if file.seek(0, 2) else "empty")
    file.seek(0)
    try:
        container = av.open(file, "r", format=kind, buffer_size=_BUFFER)
    except _FAILED as error:
        nothing = isinstance(error, EOFError) and sources.whole(file, kind)
        raise PictureError("no_image" if nothing else "shard_damaged") from None
    with container:
        yield container


def _stream(container: InputContainer) -> VideoStream:
    """The first video stream; the demuxer passes over all others."""
    chosen = None
    for stream in container.streams:
        picture = Disposition.attached_pic in stream.disposition
        if chosen is None and isinstance(stream, VideoStream) and not picture:
            chosen = stream
        else:
            stream.discard = Discard.all
    if chosen is None:
        raise PictureError("no_image")
    if chosen.codec_context is None:
        raise PictureError("not_an_image")
    return chosen


def _audio(container: InputContainer) -> str:
    found = next((stream for stream in container.streams.audio if stream.codec_context), None)
    return found.codec_context.codec.canonical_name if found else ""


def _rate(stream: VideoStream, pts: Times) -> Fraction:
    """Frames a second: what the times give; for one frame, what the container says."""
    if len(pts) > 1 and pts.max() > pts.min():
        span = int(pts.max() - pts.min()) * Fraction(stream.time_base or 1)
        return max(((len(pts) - 1) / span).limit_denominator(1001), _SLOWEST)
    return Fraction(stream.average_rate or stream.guessed_rate or 25)


def _upright(video: Video, source: Source) -> Video:
    """With size, shape of a pixel and rotation of the upright picture."""
    first = next(_decoded(source, video, 0, video.frames - 1), None)
    if first is None:
        raise PictureError("shard_damaged")
    turn = _turn(first)
    if turn[0]:
        width, height = video.stored
        video = replace(video, width=height, height=width, aspect=1 / video.aspect)
    return replace(video, rotation=_DEGREES[turn])


_DEGREES = {  # a mirrored picture counts by what is left to turn
    (False, False, False): 0,
    (True, True, False): 90,
    (False, True, True): 180,
    (True, False, True): 270,
    (False, True, False): 0,
    (True, False, False): 90,
    (False, False, True): 180,
    (True, True, True): 270,
}


def _turn(frame: VideoFrame) -> _Turn:
    """How to make it upright, by the display matrix (ISO/IEC 14496-12, 6.2.2) to the nearest quarter turn."""
    sides: Any = frame.side_data
    data = sides.get(SideData.DISPLAYMATRIX)
    if data is None or len(bytes(data)) != 36:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32).astype(np.int64)[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, bool(a < 0), bool(d < 0)
    return True, bool(c < 0), bool(b < 0)


def _pixels(frame: VideoFrame, size: tuple[int, int]) -> Picture:
    """Upright RGB; of `size` (width, height) before it is made upright; brightness curves of HDR are not mapped."""
    turn = _turn(frame)
    matrix = int(frame.colorspace)
    if matrix in _UNKNOWN:
        matrix = _BT709 if min(size) >= _FROM_HEIGHT else _BT601
    full = int(frame.color_range) == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    given = {} if matrix == _RGB else {"src_colorspace": matrix}
    pixels = frame.reformat(
        *size,
        format="rgb24",
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=int(_SCALING),
        threads=1,
        **given,
    ).to_ndarray()
    if turn[0]:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels[:: -1 if turn[2] else 1, :: -1 if turn[1] else 1])
