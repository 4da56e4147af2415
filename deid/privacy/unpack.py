"""Whatever can be unpacked from bytes: archives, tables, and compressed streams at any place in them."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SHORTEST = 8  # bytes; less is not looked into
DEPTH = 6  # containers within containers
LARGEST = 1 << 28  # bytes that one container may unpack to


def unpacked(where: str, data: bytes, depth: int = DEPTH) -> Iterator[tuple[str, bytes]]:
    """The content, and what can be unpacked from it: tar, zip, Parquet, and compressed streams at any place in it."""
    yield where, data
    if not depth or len(data) < SHORTEST:
        return
    for kind, unpack in _CONTAINERS.items():
        for number, inner in enumerate(unpack(data)):
            yield from unpacked(f"{where} > {kind} {number}", inner, depth - 1)


def _tar(data: bytes) -> Iterator[bytes]:
    if data[257:262] != b"ustar":
        return
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for info in archive:
                yield json.dumps([info.name, info.linkname, info.pax_headers], ensure_ascii=False).encode(
                    errors="surrogateescape"
                )
                stream = archive.extractfile(info) if info.isreg() else None
                if stream is not None:
                    yield stream.read()
    except (tarfile.TarError, OSError):
        return


def _zip(data: bytes) -> Iterator[bytes]:
    if b"PK\x05\x06" not in data:
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield archive.read(name)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, zlib.error, ValueError):
        return


def _parquet(data: bytes) -> Iterator[bytes]:
    """Schema and metadata, then the values of every column, one a line, binary ones apart as well."""
    if data[:4] != b"PAR1" or data[-4:] != b"PAR1":
        return
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError):
        return
    yield str(table.schema).encode() + repr(table.schema.metadata).encode()
    for column in table.columns:
        values = list(_scalars(column.to_pylist()))
        yield "\n".join(str(value) for value in values if not isinstance(value, bytes)).encode(
            errors="surrogatepass"
        )
        yield from (value for value in values if isinstance(value, bytes))


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from _scalars([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _scalars(inner)
    elif value is not None:
        yield value


def _streams(
    marks: tuple[bytes, ...], decoder: Callable[[], Any], errors: tuple[type[Exception], ...]
) -> Callable[[bytes], Iterator[bytes]]:
    """An unpacker of compressed streams that begin with one of the marks, wherever one stands."""

    def unpack(data: bytes) -> Iterator[bytes]:
        for mark in marks:
            at = data.find(mark)
            while at >= 0:
                try:
                    inner = decoder().decompress(memoryview(data)[at:], LARGEST)
                except errors:
                    inner = b""
                if len(inner) >= SHORTEST:
                    yield bytes(inner)
                at = data.find(mark, at + 1)

    return unpack


class _Arrow:
    """A decoder of one frame, by pyarrow."""

    def __init__(self, codec: str) -> None:
        self.codec = codec

    def decompress(self, data: memoryview, most: int) -> bytes:
        parts, stream = [], pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), self.codec)
        try:
            while part := stream.read(min(most, 1 << 16)):
                parts.append(part)
                most -= len(part)
        except OSError:  # what stands behind the frame is none; what came before counts
            pass
        return b"".join(parts)


_CONTAINERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "tar": _tar,
    "zip": _zip,
    "parquet": _parquet,
    "zlib": _streams((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), zlib.decompressobj, (zlib.error,)),
    "gzip": _streams((gzip.compress(b"")[:3],), lambda: zlib.decompressobj(31), (zlib.error,)),
    "bzip2": _streams((b"BZh",), bz2.BZ2Decompressor, (OSError, EOFError, ValueError)),
    "xz": _streams((b"\xfd7zXZ\0",), lzma.LZMADecompressor, (lzma.LZMAError, EOFError)),
    "zstd": _streams((b"\x28\xb5\x2f\xfd",), lambda: _Arrow("zstd"), (OSError, pa.ArrowException)),
    "lz4": _streams((b"\x04\x22\x4d\x18",), lambda: _Arrow("lz4"), (OSError, pa.ArrowException)),
}
