"""What a checker looks at in an output video: its boxes, its tracks, and that nothing else lies in it.

Boxes: ISO/IEC 14496-12, and 14496-15 for H.264. What the job does not write is a fault: metadata, times, names, further
tracks, bytes that belong to no sample. Samples of the picture hold slices of the picture and no messages (SEI).
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from deid.privacy.verify_shards import Shard

NAME = re.compile(r"videos/([0-9a-f]{32})\.mp4")
_HOLDS = {
    b"": {b"ftyp", b"moov", b"free", b"mdat"},
    b"moov": {b"mvhd", b"trak", b"udta"},
    b"trak": {b"tkhd", b"edts", b"mdia"},
    b"edts": {b"elst"},
    b"mdia": {b"mdhd", b"hdlr", b"minf"},
    b"minf": {b"vmhd", b"smhd", b"dinf", b"stbl"},
    b"dinf": {b"dref"},
    b"stbl": {
        *(b"stsd", b"stts", b"stss", b"stsc", b"stsz", b"stco", b"co64"),
        *(b"ctts", b"sgpd", b"sbgp"),  # of sound
    },
}
_TIMED = (b"mvhd", b"tkhd", b"mdhd")
_SEVERAL = (b"trak",)
_SLICES = {1, 5}  # NAL units of a picture: another, a keyframe
_UND = struct.pack(">H", 0x55C4)  # no language
_NO_URL = b"\0\0\0\0\0\0\0\1\0\0\0\x0curl \0\0\0\1"  # samples are in the file itself
_EMPTY = (  # what FFmpeg writes in the place of metadata that there is none of
    b"\0\0\0\x35meta\0\0\0\0\0\0\0\x21hdlr\0\0\0\0\0\0\0\0mdirappl" + bytes(9) + b"\0\0\0\x08ilst"
)
_NAMES = {b"vide": b"VideoHandler\0", b"soun": b"SoundHandler\0"}


class _Damage(Exception):
    """It is no MP4, or not whole."""


@dataclass
class _Track:
    kind: bytes = b""  # vide, soun
    boxes: dict[bytes, bytes] = field(default_factory=dict)  # bodies, of the sample table

    def samples(self) -> Iterator[tuple[int, int]]:
        """Offset and size of each sample in the file."""
        sizes = self._sizes()
        chunks, runs = self._chunks(), self._table(b"stsc", ">III")
        number = 0
        for n, offset in enumerate(chunks):
            held = next((run[1] for run in reversed(runs) if run[0] <= n + 1), 0)
            for size in sizes[number : number + held]:
                yield offset, size
                offset += size
            number += held
        if number != len(sizes):
            raise _Damage

    def _sizes(self) -> list[int]:
        body = self.boxes.get(b"stsz", b"")
        fixed, count = struct.unpack_from(">II", body, 4)
        return [fixed] * count if fixed else [size for (size,) in self._table(b"stsz", ">I", 8)]

    def _chunks(self) -> list[int]:
        name, shape = (b"co64", ">Q") if b"co64" in self.boxes else (b"stco", ">I")
        return [offset for (offset,) in self._table(name, shape)]

    def _table(self, name: bytes, shape: str, before: int = 4) -> list[tuple[int, ...]]:
        """Entries of a box: version and flags, `before` - 4 bytes, their number, and they themselves."""
        body = self.boxes.get(name, b"")
        (count,) = struct.unpack_from(">I", body, before)
        if len(body) != before + 4 + count * struct.calcsize(shape):
            raise _Damage
        return list(struct.iter_unpack(shape, body[before + 4 :]))


def read(name: str, data: bytes, sound: bool) -> Shard:
    """Key, number of frames (`pictures`) and faults of a video.

    Args:
        name: of the object.
        sound: a sound track may be there.
    """
    shard = Shard()
    try:
        tracks = list(_tracks(data, shard.faults))
        _looked(data, tracks, shard, sound)
    except (_Damage, struct.error):
        shard.faults.append("cannot be read as the MP4 that the job writes")
    match = NAME.fullmatch(name)
    shard.keys = [match[1]] if match else []
    return shard


def _looked(data: bytes, tracks: list[_Track], shard: Shard, sound: bool) -> None:
    kinds = sorted(track.kind for track in tracks)
    if kinds != [b"vide"] and not (sound and kinds == [b"soun", b"vide"]):
        shard.faults.append("has other tracks than one of pictures" + (" and one of sound" if sound else ""))
        return
    places = sorted(place for track in tracks for place in track.samples())
    bodies = [(start, end) for kind, start, end in _boxes(data, 0, len(data)) if kind == b"mdat"]
    end = bodies[0][0] if len(bodies) == 1 else -1
    for offset, size in places:
        end = offset + size if offset == end else -1
    if end < 0 or end != bodies[0][1]:
        shard.faults.append("has bytes beside its samples")
        return
    (pictures,) = (list(track.samples()) for track in tracks if track.kind == b"vide")
    shard.pictures = len(pictures)
    if not all(_units(data, offset, size) <= _SLICES for offset, size in pictures):
        shard.faults.append("has messages beside its pictures")


def _units(data: bytes, offset: int, size: int) -> set[int]:
    """Types of the NAL units of a sample."""
    found, end = set[int](), offset + size
    while offset < end:
        (length,) = struct.unpack_from(">I", data, offset)
        if not 0 < length <= end - offset - 4:
            raise _Damage
        found.add(data[offset + 4] & 31)
        offset += 4 + length
    return found


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the body of each box in a range, which they fill."""
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, start + 8), 16
        if not head <= size <= end - start:
            raise _Damage
        yield kind, start + head, start + size
        start += size


