"""What a checker looks at in an image folder of the output: each object by itself, then that they fit each other."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from deid.config import Metadata
from deid.errors import ConfigError
from deid.privacy import verify_parquet, verify_shards
from deid.privacy.verify_objects import Faults
from deid.privacy.verify_shards import Shard
from deid.shards import folder, pictures, released

_UNIT = "[0-9a-f]{32}"
_CLASS = "[A-Za-z0-9_-]{1,104}"
PICTURE = re.compile(rf"(images/{_CLASS}/{_UNIT})/(({_UNIT})(?:\.([A-Za-z0-9_-]+))?\.(jpg|png|webp))")
TABLE = re.compile(rf"(images/({_CLASS})/{_UNIT})/{re.escape(folder.TABLE)}")
MASK = re.compile(rf"masks/([A-Za-z0-9_-]+)/({_UNIT})/({_UNIT})\.png")


@dataclass
class Part(Shard):
    """What was found in one object of an image folder.

    A table has the keys of its rows, a picture its own, a mask none.
    """

    files: dict[str, str] = field(
        default_factory=dict
    )  # key of each file that a table names, by the file's name
    sizes: dict[tuple[str, str], tuple[int, int] | None] = field(default_factory=dict)  # by unit and key


def read(
    name: str, data: bytes, allowed: Metadata, names: tuple[str, ...] = (), class_field: str | None = None
) -> Part:
    """Keys and faults of an object below `images/` or `masks/`.

    Args:
        name: of the object, below the run's folder.
        allowed, names: as of `verify_parquet.read`.
        class_field: the field that gives the class.
    """
    part = Part()
    if match := PICTURE.fullmatch(name):
        below, _, key, further, extension = match.groups()
        if further is not None and not verify_shards.name_allowed(further, names):
            part.faults.append("has no plain name")
        part.faults += verify_shards.picture(data, extension)
        part.keys, part.pictures = [key], 1
        part.sizes = {(below.rpartition("/")[2], key): pictures.size_of(data)} if further is None else {}
    elif match := TABLE.fullmatch(name):
        _table(part, data, match[2], allowed, names, class_field)
    elif (match := MASK.fullmatch(name)) and f"{match[1]}.png" in allowed.masks:
        part.faults += verify_shards.label_map(data, None, allowed)
        part.sizes = {(match[2], match[3]): pictures.size_of(data)}
    else:
        part.faults.append("has no plain name")
    return part


def together(parts: Mapping[str, Part]) -> Faults:
    """Where the objects of a release do not fit each other: each table names just the pictures beside it, each mask
    has the size of its picture.

    Args:
        parts: by the object's name.
    """
    named: dict[str, str] = {}
    there: dict[str, str] = {}
    sizes: dict[tuple[str, str], tuple[int, int] | None] = {}
    for name, part in parts.items():
        if match := TABLE.fullmatch(name):
            named |= {f"{match[1]}/{file}": key for file, key in part.files.items()}
        elif match := PICTURE.fullmatch(name):
            there[name] = match[3]
            sizes |= part.sizes
    for name in sorted(named.keys() ^ there.keys()):
        yield name, "is named by its table and not there" if name in named else "is not named by its table"
    for name in sorted(named.keys() & there.keys()):
        if named[name] != there[name]:
            yield name, "is named in the row of another key"
    for name, part in sorted(parts.items()):
        if MASK.fullmatch(name):
            yield from ((name, fault) for fault in _mask(part, sizes))


def _table(
    part: Part,
    data: bytes,
    class_name: str,
    allowed: Metadata,
    names: tuple[str, ...],
    class_field: str | None,
) -> None:
    table = verify_parquet.opened(data, part.faults)
    if table is None:
        return
    try:
        wanted = released.files_schema(allowed, names, verify_parquet.numbered(table.schema))
    except ConfigError:
        wanted = pa.schema([])
    if not verify_parquet.same(table.schema, wanted):
        part.faults.append("has other columns or metadata than the job writes")
        return
    columns = [name for name in wanted.names if name == "file_name" or name.endswith("_file_name")]
    columns = columns[: wanted.names.index("id")]
    for row in verify_parquet.rows(table, part, allowed):
        files = [row[column] for column in columns if row[column] is not None]
        part.files |= dict.fromkeys(files, row["id"])
        if folder.class_name(row, class_field) != class_name:
            part.faults.append(f"row {row['id']} is of another class than its folder")
        if not files:
            part.faults.append(f"row {row['id']} has no picture")
    if not part.faults and not verify_parquet.rewritten(data, table):
        part.faults.append("is not written as the job writes it")


def _mask(part: Part, sizes: Mapping[tuple[str, str], tuple[int, int] | None]) -> Iterator[str]:
    for place, size in part.sizes.items():
        if place not in sizes:
            yield "is the mask of no picture"
        elif sizes[place] != size:
            yield "is no label map of its picture"
