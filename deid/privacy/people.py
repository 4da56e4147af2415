"""Pseudo-identities: which faces are one person's, by their embeddings, for a corpus that no memory holds.

Faces are sorted by their gallery cell into bins in a scratch store. Within a bin those of a cell that are clearly one
person's unite; then the groups of all cells that are left unite, nearest first, while they are closer than
`same` (`deid.privacy.clusters`). Faces of one subject are one person, whatever they look like. A wrong union makes
two people count as one, which is safe for k; a person split into two is not, hence nearest first, and `same` beyond
what one person's pictures mostly differ by.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deid.interfaces import Gallery
from deid.privacy import bins, gate
from deid.privacy.bins import FACES as FACES
from deid.privacy.bins import PERSONS, Scratch
from deid.privacy.bins import schema as schema
from deid.privacy.clusters import TIGHT, Clusters, Ids, averaged, clustered, squared
from deid.privacy.unite import Run, all_near, united


@dataclass(frozen=True)
class Settings:
    """`same`: embedding distance (Euclidean) up to which pictures are one person's. The rest trades memory for
    objects: a task holds about `rows` faces (300 bytes each), a bin should hold about as many."""

    same: float
    cells: int = 16  # nearest cells of a mean in which others are compared with it
    wide: int = 64  # likewise of a few faces that nobody was found for
    bins: int = 64
    batch: int = 1024  # blocks read by one task
    rows: int = 1 << 20
    means: bool = False  # say each person's mean embedding, too


@dataclass(frozen=True)
class People:
    """What was found: numbers 0..persons-1 are in use."""

    persons: int
    faces: int  # with a person
    without: int  # faces without an embedding and a subject
    subjects: int  # different ones
    largest: int  # faces of the person who has most
    groups: int  # left by the bins, before they united


@dataclass(frozen=True)
class Bin:
    """Task: group the faces of a bin."""

    scratch: Scratch
    number: int
    batches: Sequence[str]
    settings: Settings


@dataclass(frozen=True)
class Groups:
    """Faces that are one person's.

    means: [G, dim], float16 on the way.
    sums: [G, 6] faces with an embedding, male and how many know it, age and how many know it, squared distances from
        the mean.
    faces: [G]
    subjects: [G] binary; null: none.
    """

    means: NDArray[np.floating]
    sums: NDArray[np.float64]
    faces: Ids
    subjects: pa.Array


def calibrated(gallery: Gallery, rate: float) -> float:
    """`same`: the distance below which a share `rate` of pairs of different people of one apparent sex lie.

    Raises:
        ConfigError: the gallery has no such pair.
    """
    return gate.calibrated(gallery, rate)


def find(
    blocks: Iterable[str],
    scratch: Scratch,
    centres: NDArray[np.floating],
    settings: Settings,
    run: Run = map,
) -> People:
    """Write `person/<block>` (Parquet, PERSONS) for each block (Parquet, `schema`) of the scratch store.

    The same blocks give the same answer, in whatever order they are named. Everything else that is written lies
    below `people/`.

    Args:
        centres: [C, dim] embeddings of the gallery.
        run: applies a function to jobs in order and may do so elsewhere; jobs are made one by one as it asks.

    Raises:
        ValueError: a block is not as `schema` says, or its embeddings have another length than the centres.
    """
    names, step = sorted(blocks), settings.batch
    spreads = (
        bins.Spread(
            scratch, f"{start // step:06d}", names[start : start + step], settings.bins, settings.rows
        )
        for start in range(0, len(names), step)
    )
    batches = [batch for found in run(bins.spread, spreads) for batch in found]
    held: dict[int, list[str]] = {}
    for batch in batches:
        for number in batch.bins:
            held.setdefault(number, []).append(batch.name)
    numbers = sorted(held)
    parts = list(run(grouped, (Bin(scratch, number, held[number], settings) for number in numbers)))
    bounds = np.cumsum([0, *(len(part.faces) for part in parts)])
    groups = _together(parts, np.float32) if parts else None
    parts.clear()  # they are large
    people, persons = _united(groups, np.asarray(centres, np.float32), settings, run)
    tasks = (
        bins.Named(scratch, number, held[number], persons.slice(bounds[n], bounds[n + 1] - bounds[n]))
        for n, number in enumerate(numbers)
    )
    for _ in run(bins.named, tasks):
        pass
    for _ in run(bins.deliver, (bins.Delivery(scratch, batch) for batch in batches)):
        pass
    return People(**people, without=sum(batch.without for batch in batches))


def grouped(job: Bin) -> Groups:
    """Group the faces of a bin that are clearly one person's; who is where lies in `people/label/<bin>`."""
    groups: list[Groups] = []
    labels: list[pa.Table] = []
    held: list[pa.Table] = []
    for place, name in enumerate(job.batches):
        part = bins.get(job.scratch, f"people/part/{job.number}/{name}")
        held.append(part.append_column("batch", pa.array(np.full(len(part), place, np.int32))))
        if place == len(job.batches) - 1 or sum(map(len, held)) >= job.settings.rows:
            faces = pa.concat_tables(held).combine_chunks()
            group, found = _grouped(faces, job.settings.same)
            before = sum(len(other.faces) for other in groups)
            labels.append(faces.select(["batch", "row"]).append_column("group", pa.array(group + before)))
            groups.append(found)
            held = []
    bins.put(job.scratch, f"people/label/{job.number}", pa.concat_tables(labels))
    return _together(groups, np.float16)


