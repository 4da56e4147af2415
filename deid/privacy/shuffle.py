"""Rows of many units brought together by ranges of a random key, in a scratch store: so no process holds them all.

Tasks over batches of units write runs (`<folder>/<range>/<batch>`), tasks over ranges read them back. Whoever starts
the tasks holds numbers of units and counts. A folder is of one use, with a random name: what an attempt that was
killed has left is in no other's way.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deid.privacy.bins import Scratch
from deid.shards import tables

# Applies a function to jobs, keeps their order, and may do so elsewhere; such as the built-in map.
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
BITS = 32  # of a key
BATCH = 1 << 20  # rows of a batch of units, about


class Store(Scratch, Protocol):
    """A scratch store that can delete."""

    def delete(self, name: str) -> None: ...


def batches(units: Sequence[int], rows: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """Units in their order, in batches of about `most` rows; `rows`: how many each unit has."""
    start, held = 0, 0
    for place, number in enumerate(rows):
        if held and held + number > most:
            yield units[start:place]
            start, held = place, 0
        held += number
    if start < len(units):
        yield units[start:]


def ranges(rows: int, most: int) -> int:
    """How many ranges, 1 at least, have about `most` rows each."""
    return max(1, -(-rows // most))


def write(scratch: Store, folder: str, batch: int, keys: NDArray[np.int64], table: pa.Table, of: int) -> int:
    """Write a batch's runs.

    Args:
        keys: [rows] random numbers below 2^BITS, one a row.
        of: how many ranges there are.

    Returns:
        The number of rows.
    """
    places = keys * of >> BITS
    order = np.argsort(places, kind="stable")
    bounds = np.searchsorted(places[order], np.arange(of + 1))
    for number in np.unique(places).tolist():
        chosen = pa.array(order[bounds[number] : bounds[number + 1]])
        scratch.put(f"{folder}/{number}/{batch}", tables.to_bytes(table.take(chosen)), overwrite=True)
    return len(table)


def read(scratch: Store, folder: str, number: int) -> Iterator[pa.Table]:
    """The runs of a range, in an order that does not depend on who wrote them first."""
    for name in scratch.names(f"{folder}/{number}/"):
        yield tables.from_bytes(scratch.get(name))


def clear(job: tuple[Store, str, int]) -> None:
    """Task: delete the runs of a range; the job: scratch, folder, number."""
    scratch, folder, number = job
    for name in scratch.names(f"{folder}/{number}/"):
        scratch.delete(name)
