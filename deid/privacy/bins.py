"""Blocks of faces in a scratch store, sorted into bins and, when each bin knows who its faces are, back again."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray


def schema(dim: int, looks: int) -> pa.Schema:
    """Of a block: one row a face."""
    return pa.schema(
        [
            ("unit", pa.int32()),  # with the next two the face's key
            ("position", pa.int32()),
            ("number", pa.int32()),
            ("cell", pa.int32()),  # nearest gallery identity; -1 without an embedding
            ("embedding", pa.list_(pa.float16(), dim)),
            ("male", pa.float32()),  # probability; NaN: not known
            ("age", pa.float32()),  # years; NaN: not known
            ("counts", pa.bool_()),  # good enough to count towards k
            ("subject", pa.binary()),  # 16-byte keyed hash, or empty
            ("looks", pa.list_(pa.float32(), looks)),  # NaN: not known
        ]
    )


FACES = schema(128, 17)
# Of `person/<block>`, row by row as the block: what all faces of a person share. Without a person: -1, -1, own values.
# With `people.Settings.means` also "mean", float16[dim]: of the person's embeddings, null without a person.
PERSONS = pa.schema(
    [
        *(("person", pa.int64()), ("cell", pa.int32()), ("male", pa.float32()), ("age", pa.float32())),
        ("faces", pa.int32()),  # that the person has
    ]
)
_NEEDED = ["cell", "embedding", "male", "age", "subject"]
ROW = pa.field("row", pa.int32())  # place in its batch


class Scratch(Protocol):
    """Objects by name; a second writing of the same name may come from a repeated task."""

    def put(self, name: str, data: bytes, overwrite: bool = False) -> None: ...

    def get(self, name: str) -> bytes: ...

    def names(self, prefix: str) -> list[str]: ...


@dataclass(frozen=True)
class Spread:
    """Task: sort some blocks' faces into bins."""

    scratch: Scratch
    name: str
    blocks: Sequence[str]
    bins: int
    rows: int  # about so many faces a batch


@dataclass(frozen=True)
class Batch:
    """Faces that were sorted together: blocks with their rows, and the bins that got some."""

    name: str
    blocks: Sequence[tuple[str, int]]
    bins: Sequence[int]
    without: int


@dataclass(frozen=True)
class Named:
    """Task: say for each face of a bin who it is. persons: PERSONS, one row a group of the bin."""

    scratch: Scratch
    number: int
    batches: Sequence[str]
    persons: pa.Table


@dataclass(frozen=True)
class Delivery:
    """Task: bring a batch's answers back into the order of its blocks."""

    scratch: Scratch
    batch: Batch


def spread(job: Spread) -> list[Batch]:
    """Sort faces into bins: `people/part/<bin>/<batch>`."""
    batches: list[Batch] = []
    held: list[tuple[str, pa.Table]] = []
    for name in job.blocks:
        held.append((name, _block(job.scratch, name)))
        if sum(len(table) for _, table in held) >= job.rows:
            batches.append(_sorted(job, f"{job.name}-{len(batches):06d}", held))
            held = []
    return [*batches, _sorted(job, f"{job.name}-{len(batches):06d}", held)] if held else batches


def _sorted(job: Spread, name: str, held: list[tuple[str, pa.Table]]) -> Batch:
    table = pa.concat_tables([table for _, table in held]).combine_chunks()
    cells = table["cell"].to_numpy()
    bins = np.where(cells >= 0, cells % job.bins, -1)
    lost = np.flatnonzero((cells < 0) & pc.greater(pc.binary_length(table["subject"]), 0).to_numpy())
    for row, subject in zip(lost, table["subject"].take(lost).to_pylist(), strict=True):
        bins[row] = int.from_bytes(subject[:4], "big") % job.bins
    rows = pa.array(np.arange(len(table), dtype=np.int32))
    table = table.append_column(ROW, rows)
    order = np.argsort(bins, kind="stable")
    bounds = [*np.flatnonzero(np.diff(bins[order], prepend=-2)), len(order)]
    numbers: list[int] = []
    without = 0
    for start, stop in pairwise(bounds):
        part, number = table.take(order[start:stop]), int(bins[order[start]])
        if number < 0:
            nobody = pa.array(np.full(len(part), -1))
            alone = pa.array(np.ones(len(part), np.int32))
            answer = [part["row"], nobody, nobody.cast(pa.int32()), part["male"], part["age"], alone]
            put(job.scratch, f"people/row/{name}/none", pa.table(answer, pa.schema([ROW, *PERSONS])))
            without = len(part)
        else:
            put(job.scratch, f"people/part/{number}/{name}", part)
            numbers.append(number)
    return Batch(name, [(block, len(table)) for block, table in held], numbers, without)


def named(job: Named) -> None:
    """Write who the faces of a bin are: `people/row/<batch>/<bin>`."""
    labels = get(job.scratch, f"people/label/{job.number}")
    batch, row, group = (labels[name].to_numpy() for name in ("batch", "row", "group"))
    bounds = np.searchsorted(batch, np.arange(len(job.batches) + 1))
    for place, name in enumerate(job.batches):
        rows = slice(bounds[place], bounds[place + 1])
        answer = job.persons.take(group[rows]).add_column(0, ROW, pa.array(row[rows]))
        put(job.scratch, f"people/row/{name}/{job.number}", answer)


def deliver(job: Delivery) -> None:
    """Write `person/<block>` for the blocks of a batch."""
    names = [*map(str, job.batch.bins), *(["none"] if job.batch.without else [])]
    parts = [get(job.scratch, f"people/row/{job.batch.name}/{name}") for name in names]
    start = 0
    answers = None
    if parts:
        table = pa.concat_tables(parts, promote_options="default")
        answers = table.take(np.argsort(table["row"].to_numpy())).drop_columns(["row"])
    for block, count in job.batch.blocks:
        part = PERSONS.empty_table() if answers is None else answers.slice(start, count)
        start += count
        sink = pa.BufferOutputStream()
        pq.write_table(part, sink, use_dictionary=False)
        job.scratch.put(f"person/{block}", sink.getvalue().to_pybytes(), overwrite=True)


def _block(scratch: Scratch, name: str) -> pa.Table:
    """What of a block is needed; a face whose embedding is not finite counts as one without."""
    table = pq.read_table(pa.BufferReader(scratch.get(name)), columns=_NEEDED).combine_chunks()
    if table["embedding"].null_count or table["subject"].null_count:
        raise ValueError("a block has an embedding or a subject that is null; NaN and empty stand for none")
    finite = np.isfinite(vectors(table["embedding"])).all(1)
    cells = np.where(finite, table["cell"].to_numpy(), -1).astype(np.int32)
    return table.set_column(0, "cell", pa.array(cells))


def vectors(column: pa.ChunkedArray) -> NDArray[np.float16]:
    flat = column.combine_chunks()
    return np.asarray(flat.flatten().to_numpy()).reshape(len(flat), flat.type.list_size)


def put(scratch: Scratch, name: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    scratch.put(name, sink.getvalue().to_pybytes(), overwrite=True)


def get(scratch: Scratch, name: str) -> pa.Table:
    return pa.ipc.open_stream(scratch.get(name)).read_all()
