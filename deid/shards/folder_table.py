"""Tables of metadata in an image folder, as Hugging Face's imagefolder has them."""

import csv
import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deid.errors import InputError
from deid.shards import columns, storage
from deid.shards.formats import Layout

_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_KEPT = 16  # tables a process; folders whose table is looked for are kept a hundred times as many
FOLDER = "folder"  # the field that names a picture's own folder


@dataclass(frozen=True)
class Table:
    """What a table says of each file, by its path below the table's folder."""

    rows: dict[str, bytes]  # JSON object in UTF-8, without the file's name
    twice: frozenset[str]  # named more than once, with different fields


def names(layout: Layout) -> tuple[str, ...]:
    """Base names of tables."""
    return (layout.metadata_table,) if layout.metadata_table else _NAMES


def fields(uri: str, path: str, layout: Layout) -> tuple[bytes, bool]:
    """What is said of a picture, as a JSON object (b"" for nothing), and whether its table contradicts itself.

    Args:
        uri: of the picture.
        path: of it, below the root.

    Raises:
        InputError: its table cannot be read, or there are two.
    """
    above = path.split("/")[:-1]
    row, twice = b"", False
    for depth in range(len(above), -1, -1):
        below = "/".join(path.split("/")[depth:])
        found = nearest(uri.removesuffix(below).rstrip("/"), names(layout))
        if found is not None:
            table = load(found.uri, found.version)
            row, twice = table.rows.get(below, b""), below in table.twice
            break
    if above:
        row = json.dumps({FOLDER: above[-1]} | json.loads(row or b"{}"), ensure_ascii=False).encode()
    return row, twice


def missing(file: storage.Object, known: Callable[[str], bool]) -> list[str]:
    """Files that a table names and that are not there, sorted, by their path below its folder.

    Args:
        known: whether a file of this path is taken for a picture, or belongs to one; others might as well not be there.

    Raises:
        InputError: it cannot be read.
    """
    folder = file.uri.rpartition("/")[0]
    there = {found.uri[len(folder) + 1 :] for found in storage.list_files(folder)}
    return sorted(name for name in load(file.uri, file.version).rows if name not in there or not known(name))


@functools.lru_cache(maxsize=100 * _KEPT)
def nearest(folder: str, known: tuple[str, ...]) -> storage.Object | None:
    """The table that lies in a folder.

    Raises:
        InputError: there are two.
    """
    found = [table for name in known if (table := storage.find(storage.join(folder, name))) is not None]
    if len(found) > 1:
        raise InputError("input: a folder has two tables of metadata; leave one, or set input.metadata_table")
    return found[0] if found else None


@functools.lru_cache(maxsize=_KEPT)
def load(uri: str, version: str) -> Table:
    """A table.

    Raises:
        InputError: it cannot be read, or names no files.
    """
    kind = uri.rpartition(".")[2].lower()
    parse = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}.get(kind)
    if parse is None:
        raise InputError("input.metadata_table: a table is a .csv, .jsonl or .parquet file")
    data = storage.read_bytes(uri)
    try:
        return _table(parse(data))
    except (ValueError, RecursionError, csv.Error, pa.ArrowException, OSError) as error:
        raise InputError(
            f"input: a table of metadata cannot be read as {kind} ({type(error).__name__}); it needs a text "
            "file_name in every row, the path of a picture below the table's folder"
        ) from None


def _table(rows: list[dict[str, Any]]) -> Table:
    held: dict[str, bytes] = {}
    twice = set[str]()
    for row in rows:
        name = row.pop("file_name", None)
        if not isinstance(name, str) or not name:
            raise ValueError("no file_name")
        name = "/".join(part for part in name.replace("\\", "/").split("/") if part != ".")
        data = columns.text(row)
        if held.setdefault(name, data) != data:
            twice.add(name)
    return Table(held, frozenset(twice))


def _csv(data: bytes) -> list[dict[str, Any]]:
    """Values that are numbers become numbers, empty ones are left out, as imagefolder (pandas) does."""
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    rows = [dict(row) for row in reader]
    if any(None in row for row in rows):
        raise ValueError("a row has more values than there are columns")
    return [
        {name: _number(value) if name != "file_name" else value for name, value in row.items()}
        for row in rows
    ]


def _number(text: str | None) -> Any:
    if not text:
        return None
    if text in ("True", "False", "true", "false"):
        return text.lower() == "true"
    if text != text.strip() or "_" in text:
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _jsonl(data: bytes) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in data.decode("utf-8-sig").split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object")
    return rows


def _parquet(data: bytes) -> list[dict[str, Any]]:
    table = pq.read_table(pa.BufferReader(data))
    return [
        {
            name: columns.value(column[n])
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
        for n in range(len(table))
    ]
