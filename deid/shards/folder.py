"""Image folders: each file is a picture, and tables of metadata may stand beside them.

In: files at any depth below the root. A file is a picture by its extension, or when it has none; hidden files and
others are passed over, as Hugging Face's imagefolder and torchvision do. Tables are those of imagefolder:
`metadata.csv`, `.jsonl` or `.parquet` with a column `file_name`, a path below the table's own folder; the nearest
folder above a file that has a table counts. What the table says of a file is its .json, with the name of the file's own
folder as `folder` (torchvision's class). A label map `x.mask.png` beside `x.jpg` is a mask where the layout names
`mask.png`.

Out: `images/CLASS/UNIT/KEY.EXT` with a table for each such folder, so that torchvision's ImageFolder over `images` has
the classes, and imagefolder the fields. The tables are Parquet, since imagefolder takes the types of all from one of
them, whichever comes first: JSON lines in which a field is always null would make the others fail.
"""

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pyarrow as pa

from deid.config import Metadata
from deid.shards import folder_table, formats, released, storage
from deid.shards.formats import INDEX, Layout, Read, Sample
from deid.shards.pictures import EXTENSIONS
from deid.shards.webdataset import UNREAD

NO_CLASS = "all"
TABLE = "metadata.parquet"
_THREADS = 8
_CLASS = re.compile("[A-Za-z0-9_-]{1,100}")

PATTERN = "*"
RANGED = True
SEQUENCE = False


def scan(file: storage.Object, layout: Layout) -> pa.Table:
    """Index (rows of `formats.INDEX`) of one file: a row for a picture, none for what is no picture.

    A picture that its table names more than once, with different fields, gives a row "ambiguous". A table gives a row
    "no_image" for each file that it names and that is not there, or is no picture.

    Raises:
        InputError: a table that cannot be read, or two in one folder.
    """
    path = file.uri[len(layout.root.rstrip("/")) + 1 :] if layout.root else file.uri
    *folders, base = path.split("/")
    if any(name.startswith(".") for name in (*folders, base)):
        return INDEX.empty_table()
    if base in folder_table.names(layout):
        missing = folder_table.missing(file, lambda name: _is_picture(name) or _is_mask(name, layout))
        lost = ["/".join([*folders, name]) for name in missing]
        rows = [formats.refused(file, "no_image", name) for name in lost]
        return pa.Table.from_pylist(rows, schema=INDEX)
    if not _is_picture(path) or _is_mask(path, layout):
        return INDEX.empty_table()
    return pa.Table.from_pylist([_row(file, path, _extension(base), layout)], schema=INDEX)


def read(records: pa.Table, layout: Layout) -> Iterator[Read]:
    """Pictures and sidecars ("json", masks) of rows of `formats.INDEX`, in their order.

    The reason is "record_changed", and the bytes are empty, where the file is not the one that was planned.
    """
    rows = iter([dict(row, number=n) for n, row in enumerate(records.select(INDEX.names).to_pylist())])
    with ThreadPoolExecutor(_THREADS) as pool:
        while window := list(islice(rows, _THREADS)):
            yield from pool.map(_fetch, window)


