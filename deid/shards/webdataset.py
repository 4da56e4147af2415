"""WebDataset shards: an index of the pictures in a tar, ranged reads of them, and a writer.

The key of a member is its path up to the first dot of its base name, so `img.v1.jpg` and `img.v2.jpg` are one sample.
Consecutive members with one key are one sample. A record is one picture: a sample with two pictures makes two records
that share its sidecar members (.json, .cls). A member without a key (no dot, or a dot first) is refused as "no_image".
"""

import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deid.shards import storage, tar
from deid.shards.pictures import EXTENSIONS

# One row a picture, plus one for each thing that is refused (`reason`, then offset alone has a meaning).
INDEX = pa.schema(
    [
        ("uri", pa.string()),  # of the shard
        ("version", pa.string()),  # of the shard, see storage.Object
        ("key", pa.string()),  # of the sample: for the operator alone
        ("extension", pa.string()),  # of the picture, lower case
        ("offset", pa.int64()),  # of the picture's bytes in the shard
        ("size", pa.int64()),  # bytes
        ("crc32", pa.uint32()),  # of the picture's bytes
        ("json_offset", pa.int64()),
        ("json_size", pa.int64()),  # bytes; -1: the sample has none
        ("cls_offset", pa.int64()),
        ("cls_size", pa.int64()),  # bytes; -1: the sample has none
        ("reason", pa.string()),  # "" or no_image, unsafe_member, shard_damaged of records.QUARANTINE
    ]
)

UNREAD = frozenset({"heic", "heif", "avif", "jxl", "jp2", "dng"})  # records that end as not_an_image
_SIDECARS = ("json", "cls")
_PLAIN_KEY = re.compile("[A-Za-z0-9_-]+")
_GAP = 1 << 20  # bytes: ranges closer than this are fetched as one
_BATCH = 16 << 20  # bytes of records that are fetched together
_THREADS = 8

Read = tuple[
    int, bytes, dict[str, bytes], str
]  # row in the table, picture, sidecar members, reason ("" or a code)


def scan(file: storage.Object) -> pa.Table:
    """Index (rows of `INDEX`, in the order of the shard) of one shard, which is read once from end to end.

    A damaged shard gives the records before the damage, and a row "shard_damaged" at the end of the last sound member.
    Links, devices and names that lead out of the archive give a row "unsafe_member" each; a sample without a picture
    gives a row "no_image".

    Raises:
        ObjectChanged: the shard is not the one that was listed.
    """
    index = _Index(file)
    reader = tar.Reader(file)
    try:
        for member in reader:
            index.add(member, reader)
        index.close_sample()
    except tar.Damage:
        index.close_sample()
        index.refuse("shard_damaged", "", index.end)
    return pa.Table.from_pylist(index.rows, schema=INDEX)


def shared_keys(records: pa.Table) -> int:
    """Pictures that share their sample with the picture before, as `img.v1.jpg` and `img.v2.jpg` do."""
    pictures = records.filter(pc.equal(records["reason"], ""))
    before, after = pictures.slice(0, max(len(pictures) - 1, 0)), pictures.slice(1)
    same = [pc.equal(before[name], after[name]) for name in ("uri", "key")]
    return int(pc.sum(pc.and_(*same)).as_py() or 0)


def read(records: pa.Table) -> Iterator[Read]:
    """Pictures and sidecar members of rows of `INDEX`, in the order in which they lie, by merged ranged reads.

    The reason is "record_changed", and the bytes are empty, where shard, size or CRC-32 are not those of the index.
    """
    rows = [dict(row, number=n) for n, row in enumerate(records.select(INDEX.names).to_pylist())]
    batches = iter(_batches(sorted(rows, key=lambda row: (row["uri"], row["offset"]))))
    with ThreadPoolExecutor(_THREADS) as pool:
        while window := list(islice(batches, _THREADS)):
            for result in pool.map(_fetch, window):
                yield from result


def write_shard(samples: Iterable[tuple[str, dict[str, bytes]]]) -> bytes:
    """A ustar archive of samples (key, {extension: bytes}), the same bytes for the same samples.

    No time, no owner, mode 0644, two blocks of zeros at the end.

    Raises:
        ValueError: a key that is empty, not plain (letters, digits, "-", "_") or given twice.
    """
    sink, seen = io.BytesIO(), set[str]()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, members in samples:
            if key in seen or not _PLAIN_KEY.fullmatch(key):
                raise ValueError("the key of a sample is not plain, or is there twice")
            seen.add(key)
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


