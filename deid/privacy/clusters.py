"""Agglomeration of embeddings, nearest first: the arrays' part of `deid.privacy.people`, as far as one task sees.

The distance of two clusters is the root of the mean squared distance of a face of one from a face of the other
(average linkage; |a - b|^2 + the two spreads, for means a and b). Clusters that are each other's nearest unite while
it is below a radius, round after round (reciprocal nearest neighbours, Murtagh 1983). So faces in between do not
chain two people together; and no cluster grows in the middle of all faces, as it would if only means were compared:
the mean of many people is nearer to everybody than anybody is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]

TILE = 1024  # rows of distances worked out at once
CHUNK = 16 * TILE  # rows of embeddings copied at once
_ELEMENTS = 1 << 23  # of distances, likewise
CROWD = 4096  # faces compared all with all
TIGHT = 0.7  # of the radius: up to there faces of one crowd unite before the whole is looked at
STAR = 0.25  # of the radius: so near a pair that unites, a third one joins it in the same round


class Clusters:
    """Clusters that unite: means [N, dim], weights [N] (faces), spreads [N] (mean squared distance of a face from
    the mean), subjects [N] (codes; -1: none), parents [N].

    Two clusters of different subjects never unite. The arrays given are changed in place.
    """

    def __init__(self, means: Floats, weights: Doubles, spreads: Floats, subjects: Ids | None = None) -> None:
        self.means, self.weights, self.spreads = means, weights, spreads
        self.subjects = np.full(len(means), -1) if subjects is None else subjects
        self.parents: Ids = np.arange(len(means))

    def join(self, ids: Ids, nearest: Ids, distance: Doubles, radius: float) -> Ids:
        """Unite what is mutually nearest and below `radius`. Returns the clusters that grew.

        Args:
            ids: [n] clusters, ascending.
            nearest: [n] places in `ids`; meaningless where distance is infinite.
            distance: [n] to the nearest.
        """
        here = np.arange(len(ids))
        paired = (distance < radius) & (nearest[nearest] == here)
        heads = np.where(paired, np.minimum(here, nearest), here)
        third = ~paired & (distance < STAR * radius) & paired[nearest] & (self.subjects[ids] < 0)
        heads[third] = heads[nearest[third]]
        return self.merge(ids, ids[heads])

    def merge(self, ids: Ids, heads: Ids) -> Ids:
        """Put clusters `ids` [n] into `heads` [n], which stay. Returns the heads that grew, ascending."""
        gone = ids != heads
        grown = np.unique(heads[gone])
        members = np.concatenate([grown, ids[gone]])
        groups = np.searchsorted(grown, np.concatenate([grown, heads[gone]]))
        weights = self.weights[members]
        means = averaged(self.means, groups, len(grown), members, weights)
        scatter = self.spreads[members] + squared(self.means, members, means, groups)
        self.means[grown] = means
        self.weights[grown] = np.bincount(groups, weights, len(grown))
        total = np.maximum(self.weights[grown], 1e-9)
        self.spreads[grown] = np.bincount(groups, weights * scatter, len(grown)) / total
        np.maximum.at(self.subjects, heads[gone], self.subjects[ids[gone]])
        self.parents[ids[gone]] = heads[gone]
        return grown

    def distances(self, first: Ids, second: Ids) -> Doubles:
        """Distances [n] of clusters `first` from `second`, the same whichever comes first."""
        low, high = np.minimum(first, second), np.maximum(first, second)
        apart = squared(self.means, low, self.means, high)
        return np.asarray(np.sqrt(apart + self.spreads[low] + self.spreads[high]))

    def roots(self) -> Ids:
        """The cluster [N] in which each has ended."""
        roots = self.parents
        while (roots[roots] != roots).any():
            roots = roots[roots]
        return roots


def averaged(
    vectors: NDArray[np.floating],
    groups: Ids,
    count: int,
    rows: Ids | None = None,
    weights: Doubles | None = None,
) -> Floats:
    """Means [count, dim] of vectors [rows] by their group [n] 0..count-1; zeros where a group has no weight."""
    rows = np.arange(len(vectors)) if rows is None else rows
    weights = np.ones(len(rows)) if weights is None else weights
    order = np.argsort(groups, kind="stable")
    total = np.maximum(np.bincount(groups, weights, count), 1e-9)
    means = np.zeros((count, vectors.shape[1]), np.float32)
    for start in range(0, len(order), CHUNK):
        part = order[start : start + CHUNK]
        firsts = np.flatnonzero(np.diff(groups[part], prepend=-1))
        sums = np.add.reduceat(vectors[rows[part]].astype(np.float64) * weights[part, None], firsts, axis=0)
        numbers = groups[part][firsts]
        means[numbers] += sums / total[numbers, None]
    return means


@dataclass(frozen=True)
class Link:
    """Clusters compared with others: means [Q, dim] and [T, dim], spreads [Q] and [T].

    own: [Q] place of the query itself among the targets, -1 where it is none of them.
    barred: subjects of queries [Q] and targets [T]; two of them, both known, are not compared.
    """

    queries: Floats
    targets: Floats
    spreads: tuple[Floats, Floats]
    own: Ids
    barred: tuple[Ids, Ids] | None = None


def link(job: Link) -> tuple[Ids, Floats]:
    """The nearest target [Q] (place) of each query and its squared distance [Q], infinite where there is none."""
    queries, targets = job.queries, job.targets
    best, least = np.zeros(len(queries), np.int64), np.full(len(queries), np.inf, np.float32)
    if not len(queries) or not len(targets):
        return best, least
    # One product gives |t|^2 - 2 q t and the target's spread.
    right = np.ascontiguousarray(np.c_[-2 * targets, (targets**2).sum(1) + job.spreads[1]].T)
    left = np.c_[queries, np.ones(len(queries), np.float32)]
    tile = min(len(queries), max(TILE // 16, min(TILE, _ELEMENTS // len(targets))))
    buffer = np.empty((tile, len(targets)), np.float32)
    for start in range(0, len(queries), tile):
        rows = slice(start, min(start + tile, len(queries)))
        apart = np.matmul(left[rows], right, out=buffer[: rows.stop - rows.start])
        known = np.flatnonzero(job.own[rows] >= 0)
        apart[known, job.own[rows][known]] = np.inf
        if job.barred is not None:
            apart[(job.barred[0][rows, None] >= 0) & (job.barred[1] >= 0)] = np.inf
        best[rows] = apart.argmin(1)
        least[rows] = apart[np.arange(len(apart)), best[rows]]
    return best, np.asarray(np.maximum(least + (queries**2).sum(1) + job.spreads[0], 0), np.float32)


def squared(first: NDArray[np.floating], rows: Ids, second: Floats, others: Ids) -> Doubles:
    """Squared distances [n] of vectors first[rows] from second[others]."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        found[part] = ((first[rows[part]].astype(np.float64) - second[others[part]]) ** 2).sum(1)
    return found