def write(
    samples: Iterable[Sample],
    unit: str,
    policy: Metadata,
    names: tuple[str, ...] = (),
    extra: int = 0,
    class_field: str | None = None,
) -> list[tuple[str, bytes]]:
    """Names and contents of the objects of a unit, sorted by name; the same for the same samples.

    Pictures lie in `images/CLASS/UNIT/`, each such folder with a table (`released.files_schema`); masks, which
    torchvision would take for pictures, in `masks/NAME/UNIT/KEY.png`.

    Args:
        unit: its name, random.
        policy, names, extra: as of `parquet.write`.
        class_field: field of the samples that names the class; `all` for those whose value is no plain name.

    Raises:
        ValueError: as `parquet.write`.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    objects: list[tuple[str, bytes]] = []
    seen = set[str]()
    for sample in samples:
        released.check_key(sample.key, seen)
        below = f"images/{class_name(sample.fields, class_field)}/{unit}"
        row: dict[str, Any] = {"id": sample.key, **released.fields(sample.fields, policy)}
        for name, (extension, data) in formats.arranged(sample, names, extra).items():
            file_name = released.file_name(sample.key, name, extension)
            row[released.file_column(name)] = file_name
            objects.append((f"{below}/{file_name}", data))
        rows.setdefault(below, []).append(row)
        objects += [(mask_name(unit, sample.key, mask, policy), data) for mask, data in sample.masks.items()]
    schema = released.files_schema(policy, names, extra)
    objects += [(f"{below}/{TABLE}", released.to_bytes([held], schema)) for below, held in rows.items()]
    return sorted(objects)


def class_name(fields: Any, class_field: str | None) -> str:
    """Folder of a sample's class, from the field that names it: an int, a bool or a plain text, else `all`.

    A word that Hugging Face takes for the name of a split gets an "x" behind it.
    """
    value = fields.get(class_field) if class_field is not None else None
    if not isinstance(value, str | int) or not _CLASS.fullmatch(str(value)):
        return NO_CLASS
    return released.SPLIT.sub(r"\1x", str(value))


def table_name(unit: str, fields: Any, class_field: str | None) -> str:
    """Name of the table that lists a sample of a unit."""
    return f"images/{class_name(fields, class_field)}/{unit}/{TABLE}"


def mask_name(unit: str, key: str, mask: str, policy: Metadata) -> str:
    """Name of the object of a mask.

    Raises:
        ValueError: the policy does not know it.
    """
    if mask not in policy.masks:
        raise ValueError("a sample has a mask that the policy does not know")
    return f"masks/{mask.removesuffix('.png')}/{unit}/{key}.png"


def _extension(base: str) -> str:
    return base.rpartition(".")[2].lower() if "." in base else ""


def _is_picture(path: str) -> bool:
    """By its name: it has such an extension or none, and is not hidden."""
    *_, base = names = path.split("/")
    hidden = any(name.startswith(".") and name != ".." for name in names)
    return not hidden and (_extension(base) or "jpg") in EXTENSIONS | UNREAD


def _is_mask(path: str, layout: Layout) -> bool:
    return any(path.endswith(f".{mask}") for mask in layout.masks)


def _row(file: storage.Object, path: str, extension: str, layout: Layout) -> dict[str, Any]:
    data, twice = folder_table.fields(file.uri, path, layout)
    beside = [{"name": "json", "offset": 0, "size": len(data), "data": data}] if data else []
    beside += [{"name": mask, "offset": 0, "size": -1, "data": None} for mask in layout.masks]
    about = {"key": path, "extension": extension, "size": file.size, "sidecars": beside}
    return formats.row(file, **about, reason="ambiguous" if twice else "")


def _fetch(row: dict[str, Any]) -> Read:
    try:
        # a range of an empty file cannot be asked for; it has no bytes that could have changed
        data = storage.read_range(row["uri"], 0, row["size"], row["version"]) if row["size"] else b""
    except storage.ObjectChanged:
        return row["number"], b"", {}, "record_changed"
    beside = {entry["name"]: _beside(row["uri"], entry) for entry in row["sidecars"]}
    return row["number"], data, {name: held for name, held in beside.items() if held is not None}, ""


def _beside(uri: str, entry: dict[str, Any]) -> bytes | None:
    """A sidecar that is known already, or the mask beside a picture, if there is one."""
    if entry["data"] is not None:
        return bytes(entry["data"])
    above, slash, base = uri.rpartition("/")
    mask = storage.find(f"{above}{slash}{base.rpartition('.')[0] or base}.{entry['name']}")
    if mask is None or not mask.size:
        return None
    try:
        return storage.read_range(mask.uri, 0, mask.size, mask.version)
    except storage.ObjectChanged:  # it goes just now
        return None
