"""Kernel distance (squared maximum mean discrepancy) between what two sets of faces look like to a network.

Kernel: (x . y / D + 1)^3, as in Binkowski et al. 2018, "Demystifying MMD GANs", section 4, there on the features of
another network: distances on different features do not compare. Estimator: unbiased, Gretton et al. 2012, "A kernel
two-sample test", lemma 6, over pairs of pictures of different people, so that a person's pictures are never taken for
independent of each other. Unbiased means that it may fall below 0 where there is no difference.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deid.evaluation.reid import Estimate

Floats = NDArray[np.float64]
LEAST_PEOPLE = 4  # two in each half
NOTHING = Estimate(float("nan"), float("nan"), float("nan"))


def kernel(a: Floats, b: Floats) -> Floats:
    """[N, M] of features [N, D] and [M, D]."""
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)


def scale(features: NDArray[np.floating]) -> float:
    """Root mean square of the finite features [N, D]: divided by it, the kernel's powers all have a say."""
    known = features[np.isfinite(features).all(axis=1)]
    return float(np.sqrt(np.mean(np.square(known, dtype=np.float64)))) if known.size else float("nan")


def paired(
    before: Floats, after: Floats, people: NDArray[Any], rng: np.random.Generator, resamples: int = 1000
) -> Estimate:
    """Distance between faces before and after a treatment, [N, D] each, with a 95 % interval over people [N].

    Rows with a value that is not finite, on either side, take no part. NaN with fewer than `LEAST_PEOPLE`.
    """
    known = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    x, y, whose = before[known], after[known], _numbers(people[known])
    if whose.max(initial=-1) + 1 < LEAST_PEOPLE:
        return NOTHING
    cross = kernel(x, y)
    sums, counts = _by_person(kernel(x, x) + kernel(y, y) - cross - cross.T, whose)
    size = len(counts)
    draws = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)
    samples = _mean(sums, counts, draws, draws)
    low, high = np.percentile(samples[np.isfinite(samples)], [2.5, 97.5])
    return Estimate(float(_mean(sums, counts, *2 * [np.ones((1, size))])[0]), float(low), float(high))


def halves(features: Floats, people: NDArray[Any], rng: np.random.Generator, splits: int = 1000) -> Estimate:
    """Distance between two random halves of the people, over many splits: mean, and 2.5 % and 97.5 % of the splits.

    What the distance is where nothing was done, and by how much chance alone moves it. features: [N, D]; NaN with fewer
    than `LEAST_PEOPLE`.
    """
    known = np.isfinite(features).all(axis=1)
    whose = _numbers(people[known])
    if whose.max(initial=-1) + 1 < LEAST_PEOPLE:
        return NOTHING
    sums, counts = _by_person(kernel(features[known], features[known]), whose)
    size = len(counts)
    first = (rng.permuted(np.tile(np.arange(size), (splits, 1)), axis=1) < size // 2).astype(np.float64)
    parts = [
        _mean(sums, counts, *pair) for pair in ((first, first), (1 - first, 1 - first), (first, 1 - first))
    ]
    samples = parts[0] + parts[1] - 2 * parts[2]
    low, high = np.percentile(samples, [2.5, 97.5])
    return Estimate(float(samples.mean()), float(low), float(high))


def _numbers(people: NDArray[Any]) -> NDArray[np.intp]:
    """[N] 0, 1, 2, ... instead of names."""
    return np.unique(people, return_inverse=True)[1] if len(people) else np.zeros(0, np.intp)


def _by_person(values: Floats, whose: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Sums [P, P] of the values [N, N] by the pair of people, 0 where both are the same; pictures [P] of each."""
    member = np.eye(whose.max() + 1)[whose]
    sums = member.T @ values @ member
    np.fill_diagonal(sums, 0)
    return sums, member.sum(axis=0)


def _mean(sums: Floats, counts: Floats, a: Floats, b: Floats) -> Floats:
    """[R] mean over the pairs of pictures of different people, who weigh a [R, P] on one side and b on the other."""
    weight = (a @ counts) * (b @ counts) - (a * b) @ counts**2
    total = ((a @ sums) * b).sum(axis=1)
    return np.divide(total, weight, out=np.full(len(a), np.nan), where=weight > 0)
