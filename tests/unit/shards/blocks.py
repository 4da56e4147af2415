"""What an encoded picture is made of: JPEG segments, PNG chunks, WebP chunks, and nothing behind them."""

import struct


def blocks(data: bytes) -> list[tuple[str, bytes]]:
    """Names and contents of all blocks of a JPEG (ITU-T T.81, annex B), PNG (section 5) or WebP (RIFF) picture.

    Raises:
        ValueError: bytes stand between or behind them.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    return _png(data) if data.startswith(b"\x89PNG\r\n\x1a\n") else _webp(data)


def _jpeg(data: bytes) -> list[tuple[str, bytes]]:
    at, found = 2, []
    while data[at + 1] != 0xD9:
        if data[at] != 0xFF:
            raise ValueError("no marker where one has to be")
        marker, size = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        name = f"APP{marker - 0xE0}" if 0xE0 <= marker <= 0xEF else {0xFE: "COM"}.get(marker, f"{marker:02X}")
        found.append((name, data[at + 4 : at + 2 + size]))
        at += 2 + size
        if marker == 0xDA:  # entropy-coded data: up to a marker that is neither stuffing nor a restart
            while data[at] != 0xFF or data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:
                at += 1
    if at + 2 != len(data):
        raise ValueError("bytes behind the end of the picture")
    return found


def _png(data: bytes) -> list[tuple[str, bytes]]:
    at, found = 8, []
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        found.append((name.decode(), data[at + 8 : at + 8 + size]))
        at += 12 + size
    if found[-1][0] != "IEND" or at != len(data):
        raise ValueError("bytes behind the end of the picture")
    return found


def _webp(data: bytes) -> list[tuple[str, bytes]]:
    riff, whole, kind = struct.unpack_from("<4sI4s", data)
    if (riff, kind) != (b"RIFF", b"WEBP") or whole + 8 != len(data):
        raise ValueError("no WebP, or bytes behind it")
    at, found = 12, []
    while at < len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        found.append((name.decode(), data[at + 8 : at + 8 + size]))
        at += 8 + size + (size & 1)
    return found
