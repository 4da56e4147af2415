"""Parquet files with pictures in them: an index from the footer, reads of whole row groups, and a writer.

A row is a sample. Its pictures are columns of encoded bytes, plain or in the struct {bytes, path} of Hugging Face
`datasets`, whose `path` never passes. Format: Apache Parquet 2.6.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate, groupby, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deid.config import Metadata
from deid.shards import columns, formats, released, storage
from deid.shards.formats import INDEX, Layout, Read, Sample
from deid.shards.ranged import BUFFER, Ranged

_BATCH = 16 << 20  # bytes of rows that are taken apart together
_GROUP = 512 << 20  # bytes of pictures from which on a row group ends early
_DAMAGE = (pa.ArrowException, OSError)
# Bytes of a file for each of its rows, at least: the smallest pictures have more, so that a footer that claims more
# rows lies. A file may have so many rows more, since a few may be empty.
_LEAST, _MORE = 16, 1024

PATTERN = "*.parquet"
RANGED = False
SEQUENCE = False


def scan(file: storage.Object, layout: Layout) -> pa.Table:
    """Index (rows of `formats.INDEX`, in the order of the file) of one file, from its footer.

    Pictures are read only in row groups where some are null and some are not. A row without any picture gives a row
    "no_image"; a file that cannot be read gives one row "shard_damaged".

    Raises:
        ObjectChanged: the file is not the one that was listed.
        InputError: no column of pictures.
    """
    try:
        source = _open(file)
        found = columns.find(source.schema_arrow, layout)
        starts = _starts(source)
        if not _plausible(file, source, found, starts):
            return _damaged(file)
        groups = [_group(file, source, found, group, starts[group]) for group in range(source.num_row_groups)]
    except _DAMAGE:
        return _damaged(file)
    return pa.concat_tables([INDEX.empty_table(), *groups]).combine_chunks()


def read(records: pa.Table, layout: Layout) -> Iterator[Read]:
    """Pictures and sidecars ("json", "cls", "txt", masks) of rows of `formats.INDEX`, row group by row group.

    Of a sample's sidecars only those are read that `records` names. The bytes are empty and the reason is
    "record_changed" where the file is not the one that was planned, "shard_damaged" where it cannot be read,
    "no_image" where the row holds none, or only a path.
    """
    rows = [dict(row, number=n) for n, row in enumerate(records.select(INDEX.names).to_pylist())]
    rows.sort(key=lambda row: (row["uri"], row["version"], row["group"], row["offset"]))
    for (uri, version), of_file in groupby(rows, key=lambda row: (row["uri"], row["version"])):
        yield from _settled(list(of_file), uri, version, layout)


def write(
    samples: Iterable[Sample],
    policy: Metadata,
    names: tuple[str, ...] = (),
    extra: int = 0,
    struct: bool = True,
    row_group_size: int = 100,
) -> bytes:
    """A Parquet file of samples, the same bytes for the same samples; see `released.schema` for its columns.

    Args:
        policy: what may stand beside a picture; every such field has its column, whatever the samples hold.
        names: of further pictures, each a column.
        extra: how many columns there are for further pictures whose names do not pass.
        struct: pictures as struct{bytes, path}, with the features metadata of `datasets`; else as plain binary.
        row_group_size: rows.

    Raises:
        ValueError: a key is not plain or is there twice, or a sample has pictures without a column.
    """
    schema = released.schema(policy, names, extra, struct)
    seen = set[str]()
    rows = (_row(sample, policy, names, extra, struct, seen) for sample in samples)
    return released.to_bytes(_grouped(rows, row_group_size), schema)


def _open(file: storage.Object) -> pq.ParquetFile:
    source = pa.PythonFile(Ranged(file), mode="r")
    return pq.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True)


def _damaged(file: storage.Object) -> pa.Table:
    return pa.Table.from_pylist([formats.refused(file, "shard_damaged")], schema=INDEX)


def _starts(source: pq.ParquetFile) -> list[int]:
    """Number of the first row of each row group, and of the rows."""
    rows = (source.metadata.row_group(group).num_rows for group in range(source.num_row_groups))
    return list(accumulate(rows, initial=0))


def _plausible(
    file: storage.Object, source: pq.ParquetFile, found: columns.Columns, starts: list[int]
) -> bool:
    """Whether the footer can be right about the rows: its parts agree, and the file is large enough for them."""
    if starts[-1] > _MORE + file.size // _LEAST:
        return False
    paths = [columns.leaf(source.schema_arrow, name) for name in found.pictures]
    return all(
        end >= start and all(_chunks(source, group)[path].num_values == end - start for path in paths)
        for group, (start, end) in enumerate(pairwise(starts))
    )


def _group(
    file: storage.Object, source: pq.ParquetFile, found: columns.Columns, group: int, start: int
) -> pa.Table:
    """Index of one row group, whose first row has the number `start`."""
    rows = source.metadata.row_group(group).num_rows
    there = np.stack([_there(source, group, name, rows) for name in found.pictures], 1)
    # by row, its pictures in the order of the columns; 0: it has none
    row, column = np.nonzero(np.column_stack([~there.any(1), there]))
    sizes = [0, *(size // max(rows, 1) for size in _sizes(source, group, found.pictures))]
    beside = [{"name": name, "offset": 0, "size": -1, "data": None} for name in found.sidecars]
    sidecars = pa.array([[], beside], INDEX.field("sidecars").type)
    numbers = pa.array(start + row, pa.int64())

    def constant(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), len(row))

    def by_column(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(pa.array(column))

    return pa.table(
        [
            constant(file.uri, pa.string()),
            constant(file.version, pa.string()),
            numbers,
            numbers.cast(pa.string()),
            by_column(["", "", *found.pictures[1:]], pa.string()),
            constant("", pa.string()),
            numbers,
            by_column(sizes, pa.int64()),
            pa.nulls(len(row), pa.uint32()),
            constant(group, pa.int32()),
            sidecars.take(pa.array(np.minimum(column, 1))),
            by_column(["no_image", *[""] * len(found.pictures)], pa.string()),
        ],
        schema=INDEX,
    )


def _chunks(source: pq.ParquetFile, group: int) -> dict[str, Any]:
    part = source.metadata.row_group(group)
    return {chunk.path_in_schema: chunk for chunk in map(part.column, range(part.num_columns))}


def _sizes(source: pq.ParquetFile, group: int, names: Iterable[str]) -> list[int]:
    """Bytes of the pictures of a row group, by column."""
    chunks = _chunks(source, group)
    return [chunks[columns.leaf(source.schema_arrow, name)].total_uncompressed_size for name in names]


def _there(source: pq.ParquetFile, group: int, name: str, rows: int) -> NDArray[np.bool_]:
    """Whether each row of a group has bytes in a column of pictures; a damaged group is found when it is read."""
    path = columns.leaf(source.schema_arrow, name)
    statistics = _chunks(source, group)[path].statistics
    if statistics is not None and statistics.has_null_count and statistics.null_count in (0, rows):
        return np.full(rows, statistics.null_count == 0)
    try:
        batches = [columns.values(batch[name]).is_valid() for batch in _batches(source, group, [path])]
    except _DAMAGE:
        return np.full(rows, True)
    valid = np.array([value for batch in batches for value in batch.to_pylist()], np.bool_)
    return valid if len(valid) == rows else np.full(rows, True)


def _batches(source: pq.ParquetFile, group: int, paths: list[str]) -> Iterator[dict[str, pa.Array]]:
    part = source.metadata.row_group(group)
    rows = max(1, _BATCH * part.num_rows // max(part.total_byte_size, 1))
    for batch in source.iter_batches(min(rows, 1024), row_groups=[group], columns=paths, use_threads=False):
        yield dict(zip(batch.schema.names, batch.columns, strict=True))


def _settled(rows: list[dict[str, Any]], uri: str, version: str, layout: Layout) -> Iterator[Read]:
    """What is read of one file, and a reason for every record of which nothing is."""
    left = {row["number"] for row in rows}
    reason = "record_changed"
    try:
        file = storage.find(uri)
        if file is not None and file.version == version:
            for result in _read(file, rows, layout):
                left.discard(result[0])
                yield result
    except storage.ObjectChanged:
        pass
    except _DAMAGE:
        reason = "shard_damaged"
    yield from _unread(left, reason)


def _unread(numbers: set[int], reason: str) -> Iterator[Read]:
    yield from ((number, b"", {}, reason) for number in sorted(numbers))


def _read(file: storage.Object, rows: list[dict[str, Any]], layout: Layout) -> Iterator[Read]:
    source = _open(file)
    found, starts = columns.find(source.schema_arrow, layout), _starts(source)
    for group, of_group in groupby(rows, key=lambda row: int(row["group"])):
        wanted = list(of_group)
        left = {row["number"] for row in wanted}
        try:
            for result in _read_group(source, found, group, starts[group], wanted):
                left.discard(result[0])
                yield result
        except _DAMAGE:  # the other row groups may be sound
            yield from _unread(left, "shard_damaged")


def _read_group(
    source: pq.ParquetFile, found: columns.Columns, group: int, start: int, rows: list[dict[str, Any]]
) -> Iterator[Read]:
    wanted: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        row["column"] = row["name"] or found.pictures[0]
        row["beside"] = [entry["name"] for entry in row["sidecars"] if entry["name"] in found.sidecars]
        wanted.setdefault(row["offset"], []).append(row)
    named = {row["column"] for row in rows} | _columns_of(
        {name for row in rows for name in row["beside"]}, found
    )
    for batch in _batches(source, group, sorted(named)):
        end = start + len(next(iter(batch.values())))
        for number in range(start, end):
            for row in wanted.get(number, ()):
                yield _cut(row, batch, number - start, found)
        start = end


def _columns_of(sidecars: set[str], found: columns.Columns) -> set[str]:
    names = {found.masks.get(name, name) for name in sidecars - {"json"}}
    return names | set(found.others if "json" in sidecars else ())


def _cut(row: dict[str, Any], batch: dict[str, pa.Array], at: int, found: columns.Columns) -> Read:
    """One record, which is the row `at` of the batch."""
    picture = columns.values(batch[row["column"]])[at].as_py()
    sidecars: dict[str, bytes | None] = {}
    for name in row["beside"]:
        if name == "json":
            sidecars[name] = columns.text({other: columns.value(batch[other][at]) for other in found.others})
        elif name in found.masks:
            sidecars[name] = columns.values(batch[found.masks[name]])[at].as_py()
        else:
            given = columns.value(batch[name][at])
            sidecars[name] = None if given is None else str(given).encode()
    held = {name: data for name, data in sidecars.items() if data is not None}
    return row["number"], picture or b"", held, "no_image" if picture is None else ""


def _row(
    sample: Sample, policy: Metadata, names: tuple[str, ...], extra: int, struct: bool, seen: set[str]
) -> dict[str, Any]:
    released.check_key(sample.key, seen)
    pictures = formats.arranged(sample, names, extra)
    held: dict[str, Any] = {"id": sample.key, **released.fields(sample.fields, policy)}
    for name, (extension, data) in pictures.items():
        column = released.column(name)
        held[column] = released.cell(sample.key, name, extension, data, struct)
    if sample.masks.keys() - set(policy.masks):
        raise ValueError("a sample has a mask that the policy does not know")
    for mask, data in sample.masks.items():
        stem = mask.removesuffix(".png")
        held[stem] = released.cell(sample.key, stem, "png", data, struct)
    return held


def _grouped(rows: Iterable[dict[str, Any]], most: int) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        if len(group) >= most or size > _GROUP:
            yield group
            group, size = [], 0
        group.append(row)
        size += sum(len(released.held(value)) for value in row.values())
    if group:
        yield group
