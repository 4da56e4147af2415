"""A check that cannot fail is worthless: every needle that is planted is found, and nothing where none is."""

import base64
import bz2
import codecs
import gzip
import hashlib
import io
import json
import lzma
import pickle
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deid.privacy import leaks
from deid.privacy.leaks import search

NAME = 'Zoë "q7" Würth-4711'
NOISE = np.random.default_rng(5).bytes(5000)

WRITTEN: dict[str, Callable[[str], bytes]] = {
    "utf-8": lambda text: text.encode(),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "utf-16 with mark": lambda text: text.encode("utf-16"),
    "latin-1": lambda text: text.encode("latin-1"),
    "hex": lambda text: text.encode().hex().encode(),
    "HEX": lambda text: text.encode().hex().upper().encode(),
    **{
        f"base64 {shift}": lambda text, shift=shift: base64.b64encode(b"x" * shift + text.encode() + b"yz")
        for shift in range(3)
    },
    "base64url": lambda text: base64.urlsafe_b64encode(b"?" + text.encode()),
    "base64 of utf-16": lambda text: base64.b64encode(text.encode("utf-16-le")),
    "percent": lambda text: urllib.parse.quote(text).encode(),
    "json": lambda text: json.dumps({"name": text}).encode(),
    "json, not escaped": lambda text: json.dumps({"name": text}, ensure_ascii=False).encode(),
    "python": lambda text: ascii([text]).encode(),
    "python, bytes": lambda text: repr([text.encode()]).encode(),
    "reversed": lambda text: text[::-1].encode(),
    "rot13": lambda text: codecs.encode(text, "rot13").encode(),
    "lower": lambda text: text.lower().encode(),
    "sha256": lambda text: hashlib.sha256(text.encode()).hexdigest().encode(),
    "md5": lambda text: hashlib.md5(text.encode(), usedforsecurity=False).digest(),
}


def tar(data: bytes, **pax: str) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("member.bin")
        info.size, info.pax_headers = len(data), pax
        archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def zipped(data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", data)
    return sink.getvalue()


def parquet(value: object, **metadata: str) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"column": pa.array([value] * 3)}).replace_schema_metadata(metadata)
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def png(data: bytes) -> bytes:
    info, sink = PngInfo(), io.BytesIO()
    info.add_text("Comment", data.decode("latin-1") * 5, zip=True)
    Image.new("L", (4, 4)).save(sink, "PNG", pnginfo=info)
    return sink.getvalue()


def compressed(codec: str) -> Callable[[bytes], bytes]:
    def pack(data: bytes) -> bytes:
        sink = io.BytesIO()
        with pa.CompressedOutputStream(sink, codec) as stream:
            stream.write(data)
            stream.flush()
            return sink.getvalue()

    return pack


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": compressed("zstd"),
    "lz4": compressed("lz4"),
    "tar": tar,
    "zip": zipped,
    "pickle": lambda data: pickle.dumps({"a": [data]}),
    "pickle of text": lambda data: pickle.dumps({"a": data.decode("latin-1")}),
    "parquet of bytes": parquet,
    "parquet of lists": lambda data: parquet([{"inner": data}]),
    "parquet of a tar": lambda data: parquet(tar(data)),
    "tar.gz in parquet in zlib": lambda data: zlib.compress(parquet(gzip.compress(tar(data)))),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_every_encoding_is_found(how: str) -> None:
    planted = {"object": NOISE + WRITTEN[how](NAME) + NOISE}
    assert {hit.needle for hit in search(planted, {"name": NAME, "other": "Jane Doe"})} == {"name"}
    assert all(hit.where == "object" for hit in search(planted, {"name": NAME}))


@pytest.mark.parametrize("how", PACKED)
def test_every_container_is_unpacked(how: str) -> None:
    planted = PACKED[how](b"x" * 50 + b"Jane Doe 4711" + b"y" * 50)
    hits = search(
        {"object": NOISE + planted if how in ("zlib", "gzip", "zstd") else planted}, {"n": "Jane Doe 4711"}
    )
    assert hits
    assert {hit.encoding for hit in hits} == {"utf-8"}


def test_text_in_compressed_blocks_of_pictures_is_found() -> None:
    planted = png(b"Jane Doe 4711")
    assert b"Jane" not in planted
    assert search({"a.png": planted}, {"n": "Jane Doe 4711"})


def test_names_and_metadata_are_searched() -> None:
    assert search({"raw/Jane Doe 4711.tar": b""}, {"n": "Jane Doe 4711"})[0].where.startswith("name ")
    assert search({"a": parquet(1, source="Jane Doe 4711")}, {"n": "Jane Doe 4711"})
    assert search({"a": gzip.compress(tar(b"", comment="Jane Doe 4711"))}, {"n": "Jane Doe 4711"})


def test_a_folder_is_searched_at_all_depths_and_with_its_names(tmp_path: Path) -> None:
    (tmp_path / "a" / "Jane Doe 4711").mkdir(parents=True)
    (tmp_path / "a" / "b.log").write_bytes(b"secret " * 3)
    (tmp_path / "link").symlink_to("secret secret ")
    hits = search(tmp_path, {"n": "Jane Doe 4711", "s": "secret secret"})
    assert {(hit.needle, hit.where) for hit in hits} == {
        ("n", "name a/Jane Doe 4711"),
        ("s", "a/b.log"),
        ("s", "link"),
    }


@pytest.mark.parametrize("kind", ["<f2", "<f4", ">f4", "<f8"])
def test_a_vector_is_found_in_any_number_format(kind: str) -> None:
    rng = np.random.default_rng(3)
    vector, other = rng.normal(size=(2, 128)).astype(np.float32)
    needles = {"own": leaks.vector_encodings(vector), "other": leaks.vector_encodings(other)}
    table = np.stack([rng.normal(size=128), vector]).astype(kind).tobytes()
    for data in (
        zlib.compress(table),
        json.dumps([float(v) for v in vector]).encode(),
        repr(list(vector)).encode(),
    ):
        assert {hit.needle for hit in search({"x": data}, needles)} == {"own"}


@pytest.mark.parametrize("pack", [bytes.hex, base64.b64encode, base64.urlsafe_b64encode, repr, bytes])
def test_bytes_are_found_as_they_are_written(pack: Callable[[bytes], str | bytes]) -> None:
    secret = np.random.default_rng(9).bytes(32)
    written = pack(secret)
    planted = written.encode() if isinstance(written, str) else written
    assert search({"x": NOISE + planted}, {"secret": secret})
    assert not search(
        {"x": NOISE + pack(secret[::-1][:20] + bytes(12)).__repr__().encode()}, {"secret": secret}
    )


def test_nothing_is_found_where_nothing_is() -> None:
    clean = {"a.tar": tar(NOISE), "b.parquet": parquet("nobody"), "c": zlib.compress(NOISE)}
    assert search(clean, {"name": NAME, "secret": np.random.default_rng(1).bytes(32)}) == []


@pytest.mark.parametrize(
    "data", [b"PAR1" + NOISE + b"PAR1", tar(NOISE)[:900], zipped(NOISE)[:-30], b"BZh9" + NOISE]
)
def test_a_broken_container_is_searched_as_it_is(data: bytes) -> None:
    assert [hit.where for hit in search({"x": data + b"Jane Doe 4711"}, {"n": "Jane Doe 4711"})] == ["x"]


@pytest.mark.parametrize("needle", ["Jane", b"1234567"])
def test_a_needle_that_would_be_found_by_chance_is_refused(needle: str | bytes) -> None:
    with pytest.raises(ValueError, match="at least"):
        search({"x": b""}, {"n": needle})
