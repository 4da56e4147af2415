"""Re-identification: how well a recognizer links probes to enrolled people, with intervals.

Terms are those of ISO/IEC 19795-1: enrolment, probe, genuine and impostor comparison, FAR, TAR, EER, CMC,
failure to acquire. Conventions:

- A probe in which no face is found (a failure to acquire) is a miss in rank-1 and in the CMC, and takes no
  part in ROC, AUC, EER and TAR; the number of such probes is part of the result.
- An enrolment in which no face is found is left out. A probe whose subject is then not enrolled is left out
  too (identification is closed-set); both numbers are part of the result.
- A subject's score is the best over the subject's enrolments.
- Ties are broken at random, in expectation: a mate that ties with t impostors, none of them better, is a
  rank-1 hit to 1 / (t + 1), and a tied genuine and impostor pair counts one half in the AUC. So a
  recognizer that gives everything the same score is exactly at chance.
- A surrogate chosen to be unlike its person can be so unlike that it gives him away: an AUC below one half,
  or the mate as the least alike of all (`furthest`) above chance, is a link too.
- Impostors may be restricted to the subject's own group (same sex, age band, ...), since a surrogate keeps
  such attributes on purpose, and they alone make a person more like himself than like a random stranger.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deid.evaluation.verification import Floats, aucs, curve, eers, roc, tars_at

Metric = Literal["cosine", "euclidean"]
FARS = (0.01, 0.001)
FIGURES = ("rank1", "rank5", "furthest", "lost", "auc", "eer")  # of `resampled`; then the TAR at each FAR
SHARES = 4  # of them are shares of the probes
AT_ONCE = 200_000  # pairs times resamples that are held in memory


@dataclass(frozen=True)
class Templates:
    """Embeddings and whose they are.

    vectors: [N, D]; a row with a value that is not finite stands for a picture in which no face was found.
    subjects: [N] strings or integers.
    """

    vectors: NDArray[np.floating[Any]]
    subjects: NDArray[Any]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.subjects.shape != (len(self.vectors),):
            raise ValueError(
                f"vectors [N, D] and subjects [N] wanted, not {self.vectors.shape}, {self.subjects.shape}"
            )

    @property
    def acquired(self) -> NDArray[np.bool_]:
        """[N] whether a face was found."""
        return np.asarray(np.isfinite(self.vectors).all(axis=1))


@dataclass(frozen=True)
class Comparison:
    """Scores of every probe with every enrolled subject.

    scores: [P, S], higher is more alike; rows of NaN for probes without a face.
    mate: [P] column of the probe's own subject.
    impostor: [P, S] whether the pair counts as an impostor comparison.
    group_size: [P] enrolled people in the subject's group, itself included; S where there are no groups.
    """

    scores: Floats
    mate: NDArray[np.intp]
    impostor: NDArray[np.bool_]
    group_size: NDArray[np.intp]
    unenrolled_subjects: int = 0
    unenrolled_probes: int = 0

    @property
    def acquired(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.scores).all(axis=1))


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval. NaN where there are too few comparisons to measure it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    rank1: Estimate
    rank5: Estimate
    lost: Estimate  # share of probes without a face
    auc: Estimate
    eer: Estimate
    tar: dict[float, Estimate]  # true accept rate at each FAR of `FARS`
    furthest: (
        Estimate  # share of probes whose mate is the least alike of all; above chance, an attacker may invert
    )
    cmc: Floats  # [S] share of probes whose mate is at rank 1, 2, ... or better
    far: Floats  # [T] ROC, from the strictest threshold to the laxest
    tpr: Floats  # [T]
    chance: float  # rank-1 of a guess among the people compared with
    chance_attributes: (
        float  # rank-1 of a guess that knows the group: mean of 1 / people in the subject's group
    )
    subjects: int
    probes: int
    genuine: int  # pairs
    impostors: int  # pairs
    failures_to_acquire: int
    unenrolled_subjects: int
    unenrolled_probes: int


def similarity(probes: NDArray[Any], enrolled: NDArray[Any], metric: Metric) -> Floats:
    """[P, N] cosine, or negative Euclidean distance, of vectors [P, D] and [N, D]."""
    a, b = np.asarray(probes, np.float64), np.asarray(enrolled, np.float64)
    if metric == "cosine":
        return _unit(a) @ _unit(b).T
    if metric != "euclidean":
        raise ValueError(f"metric is cosine or euclidean, not {metric}")
    return np.stack([-np.linalg.norm(b - row, axis=1) for row in a]) if len(a) else np.zeros((0, len(b)))


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def compare(
    enrolled: Templates,
    probes: Templates,
    metric: Metric,
    groups: dict[Any, Any] | None = None,
    within: bool = False,
) -> Comparison:
    """Compare every probe with every enrolled subject.

    groups: the group of each subject; `within` restricts impostors to the subject's own group.
    Raises ValueError where nothing can be compared, or a subject has no group.
    """
    if within and groups is None:
        raise ValueError("impostors within groups need the groups")
    kept = enrolled.acquired
    subjects, column = np.unique(enrolled.subjects[kept], return_inverse=True)
    known = np.isin(probes.subjects, subjects)
    if len(subjects) < 2 or not known.any():
        raise ValueError("re-identification needs two enrolled subjects, and probes of enrolled subjects")
    pairs = similarity(probes.vectors[known], enrolled.vectors[kept], metric)
    scores = np.full((len(pairs), len(subjects)), -np.inf)
    for index, subject in enumerate(column):
        scores[:, subject] = np.maximum(scores[:, subject], pairs[:, index])
    scores[~probes.acquired[known]] = np.nan
    mate = np.searchsorted(subjects, probes.subjects[known])
    missing = [] if groups is None else [s for s in subjects.tolist() if s not in groups]
    if missing:
        raise ValueError(f"{len(missing)} subjects have no group")
    keys = [repr(groups[s]) if groups is not None else "" for s in subjects.tolist()]
    _, group = np.unique(keys, return_inverse=True)
    same = group[mate][:, None] == group[None, :]
    other = np.arange(len(subjects))[None, :] != mate[:, None]
    return Comparison(
        scores=scores,
        mate=mate,
        impostor=other & same if within else other,
        group_size=same.sum(axis=1),
        unenrolled_subjects=len(np.unique(enrolled.subjects)) - len(subjects),
        unenrolled_probes=int((~known).sum()),
    )


def of_probes(comparison: Comparison, chosen: NDArray[np.bool_]) -> Comparison:
    """The comparison of some of its probes [P]."""
    c = comparison
    parts = (c.scores[chosen], c.mate[chosen], c.impostor[chosen], c.group_size[chosen])
    return Comparison(*parts, c.unenrolled_subjects, c.unenrolled_probes)


def rank_probabilities(comparison: Comparison) -> Floats:
    """[P, S] probability that the mate of each probe is at rank r + 1 or better, ties broken at random."""
    c = comparison
    own = np.take_along_axis(c.scores, c.mate[:, None], axis=1)
    better = ((c.scores > own) & c.impostor).sum(axis=1)
    tied = ((c.scores == own) & c.impostor).sum(axis=1)
    ranks = np.arange(1, c.scores.shape[1] + 1)
    chances = np.clip((ranks[None, :] - better[:, None]) / (tied[:, None] + 1), 0, 1)
    return np.where(c.acquired[:, None], chances, 0.0)


@dataclass(frozen=True)
class _Pairs:
    """Genuine and impostor pairs of a comparison, each with the level of its score, levels ascending.

    Odd levels are the genuine scores, even ones lie between them: impostor scores between two genuine ones make one
    straight piece of the ROC, of which no figure needs the inside.
    """

    genuine: NDArray[np.intp]  # [G] level
    subject: NDArray[np.intp]  # [G] subject of the genuine pair
    sides: NDArray[np.intp]  # [2, I] the two subjects of the impostor pair, sorted by level
    starts: NDArray[np.intp]  # [K] first impostor pair of each level that has any
    present: NDArray[np.intp]  # [K] these levels
    levels: int

    @classmethod
    def of(cls, c: Comparison) -> "_Pairs":
        found = np.flatnonzero(c.acquired)
        known, where = np.unique(c.scores[found, c.mate[found]], return_inverse=True)
        rows, columns = np.nonzero(c.impostor & c.acquired[:, None])
        level = np.searchsorted(known, c.scores[rows, columns]) + np.searchsorted(
            known, c.scores[rows, columns], "right"
        )
        order = np.argsort(level, kind="stable")
        present, starts = np.unique(level[order], return_index=True)
        sides = np.stack([c.mate[rows], columns])[:, order]
        return cls(2 * where + 1, c.mate[found], sides, starts, present, 2 * len(known) + 1)

    def curves(self, weights: Floats) -> tuple[Floats, Floats]:
        """FAR and TAR [R, T] when subjects weigh `weights` [R, S]."""
        own = np.zeros((weights.shape[1], self.levels))
        np.add.at(own, (self.subject, self.genuine), 1)
        genuine, impostor = weights @ own, np.zeros((len(weights), self.levels))
        if self.sides.size:
            across = np.ascontiguousarray(weights.T)
            products = across[self.sides[0]] * across[self.sides[1]]
            impostor[:, self.present] = np.add.reduceat(products, self.starts, axis=0).T
        return curve(genuine, impostor)


def resampled(comparison: Comparison, weights: Floats, fars: tuple[float, ...] = FARS) -> Floats:
    """[R, F] `FIGURES`, and the TAR at each FAR, when subjects [S] weigh `weights` [R, S]; NaN where unknown."""
    c, pairs = comparison, _Pairs.of(comparison)
    ranks = rank_probabilities(c)
    last = rank_probabilities(dataclasses.replace(c, scores=-c.scores))[:, 0]
    shares = np.stack([ranks[:, 0], ranks[:, min(4, ranks.shape[1] - 1)], last, ~c.acquired])
    few = [far for far in fars if pairs.sides.shape[1] * far < 1]
    step = max(1, AT_ONCE // max(1, pairs.sides.shape[1], pairs.levels))
    rows = []
    for start in range(0, len(weights), step):
        part = weights[start : start + step]
        probe = part[:, c.mate]
        far, tar = pairs.curves(part)
        with np.errstate(invalid="ignore", divide="ignore"):
            rates = (probe @ shares.T) / probe.sum(axis=1, keepdims=True)
        tars = [np.full(len(part), np.nan) if f in few else tars_at(far, tar, f) for f in fars]
        rows.append(np.column_stack([rates, aucs(far, tar), eers(far, tar), *tars]))
    return np.concatenate(rows) if rows else np.zeros((0, len(FIGURES) + len(fars)))


def reidentify(
    comparison: Comparison, rng: np.random.Generator, resamples: int = 1000, fars: tuple[float, ...] = FARS
) -> Result:
    """Every figure of a comparison, with bootstrap intervals over subjects.

    A resample draws subjects with replacement. For ranks a probe weighs as often as its subject was drawn,
    against the full enrolment; for the ROC an impostor pair weighs the product of both its subjects' draws
    (the vertex bootstrap), since pairs that share a person are not independent. TAR at a FAR finer than one
    impostor pair is NaN. Where every subject is a hit, or none is, the interval of a rank ends at the rule
    of three, not at a point.
    """
    c, size = comparison, comparison.scores.shape[1]
    values = resampled(c, np.ones((1, size)), fars)[0]
    draws = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(float)
    low, high = _percentiles(resampled(c, draws, fars))
    width = min(1.0, 3 / len(np.unique(c.mate)))
    for share in range(SHARES) if resamples else ():
        if values[share] in (0.0, 1.0):
            low[share], high[share] = (1 - width, 1.0) if values[share] else (0.0, width)
    estimates = [Estimate(float(v), float(a), float(b)) for v, a, b in zip(values, low, high, strict=True)]
    genuine = c.scores[c.acquired, c.mate[c.acquired]]
    impostors = c.scores[c.impostor & c.acquired[:, None]]
    far, tar = roc(genuine, impostors)
    return Result(
        **dict(zip(FIGURES, estimates, strict=False)),
        tar=dict(zip(fars, estimates[len(FIGURES) :], strict=True)),
        cmc=rank_probabilities(c).mean(axis=0),
        far=far,
        tpr=tar,
        chance=float(np.mean(1 / (c.impostor.sum(axis=1) + 1))),
        chance_attributes=float(np.mean(1 / c.group_size)),
        subjects=size,
        probes=len(c.mate),
        genuine=len(genuine),
        impostors=len(impostors),
        failures_to_acquire=int((~c.acquired).sum()),
        unenrolled_subjects=c.unenrolled_subjects,
        unenrolled_probes=c.unenrolled_probes,
    )


def _percentiles(samples: Floats) -> tuple[Floats, Floats]:
    """2.5 % and 97.5 % of each column of samples [R, F], NaN where a column has no finite sample."""
    low = np.full(samples.shape[1], np.nan)
    high = low.copy()
    for index, column in enumerate(samples.T):
        finite = column[np.isfinite(column)]
        if len(finite):
            low[index], high[index] = np.percentile(finite, [2.5, 97.5])
    return low, high


def permuted(probes: Templates, rng: np.random.Generator, repeats: int = 20) -> Templates:
    """Random pairs: the probes `repeats` times over, the people's names shuffled among them each time."""
    subjects, index = np.unique(probes.subjects, return_inverse=True)
    shuffled = [rng.permutation(subjects)[index] for _ in range(repeats)]
    return Templates(np.tile(probes.vectors, (repeats, 1)), np.concatenate(shuffled))
