"""How many different people stand behind a class of faces, counted in parts that merge; faces stay where they are."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deid.privacy.bins import Scratch, vectors
from deid.privacy.clusters import TILE
from deid.privacy.unite import Run

EXACT = 1024  # ids up to which they are held
LG_K = 12  # of the HyperLogLog sketch beyond: 4,096 registers, standard error 1.6 %
DEVIATIONS = 3  # of the sketch's lower bound
_KIND = datasketches.tgt_hll_type.HLL_8


class Tally:
    """Count of different 64-bit ids: exact up to EXACT, beyond a HyperLogLog sketch (Flajolet et al. 2007).

    The count does not depend on the order in which ids come or tallies merge.
    """

    def __init__(self) -> None:
        self._ids: NDArray[np.uint64] = np.zeros(0, np.uint64)  # ascending
        self._sketch: Any = None

    def add(self, ids: NDArray[np.integer]) -> "Tally":
        """Count ids [n], of 64 bits or less."""
        wide = np.asarray(ids)
        new = np.unique(wide.astype(np.int64).view(np.uint64) if wide.dtype != np.uint64 else wide)
        if self._sketch is None:
            self._ids = np.union1d(self._ids, new)
            if len(self._ids) <= EXACT:
                return self
            new, self._ids = self._ids, new[:0]
            self._sketch = datasketches.hll_sketch(LG_K, _KIND)
        for number in new.tolist():
            self._sketch.update(number)
        return self

    def merge(self, other: "Tally") -> "Tally":
        """Count what the other has counted as well."""
        if other._sketch is None:
            return self.add(other._ids)
        ids, self._ids = self._ids, self._ids[:0]
        self._sketch = _union(*(sketch for sketch in (self._sketch, other._sketch) if sketch is not None))
        return self.add(ids)

    @property
    def exact(self) -> bool:
        return self._sketch is None

    @property
    def count(self) -> float:
        """How many; an estimate where it is not exact."""
        return float(len(self._ids) if self._sketch is None else _union(self._sketch).get_estimate())

    @property
    def lower(self) -> float:
        """At least so many, but for one case in 1,000 where it is not exact; never below EXACT there."""
        if self._sketch is None:
            return float(len(self._ids))
        return max(float(_union(self._sketch).get_lower_bound(DEVIATIONS)), EXACT + 1.0)

    def to_bytes(self) -> bytes:
        """A mark, `e` or `s`, then ids (8 bytes each, little-endian) or the sketch."""
        if self._sketch is None:
            return b"e" + self._ids.astype("<u8").tobytes()
        return b"s" + bytes(_union(self._sketch).serialize_compact())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tally":
        """Raises ValueError where the bytes are none of `to_bytes`."""
        tally = cls()
        if data[:1] == b"e":
            tally._ids = np.frombuffer(data[1:], "<u8").astype(np.uint64)
        elif data[:1] == b"s":
            tally._sketch = datasketches.hll_sketch.deserialize(data[1:])
        else:
            raise ValueError("these bytes are no tally")
        return tally

    def __reduce__(self) -> tuple[Any, ...]:
        return Tally.from_bytes, (self.to_bytes(),)


def _union(*sketches: Any) -> Any:
    """The sketches' union. One that was filled in one go estimates by its history; entered twice it has none."""
    union = datasketches.hll_union(LG_K)
    for sketch in (*sketches, sketches[0]):
        union.update(sketch)
    return union.get_result(_KIND)


@dataclass
class Cell:
    """What is known of the faces of one class; merges.

    people: of faces that count.
    witnesses: [w, dim] embeddings of faces that count, pairwise at least `apart` distant: w of them prove w people,
        even where one person was split. None with subjects.
    nearest: [G] for each gallery identity the least distance (Euclidean) to any face; infinite without one.
    faces: all, whether they count or not.
    looks, knows: [L] sums over all faces, and how many know each; the faces of a person weigh 1 together.
    male, age: [2] sum and how many know it, of all faces (the person's value for each).
    """

    people: Tally
    witnesses: NDArray[np.float32]
    nearest: NDArray[np.float32]
    faces: int
    looks: NDArray[np.float64]
    knows: NDArray[np.float64]
    male: NDArray[np.float64]
    age: NDArray[np.float64]

    def merge(self, other: "Cell", apart: float, most: int) -> "Cell":
        """Take in another part of the same class."""
        self.people.merge(other.people)
        self.witnesses = packed(np.concatenate([self.witnesses, other.witnesses]), apart, most)
        self.nearest = np.minimum(self.nearest, other.nearest)
        self.faces += other.faces
        self.looks = self.looks + other.looks
        self.knows = self.knows + other.knows
        self.male = self.male + other.male
        self.age = self.age + other.age
        return self


def packed(embeddings: NDArray[np.float32], apart: float, most: int) -> NDArray[np.float32]:
    """Embeddings [w <= most, dim] of which no two are closer than `apart`: greedy, from the first on."""
    left = embeddings
    chosen: list[NDArray[np.float32]] = []
    while len(left) and len(chosen) < most:
        chosen.append(left[0])
        distance = np.sqrt(((left - left[0]).astype(np.float64) ** 2).sum(1))
        distance[0] = 0
        left = left[distance >= apart]
    return np.array(chosen, np.float32).reshape(len(chosen), embeddings.shape[1])


Key = Callable[[int, float, float], Hashable]  # class of a person's cell, male, age; None: in no class


