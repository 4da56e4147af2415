"""What a checker looks at inside an output shard: its tar headers, its keys, its sidecar fields, its pictures' blocks.

Everything is held against what the job itself writes, byte by byte where that is possible, so that nothing else can
be carried along. Formats: POSIX.1-2017, pax, "ustar Interchange Format"; ITU-T T.81, annex B, and JFIF 1.02; PNG
(W3C, third edition), section 5; WebP container (RFC 9649, section 2).
"""

import json
import re
import struct
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deid.config import Metadata
from deid.privacy import label_maps, metadata
from deid.shards import pictures

_BLOCK = 512
# a key of `keys.output_id`, the name of a further picture or of a mask, and what it is
_NAME = re.compile(r"([0-9a-f]{32})(?:\.([A-Za-z0-9_-]+))?\.(jpg|png|webp|json|cls|txt)")
KEY = re.compile("[0-9a-f]{32}")
_TEXTS = ("json", "cls", "txt")
_HEADER = {"mtime": 0, "uid": 0, "gid": 0, "mode": 0o644, "uname": "", "gname": "", "type": tarfile.REGTYPE}

_JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"  # version 1.1, no density, no thumbnail
_JPEG_PLAIN = {
    0xC0,
    0xC1,
    0xC2,
    0xC4,
    0xDA,
    0xDB,
    0xDD,
}  # frame, Huffman and quantization tables, scan, restarts
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # what ends a scan's data
_PNG_PLAIN = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_WEBP_PLAIN = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}


class _Damage(Exception):
    """The archive or picture cannot be read to its end."""


@dataclass
class Shard:
    """What was found in a shard: the keys of its samples in their order, and its faults in words."""

    keys: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    pictures: int = 0  # a sample may have several


def read(data: bytes, allowed: Metadata, names: Collection[str] = ()) -> Shard:
    """Keys and faults of a shard.

    Args:
        data: the tar.
        allowed: the fields, texts and masks that may stand beside a picture.
        names: that further pictures of a sample may have; their numbers, from 1 on, are names as well.
    """
    shard, beside, sizes = Shard(), set[str](), dict[str, tuple[int, int] | None]()
    try:
        for info, content in _members(data, shard.faults):
            match = _NAME.fullmatch(info.name)
            key, name, extension = match.groups() if match else ("", "", "")
            mask = f"{name}.{extension}" in allowed.masks
            if not match or not (mask or _named(name, extension, names)):
                shard.faults.append(f"member {info.name} has no plain name")
                continue
            if mask or extension in _TEXTS:
                beside.add(key)
                faults = (
                    sidecar(content, extension, allowed)
                    if not mask
                    else label_map(content, sizes.get(key), allowed)
                )
            else:
                shard.keys += [key] if key not in shard.keys[-1:] else []
                shard.pictures += 1
                sizes.setdefault(key, pictures.size_of(content))
                faults = picture(content, extension)
            shard.faults += [f"member {info.name} {fault}" for fault in faults]
    except _Damage:
        shard.faults.append("the tar cannot be read to its end")
    alone = len(beside - set(shard.keys))
    shard.faults += [f"{alone} samples have no picture"] if alone else []
    return shard


def _named(name: str | None, extension: str, names: Collection[str]) -> bool:
    """Whether a member may be called so: a picture alone has a name beside its key, if any."""
    return name is None or (extension not in _TEXTS and name_allowed(name, names))


def name_allowed(name: str, names: Collection[str]) -> bool:
    """Whether a further picture may be called so."""
    return name in names or re.fullmatch("[1-9][0-9]{0,4}", name) is not None