class _Index:
    """Rows of one shard as they are found."""

    def __init__(self, file: storage.Object) -> None:
        self.file, self.rows, self.end = file, list[dict[str, Any]](), 0
        self._key, self._first = "", 0
        self._pictures: list[dict[str, Any]] = []
        self._sidecars: dict[str, tuple[int, int]] = {}

    def add(self, member: tar.Member, reader: tar.Reader) -> None:
        self.end = member.offset + member.size
        if member.is_folder:
            return
        if not member.is_file or member.name.startswith("/") or ".." in member.name.split("/"):
            self.refuse("unsafe_member", member.name, member.offset)
            return
        folder, slash, base = member.name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if not stem or not dot:
            self.close_sample()
            self.refuse("no_image", member.name, member.offset)
            return
        key = folder + slash + stem
        if key != self._key:
            self.close_sample()
            self._key, self._first = key, member.offset
        self._add_to_sample(member, extension.lower(), reader)

    def _add_to_sample(self, member: tar.Member, extension: str, reader: tar.Reader) -> None:
        last = extension.rpartition(".")[2]
        if last in EXTENSIONS or last in UNREAD:
            place = {"offset": member.offset, "size": member.size, "crc32": reader.crc32(member)}
            self._pictures.append({"key": self._key, "extension": last, "reason": "", **place})
        elif extension in _SIDECARS:
            self._sidecars.setdefault(extension, (member.offset, member.size))

    def close_sample(self) -> None:
        """Rows of the sample that is complete now."""
        if self._key and not self._pictures:
            self.refuse("no_image", self._key, self._first)
        for picture in self._pictures:
            for name in _SIDECARS:
                offset, size = self._sidecars.get(name, (0, -1))
                picture |= {f"{name}_offset": offset, f"{name}_size": size}
            self._append(picture)
        self._key, self._pictures, self._sidecars = "", [], {}

    def refuse(self, reason: str, key: str, offset: int) -> None:
        empty = dict.fromkeys(("size", "crc32", "json_offset", "cls_offset"), 0)
        absent = {"extension": "", "json_size": -1, "cls_size": -1}
        self._append({"key": key, "offset": offset, "reason": reason, **empty, **absent})

    def _append(self, row: dict[str, Any]) -> None:
        self.rows.append({"uri": self.file.uri, "version": self.file.version, **row})


def _batches(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Neighbours in one shard, not more than `_BATCH` bytes from first to last unless one record has more."""
    batch: list[dict[str, Any]] = []
    for row in rows:
        if batch and (
            row["uri"] != batch[0]["uri"] or row["offset"] + row["size"] - batch[0]["offset"] > _BATCH
        ):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _places(row: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Offset and size of each member of a record; "" is the picture."""
    places = {name: (row[f"{name}_offset"], row[f"{name}_size"]) for name in _SIDECARS}
    return {
        name: place for name, place in {"": (row["offset"], row["size"]), **places}.items() if place[1] >= 0
    }


def _merged(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Start and end of the ranges that hold all places (offset, size)."""
    ranges: list[tuple[int, int]] = []
    for start, size in sorted(place for place in places if place[1]):
        if ranges and start - ranges[-1][1] < _GAP:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], start + size))
        else:
            ranges.append((start, start + size))
    return ranges


def _fetch(batch: list[dict[str, Any]]) -> list[Read]:
    uri = batch[0]["uri"]
    ranges = _merged(place for row in batch for place in _places(row).values())
    try:
        data = {
            (start, end): storage.read_range(uri, start, end - start, batch[0]["version"])
            for start, end in ranges
        }
    except storage.ObjectChanged:
        return [(row["number"], b"", {}, "record_changed") for row in batch]
    return [_cut(row, data) for row in batch]


def _cut(row: dict[str, Any], data: dict[tuple[int, int], bytes]) -> Read:
    members = {}
    for name, (offset, size) in _places(row).items():
        found = (
            (start, held) for (start, end), held in data.items() if start <= offset and offset + size <= end
        )
        start, held = next(found, (offset, b""))
        members[name] = held[offset - start : offset - start + size]
    picture = members.pop("")
    if len(picture) != row["size"] or zlib.crc32(picture) != row["crc32"]:
        return row["number"], b"", {}, "record_changed"
    return row["number"], picture, members, ""
