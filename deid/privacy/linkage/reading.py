"""Reading both sides of the attack shard by shard, with a memory that does not grow with the pictures' bytes."""

import hashlib
import json
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deid.errors import PictureError
from deid.privacy.linkage import containers
from deid.shards import pictures, storage
from deid.shards.pictures import EXTENSIONS, extension_of
from deid.shards.ranged import buffered

SMALLEST = 1024  # bytes of a member or segment whose being twice is no accident
_SIDE = 16  # px of the picture by which pairs are found
_PIXELS = 200_000_000  # of the largest picture that is decoded


@dataclass(frozen=True)
class Member:
    info: tarfile.TarInfo
    data: bytes

    @property
    def key(self) -> str:
        folder, slash, base = self.info.name.rpartition("/")
        return folder + slash + base.partition(".")[0]

    @property
    def extension(self) -> str:
        return self.info.name.rpartition(".")[2].lower()

    @property
    def is_picture(self) -> bool:
        return self.extension in EXTENSIONS


@dataclass(frozen=True)
class Sample:
    """One picture of the corpus or of the output."""

    key: str
    shard: int  # number of its shard, by name
    number: int  # of pictures before it, in the order of shard names and offsets
    size: int  # bytes
    content: int  # hash of its bytes
    vector: NDArray[np.float32] | None  # [D] of length 1; None: it cannot be decoded


@dataclass
class Reservoir:
    """At most `most` samples, each picture with the same chance (Vitter 1985, algorithm R)."""

    most: int
    seen: int = 0
    kept: list[Sample] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def offer(self, member: Member, shard: int) -> None:
        place = len(self.kept) if self.seen < self.most else int(self.rng.integers(self.seen + 1))
        if place < self.most:
            data = member.data
            sample = Sample(member.key, shard, self.seen, len(data), digest(data), vector(data))
            self.kept[place : place + 1] = [sample]
        self.seen += 1

    def sorted(self) -> list[Sample]:
        return sorted(self.kept, key=lambda sample: sample.number)


@dataclass
class Hashes:
    """64-bit hashes, 8 bytes each."""

    values: "array[int]" = field(default_factory=lambda: array("Q"))

    def add(self, value: int) -> None:
        self.values.append(value)

    def array(self) -> NDArray[np.uint64]:
        return np.unique(np.asarray(self.values, np.uint64))


def digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def large_blocks(blocks: list[containers.Block]) -> Iterator[int]:
    """Hashes of what a picture holds that is large enough to be known again, standard colour profiles apart."""
    for block in blocks:
        standard = block.kind == "icc" and containers.standard_profile(block.data)
        if block.kind in ("pixels", "icc", "extra") and len(block.data) >= SMALLEST and not standard:
            yield digest(block.data)


def vector(data: bytes) -> NDArray[np.float32] | None:
    """A picture in a few numbers [D] that its unchanged background decides, of mean 0 and length 1."""
    try:
        small = pictures.Image.fromarray(pictures.decode(data, _PIXELS).pixels)
    except PictureError:
        return None
    values = np.asarray(small.resize((_SIDE, _SIDE), pictures.Image.Resampling.BOX), np.float32).reshape(-1)
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length else None


def fresh(data: bytes, extension: str, quality: int) -> bool:
    """The file is what encoding its own pixels anew gives: it holds nothing beside them."""
    try:
        decoded = pictures.decode(data, _PIXELS)
        return pictures.encode(decoded.pixels, extension, quality, decoded.grey) == data
    except PictureError:
        return False


def members(file: storage.Object) -> Iterator[Member]:
    """Members of a tar, whatever they are, in its order, up to its end or to the first damage."""
    try:
        with tarfile.open(fileobj=buffered(file), mode="r:") as archive:
            while (info := archive.next()) is not None:
                held = archive.extractfile(info) if info.isreg() else None
                yield Member(info, held.read() if held else b"")
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep all that it has seen
    except (tarfile.TarError, EOFError):
        return


def shards(files: Sequence[storage.Object]) -> Iterator[tuple[str, Iterator[Member]]]:
    """Shards by name, each with its members: tars, Parquet files with pictures, folders with picture files."""
    folders: dict[str, list[storage.Object]] = {}
    for file in files:
        if file.uri.endswith(".tar"):
            yield file.uri, members(file)
        elif file.uri.endswith(".parquet") and (columns := picture_columns(file)):
            yield file.uri, rows(file, columns)
        elif file.uri.rpartition(".")[2].lower() in EXTENSIONS:
            folders.setdefault(file.uri.rpartition("/")[0], []).append(file)
    for name, held in sorted(folders.items()):
        yield name, (Member(tarfile.TarInfo(f.uri), storage.read_bytes(f.uri)) for f in held)


def picture_columns(file: storage.Object) -> list[str]:
    """Columns of a Parquet file that may hold pictures: bytes, or a struct with bytes."""
    with _table(file) as table:
        return [field.name for field in table.schema_arrow if _bytes(field.type)]


def rows(file: storage.Object, columns: Sequence[str]) -> Iterator[Member]:
    """Each picture of a Parquet file under its path, or the row's id or number, and each row's other values as JSON."""
    with _table(file) as table:
        number = 0
        for batch in table.iter_batches(64):
            for row in batch.to_pylist():
                name = str(row.get("id") or number)
                number += 1
                for column in columns:
                    value = row.pop(column)
                    data, path = (
                        (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
                    )
                    if data:
                        yield Member(tarfile.TarInfo(path or f"{name}.{extension_of(data) or 'bin'}"), data)
                row.pop("id", None)
                yield Member(tarfile.TarInfo(f"{name}.json"), json.dumps(row, default=str).encode())


def _table(file: storage.Object) -> pq.ParquetFile:
    return pq.ParquetFile(pa.PythonFile(buffered(file), mode="r"))


def _bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_bytes(kind.field(n).type) for n in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def times(data: bytes) -> int:
    """1 if a gzip or zip file holds a time (RFC 1952, 2.3; APPNOTE 4.4.6), else 0."""
    if data[:2] == b"\x1f\x8b":
        return int(any(data[4:8]))
    if data[:4] == b"PK\x03\x04":
        return int(data[10:14] not in (b"\0\0\0\0", b"\0\0\x21\0"))
    return 0


def header_faults(info: tarfile.TarInfo) -> int:
    """1 if a tar header says when or by whom a member was made, else 0."""
    owned = (info.mtime, info.uid, info.gid, info.uname, info.gname, info.linkname)
    return int(any(owned) or any(name != "path" for name in info.pax_headers))


def header_texts(info: tarfile.TarInfo) -> Iterator[str]:
    yield from info.name.split("/")
    yield from (info.uname, info.gname, info.linkname)
    yield from (value for value in info.pax_headers.values() if isinstance(value, str))


def json_texts(data: bytes, keys: bool, numbers: bool) -> Iterator[tuple[str, str]]:
    """Field at the top ("" above any) and text, of each string in JSON; what is no JSON is one text.

    Args:
        keys: the names of fields too.
        numbers: numbers of 6 or more digits too.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        yield "", data.decode("utf-8", "replace")
        return
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        top, value = stack.pop()
        if isinstance(value, dict):
            stack += [(top or str(name), inner) for name, inner in value.items()]
            if keys:
                yield from ((top or str(name), str(name)) for name in value)
        elif isinstance(value, list):
            stack += [(top, inner) for inner in value]
        elif isinstance(value, str):
            yield top, value
        elif numbers and isinstance(value, int | float) and sum(c.isdigit() for c in str(value)) >= 6:
            yield top, str(value)