def clustered(vectors: NDArray[np.floating], cells: NDArray[np.int32], radius: float) -> tuple[Ids, int]:
    """Groups of faces of one cell each, 0..count-1 [n], and their count.

    Args:
        vectors: [n, dim]
        cells: [n]
        radius: up to which means unite; faces of one crowd only, so that it takes time in proportion to n.
    """
    labels, count = np.full(len(vectors), -1), 0
    order = np.argsort(cells, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
        for crowd in crowds(vectors, rows) if len(rows) else ():
            heads = _crowd(vectors[crowd].astype(np.float32), radius)
            found, numbers = np.unique(heads, return_inverse=True)
            labels[crowd] = numbers + count
            count += len(found)
    return labels, count


def crowds(vectors: NDArray[np.floating], rows: Ids) -> Iterator[Ids]:
    """Rows in sets of at most CROWD: halved across the direction in which they differ most."""
    if len(rows) <= CROWD:
        yield rows
        return
    sample = vectors[rows[:: max(1, len(rows) // CHUNK)]].astype(np.float64)
    direction = np.linalg.eigh(np.cov(sample.T))[1][:, -1].astype(np.float32)
    along = np.concatenate(
        [vectors[rows[s : s + CHUNK]].astype(np.float32) @ direction for s in range(0, len(rows), CHUNK)]
    )
    order = np.argsort(along, kind="stable")
    for half in np.array_split(order, 2):
        yield from crowds(vectors, rows[np.sort(half)])


def _crowd(vectors: Floats, radius: float) -> Ids:
    n = len(vectors)
    clusters, alive = Clusters(vectors, np.ones(n), np.zeros(n, np.float32)), np.arange(n)
    while len(alive) > 1:
        means, spreads = clusters.means[alive], clusters.spreads[alive]
        nearest, _ = link(Link(means, means, (spreads, spreads), np.arange(len(alive))))
        nearest, apart = mutual(nearest, clusters.distances(alive, alive[nearest]))
        if not len(clusters.join(alive, nearest, apart, radius)):
            break
        alive = alive[(apart < radius) & (clusters.parents[alive] == alive)]
    return clusters.roots()


def mutual(nearest: Ids, distance: Doubles) -> tuple[Ids, Doubles]:
    """The nearest [n] and its distance, where whoever takes me for its nearest counts for me as well.

    Ties go by the numbers, so that the closest two of all are always each other's nearest.
    """
    here = np.arange(len(nearest))
    order = np.lexsort((np.maximum(here, nearest), np.minimum(here, nearest), distance))
    rank, suitor = np.empty_like(here), np.full(len(here), -1)
    rank[order] = here
    order = order[np.isfinite(distance[order])][::-1]
    suitor[nearest[order]] = order  # the last one written is the nearest
    better = (suitor >= 0) & (rank[suitor] < rank)
    return np.where(better, suitor, nearest), np.where(better, distance[suitor], distance)
