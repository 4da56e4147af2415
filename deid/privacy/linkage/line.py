"""What one test of the attack says, and how far chance alone may take it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.001  # probability that any line of an attack on a sound run is above its limit

Limit = Callable[[float], float]  # the value that chance passes with at most this probability


@dataclass(frozen=True)
class Line:
    name: str
    value: float
    chance: float  # what to expect where nothing leaks
    limit: float  # the most that chance explains
    above: bool  # a leak: the value is above the limit
    note: str  # what the value is, and out of how much


@dataclass(frozen=True)
class Finding:
    """A line whose limit depends on how many tests there are. A limit of None: nothing of it is left to chance."""

    name: str
    value: float
    chance: float
    limit: Limit | None
    note: str


def lines(tests: list[Finding]) -> list[Line]:
    """The lines of all tests, at `LEVEL` shared out evenly (Bonferroni) among those that chance can take anywhere."""
    level = LEVEL / max(1, sum(test.limit is not None for test in tests))
    found = []
    for test in tests:
        limit = test.chance if test.limit is None else test.limit(level)
        found.append(Line(test.name, test.value, test.chance, limit, test.value > limit + 1e-12, test.note))
    return found


def information(name: str, value: float, chance: float, most: float, note: str) -> Finding:
    """A line that is never above its limit, the most that the value can be."""
    return Finding(name, value, chance, lambda _: max(most, value), note)


def correlation(name: str, rho: float, weight: float, note: str) -> Finding:
    """|Spearman's rho|, with variance 1 / weight under permutation (weight: pairs - 1); normal, so that below about 18
    pairs no value is above its limit."""
    sd = 1 / math.sqrt(max(weight, 1e-9))
    sign = "" if rho >= 0 else "; it is negative"
    return Finding(
        name,
        abs(rho),
        min(1.0, sd * math.sqrt(2 / math.pi)),
        lambda level: min(1.0, NormalDist().inv_cdf(1 - level / 2) * sd),
        note + sign,
    )


def permuted(
    name: str, value: float, draws: NDArray[np.float64], note: str, most: float | None = None
) -> Finding:
    """A value >= 0 against values of permutations [draws]: a gamma distribution with their mean and variance, whose
    quantile is Wilson and Hilferty's (1931). most: the value is information, and this the most it can be."""
    mean, variance = float(draws.mean()), float(draws.var())

    def limit(level: float) -> float:
        if mean <= 0 or variance <= 1e-18:
            return mean
        shape = mean**2 / variance
        z = NormalDist().inv_cdf(1 - level)
        return mean * max(0.0, 1 - 1 / (9 * shape) + z / (3 * math.sqrt(shape))) ** 3

    return (
        Finding(name, value, mean, limit, note)
        if most is None
        else information(name, value, mean, most, note)
    )


def binomial_limit(n: int, p: float) -> Limit:
    """Of n trials that succeed with probability p."""

    def probability(successes: int) -> float:
        ways = math.lgamma(n + 1) - math.lgamma(successes + 1) - math.lgamma(n - successes + 1)
        return math.exp(ways + successes * math.log(p) + (n - successes) * math.log1p(-p))

    def limit(level: float) -> float:
        below = 0.0
        for successes in range(n if 0 < p < 1 else 0):
            below += probability(successes)
            if 1 - below <= level:
                return float(successes)
        return float(n)

    return limit


def ranks(values: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks [N] from 0, equal values with their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[inverse], np.float64)


def spearman(a: NDArray[np.integer], b: NDArray[np.integer]) -> float:
    """Rank correlation of two arrays [N]; 0 where one of them is constant or N < 2."""
    x, y = (ranks(values) - (len(values) - 1) / 2 for values in (a, b))
    power = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / power if power else 0.0
