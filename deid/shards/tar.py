"""Members of a tar archive (ustar, GNU and PAX names), read in ranges from where it lies, with every doubt reported.

Python's `tarfile` takes a cut at a member boundary, a cut inside a header or one flipped header byte for the end of
the archive. Here the end is two blocks of zeros and nothing but zeros behind; anything else is `Damage`.
Format: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from deid.shards import storage

BLOCK = 512
RANGE = 8 << 20  # bytes fetched at once
_LONGEST_NAME = 1 << 20  # bytes of an extended header
_DIGITS = 20  # of the length of a record of an extended header, and the space behind it
_SPARSE = b"GNU.sparse"
_FILE, _FOLDER, _BARE = (
    b"07\0",
    b"5",
    b"123456",
)  # types of plain files, of folders, and of members without data


class Damage(Exception):
    """The archive is cut short or not to be trusted from here on."""


@dataclass(frozen=True)
class Member:
    name: str
    kind: bytes  # type flag of the header
    offset: int  # of the data, bytes
    size: int  # bytes

    @property
    def is_file(self) -> bool:
        return self.kind in _FILE and not self.name.endswith("/")

    @property
    def is_folder(self) -> bool:
        return self.kind in _FOLDER or (self.kind in _FILE and self.name.endswith("/"))


class Reader:
    """Iterates once over the members of an archive; the object must stay the one that was listed.

    Raises (while iterating):
        Damage: everything given so far was sound.
        ObjectChanged, StorageError, InputError: of `storage`.
    """

    def __init__(self, file: storage.Object) -> None:
        self.file = file
        self._start, self._buffer = 0, memoryview(b"")

    def __iter__(self) -> Iterator[Member]:
        position, common = 0, dict[str, bytes]()
        while True:
            extra, position = self._extras(position, common)
            header = self._block(position)
            if not any(header):
                return self._check_end(position)
            member = _member(header, position + BLOCK, common | extra)
            position = member.offset + -(-member.size // BLOCK) * BLOCK
            if member.offset + member.size > self.file.size:
                raise Damage
            yield member

    def crc32(self, member: Member) -> int:
        """CRC-32 of a member's data."""
        value, position, end = 0, member.offset, member.offset + member.size
        while position < end:
            piece = self._piece(position, end - position)
            value, position = zlib.crc32(piece, value), position + len(piece)
        return value

    def _extras(self, position: int, common: dict[str, bytes]) -> tuple[dict[str, bytes], int]:
        """PAX fields and GNU long names that apply to the next member, and where its header is."""
        extra: dict[str, bytes] = {}
        while (kind := (header := self._block(position))[156:157]) in (b"L", b"K", b"x", b"g") and any(
            header
        ):
            entry = _member(header, position + BLOCK, {})
            if entry.size > _LONGEST_NAME:
                raise Damage
            data = self._bytes(entry.offset, entry.size)
            if kind == b"L":
                extra["path"] = data.split(b"\0", 1)[0]
            elif kind != b"K":
                (extra if kind == b"x" else common).update(_pax(data))
            position = entry.offset + -(-entry.size // BLOCK) * BLOCK
        return extra, position

    def _check_end(self, position: int) -> None:
        if any(self._block(position + BLOCK)):
            raise Damage
        while position < self.file.size:
            piece = self._piece(position, RANGE)
            if any(piece):
                raise Damage
            position += len(piece)

    def _block(self, position: int) -> bytes:
        return self._bytes(position, BLOCK)

    def _bytes(self, position: int, length: int) -> bytes:
        if position + length > self.file.size:
            raise Damage
        parts = []
        while length:
            parts.append(bytes(self._piece(position, length)))
            position, length = position + len(parts[-1]), length - len(parts[-1])
        return b"".join(parts)

    def _piece(self, position: int, length: int) -> memoryview:
        """At least one byte and at most `length` from `position` on, within the object."""
        inside = position - self._start
        if not 0 <= inside < len(self._buffer):
            size = min(RANGE, self.file.size - position)
            data = storage.read_range(self.file.uri, position, size, self.file.version)
            self._start, self._buffer, inside = position, memoryview(data), 0
        return self._buffer[inside : inside + length]


def _member(header: bytes, offset: int, fields: dict[str, bytes]) -> Member:
    """A member from its header and the PAX fields that apply to it."""
    stored = _number(header[148:156])
    blank = header[:148] + b" " * 8 + header[156:]
    if stored not in (sum(blank), sum(byte - 256 * (byte > 127) for byte in blank)):
        raise Damage
    kind = header[156:157]
    if kind == b"S" or _SPARSE.decode() in fields:
        raise Damage  # a sparse file's data is not what lies in the archive
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    name = fields.get("path", b"/".join(filter(None, (prefix, name))))
    if kind in _BARE:
        size = 0
    elif "size" in fields:
        size = _decimal(fields["size"])
    else:
        size = _number(header[124:136])
    return Member(name.decode("utf-8", "backslashreplace"), kind, offset, size)


def _number(field: bytes) -> int:
    """A numeric header field, >= 0: octal digits, or GNU's base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise Damage
    return int(digits or b"0", 8)


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 18:
        raise Damage
    return int(digits)


def _pax(data: bytes) -> dict[str, bytes]:
    """Those records `length name=value\\n` of a PAX header that matter here; of sparse files the names alone."""
    fields: dict[str, bytes] = {}
    at, end = 0, len(data.rstrip(b"\0"))
    while at < end:
        space = data.find(b" ", at, at + _DIGITS)
        length = _decimal(data[at : max(space, at)])
        record = data[space + 1 : at + length]
        name, found, value = record.partition(b"=")
        if not found or at + length > len(data) or not value.endswith(b"\n"):
            raise Damage
        if name.startswith(_SPARSE):
            fields[_SPARSE.decode()] = b""
        elif name in (b"path", b"size"):
            fields[name.decode()] = value[:-1]
        at += length
    return fields
