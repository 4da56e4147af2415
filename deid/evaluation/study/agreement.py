"""Krippendorff's alpha: how far several people agree beyond chance, whoever answered what.

Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", whose examples are tests of this module.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deid.evaluation.reid import Estimate

Level = Literal["nominal", "ordinal"]
Floats = NDArray[np.float64]


def counts(answers: NDArray[np.integer[Any]], values: int) -> Floats:
    """How often each unit was given each value [U, V], of answers [P, U] 0..V-1; below 0: none."""
    return np.stack([(answers == value).sum(axis=0) for value in range(values)], axis=1).astype(np.float64)


def alpha(given: Floats, level: Level = "nominal") -> float:
    """Alpha of U units whose values were given so often [U, V], values in their order.

    1: all agree; 0: as if values were drawn from all that were given. A unit with a single answer takes no part. NaN
    where no unit has two answers, or all answers are one and the same.
    """
    pairable = given[given.sum(axis=1) >= 2]
    if not len(pairable):
        return float("nan")
    size = pairable.sum(axis=1)
    together = (pairable / (size - 1)[:, None]).T @ pairable
    together -= np.diag((pairable / (size - 1)[:, None]).sum(axis=0))
    totals = together.sum(axis=1)
    apart = distances(totals, level)
    expected = float(totals @ apart @ totals - (np.diag(apart) * totals).sum()) / (totals.sum() - 1)
    return 1 - float((together * apart).sum()) / expected if expected > 0 else float("nan")


def distances(totals: Floats, level: Level) -> Floats:
    """Squared differences [V, V] of values that were given so often [V]; ordinal: the answers that lie between them,
    each end counted by half."""
    if level == "nominal":
        return 1 - np.eye(len(totals))
    middle = np.cumsum(totals) - totals / 2
    return np.asarray((middle[:, None] - middle[None]) ** 2)


def estimate(given: Floats, level: Level, rng: np.random.Generator, resamples: int = 1000) -> Estimate:
    """Alpha and its 95 % interval over resampled units. Not over participants: one who is drawn twice agrees with
    himself, which would raise alpha."""
    value = alpha(given, level)
    if not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"))
    drawn = rng.integers(len(given), size=(resamples, len(given)))
    samples = [found for row in drawn if np.isfinite(found := alpha(given[row], level))]
    if len(samples) < 2:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(samples, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def table(answers: Sequence[Sequence[str]], options: Sequence[str]) -> NDArray[np.int64]:
    """Answers [P, U] as places in `options`; -1 for one that is none of them."""
    place = {option: number for number, option in enumerate(options)}
    return np.array([[place.get(answer, -1) for answer in row] for row in answers], np.int64)
