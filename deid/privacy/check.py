"""The independent count: how many people stand behind each surrogate of what is about to be released.

It shares no code with the assignment. It starts from the units' commits (what really was put in place of which face)
and from the embeddings of pass 1, and shows people apart by a packing: faces pairwise farther apart than one person's
pictures mostly are count as so many people, and never as more than there are pseudo-identities among them. With a
subject column it counts subjects.
"""

import collections
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deid.privacy import shuffle

ROWS = 1 << 18  # faces whose embeddings one task holds, about
FARTHEST = 10  # times k: at most so many people are proven apart for one surrogate

Unit = tuple[pa.Table, pa.Table]  # `worn` and `seen` of one unit, see `count`


@dataclass(frozen=True)
class Count:
    """Distinct people by surrogate."""

    k: int
    people: dict[int, int] = field(repr=False)

    @property
    def short(self) -> set[int]:
        """Surrogates with fewer than k people."""
        return {surrogate for surrogate, found in self.people.items() if found < self.k}

    def summary(self) -> dict[str, Any]:
        """Minimum, median and histogram (people: surrogates); counting by faces stops at `FARTHEST` times k."""
        found = np.array(sorted(self.people.values()), np.int64)
        histogram = {str(n): int(times) for n, times in sorted(collections.Counter(found.tolist()).items())}
        return {
            "k": self.k,
            "surrogates": len(found),
            "min": int(found.min()) if len(found) else 0,
            "median": float(np.median(found)) if len(found) else 0.0,
            "histogram": histogram,
        }


@dataclass(frozen=True)
class Rule:
    """apart, by_subject: see `count`. most: people that are proven apart for one surrogate, at most."""

    apart: float
    most: int
    by_subject: bool


@dataclass(frozen=True)
class Batch:
    """Task: the faces of some units, by surrogate. ranges: of surrogates."""

    scratch: shuffle.Store
    folder: str
    read: Callable[[int], Unit]
    number: int
    units: Sequence[int]
    rule: Rule
    ranges: int


@dataclass(frozen=True)
class Range:
    """Task: count the people of a range of surrogates."""

    scratch: shuffle.Store
    folder: str
    number: int
    rule: Rule


@dataclass
class _Behind:
    """What is known of those behind one surrogate.

    vectors: [n, dim] float32, of faces; once they are more than a batch's, pairwise `apart`, and no more than `most`.
    names: of subjects or pseudo-identities; of the latter no more than `most`.
    """

    vectors: NDArray[np.float32]
    names: set[bytes]

    def packed(self, rule: Rule) -> "_Behind":
        if rule.by_subject:
            return _Behind(self.vectors[:0], self.names)
        return _Behind(
            self.vectors[_packing(self.vectors, rule.apart, rule.most)],
            set(sorted(self.names)[: rule.most]),
        )


def count(
    scratch: shuffle.Store,
    read: Callable[[int], Unit],
    units: Sequence[int],
    rows: Sequence[int],
    k: int,
    apart: float,
    by_subject: bool,
    run: shuffle.Run = map,
) -> Count:
    """Count the people of every surrogate that replaced a face, in tasks.

    A task packs the faces of some units, and another what the first have chosen: pairwise apart in the end, hence a
    proof, wherever the units were cut. The count itself has an entry a surrogate: no more than the gallery has
    identities, times sexes, times age bands.

    Args:
        scratch: of the run; what is written there is deleted again.
        read: gives a unit as two tables, and may be pickled: `worn` with columns position, number (of a face),
            surrogate_id, status; and `seen` with columns position, number, embedding, counts, subject, person.
        rows: how many faces each of `units` has, about.
        apart: embedding distance from which two faces are two people.
        by_subject: the corpus names its people.
        run: applies a function to jobs in order and may do so elsewhere; jobs are made one by one as it asks.
    """
    folder, rule = f"count/{secrets.token_hex(8)}", Rule(apart, FARTHEST * k, by_subject)
    ranges = shuffle.ranges(sum(rows), ROWS)
    jobs = (
        Batch(scratch, folder, read, number, chosen, rule, ranges)
        for number, chosen in enumerate(shuffle.batches(units, rows, ROWS))
    )
    written, found = sum(run(gathered, jobs)), 0
    people: dict[int, int] = {}
    for lines, part in run(counted, (Range(scratch, folder, number, rule) for number in range(ranges))):
        found += lines
        people |= part
    if found != written:
        raise RuntimeError(f"the count read {found} lines of the {written} that were written")
    for _ in run(shuffle.clear, ((scratch, folder, number) for number in range(ranges))):
        pass
    return Count(k, dict(sorted(people.items())))


