"""What a checker looks at inside a Parquet file of the output: every byte has its place, and every value its rule.

Everything is held against what the job itself writes (`deid.shards.released`): its schema, its metadata, its cells.
Format: Apache Parquet 2.6.
"""

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deid.config import Metadata
from deid.errors import ConfigError
from deid.privacy import verify_shards
from deid.privacy.verify_shards import KEY, Shard
from deid.shards import pictures, released

_WRITER = re.compile(r"parquet-cpp-arrow version [0-9]+(\.[0-9]+)*")
_NUMBERED = re.compile("image_[1-9][0-9]{0,4}(_file_name)?")
_MAGIC = b"PAR1"
_TAIL = 8  # bytes: length of the footer, magic


def read(data: bytes, allowed: Metadata, names: tuple[str, ...] = ()) -> Shard:
    """Keys and faults of a Parquet shard.

    Args:
        allowed: the fields, texts and masks that may stand beside a picture.
        names: of further pictures that pass.
    """
    shard = Shard()
    table = opened(data, shard.faults)
    if table is None:
        return shard
    extra = numbered(table.schema)
    try:
        wanted = [released.schema(allowed, names, extra, struct) for struct in (True, False)]
    except ConfigError:
        wanted = []
    schema = next((schema for schema in wanted if same(table.schema, schema)), None)
    if schema is None:
        shard.faults.append("has other columns or metadata than the job writes")
        return shard
    masks = {name.removesuffix(".png") for name in allowed.masks}
    cells = [column.name for column in schema if column.type in (released.PICTURE, pa.binary())]
    for row in rows(table, shard, allowed):
        there = [name for name in cells if row[name] is not None]
        size = pictures.size_of(released.held(row["image"]))
        for name in there:
            found = _cell(row["id"], name, row[name], name in masks, size, allowed)
            shard.faults += [f"row {row['id']}, {name} {fault}" for fault in found]
        shard.pictures += sum(name not in masks for name in there)
        if masks.issuperset(there):
            shard.faults.append(f"row {row['id']} has no picture")
    if not shard.faults and not rewritten(data, table):
        shard.faults.append("is not written as the job writes it")
    return shard


def opened(data: bytes, faults: list[str]) -> pa.Table | None:
    """The table in a Parquet file, with its metadata; None where it cannot be read or has room for more."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read(use_threads=False)
        table.validate(full=True)
        metadata = file.metadata
    except (pa.ArrowException, OSError):
        faults.append("cannot be read as Parquet")
        return None
    if not _WRITER.fullmatch(metadata.created_by or ""):
        faults.append("names another writer")
    if not _tiled(data, metadata):
        faults.append("has bytes beside its columns")
    return table.replace_schema_metadata(metadata.metadata)  # with what pyarrow hides of it


def same(found: pa.Schema, wanted: pa.Schema) -> bool:
    """Whether a file has just these columns, and this metadata; names inside of lists are Parquet's own."""
    plain = [
        [(field.name, _unnamed(field.type), field.nullable) for field in schema] for schema in (found, wanted)
    ]
    return plain[0] == plain[1] and (found.metadata or {}) == (wanted.metadata or {})


def numbered(schema: pa.Schema) -> int:
    """How many further pictures have a number for a name."""
    return sum(_NUMBERED.fullmatch(name) is not None for name in schema.names)


def rows(table: pa.Table, shard: Shard, allowed: Metadata) -> Iterator[dict[str, Any]]:
    """Rows of a table with a plain key, which goes to the shard, as do the faults of keys and of fields."""
    for row in table.to_pylist():
        if not KEY.fullmatch(row["id"] or ""):
            shard.faults.append("a row has no plain key")
            continue
        shard.keys.append(row["id"])
        fields = {name: row[name] for name in allowed.sidecar_fields if row[name] is not None}
        shard.faults += [f"row {row['id']} {fault}" for fault in verify_shards.fields(fields, allowed)]
        yield row


def rewritten(data: bytes, table: pa.Table) -> bool:
    """Whether writing the table anew gives the same bytes, where it was written by the same version of the writer."""
    metadata = pq.read_metadata(pa.BufferReader(data))
    if metadata.created_by != f"parquet-cpp-arrow version {pa.__version__}":
        return True
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    starts = [sum(sizes[:group]) for group in range(len(sizes))]
    groups = (table.slice(start, size).to_pylist() for start, size in zip(starts, sizes, strict=True))
    return released.to_bytes(groups, table.schema) == data


def _cell(
    key: str, column: str, value: Any, mask: bool, size: tuple[int, int] | None, allowed: Metadata
) -> Iterator[str]:
    """Faults of a picture or mask in a cell; `size` is that of the main picture."""
    data = released.held(value)
    extension = "png" if mask else pictures.extension_of(data)
    if not extension:
        yield "is no picture that the job writes"
        return
    name = column.removeprefix("image_") if _NUMBERED.fullmatch(column) else column
    file_name = released.file_name(key, "" if column == "image" else name, extension)
    if isinstance(value, dict) and value["path"] != file_name:
        yield "has another path than its key gives"
    yield from (
        verify_shards.label_map(data, size, allowed) if mask else verify_shards.picture(data, extension)
    )


def _unnamed(kind: pa.DataType) -> Any:
    return ("list", _unnamed(kind.value_type)) if pa.types.is_list(kind) else kind


def _tiled(data: bytes, metadata: pq.FileMetaData) -> bool:
    """Whether the file is its column chunks one behind the other, and the footer: no byte is left for more."""
    end = len(_MAGIC)
    for group in range(metadata.num_row_groups):
        part = metadata.row_group(group)
        for chunk in map(part.column, range(part.num_columns)):
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            if start != end or chunk.has_offset_index or chunk.has_column_index:
                return False
            end += chunk.total_compressed_size
    footer = int.from_bytes(data[-_TAIL:-4], "little")
    return end + footer + _TAIL == len(data)
