"""Shares and d' of answers, with intervals over participants and tasks.

Answers are crossed: every participant answers every task. So participants and tasks are both resampled, independently
(the pigeonhole bootstrap: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1). Where that says
nothing, Wilson's interval (1927) stands in: for a single participant, over his answers; for a share of 0 or 1, over
as many answers as there are participants or tasks, whichever are fewer.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from deid.evaluation.reid import Estimate

Floats = NDArray[np.float64]
Z = NormalDist().inv_cdf(0.975)
NOTHING = Estimate(float("nan"), float("nan"), float("nan"))
_deviates = np.frompyfunc(NormalDist().inv_cdf, 1, 1)


class Resampler:
    """Draws the same participants for every figure of one study; tasks anew for each set of tasks."""

    def __init__(self, participants: int, rng: np.random.Generator, resamples: int = 1000) -> None:
        self.rng, self.resamples = rng, resamples
        even = np.full(participants, 1 / participants)
        self.people = rng.multinomial(participants, even, size=resamples).astype(np.float64)  # [R, P]

    def share(self, hits: Floats) -> Estimate:
        """Mean of hits [P, T], 1 or 0, NaN where there is no answer."""
        known = np.isfinite(hits)
        if not known.any():
            return NOTHING
        value, answered = float(hits[known].mean()), int(known.sum())
        people, tasks = int(known.any(axis=1).sum()), int(known.any(axis=0).sum())
        if people == 1:
            return wilson(value, answered)
        if value in (0.0, 1.0):
            return wilson(value, min(people, tasks))
        hit, given = self.weigh(hits)
        low, high = np.percentile(hit[given > 0] / given[given > 0], tails(tasks))
        return Estimate(value, float(low), float(high))

    def d_prime(self, hits: Floats, alarms: Floats) -> Estimate:
        """Sensitivity of answers to signal tasks `hits` [P, T] and to noise tasks `alarms` [P, S], see `d_prime`."""
        if not (np.isfinite(hits).any() and np.isfinite(alarms).any()):
            return NOTHING
        value = float(d_prime(*_counts(hits), *_counts(alarms)))
        sampled = d_prime(*self.weigh(hits), *self.weigh(alarms))
        fewest = min(int(np.isfinite(side).any(axis=0).sum()) for side in (hits, alarms))
        low, high = np.percentile(sampled, tails(fewest))
        return Estimate(value, float(low), float(high))

    def weigh(self, hits: Floats) -> tuple[Floats, Floats]:
        """Hits and answers [R] of every resample."""
        number = hits.shape[1]
        tasks = self.rng.multinomial(number, np.full(number, 1 / number), size=self.resamples)
        known = np.isfinite(hits)
        hit, given = (self.people @ side * tasks for side in (np.where(known, hits, 0.0), known * 1.0))
        return hit.sum(axis=1), given.sum(axis=1)


def tails(tasks: int) -> tuple[float, float]:
    """Percentiles of the resamples that bound 95 % where there are so many tasks: further out than 2.5 and 97.5, since
    resamples of a few vary too little (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", the expanded
    percentile interval; Student's t by its expansion, Abramowitz and Stegun 26.7.5)."""
    free = max(tasks, 2) - 1
    student = Z + (Z**3 + Z) / (4 * free) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * free**2)
    student += (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * free**3)
    tail = 100 * NormalDist().cdf(-student * ((free + 1) / free) ** 0.5)
    return tail, 100 - tail


def wilson(share: float, answers: int) -> Estimate:
    """A share of so many independent answers, with Wilson's score interval."""
    middle = (share + Z**2 / (2 * answers)) / (1 + Z**2 / answers)
    reach = Z / (1 + Z**2 / answers) * np.sqrt(share * (1 - share) / answers + Z**2 / (4 * answers**2))
    return Estimate(share, max(0.0, float(middle - reach)), min(1.0, float(middle + reach)))


def d_prime(
    hits: Floats | float, signals: Floats | float, alarms: Floats | float, noises: Floats | float
) -> Floats:
    """z(hit rate) - z(false-alarm rate), 0 without sensitivity; half an answer is added to each count, so that rates
    of 0 and 1 have a place (Hautus 1995, the log-linear rule)."""
    hit = (np.asarray(hits) + 0.5) / (np.asarray(signals) + 1)
    alarm = (np.asarray(alarms) + 0.5) / (np.asarray(noises) + 1)
    return np.asarray(_deviates(hit) - _deviates(alarm), np.float64)


def _counts(hits: Floats) -> tuple[float, float]:
    return float(np.nansum(hits)), float(np.isfinite(hits).sum())