def _members(data: bytes, faults: list[str]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    position = 0
    while any(header := data[position : position + _BLOCK]):
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            raise _Damage from None
        start, end = position + _BLOCK, position + _BLOCK + info.size
        position = end + -info.size % _BLOCK
        if info.size < 0 or position > len(data):
            raise _Damage
        faults += [f"member {info.name}: {fault}" for fault in _header(info, header)]
        if any(data[end:position]):
            faults.append(f"member {info.name}: bytes between it and the next")
        yield info, data[start:end]
    rest = data[position:]
    if len(rest) < 2 * _BLOCK or any(rest):
        raise _Damage


def _header(info: tarfile.TarInfo, header: bytes) -> Iterator[str]:
    """Faults of a tar header: it holds a name and a size, and nothing else."""
    given = {name: getattr(info, name) for name in _HEADER}
    faults = [
        f"{name} is {value!r}, not {_HEADER[name]!r}"
        for name, value in given.items()
        if value != _HEADER[name]
    ]
    yield from faults
    if not faults:
        plain = tarfile.TarInfo(info.name)
        plain.size = info.size
        try:
            same = plain.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape") == header
        except ValueError:
            same = False
        if not same:
            yield "its header is not as the job writes it"


def sidecar(data: bytes, extension: str, allowed: Metadata) -> Iterator[str]:
    """Faults of the text beside a picture: what the allow-list does not let pass."""
    if extension in ("cls", "txt"):
        pattern = rb"-?[0-9]{1,19}" if extension == "cls" else rb".*"
        if extension not in allowed.members or not re.fullmatch(pattern, data, re.DOTALL) or not _utf8(data):
            yield "is not allowed by metadata.members"
        return
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        yield "is no JSON object"
        return
    if json.dumps(values, sort_keys=True).encode() != data:  # so a name that stands there twice, too
        yield "is not written as the job writes it"
    yield from fields(values, allowed)


def fields(values: Mapping[str, Any], allowed: Metadata) -> Iterator[str]:
    """Faults of the fields beside a picture: a name that is not listed, or a value that would not pass as it is."""
    for name, value in values.items():
        rule = allowed.sidecar_fields.get(name)
        if rule is None or not metadata.is_shaped(value, rule):
            yield f"has a field that metadata.sidecar_fields does not let pass: {name}"


def label_map(data: bytes, size: tuple[int, int] | None, allowed: Metadata) -> Iterator[str]:
    """Faults of a mask: whatever it holds beside the labels of its picture, whose size is given where it is known."""
    found = list(picture(data, "png"))
    yield from found or label_maps.faults(data, size, allowed.mask_values)


def _utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def picture(data: bytes, extension: str) -> Iterator[str]:
    """Faults of an encoded picture: whatever it holds beside pixels."""
    walk = {"jpg": _jpeg, "png": _png, "webp": _webp}[extension]
    try:
        yield from walk(data)
    except (_Damage, IndexError, struct.error):
        yield f"cannot be read to its end as {extension}"


def _jpeg(data: bytes) -> Iterator[str]:
    if data[:2] != b"\xff\xd8":
        raise _Damage
    position = 2
    while True:
        start, marker = data[position], data[position + 1]
        if start != 0xFF:
            raise _Damage
        if marker == 0xD9:
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        content = data[position + 4 : position + 2 + length]
        if len(content) != length - 2:
            raise _Damage
        yield from _segment(marker, content)
        position += 2 + length
        if marker == 0xDA:
            found = _JPEG_MARKER.search(data, position)
            if not found:
                raise _Damage
            position = found.start()
    if position + 2 != len(data):
        yield "has bytes behind its end"


def _segment(marker: int, content: bytes) -> Iterator[str]:
    if marker == 0xE0 and content.startswith(b"JFIF\0"):
        if content != _JFIF:
            yield "has a JFIF header with more than its version"
    elif marker == 0xFE:
        yield "holds a comment"
    elif marker == 0xEE and content.startswith(b"Adobe") and len(content) == 12:
        return  # how colours are stored
    elif 0xE0 <= marker <= 0xEF:
        kind = re.match(rb"[A-Za-z_ ]*", content[:12])
        yield f"holds an APP{marker - 0xE0} block ({kind[0].decode() if kind else ''})"
    elif marker not in _JPEG_PLAIN:
        yield f"holds a segment of kind {marker:02x}"


def _png(data: bytes) -> Iterator[str]:
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise _Damage
    position, kind = 8, b""
    while kind != b"IEND":
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        position += 12 + length
        if position > len(data):
            raise _Damage
        if kind not in _PNG_PLAIN:
            yield f"holds a {_text(kind)} chunk"
    if position != len(data):
        yield "has bytes behind its end"


def _webp(data: bytes) -> Iterator[str]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise _Damage
    (size,) = struct.unpack_from("<I", data, 4)
    position = 12
    while position < 8 + size:
        kind = data[position : position + 4]
        (length,) = struct.unpack_from("<I", data, position + 4)
        position += 8 + length + length % 2
        if kind not in _WEBP_PLAIN:
            yield f"holds a {_text(kind)} chunk"
    if position != 8 + size or position > len(data):
        raise _Damage
    if position != len(data):
        yield "has bytes behind its end"


def _text(kind: bytes) -> str:
    return kind.decode("latin-1").strip()


def repeated(shards: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """Key and shard, for every time but the first that a key is there; `shards` has the keys by shard."""
    seen, again = set[str](), list[tuple[str, str]]()
    for name, keys in sorted(shards.items()):
        for key in keys:
            if key in seen:
                again.append((key, name))
            seen.add(key)
    return again
