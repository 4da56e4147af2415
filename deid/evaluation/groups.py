"""Groups of people who share what a surrogate keeps on purpose: sex, age band and skin-tone band."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import skin

Group = tuple[str, str, str]  # sex, age band, skin-tone band
AGES = ((18, "under 18"), (25, "18-24"), (35, "25-34"), (45, "35-44"))  # years below which, name
UNKNOWN = "unknown"


def age_band(years: float) -> str:
    """Name of the band of an age in years; "unknown" for NaN, a band of its own."""
    if not np.isfinite(years):
        return UNKNOWN
    return next((name for limit, name in AGES if years < limit), "45+")


def attribute_groups(
    sex: Mapping[str, str], age: Mapping[str, float], tone: Mapping[str, float]
) -> dict[str, Group]:
    """The group of each subject, for `reid.compare`; age in years, tone as an ITA in degrees, NaN where unknown."""
    return {subject: (sex[subject], age_band(age[subject]), skin.band(tone[subject])) for subject in sex}


def chance_upper(sizes: NDArray[np.integer], level: float = 0.975) -> float:
    """Rank-1 that a guess within the group does not pass in `level` of all draws.

    sizes: [P] enrolled people in the group of each probe, itself included. Each probe is a hit with probability
    1 / size, so the number of hits is Poisson binomial; its distribution is exact here.
    """
    hits = np.ones(1)
    for p in 1 / np.asarray(sizes, np.float64):
        hits = np.convolve(hits, [1 - p, p])
    return float(np.searchsorted(np.cumsum(hits), level - 1e-12)) / len(sizes)