def _tracks(data: bytes, faults: list[str]) -> Iterator[_Track]:
    """The tracks; what else is not as the job writes it becomes a fault."""
    for kind, body, _ in _walk(data, 0, len(data), b"", faults):
        if kind == b"free" and body.strip(b"\0"):
            faults.append("has bytes in a free box")
        if kind == b"moov":
            for inner, held, at in list(_walk(data, *_place(data, b"moov"), b"moov", faults)):
                _plain(inner, held, faults)
                if inner == b"trak":
                    yield _track(data, at, at + len(held), faults)


def _place(data: bytes, name: bytes) -> tuple[int, int]:
    return next((start, end) for kind, start, end in _boxes(data, 0, len(data)) if kind == name)


def _walk(
    data: bytes, start: int, end: int, parent: bytes, faults: list[str]
) -> Iterator[tuple[bytes, bytes, int]]:
    """Kind, body and its place of each box that may be there; samples themselves are left out."""
    seen = set[bytes]()
    for kind, first, last in _boxes(data, start, end):
        if kind not in _HOLDS[parent]:
            faults.append(f"has a box {ascii(kind)[2:-1]}, which the job does not write")
            continue
        if kind in seen and kind not in _SEVERAL:
            faults.append(f"has a second box {kind.decode()}")
            continue
        seen.add(kind)
        yield kind, b"" if kind == b"mdat" else data[first:last], first


def _track(data: bytes, start: int, end: int, faults: list[str]) -> _Track:
    track = _Track()
    inside = [(b"trak", start, end)]
    while inside:
        parent, first, last = inside.pop()
        for kind, body, at in _walk(data, first, last, parent, faults):
            _plain(kind, body, faults)
            if kind == b"hdlr":
                track.kind = body[8:12]
            if kind in _HOLDS:
                inside.append((kind, at, at + len(body)))
            elif parent == b"stbl":
                track.boxes[kind] = body
    return track


def _plain(kind: bytes, body: bytes, faults: list[str]) -> None:
    """Faults of a box that may be there."""
    wide = body[:1] == b"\1"  # times of 64 bits
    if kind in _TIMED and body[4 : 20 if wide else 12].strip(b"\0"):
        faults.append(f"says in {kind.decode()} when it was made")
    if kind == b"mdhd" and body[-4:-2] != _UND:
        faults.append("names a language")
    if kind == b"udta" and body != _EMPTY:
        faults.append("has metadata")
    if kind == b"dref" and body != _NO_URL:
        faults.append("names another file")
    if kind == b"hdlr" and body[12:] != bytes(12) + _NAMES.get(body[8:12], b"?"):
        faults.append("names what wrote it")
    if kind == b"stsd" and body[12:16] == b"avc1" and body[16 + 42 : 16 + 74].strip(b"\0"):
        faults.append("names what encoded it")
