"""WebDataset shards: an index of the pictures in a tar, ranged reads of them, and a writer.

The key of a member is its path up to the first dot of its base name, so `img.v1.jpg` and `img.v2.jpg` are one sample.
Consecutive members with one key are one sample. A record is one picture: a sample with two pictures makes two records
that share what lies beside them (.json, .cls, .txt, masks). A member without a key (no dot, or a dot first) is refused
as "no_image".
"""

import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deid.shards import storage, tar
from deid.shards.formats import INDEX, Layout, Read
from deid.shards.pictures import EXTENSIONS

PATTERN = "*.tar"
RANGED = True
SEQUENCE = False
# pictures that are not read: records that end as not_an_image
UNREAD = frozenset(
    {
        "heic",
        "heif",
        "avif",
        "jxl",
        "jp2",
        "j2k",
        "jpx",
        "tga",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "psd",
        "pcx",
        "ico",
    }
    | {"dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2"}  # as cameras store them
)
_SIDECARS = ("json", "cls", "txt")
_PLAIN_KEY = re.compile("[A-Za-z0-9_-]+")
_GAP = 1 << 20  # bytes: ranges closer than this are fetched as one
_BATCH = 16 << 20  # bytes of records that are fetched together
_THREADS = 8


def scan(file: storage.Object, layout: Layout = Layout()) -> pa.Table:  # noqa: B008 - it is frozen
    """Index (rows of `INDEX`, in the order of the shard) of one shard, which is read once from end to end.

    A damaged shard gives the records before the damage, and a row "shard_damaged" at the end of the last sound member.
    Links, devices and names that lead out of the archive give a row "unsafe_member" each; a sample without a picture
    gives a row "no_image".

    Raises:
        ObjectChanged: the shard is not the one that was listed.
    """
    index = _Index(file, layout)
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
    return len(pictures) - len(pictures.group_by(["uri", "sample"]).aggregate([]))


def read(records: pa.Table, layout: Layout = Layout()) -> Iterator[Read]:  # noqa: B008 - it is frozen
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


def members(
    pictures: Mapping[str, tuple[str, bytes]], fields: Mapping[str, Any], masks: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Members of a sample by extension: pictures, masks, `cls`, `txt`, and the other fields as `json`.

    Raises:
        ValueError: a mask would take a picture's place.
    """
    found = {f"{name}.{extension}".lstrip("."): data for name, (extension, data) in pictures.items()}
    if found.keys() & masks.keys():
        raise ValueError("a picture and a mask of a sample have one name")
    found |= masks
    rest = dict(fields)
    for name in ("cls", "txt"):
        if name in rest:
            found[name] = str(rest.pop(name)).encode()
    if rest:
        found["json"] = json.dumps(rest, sort_keys=True).encode()
    return found


class _Index:
    """Rows of one shard as they are found."""

    def __init__(self, file: storage.Object, layout: Layout) -> None:
        self.file, self.layout, self.rows, self.end = file, layout, list[dict[str, Any]](), 0
        self._masks = {mask.lower(): mask for mask in layout.masks}  # as names of members are compared
        self._key, self._first, self._samples = "", 0, 0
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
        name, _, last = extension.rpartition(".")
        if extension in _SIDECARS or extension in self._masks:
            beside = self._masks.get(extension, extension)
            self._sidecars.setdefault(beside, (member.offset, member.size))
        elif last in EXTENSIONS or last in UNREAD:
            place = {"offset": member.offset, "size": member.size, "crc32": reader.crc32(member)}
            self._pictures.append({"name": name, "extension": last, **place})

    def close_sample(self) -> None:
        """Rows of the sample that is complete now."""
        if self._key and not self._pictures:
            self.refuse("no_image", self._key, self._first)
        names, beside = (
            _Names(self.layout),
            [
                {"name": name, "offset": offset, "size": size}
                for name, (offset, size) in self._sidecars.items()
            ],
        )
        for picture in self._pictures:
            picture |= {"name": names.of(picture["name"]), "sidecars": beside, "reason": ""}
            self._append(self._key, picture)
        self._key, self._pictures, self._sidecars = "", [], {}
        self._samples += 1

    def refuse(self, reason: str, key: str, offset: int) -> None:
        nothing = {"name": "", "extension": "", "size": 0, "sidecars": []}
        self._append(key, {"offset": offset, "reason": reason, **nothing})

    def _append(self, key: str, row: dict[str, Any]) -> None:
        place = {"uri": self.file.uri, "version": self.file.version, "sample": self._samples, "group": 0}
        self.rows.append({**place, "key": key, **row})


class _Names:
    """Names of one sample's pictures as they go out: those on the list as they are; of the others the first is "",
    the next "1", "2" and so on, since a name may be anything."""

    def __init__(self, layout: Layout) -> None:
        self.listed = {name.lower(): name for name in layout.pictures}
        self.others, self.used = 0, set[str]()

    def of(self, name: str) -> str:
        """The name under which the next picture, `name` in its source (lower case), goes out."""
        if name in self.listed and name not in self.used:
            self.used.add(name)
            return self.listed[name]
        self.others += 1
        return str(self.others - 1) if self.others > 1 else ""


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
    beside = {entry["name"]: (entry["offset"], entry["size"]) for entry in row["sidecars"]}
    return {"": (row["offset"], row["size"]), **beside}


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
