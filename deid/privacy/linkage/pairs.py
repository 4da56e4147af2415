"""The true pairs of source and output pictures, by the background that replacing faces leaves as it was."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deid.privacy.linkage.line import Finding, binomial_limit, correlation, information, permuted, spearman
from deid.privacy.linkage.reading import Sample

LEAST = 0.5  # cosine of the vectors of a pair
MARGIN = (
    1e-3  # by which it is more than that of any other candidate: equal pictures would pair by their order
)
DRAWS = 500  # permutations
NEAR = 16  # bytes by which the lengths of a pair may differ to be nearly equal
_ROWS = 1024  # of the similarities that are held at once
_WEAK = 30  # pairs below which an attack says little


@dataclass(frozen=True)
class Pairs:
    """Samples of both sides that show one picture, in the order of the source."""

    source: list[Sample]
    output: list[Sample]

    def __len__(self) -> int:
        return len(self.source)

    def of(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """A field of both sides [N]."""
        sides = (self.source, self.output)
        source, output = (np.array([getattr(s, name) for s in side], np.int64) for side in sides)
        return source, output


def find(source: Sequence[Sample], output: Sequence[Sample]) -> Pairs:
    """Mutual nearest neighbours, those that are not clearly the nearest left out."""
    a, b = ([s for s in side if s.vector is not None] for side in (source, output))
    if not a or not b:
        return Pairs([], [])
    there, back = _nearest(a, b), _nearest(b, a)
    found = [(a[n], b[m]) for n, m in enumerate(there) if m >= 0 and back[m] == n]
    found.sort(key=lambda pair: pair[0].number)
    return Pairs([pair[0] for pair in found], [pair[1] for pair in found])


def _nearest(queries: Sequence[Sample], candidates: Sequence[Sample]) -> NDArray[np.int64]:
    """Index [queries] of the nearest candidate, -1 where it is not near or not clearly the nearest."""
    vectors = np.stack([s.vector for s in candidates if s.vector is not None])
    found = np.full(len(queries), -1)
    for start in range(0, len(queries), _ROWS):
        block = np.stack([s.vector for s in queries[start : start + _ROWS] if s.vector is not None])
        cosines = block @ vectors.T
        best = cosines.argmax(1)
        rows = np.arange(len(block))
        top = cosines[rows, best]
        cosines[rows, best] = -np.inf
        clear = (top >= LEAST) & (top - cosines.max(1) >= MARGIN)
        found[start : start + len(block)] = np.where(clear, best, -1)
    return found


def tests(pairs: Pairs, looked_at: tuple[int, int], held: tuple[int, int]) -> list[Finding]:
    """How many pairs there are, and whether order, shards and sizes of one side tell those of the other.

    looked_at, held: pictures of source and output that were compared, and that there are.
    """
    n = len(pairs)
    note = (
        f"share of output pictures whose source was found by its unchanged background: {n} pairs among "
        f"{looked_at[0]} of {held[0]} source and {looked_at[1]} of {held[1]} output pictures, drawn at random. "
        "The limit of replacing faces, not a leak of the audit"
    )
    found = information("pairs", n / max(1, looked_at[1]), 1 / max(1, looked_at[0]), 1, note)
    if not n:
        return [found]
    weak = "" if n >= _WEAK else f"; {n} pairs are too few to say much"
    return [found, *_order(pairs, weak), _together(pairs, weak), _lengths(pairs), _sizes(pairs)]


def _order(pairs: Pairs, weak: str) -> list[Finding]:
    source, output = pairs.of("number")
    whole = spearman(source, output)
    shard = pairs.of("shard")[1]
    within, weight = 0.0, 0
    for number in np.unique(shard):
        inside = shard == number
        within += (inside.sum() - 1) * spearman(source[inside], output[inside])
        weight += int(inside.sum()) - 1
    return [
        correlation(
            "order", whole, len(pairs) - 1, f"rank correlation of the places of {len(pairs)} pairs{weak}"
        ),
        correlation(
            "order_within",
            within / max(1, weight),
            max(1, weight),
            f"the same within each output shard, its mean{weak}",
        ),
    ]


def _together(pairs: Pairs, weak: str) -> Finding:
    source, output = pairs.of("shard")
    source, output = (np.unique(side, return_inverse=True)[1] for side in (source, output))
    whole = max(1.0, _couples(np.bincount(source)))
    rng = np.random.default_rng(0)
    value = _couples(_table(source, output))
    draws = np.array([_couples(_table(source, rng.permutation(output))) for _ in range(DRAWS)])
    note = (
        f"share of the couples of one source shard that are in one output shard, {int(whole)} couples{weak}"
    )
    return permuted("shards", value / whole, draws / whole, note)


def _table(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(a * (int(b.max()) + 1) + b, return_counts=True)[1]


def _couples(counts: NDArray[np.int64]) -> float:
    return float((counts * (counts - 1) / 2).sum())


def _lengths(pairs: Pairs) -> Finding:
    """Among lengths that are nearly equal, as those of similar pictures are, each difference is as frequent."""
    source, output = pairs.of("size")
    same = np.array([a.content == b.content for a, b in zip(pairs.source, pairs.output, strict=True)])
    difference = np.abs(source - output)[~same]
    near, equal = int((difference <= NEAR).sum()), int((difference == 0).sum())
    share = 1 / (2 * NEAR + 1)
    note = (
        f"output pictures of the very length of their source, out of {len(difference)} pairs with other bytes; "
        f"chance from the {near} pairs whose lengths differ by at most {NEAR}, since mismatched pairs would not "
        "share the content that gives the length"
    )
    return Finding("lengths", equal, near * share, binomial_limit(near, share), note)


def _sizes(pairs: Pairs) -> Finding:
    rho = spearman(*pairs.of("size"))
    note = "rank correlation of the pairs' sizes in bytes: information, since size follows the content that stays"
    return information("sizes", abs(rho), 0, 1, note)


def mirrored(source: Sequence[int], output: Sequence[int], unit_size: int | None) -> Finding:
    """Do the shards of the output hold as many pictures as those of the source, beyond what a unit size gives?"""
    total = sum(output)
    unit = unit_size or max(output, default=1)
    cut = sorted([unit] * (total // unit) + ([total % unit] if total % unit else []))
    equal = sorted(source) == sorted(output) and sorted(output) != cut
    note = f"1: the {len(output)} output shards hold as many pictures as the {len(source)} source shards, one by one"
    if sorted(source) == cut:
        note += "; the source is cut into units of this very size, so that nothing can be said"
    return Finding("shard_sizes", float(equal), 0, None, note)
