"""What every format of shards has in common: the index of what is in the source, and one sample of the output."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from deid.shards import storage

SIDECAR = pa.struct(
    [
        ("name", pa.string()),  # "json", "cls", "txt", or the name of a mask
        ("offset", pa.int64()),  # tar: of its bytes in the shard; else 0
        ("size", pa.int64()),  # bytes; -1: not known
        ("data", pa.large_binary()),  # the bytes themselves where they are known already
    ]
)

# One row a picture, plus one for each thing that is refused (`reason`).
INDEX = pa.schema(
    [
        ("uri", pa.string()),  # of the shard
        ("version", pa.string()),  # of the shard, see storage.Object
        ("sample", pa.int64()),  # number of the sample in its shard; its pictures share it
        ("key", pa.string()),  # of the sample: for the operator alone
        ("name", pa.string()),  # of the picture in its sample; "" for the main one
        ("extension", pa.string()),  # of the picture, lower case; "": not known
        ("offset", pa.int64()),  # tar: of the picture's bytes; Parquet: number of the row; folder: 0
        ("size", pa.int64()),  # bytes; Parquet: an estimate
        ("crc32", pa.uint32()),  # of the picture's bytes; null: not checked
        ("group", pa.int32()),  # Parquet: row group; else 0
        ("sidecars", pa.list_(SIDECAR)),  # what stands beside the picture and may be read
        ("reason", pa.string()),  # "" or a code of records.QUARANTINE
    ]
)

# Row in the table, picture, sidecars by name, reason ("" or a code of records.QUARANTINE).
Read = tuple[int, bytes, dict[str, bytes], str]


@dataclass(frozen=True)
class Layout:
    """Where the pictures and what stands beside them are in the source."""

    image_columns: tuple[str, ...] = ()  # Parquet: the first is the main one; empty: found from the schema
    metadata_table: str | None = None  # folder: base name of the tables; None: metadata.csv, .jsonl, .parquet
    pictures: tuple[str, ...] = ()  # names of further pictures that pass as they are
    masks: tuple[str, ...] = ()  # names of label maps, as "mask.png"
    root: str = ""  # folder: URI above which nothing is looked for


class Format(Protocol):
    """A way to keep pictures in files; a module with these two functions."""

    PATTERN: str  # names of files, unless the configuration has another
    RANGED: bool  # records can be read one by one; else in groups (`INDEX.group`), whole
    SEQUENCE: bool  # records of a file follow one another: units are runs of them, and nothing is shuffled

    def scan(self, file: storage.Object, layout: Layout) -> pa.Table:
        """Rows of `INDEX` of one file. Raises ObjectChanged, or InputError for what is wrong with the whole source."""

    def read(self, records: pa.Table, layout: Layout) -> Iterator[Read]:
        """What rows of `INDEX` name, in any order, each row once."""


@dataclass(frozen=True)
class Sample:
    """One sample of the output."""

    key: str  # of `keys.output_id`
    pictures: tuple[tuple[str, str, bytes], ...]  # name ("" the main one), extension, encoded bytes
    fields: Mapping[str, Any] = field(default_factory=dict)  # what the metadata policy let pass
    masks: Mapping[str, bytes] = field(default_factory=dict)  # PNG by name, as the policy names it


def refused(file: storage.Object, reason: str, key: str = "", **place: int) -> dict[str, Any]:
    """Row of `INDEX` of something that cannot be processed."""
    return row(file, key=key, reason=reason, **place)


def row(file: storage.Object, **given: Any) -> dict[str, Any]:
    """Row of `INDEX` with defaults."""
    fixed: dict[str, Any] = {"uri": file.uri, "version": file.version, "crc32": None, "sidecars": []}
    numbers = dict.fromkeys(("sample", "offset", "size", "group"), 0)
    return fixed | numbers | dict.fromkeys(("key", "name", "extension", "reason"), "") | given


def arranged(sample: Sample, names: tuple[str, ...], extra: int) -> dict[str, tuple[str, bytes]]:
    """Extension and bytes of a sample's pictures, by the name that the output gives them: "" the main one, names of
    the list as they are, others by their number as "1", "2", ...

    Raises:
        ValueError: more than `extra` of them are not on the list, or one is there twice.
    """
    placed: dict[str, tuple[str, bytes]] = {}
    for name, extension, data in sample.pictures:
        if name and name not in names:
            name = str(1 + sum(other.isdigit() for other in placed))
            if int(name) > extra:
                raise ValueError(f"a sample has more than {extra} further pictures")
        if name in placed:
            raise ValueError("a picture of a sample is there twice")
        placed[name] = extension, data
    return placed