@dataclass(frozen=True)
class Settings:
    """apart: embedding distance from which two faces are two people's. most: witnesses held a class.
    subjects: people are those the subjects name, and a face without one does not count.
    batch: blocks that one task reads; rows: about so many faces it holds (800 bytes each)."""

    apart: float = 0.6
    most: int = 16
    subjects: bool = False
    batch: int = 1024
    rows: int = 1 << 19


@dataclass(frozen=True)
class Count:
    """Task: count some blocks. centres: [G, dim] embeddings of the gallery."""

    scratch: Scratch
    blocks: Sequence[str]
    centres: NDArray[np.float32]
    key: Key
    settings: Settings


def gather(
    blocks: Iterable[str],
    scratch: Scratch,
    centres: NDArray[np.floating],
    key: Key,
    settings: Settings,
    run: Run = map,
) -> dict[Hashable, Cell]:
    """The classes of all faces, by key; `people.find` must have named them.

    Args:
        centres: [G, dim] embeddings of the gallery.
        key: gets PERSONS' cell (-1: none), male and age (NaN: not known) of a face.
        run: as in `people.find`.
    """
    names, entries = sorted(blocks), np.asarray(centres, np.float32)
    starts = range(0, len(names), settings.batch)
    jobs = (Count(scratch, names[at : at + settings.batch], entries, key, settings) for at in starts)
    classes: dict[Hashable, Cell] = {}
    for found in run(counted, jobs):
        _merge(classes, found, settings)
    return classes


def counted(job: Count) -> dict[Hashable, Cell]:
    """The classes of some blocks."""
    classes: dict[Hashable, Cell] = {}
    held: list[pa.Table] = []
    for place, name in enumerate(job.blocks):
        columns = ["embedding", "counts", "subject", "looks"]
        table = pq.read_table(pa.BufferReader(job.scratch.get(name)), columns=columns)
        persons = pq.read_table(pa.BufferReader(job.scratch.get(f"person/{name}")))
        for column in persons.column_names:
            table = table.append_column(column, persons[column])
        held.append(table)
        if place == len(job.blocks) - 1 or sum(map(len, held)) >= job.settings.rows:
            _merge(classes, _cells(pa.concat_tables(held).combine_chunks(), job), job.settings)
            held = []
    return classes


def _merge(classes: dict[Hashable, Cell], more: dict[Hashable, Cell], settings: Settings) -> None:
    for key, cell in more.items():
        known = classes.get(key)
        classes[key] = cell if known is None else known.merge(cell, settings.apart, settings.most)


def _cells(faces: pa.Table, job: Count) -> dict[Hashable, Cell]:
    columns = [faces[name].to_numpy() for name in ("cell", "male", "age")]
    keys = [job.key(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
    numbers: dict[Hashable, int] = {}
    classes = np.array([-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys], int)
    order = np.argsort(classes, kind="stable")
    bounds = np.searchsorted(classes[order], np.arange(len(numbers) + 1))
    part = _Part(faces.take(order), job)
    return {key: part.cell(slice(*ends)) for key, ends in zip(numbers, pairwise(bounds), strict=True)}


class _Part:
    """Faces, sorted by class."""

    def __init__(self, faces: pa.Table, job: Count) -> None:
        self.settings, self.centres = job.settings, job.centres
        self.embeddings = vectors(faces["embedding"])
        self.embedded = np.isfinite(self.embeddings).all(1) & (faces["cell"].to_numpy() >= 0)
        if job.settings.subjects:
            subjects = faces["subject"].to_pylist()
            self.ids = np.array([int.from_bytes(of[:8], "big") for of in subjects], np.uint64)
            named = np.array([len(of) > 0 for of in subjects], np.bool_)
        else:
            self.ids = faces["person"].to_numpy()
            named = self.ids >= 0
        self.counts = faces["counts"].to_numpy() & named
        self.looks = vectors(faces["looks"])
        self.male, self.age = faces["male"].to_numpy(), faces["age"].to_numpy()
        self.weights = 1 / np.maximum(faces["faces"].to_numpy().astype(np.float64), 1)  # a person weighs 1

    def cell(self, rows: slice) -> Cell:
        embeddings = self.embeddings[rows][self.embedded[rows]].astype(np.float32)
        proof = np.flatnonzero(self.counts[rows] & self.embedded[rows])[
            : 0 if self.settings.subjects else None
        ]
        witnesses = packed(
            self.embeddings[rows][proof].astype(np.float32), self.settings.apart, self.settings.most
        )
        weights = self.weights[rows]
        looks, knows = _sums(self.looks[rows], weights)
        return Cell(
            Tally().add(self.ids[rows][self.counts[rows]]),
            witnesses,
            least(embeddings, self.centres),
            rows.stop - rows.start,
            looks,
            knows,
            *(np.concatenate(_sums(of[rows, None], weights)) for of in (self.male, self.age)),
        )


def _sums(
    values: NDArray[np.floating], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted sums [M] of values [n, M], and the weights of those that are known [M]."""
    known = np.isfinite(values)
    return weights @ np.where(known, values, 0).astype(np.float64), weights @ known


def least(embeddings: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """The least distance [G] of embeddings [n, dim] to each centre [G, dim]; infinite without any."""
    found = np.full(len(centres), np.inf, np.float32)
    for start in range(0, len(embeddings), TILE):
        part = embeddings[start : start + TILE]
        apart = (part**2).sum(1)[:, None] - 2 * part @ centres.T
        found = np.minimum(found, apart.min(0))
    return np.sqrt(np.maximum(found + (centres**2).sum(1), 0))
