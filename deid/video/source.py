"""Bytes of a video file behind `read` and `seek`, and whether the container is whole, without a decoder."""

import io
from collections import OrderedDict
from typing import Protocol

from deid.shards import storage

BLOCK = 4 << 20  # bytes fetched at once
_HELD = 8  # blocks that stay in memory
_HEAD = 16  # bytes, the longest head of a box
_SEGMENT = b"\x18\x53\x80\x67"  # the element that holds all others of a Matroska file
_MP4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot")


class Reader(Protocol):
    """What a demuxer reads from."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class Ranged:
    """A file or object of `storage`, read in blocks by ranges, of the version that was listed.

    Raises (when read): as `storage.read_range`.
    """

    def __init__(self, file: storage.Object, block: int = BLOCK) -> None:
        self.file, self.block, self._at = file, block, 0
        self._held: OrderedDict[int, bytes] = OrderedDict()

    def read(self, size: int = -1, /) -> bytes:
        end = self.file.size if size < 0 else min(self.file.size, self._at + size)
        parts = []
        while self._at < end:
            number, start = divmod(self._at, self.block)
            part = self._block(number)[start : start + end - self._at]
            parts.append(part)
            self._at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = max(0, offset + (0, self._at, self.file.size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def _block(self, number: int) -> bytes:
        if number in self._held:
            self._held.move_to_end(number)
        else:
            start = number * self.block
            size = min(self.block, self.file.size - start)
            self._held[number] = storage.read_range(self.file.uri, start, size, self.file.version)
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        return self._held[number]


def reader(source: storage.Object | bytes, block: int = BLOCK) -> Reader:
    """A reader from the start; of a `storage.Object` it fetches `block` bytes at once."""
    return io.BytesIO(source) if isinstance(source, bytes) else Ranged(source, block)


def kind(file: Reader) -> str:
    """The demuxer by the first bytes: "mov" (MP4, QuickTime), "matroska" (MKV, WebM), or "" for anything else.

    The demuxer is never left to FFmpeg's own guess: playlists and the like would let a file name other files.
    """
    file.seek(0)
    head = file.read(8)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    return "mov" if head[4:8] in _MP4 else ""


def whole(file: Reader, kind: str) -> bool:
    """Whether the outermost boxes (ISO/IEC 14496-12) or elements (RFC 8794, RFC 9559) fill the file, one by one.

    FFmpeg reads a Matroska file that is cut short, or has a hole, to its end without an error.
    """
    size = file.seek(0, 2)
    at, step = 0, _box if kind == "mov" else _element
    while at < size:
        file.seek(at)
        length = step(file.read(_HEAD))
        if length < 0 or (length > size - at):
            return False
        at += length or size - at
    return True


def _box(head: bytes) -> int:
    """Bytes of an MP4 box; 0: it goes to the end; -1: none."""
    if len(head) < 8:
        return -1
    short = int.from_bytes(head[:4])
    if short == 1:
        return int.from_bytes(head[8:16]) if len(head) == _HEAD else -1
    return short if short == 0 or short >= 8 else -1


def _element(head: bytes) -> int:
    """Bytes of an EBML element, of the Segment those of its head alone; 0: not known (a live recording); -1: none."""
    name = 9 - head[0].bit_length() if head else 9
    width = 9 - head[name].bit_length() if len(head) > name else 9
    if name > 4 or width > 8 or len(head) < name + width:
        return -1
    value = int.from_bytes(head[name : name + width]) & ((1 << 7 * width) - 1)
    if head.startswith(_SEGMENT):
        return name + width
    return 0 if value == (1 << 7 * width) - 1 else name + width + value
