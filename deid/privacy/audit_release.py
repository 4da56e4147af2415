"""The raw audit rows of all units become the public table, in tasks: none holds more than about a million rows.

Twice the units are read: to count, which settles what may be released (`deid.privacy.suppress`), and to bring rows of
one range of ids together (`deid.privacy.shuffle`), each of which becomes a part of the table. Ids are random, so where
a part begins says nothing. The table depends on the set of rows alone, not on their units or order.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from deid import records
from deid.errors import PromiseError
from deid.privacy import audit, shuffle, suppress
from deid.privacy.suppress import ORDER, Counts
from deid.shards import storage, tables

PART_ROWS = 1_000_000  # about so many are in a part
_PREFIX = shuffle.BITS // 4  # hex digits of an id that say its range


@dataclass(frozen=True)
class Source:
    """Where raw rows come from, and what tasks leave one another.

    read: rows of `records.AUDIT_RAW` of a unit; may be pickled.
    folder: of this release in the scratch store.
    """

    scratch: shuffle.Store
    folder: str
    read: Callable[[int], pa.Table]

    def put(self, name: str, table: pa.Table) -> None:
        self.scratch.put(f"{self.folder}/{name}", tables.to_bytes(table), overwrite=True)

    def get(self, name: str) -> pa.Table:
        return tables.from_bytes(self.scratch.get(f"{self.folder}/{name}"))

    def raw(self, unit: int, classes: pa.Table) -> pa.Table:
        return audit.classed(self.read(unit), classes)


@dataclass(frozen=True)
class Batch:
    """Task: some units. ranges: of ids."""

    source: Source
    number: int
    units: Sequence[int]
    ranges: int = 1


@dataclass(frozen=True)
class Part:
    """Task: one range of ids. output: URI of the run's folder."""

    source: Source
    number: int
    output: str


def release(
    scratch: shuffle.Store,
    read: Callable[[int], pa.Table],
    units: Sequence[int],
    rows: Sequence[int],
    classes: pa.Table,
    k: int,
    output: str,
    run: shuffle.Run = map,
    part_rows: int = PART_ROWS,
) -> tuple[list[dict[str, Any]], Counts, suppress.Rule]:
    """Write `audit/part-NNNNN.parquet` below the output: `records.AUDIT`, sorted by output_id over all parts.

    Args:
        scratch: of the run; what is written there is deleted again.
        read: raw rows (`records.AUDIT_RAW`) of a unit; may be pickled.
        rows: how many each of `units` has.
        classes: `audit.classes` of the surrogates.
        run: applies a function to jobs in order and may do so elsewhere; jobs are made one by one as it asks.
        part_rows: in a part, about.

    Returns:
        name, bytes and sha256 of each part (one at least, which may be empty), the counts and the rule that was made
        of them.

    Raises:
        ValueError: k is less than 1.
        PromiseError: there are more or fewer rows than `rows` says.
    """
    source = Source(scratch, f"audit/{secrets.token_hex(8)}", read)
    source.put("classes", classes)
    counts = Counts()
    for found in run(counted, _batches(source, units, rows)):
        counts.merge(found)
    rule = suppress.rule(counts, k)
    _check("counted", counts.rows, sum(rows))
    source.put("rule", rule.to_table())
    total = counts.rows if rule.kept else 0
    ranges = shuffle.ranges(total, part_rows)
    if total:
        _check("sorted", sum(run(sorted_in, _batches(source, units, rows, ranges))), total)
    made = list(run(merged, (Part(source, number, output) for number in range(ranges))))
    _check("written", sum(number for number, _ in made), total)
    for _ in run(shuffle.clear, ((scratch, source.folder, number) for number in range(ranges))):
        pass
    for name in ("classes", "rule"):
        scratch.delete(f"{source.folder}/{name}")
    return [entry for _, entry in made], counts, rule


def _batches(source: Source, units: Sequence[int], rows: Sequence[int], ranges: int = 1) -> Iterator[Batch]:
    return (
        Batch(source, number, chosen, ranges)
        for number, chosen in enumerate(shuffle.batches(units, rows, shuffle.BATCH))
    )


def _check(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise PromiseError(f"the audit: {found} rows were {what}, the commits have {wanted}; run again")


def counted(job: Batch) -> Counts:
    """The counts of some units."""
    counts, classes = Counts(), job.source.get("classes")
    for unit in job.units:
        counts.add(job.source.raw(unit, classes))
    return counts


def sorted_in(job: Batch) -> int:
    """Write runs of (output_id, shard, row of the rule); how many rows."""
    classes, rule = job.source.get("classes"), job.source.get("rule")
    held = []
    for unit in job.units:
        raw = job.source.raw(unit, classes)
        held.append(raw.select(["output_id", "shard"]).append_column("kept", suppress.numbers(raw, rule)))
    table = pa.concat_tables(held)
    return shuffle.write(
        job.source.scratch, job.source.folder, job.number, _keys(table["output_id"]), table, job.ranges
    )


def _keys(ids: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([int(name[:_PREFIX], 16) for name in ids.to_pylist()], np.int64)


def merged(job: Part) -> tuple[int, dict[str, Any]]:
    """Write a part; its number of rows, and name, bytes and sha256."""
    rule, runs = job.source.get("rule"), list(shuffle.read(job.source.scratch, job.source.folder, job.number))
    table = records.AUDIT.empty_table()
    if runs:
        held = pa.concat_tables(runs)
        columns = {name: held[name] for name in ("output_id", "shard")}
        columns |= {name: rule[name].take(held["kept"]) for name in ORDER}
        table = pa.table([columns[name] for name in records.AUDIT.names], schema=records.AUDIT)
        table = table.sort_by([(name, "ascending") for name in table.column_names])
    data = audit.to_bytes(table)
    name = f"audit/part-{job.number:05}.parquet"
    storage.write_bytes(storage.join(job.output, name), data, overwrite=True)
    return len(table), {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
