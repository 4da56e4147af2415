"""Figures of groups of people, and the gap between the best and the worst group beside the gap that chance makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import surrogates
from deid.evaluation.reid import FIGURES, Comparison, Estimate, resampled
from deid.evaluation.sections import NAN

Floats = NDArray[np.float64]
LEAST = 5  # people in a group of which a figure is said
UNKNOWN = "unknown"


class Figure(Protocol):
    """A figure that any part of the people [P] has."""

    @property
    def id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def share(self) -> bool:
        """It lies in 0..1, so that its gaps compare with those of other shares."""

    def measured(self) -> NDArray[np.bool_]:
        """[P] who takes part in it."""

    def of(self, members: NDArray[np.bool_]) -> Floats:
        """[R] the figure of each of several groups [R, P]; NaN for one without anybody."""

    def drawn(self, members: NDArray[np.bool_], draws: Floats) -> Floats:
        """[R] the figure of a group [P] when each person was drawn so often: [R, P]."""


@dataclass(frozen=True)
class OfFaces:
    """Mean, median or share of a value of each face. values: [N], NaN: no part of it; who: [N] person of each."""

    id: str
    title: str
    statistic: Literal["mean", "median", "share"]
    values: Floats
    who: NDArray[np.intp]
    people: int

    @property
    def share(self) -> bool:
        return self.statistic == "share"

    def measured(self) -> NDArray[np.bool_]:
        return np.isin(np.arange(self.people), self.who[np.isfinite(self.values)])

    def of(self, members: NDArray[np.bool_]) -> Floats:
        return self._reduced(members)

    def drawn(self, members: NDArray[np.bool_], draws: Floats) -> Floats:
        return self._reduced(draws * members)

    def _reduced(self, weights: NDArray[Any]) -> Floats:
        known = np.isfinite(self.values)
        times = weights[:, self.who[known]].astype(np.intp)
        reduce = surrogates.medians if self.statistic == "median" else surrogates.means
        found, some = np.full(len(times), np.nan), times.any(axis=1)
        if some.any():
            found[some] = reduce(self.values[known], times[some])
        return found


@dataclass(frozen=True)
class Area:
    """AUC of the probes of a group against everybody enrolled. row, column: person of each in the comparison."""

    id: str
    title: str
    comparison: Comparison
    row: NDArray[np.intp]
    column: NDArray[np.intp]
    people: int
    share: bool = True

    def measured(self) -> NDArray[np.bool_]:
        return np.isin(np.arange(self.people), self.row[self.comparison.acquired])

    def of(self, members: NDArray[np.bool_]) -> Floats:
        c = self.comparison
        kept = np.flatnonzero(c.acquired)
        own = c.scores[kept, c.mate[kept]]
        wins = np.empty((len(kept), len(kept)))  # of each genuine score over each probe's impostors
        for place, row in enumerate(kept):
            others = np.sort(c.scores[row, c.impostor[row]])
            below = np.searchsorted(others, own) + np.searchsorted(others, own, "right")
            wins[:, place] = below / (2 * max(1, len(others)))
        weights = members[:, self.row[kept]].astype(np.float64)
        total = weights.sum(axis=1) ** 2
        summed = ((weights @ wins) * weights).sum(axis=1)
        return np.where(total > 0, summed / np.maximum(total, 1), np.nan)

    def drawn(self, members: NDArray[np.bool_], draws: Floats) -> Floats:
        c, rows = self.comparison, members[self.row]
        if not (rows & c.acquired).any():
            return np.full(len(draws), np.nan)
        part = Comparison(c.scores[rows], c.mate[rows], c.impostor[rows], c.group_size[rows])
        return resampled(part, draws[:, self.column], ())[:, FIGURES.index("auc")]


@dataclass(frozen=True)
class Kind:
    """A way to put people into groups. of: [P] each person's group, an index of `names`."""

    name: str  # sex, age band, skin-tone band
    names: list[str]
    of: NDArray[np.intp]

    @classmethod
    def by(cls, name: str, labels: Sequence[str], order: Sequence[str] = ()) -> "Kind":
        """The groups that the people's labels [P] name; those in `order` come as there, others after them."""
        known = list(dict.fromkeys(order))
        names = sorted(
            set(labels), key=lambda label: (known.index(label) if label in known else len(known), label)
        )
        return cls(name, names, np.array([names.index(label) for label in labels], np.intp))

    def members(self, group: str) -> NDArray[np.bool_]:
        return np.asarray(self.of == self.names.index(group))

    def drawn(self, rng: np.random.Generator, resamples: int) -> Floats:
        """[R, P] how often each person is drawn, with replacement, each group among its own."""
        draws = np.zeros((resamples, len(self.of)))
        for group in range(len(self.names)):
            inside = np.flatnonzero(self.of == group)
            draws[:, inside] = rng.multinomial(
                len(inside), np.full(len(inside), 1 / len(inside)), size=resamples
            )
        return draws

    def shuffled(self, rng: np.random.Generator, times: int) -> NDArray[np.intp]:
        """[R, P] the groups dealt out anew among the people."""
        return rng.permuted(np.tile(self.of, (times, 1)), axis=1)

    def compared(self, figure: Figure) -> list[str]:
        """Groups of people enough."""
        known = figure.measured()
        return [n for n in self.names if n != UNKNOWN and (self.members(n) & known).sum() >= LEAST]