def gathered(job: Batch) -> int:
    """Write who is behind each surrogate of some units, as far as these units tell; how many lines."""
    held: list[tuple[NDArray[np.int64], NDArray[np.float32], list[bytes]]] = []
    seen: set[int] = set()
    for unit in job.units:
        worn, faces = job.read(unit)
        worn = _replaced(worn)
        seen.update(worn["surrogate_id"].to_pylist())
        held.append(_joined(worn, faces, job.rule.by_subject))
    surrogates = np.concatenate([of for of, _, _ in held])
    vectors = np.concatenate([of for _, of, _ in held if len(of)] or [np.zeros((0, 0), np.float32)])
    names = [name for *_, of in held for name in of]
    held.clear()  # they are large
    order = np.argsort(surrogates, kind="stable")
    numbers = sorted(seen)
    starts, stops = (np.searchsorted(surrogates[order], numbers, side) for side in ("left", "right"))
    behind = []
    for start, stop in zip(starts, stops, strict=True):
        rows = order[start:stop]
        behind.append(_Behind(vectors[rows], {names[row] for row in rows}).packed(job.rule))
    table = pa.table(
        {
            "surrogate_id": pa.array(numbers, pa.int64()),
            "vectors": pa.array([of.vectors.tobytes() for of in behind], pa.large_binary()),
            "names": pa.array([sorted(of.names) for of in behind], pa.large_list(pa.binary())),
            "dim": pa.array([vectors.shape[1]] * len(behind), pa.int32()),
        }
    )
    keys = np.array(numbers, np.int64) >> (63 - shuffle.BITS) & ((1 << shuffle.BITS) - 1)
    return shuffle.write(job.scratch, job.folder, job.number, keys, table, job.ranges)


def counted(job: Range) -> tuple[int, dict[int, int]]:
    """People by surrogate of a range, and how many lines were read."""
    lines = 0
    held: dict[int, _Behind] = {}
    for table in shuffle.read(job.scratch, job.folder, job.number):
        for line in table.to_pylist():
            lines += 1
            vectors = np.frombuffer(line["vectors"], np.float32).reshape(-1, max(1, line["dim"]))
            more, known = _Behind(vectors, set(line["names"])), held.get(line["surrogate_id"])
            if known is not None:
                both = [of.vectors for of in (known, more) if len(of.vectors)] or [vectors]
                more = _Behind(np.concatenate(both), known.names | more.names).packed(job.rule)
            held[line["surrogate_id"]] = more
    return lines, {
        surrogate: len(of.names) if job.rule.by_subject else min(len(of.vectors), len(of.names))
        for surrogate, of in held.items()
    }


def packing(vectors: list[NDArray[np.float32]], apart: float, most: int) -> int:
    """How many of the vectors, each [dim], can be chosen pairwise at least `apart` from one another, farthest first
    (Gonzalez 1985): a lower bound of the number of people, no more than `most`."""
    return len(_packing(np.array(vectors, np.float32), apart, most))


def _packing(points: NDArray[np.float32], apart: float, most: int) -> list[int]:
    """Rows that `packing` chooses of points [n, dim]."""
    if not len(points):
        return []
    chosen = [int(np.argmax(((points - points.mean(0)) ** 2).sum(1)))]
    least = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < most and least.max() >= apart:
        chosen.append(int(least.argmax()))
        least = np.minimum(least, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def _replaced(worn: pa.Table) -> pa.Table:
    chosen = np.asarray(worn["status"].to_numpy(zero_copy_only=False) == "replaced")
    return worn.filter(pa.array(chosen.astype(bool)))


def _joined(
    worn: pa.Table, seen: pa.Table, by_subject: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32], list[bytes]]:
    """Surrogate, embedding [n, dim] and name (subject, or number of the person) of the faces that count."""
    seen = seen.filter(seen["counts"])
    places, faces = (_places(table) for table in (worn, seen))
    _, of_worn, of_seen = np.intersect1d(places, faces, return_indices=True)
    of_worn, of_seen = (rows[np.argsort(of_worn)] for rows in (of_worn, of_seen))
    surrogates = worn["surrogate_id"].to_numpy()[of_worn]
    vectors = _vectors(seen)[of_seen]
    if not by_subject:
        return surrogates, vectors, [b"%d" % person for person in seen["person"].to_numpy()[of_seen].tolist()]
    subjects = seen["subject"].take(pa.array(of_seen)).to_pylist()
    named = np.array([len(subject) > 0 for subject in subjects], np.bool_)
    return surrogates[named], vectors[named][:, :0], [subject for subject in subjects if subject]


def _places(table: pa.Table) -> NDArray[np.int64]:
    """A number for each (position, number) of a unit."""
    return np.asarray(table["position"].to_numpy().astype(np.int64) << 32 | table["number"].to_numpy())


def _vectors(seen: pa.Table) -> NDArray[np.float32]:
    column = seen["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(seen), -1) if len(seen) else np.zeros((0, 0), np.float32)