def _grouped(faces: pa.Table, same: float) -> tuple[Ids, Groups]:
    cells = faces["cell"].to_numpy()
    vectors = np.where((cells >= 0)[:, None], bins.vectors(faces["embedding"]), np.float16(0))
    subjects = pc.if_else(pc.equal(pc.binary_length(faces["subject"]), 0), None, faces["subject"])
    codes = subjects.combine_chunks().dictionary_encode()
    labels = codes.indices.fill_null(-1).to_numpy().astype(np.int64)
    known = len(codes.dictionary)
    unknown = np.flatnonzero(labels < 0)
    found, more = clustered(vectors[unknown], cells[unknown], TIGHT * same)
    labels[unknown] = found + known
    count = known + more
    embedded = (cells >= 0).astype(np.float64)
    male, age = (faces[name].to_numpy().astype(np.float64) for name in ("male", "age"))
    weights = [embedded, np.nan_to_num(male), ~np.isnan(male), np.nan_to_num(age), ~np.isnan(age)]
    names = pa.concat_arrays([codes.dictionary, pa.nulls(more, codes.dictionary.type)])
    means = averaged(vectors, labels, count, weights=embedded)
    weights.append(embedded * squared(vectors, np.arange(len(labels)), means, labels))
    sums = np.array([np.bincount(labels, of, count) for of in weights], np.float64).T
    return labels, Groups(means.astype(np.float16), sums, np.bincount(labels, minlength=count), names)


def _together(parts: Sequence[Groups], kind: type[np.floating]) -> Groups:
    return Groups(
        np.concatenate([part.means for part in parts], dtype=kind),
        np.concatenate([part.sums for part in parts]),
        np.concatenate([part.faces for part in parts]),
        pa.concat_arrays([part.subjects for part in parts]),
    )


def _united(
    groups: Groups | None, centres: NDArray[np.float32], settings: Settings, run: Run
) -> tuple[dict[str, int], pa.Table]:
    """Counts for `People`, and PERSONS for each group."""
    if groups is None:
        return dict.fromkeys(("persons", "faces", "subjects", "largest", "groups"), 0), PERSONS.empty_table()
    codes = groups.subjects.dictionary_encode()
    subjects = codes.indices.fill_null(-1).to_numpy().astype(np.int64)
    weights = groups.sums[:, 0].copy()
    spreads = (groups.sums[:, 5] / np.maximum(weights, 1)).astype(np.float32)
    clusters = Clusters(groups.means.astype(np.float32, copy=False), weights, spreads, subjects)
    heads = united(clusters, centres, settings.same, settings.cells, settings.wide, run)
    chosen, person = np.unique(heads, return_inverse=True)
    faces = np.bincount(person, groups.faces).astype(np.int64)
    sums = np.stack([np.bincount(person, column) for column in groups.sums.T], axis=1)
    cells = np.full(len(chosen), -1, np.int32)
    placed = np.flatnonzero(sums[:, 0] > 0)
    cells[placed] = all_near(clusters.means, chosen[placed], centres, 1, run)[:, 0]
    with np.errstate(invalid="ignore"):
        male, age = (sums[:, [1, 3]] / sums[:, [2, 4]]).astype(np.float32).T
    counts = {"persons": len(chosen), "faces": int(faces.sum()), "subjects": len(codes.dictionary)}
    counts |= {"largest": int(faces.max()), "groups": len(heads)}
    columns = [person, cells[person], male[person], age[person], faces[person].astype(np.int32)]
    persons = pa.table(columns, PERSONS)
    if settings.means:
        flat = clusters.means[chosen[person]].astype(np.float16)
        means = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
        persons = persons.append_column("mean", means)
    return counts, persons
