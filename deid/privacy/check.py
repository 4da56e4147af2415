"""The independent count: how many people stand behind each surrogate of what is about to be released.

It shares no code with the assignment. It starts from the units' commits (what really was put in place of which face)
and from the embeddings of pass 1, and shows people apart by a packing: faces pairwise farther apart than one person's
pictures mostly are count as so many people, and never as more than there are pseudo-identities among them. With a
subject column it counts subjects.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ROWS = 2_000_000  # faces whose embeddings are held at once
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


def count(units: Callable[[], Iterable[Unit]], k: int, apart: float, by_subject: bool) -> Count:
    """Count the people of every surrogate that replaced a face.

    Args:
        units: gives all units, as often as it is asked for, each as two tables: `worn` with columns position, number
            (of a face), surrogate_id, status; and `seen` with columns position, number, embedding, counts, subject,
            person.
        apart: embedding distance from which two faces are two people.
        by_subject: the corpus names its people.
    """
    faces: collections.Counter[int] = collections.Counter()
    for worn, _ in units():
        faces.update(_replaced(worn)["surrogate_id"].to_pylist())
    people: dict[int, int] = {}
    for part in _parts(faces):
        vectors: dict[int, list[NDArray[np.float32]]] = collections.defaultdict(list)
        subjects: dict[int, set[bytes]] = collections.defaultdict(set)
        persons: dict[int, set[int]] = collections.defaultdict(set)
        for worn, seen in units():
            for surrogate, vector, subject, person in _joined(_replaced(worn), seen, part):
                vectors[surrogate].append(vector)
                subjects[surrogate].add(subject)
                persons[surrogate].add(person)
        for surrogate in part:
            if by_subject:
                people[surrogate] = len(subjects[surrogate] - {b""})
            else:
                found = packing(vectors[surrogate], apart, FARTHEST * k)
                people[surrogate] = min(found, len(persons[surrogate]))
    return Count(k, people)


def packing(vectors: list[NDArray[np.float32]], apart: float, most: int) -> int:
    """How many of the vectors, each [dim], can be chosen pairwise at least `apart` from one another, farthest first
    (Gonzalez 1985): a lower bound of the number of people, no more than `most`."""
    if not vectors:
        return 0
    points = np.array(vectors, np.float32)
    start = int(np.argmax(((points - points.mean(0)) ** 2).sum(1)))
    least = np.linalg.norm(points - points[start], axis=1)
    chosen = 1
    while chosen < most and least.max() >= apart:
        least = np.minimum(least, np.linalg.norm(points - points[int(least.argmax())], axis=1))
        chosen += 1
    return chosen


def _replaced(worn: pa.Table) -> pa.Table:
    chosen = np.asarray(worn["status"].to_numpy(zero_copy_only=False) == "replaced")
    return worn.filter(pa.array(chosen.astype(bool)))


def _joined(
    worn: pa.Table, seen: pa.Table, part: set[int]
) -> Iterable[tuple[int, NDArray[np.float32], bytes, int]]:
    """Surrogate, embedding, subject and person of the faces that count."""
    place = {
        (position, number): row
        for row, (position, number, counts) in enumerate(
            zip(
                seen["position"].to_pylist(),
                seen["number"].to_pylist(),
                seen["counts"].to_pylist(),
                strict=True,
            )
        )
        if counts
    }
    vectors = _vectors(seen)
    subjects, persons = seen["subject"].to_pylist(), seen["person"].to_pylist()
    for position, number, surrogate in zip(
        *(worn[name].to_pylist() for name in ("position", "number", "surrogate_id")), strict=True
    ):
        row = place.get((position, number))
        if row is not None and surrogate in part:
            yield surrogate, vectors[row].copy(), subjects[row], persons[row]  # a view would hold the unit's


def _vectors(seen: pa.Table) -> NDArray[np.float32]:
    column = seen["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(seen), -1) if len(seen) else np.zeros((0, 0), np.float32)


def _parts(faces: collections.Counter[int]) -> Iterator[set[int]]:
    """Surrogates in parts of about `ROWS` faces."""
    part, held = set[int](), 0
    for surrogate, number in sorted(faces.items()):
        if part and held + number > ROWS:
            yield part
            part, held = set(), 0
        part.add(surrogate)
        held += number
    if part:
        yield part