@dataclass(frozen=True)
class Gap:
    """Between the groups of one kind that are furthest apart in one figure."""

    figure: Figure
    kind: Kind
    groups: tuple[str, str]  # the larger value first
    estimate: Estimate
    chance: Floats  # [R] the gap after the groups were dealt out anew

    @property
    def by_chance(self) -> float:
        return float(np.mean(self.chance))

    @property
    def p(self) -> float:
        """How often chance makes such a gap or a larger one."""
        return p_value(self.estimate.value, self.chance)


def p_value(value: float, chance: Floats) -> float:
    """Of a permutation test, one-sided, never 0."""
    return float((1 + (chance >= value - 1e-12).sum()) / (1 + len(chance)))


def estimate(figure: Figure, members: NDArray[np.bool_], draws: Floats) -> Estimate:
    """The figure of a group, and the 95 % interval over its drawn people; of a share of 0 or 1, the rule of three."""
    value = float(figure.of(members[None])[0])
    samples = figure.drawn(members, draws)
    samples = samples[np.isfinite(samples)]
    if np.isnan(value) or not len(samples):
        return Estimate(value, NAN, NAN)
    low, high = np.percentile(samples, [2.5, 97.5])
    width = min(1.0, 3 / max(1, int((members & figure.measured()).sum())))
    if isinstance(figure, OfFaces) and figure.share and value in (0.0, 1.0):
        low, high = (1 - width, 1.0) if value else (0.0, width)
    return Estimate(value, float(low), float(high))


def gap(figure: Figure, kind: Kind, draws: Floats, shuffled: NDArray[np.intp]) -> Gap | None:
    """None where fewer than two groups have people enough. draws: `Kind.drawn`; shuffled: `Kind.shuffled`.

    The interval is that of the difference of these two groups, so it may reach below 0; as they were picked for being
    furthest apart, it lies too high, hence `Gap.by_chance` beside it.
    """
    names = kind.compared(figure)
    if len(names) < 2:
        return None
    values = np.array([figure.of(kind.members(name)[None])[0] for name in names])
    if not np.isfinite(values).all():
        return None
    high, low = names[int(values.argmax())], names[int(values.argmin())]
    samples = figure.drawn(kind.members(high), draws) - figure.drawn(kind.members(low), draws)
    samples = samples[np.isfinite(samples)]
    ends = np.percentile(samples, [2.5, 97.5]) if len(samples) else (NAN, NAN)
    dealt = np.stack([figure.of(shuffled == kind.names.index(name)) for name in names])
    spread = np.nanmax(dealt, axis=0) - np.nanmin(dealt, axis=0)
    value = float(values.max() - values.min())
    if figure.share and not value:  # then nothing varies between the draws either
        ends = 0.0, min(1.0, 3 / min(int((kind.members(name) & figure.measured()).sum()) for name in names))
    return Gap(figure, kind, (high, low), Estimate(value, float(ends[0]), float(ends[1])), spread)
