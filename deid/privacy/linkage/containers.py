"""What an encoded picture holds beside its pixels: the blocks of JPEG, PNG and WebP files.

Formats: ITU-T T.81, annex B; W3C PNG (third edition), section 5; RFC 9649.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # what ends the entropy-coded data of a scan
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PLAIN = (b"IHDR", b"PLTE", b"IEND", b"tRNS", b"sRGB", b"gAMA", b"cHRM", b"sBIT", b"bKGD")
_WEBP_PLAIN = (b"VP8X", b"ALPH")
_STANDARD = ("sRGB", "Adobe RGB", "AdobeRGB", "Display P3", "ProPhoto", "Gray Gamma", "Dot Gain")
_LETTER = rb"[\x20-\x7e]"
_TEXTS = [re.compile(rb"(?:%b){6,}" % unit) for unit in (_LETTER, _LETTER + rb"\0", rb"\0" + _LETTER)]


@dataclass(frozen=True)
class Block:
    kind: str  # pixels: coded pixels; plain: what decoding needs; icc: a colour profile; extra: anything else
    data: bytes


def blocks(data: bytes) -> list[Block]:
    """Blocks of a JPEG, PNG or WebP file, as far as it can be read; another file is one block "other"."""
    try:
        if data.startswith(b"\xff\xd8"):
            return list(_jpeg(data))
        if data.startswith(_PNG):
            return list(_png(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return list(_webp(data))
    except (struct.error, IndexError):
        pass  # cut short: a reader of pictures says so elsewhere
    return [Block("other", data)]


def _jpeg(data: bytes) -> Iterator[Block]:
    position = 2
    while position < len(data):
        marker = data[position + 1]
        if marker == 0xD9:
            if data[position + 2 :]:
                yield Block("extra", data[position + 2 :])
            return
        if marker == 0xFF or marker == 0x01:  # a fill byte, or a marker without data
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        payload = data[position + 4 : position + 2 + length]
        position += 2 + length
        yield Block(_jpeg_kind(marker, payload), payload)
        if marker == 0xDA:
            found = _MARKER.search(data, position)
            end = found.start() if found else len(data)
            yield Block("pixels", data[position:end])
            position = end


def _jpeg_kind(marker: int, payload: bytes) -> str:
    if marker == 0xE0:  # JFIF, whose thumbnail has so many columns and rows
        return "plain" if payload.startswith(b"JFIF\0") and not any(payload[12:14]) else "extra"
    if marker == 0xE2 and payload.startswith(b"ICC_PROFILE\0"):
        return "icc"
    if marker == 0xEE and payload.startswith(b"Adobe"):
        return "plain"
    return "extra" if marker == 0xFE or 0xE0 <= marker <= 0xEF else "plain"


def _png(data: bytes) -> Iterator[Block]:
    position, pixels = len(_PNG), []
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        payload = data[position + 8 : position + 8 + length]
        position += 12 + length
        if kind == b"IDAT":
            pixels.append(payload)
        elif kind == b"iCCP":
            yield Block("icc", _inflated(payload))
        else:
            yield Block("plain" if kind in _PNG_PLAIN else "extra", payload)
        if kind == b"IEND":
            break
    yield Block("pixels", b"".join(pixels))
    if data[position:]:
        yield Block("extra", data[position:])


def _inflated(payload: bytes) -> bytes:
    name, _, rest = payload.partition(b"\0")
    try:
        return name + zlib.decompress(rest[1:])
    except zlib.error:
        return payload


def _webp(data: bytes) -> Iterator[Block]:
    position, end = 12, 8 + struct.unpack_from("<I", data, 4)[0]
    while position + 8 <= min(end, len(data)):
        kind, length = struct.unpack_from("<4sI", data, position)
        payload = data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
        if kind in (b"VP8 ", b"VP8L"):
            yield Block("pixels", payload)
        elif kind == b"ICCP":
            yield Block("icc", payload)
        else:
            yield Block("plain" if kind in _WEBP_PLAIN else "extra", payload)
    if data[end:]:
        yield Block("extra", data[end:])


def standard_profile(data: bytes) -> bool:
    """The profile names one of the common colour spaces, so that it leads to nobody."""
    return any(name.encode(code) in data for name in _STANDARD for code in ("ascii", "utf-16-be"))


def texts(data: bytes) -> Iterator[str]:
    """Readable text of 6 or more characters in a block, of one byte each or two (UTF-16), before any JPEG in it.

    A thumbnail's tables are readable, and the same in many files.
    """
    data = data.partition(b"\xff\xd8\xff")[0]
    for pattern in _TEXTS:
        for found in pattern.findall(data):
            yield found.replace(b"\0", b"").decode("ascii")
