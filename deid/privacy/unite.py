"""Clusters all over the cells, united nearest first, in tasks that see a few cells each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deid.privacy.clusters import CHUNK, Clusters, Doubles, Floats, Ids, Link, link, mutual

# Applies a function to jobs and keeps their order, such as the built-in map.
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

FEW = 3  # faces of a cluster that is looked for in more cells
WORK = 1 << 26  # pairs compared by one task: about a tenth of a second


def near(job: tuple[Floats, Floats, int]) -> NDArray[np.int32]:
    """The m nearest centres [n, m] of means [n, dim], nearest first. The job: means, centres [C, dim], m."""
    means, centres, m = job
    apart = (centres**2).sum(1) - 2 * means @ centres.T
    if m == 1:
        return apart.argmin(1)[:, None].astype(np.int32)
    every = m >= len(centres)
    some = np.argsort(apart, axis=1) if every else np.argpartition(apart, m - 1, axis=1)[:, :m]
    order = np.lexsort((some, np.take_along_axis(apart, some, 1)), axis=1)
    return np.take_along_axis(some, order, 1).astype(np.int32)


def all_near(means: Floats, ids: Ids, centres: Floats, m: int, run: Run) -> NDArray[np.int32]:
    """`near` for clusters `ids` [n], in tasks."""
    starts = range(0, len(ids), CHUNK)
    jobs = ((means[ids[start : start + CHUNK]], centres, m) for start in starts)
    return np.concatenate([np.zeros((0, m), np.int32), *run(near, jobs)])


def united(clusters: Clusters, centres: Floats, radius: float, m: int, wide: int, run: Run = map) -> Ids:
    """Unite clusters all over the cells; the cluster [N] in which each has ended.

    Compared are two clusters of which one lies in one of the `m` cells nearest to the other; once these are done,
    clusters of at most FEW faces are compared with those in their `wide` nearest cells: a single picture may lie far
    from the rest of its person's. In the end no two that are compared are closer than `radius`, but of two subjects.

    Args:
        centres: [C, dim] the cells' centres.
        run: applies a function to jobs, such as the built-in map; jobs are made one by one as it asks.
    """
    known = np.flatnonzero(clusters.subjects >= 0)
    if len(known):
        _, first, same = np.unique(clusters.subjects[known], return_index=True, return_inverse=True)
        clusters.merge(known, known[first][same])
    for few, width in ((0, min(m, len(centres))), (FEW, min(max(m, wide), len(centres)))):
        cells = np.zeros((len(clusters.means), width), np.int16 if len(centres) < 1 << 15 else np.int32)
        stale, grew = _living(clusters), True
        while grew:
            alive, grew = _living(clusters), False
            while len(alive) > 1:
                cells[stale] = all_near(clusters.means, stale, centres, width, run)
                cells[stale[clusters.weights[stale] > few], m:] = -1
                nearest, apart = _nearest(clusters, alive, cells[alive], radius, run)
                stale = clusters.join(alive, nearest, apart, radius)
                if not len(stale):
                    break
                grew = True
                alive = alive[(apart < radius) & (clusters.parents[alive] == alive)]
    return clusters.roots()


def _living(clusters: Clusters) -> Ids:
    return np.flatnonzero((clusters.parents == np.arange(len(clusters.parents))) & (clusters.weights > 0))


def _nearest(
    clusters: Clusters, alive: Ids, cells: NDArray[np.int32], radius: float, run: Run
) -> tuple[Ids, Doubles]:
    """The nearest [n] of each living cluster (place in `alive`) and its distance, infinite beyond the radius."""
    home = np.argsort(cells[:, 0], kind="stable")
    asking = np.argsort(cells.ravel(), kind="stable")
    numbers = np.unique(cells[:, 0])
    inside = [np.searchsorted(cells[home, 0], numbers, side) for side in ("left", "right")]
    outside = [np.searchsorted(cells.ravel()[asking], numbers, side) for side in ("left", "right")]
    targets = [home[a:b] for a, b in zip(*inside, strict=True)]
    queries = [asking[a:b] // cells.shape[1] for a, b in zip(*outside, strict=True)]
    found = run(linked, _jobs(clusters, alive, queries, targets))
    nearest, least = np.zeros(len(alive), np.int64), np.full(len(alive), np.inf, np.float32)
    answers = (answer for answers in found for answer in answers)
    for q, t, (best, squared) in zip(queries, targets, answers, strict=True):
        better = squared < least[q]
        least[q[better]], nearest[q[better]] = squared[better], t[best[better]]
    apart = np.full(len(alive), np.inf)
    close = np.flatnonzero(least < (radius * 1.001) ** 2)
    apart[close] = clusters.distances(alive[close], alive[nearest[close]])
    apart[apart >= radius] = np.inf
    return mutual(nearest, apart)


def linked(job: Sequence[Link]) -> list[tuple[Ids, Floats]]:
    """Some cells' comparisons."""
    return [link(one) for one in job]


def _jobs(
    clusters: Clusters, alive: Ids, queries: Sequence[Ids], targets: Sequence[Ids]
) -> Iterator[list[Link]]:
    """Comparisons of whole cells, about WORK pairs a task."""
    held: list[Link] = []
    pairs = 0
    for q, t in zip(queries, targets, strict=True):
        held.append(_link(clusters, alive, q, t))
        pairs += len(q) * len(t)
        if pairs >= WORK:
            yield held
            held, pairs = [], 0
    if held:
        yield held


def _link(clusters: Clusters, alive: Ids, queries: Ids, targets: Ids) -> Link:
    place = np.minimum(np.searchsorted(targets, queries), len(targets) - 1)
    own = np.where(targets[place] == queries, place, -1)
    asking, asked = alive[queries], alive[targets]
    spreads = clusters.spreads[asking], clusters.spreads[asked]
    subjects = clusters.subjects[asking], clusters.subjects[asked]
    barred = subjects if all((of >= 0).any() for of in subjects) else None
    return Link(clusters.means[asking], clusters.means[asked], spreads, own, barred)
