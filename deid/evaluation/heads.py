"""A recognizer's head trained anew, linearly, on de-identified faces: the stronger half of the parrot attack.

Newton, Sweeney and Malin 2005, "Preserving privacy by de-identifying face images", call an attacker who enrols
de-identified pictures a parrot. This one also adapts the recognizer: what differs between de-identified pictures of
one person is whitened away (within-class covariance normalisation, Hatch, Kajarekar and Stolcke 2006), and vectors are
compared by cosine. People are split in folds: the head that names a probe was fitted to the de-identified pictures of
the people of the other folds, all named; it then compares the probe with everybody enrolled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert

from deid.evaluation.reid import Comparison, Templates, compare, rank_probabilities

FOLDS = 5
LEAST_PEOPLE = 10  # with two pictures or more
EPS = 1e-9
DIRECTIONS, DISTURBANCE = 3, 3.0  # of the templates of the control, see `disturbed`


@dataclass(frozen=True)
class Head:
    """A linear map of templates: (vector - mean) @ matrix. mean: [D], matrix: [D, E]."""

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]

    def __call__(self, templates: Templates) -> Templates:
        return Templates((templates.vectors - self.mean) @ self.matrix, templates.subjects)


Fit = Callable[[Templates], Head]


def fit(templates: Templates) -> Head:
    """The head by which people's templates differ as little as can be learnt from these; compare them by cosine.

    Raises:
        ValueError: nobody has two templates, or all are the same.
    """
    known = templates.acquired
    vectors, subjects = np.asarray(templates.vectors[known], np.float64), templates.subjects[known]
    parts = [vectors[subjects == subject] for subject in np.unique(subjects)]
    contrasts = [helmert(len(part)) @ part for part in parts if len(part) > 1]
    if not contrasts or np.ptp(vectors, axis=0).max() <= EPS:
        raise ValueError("a head needs people with two different pictures")
    within, directions = spiked(np.concatenate(contrasts))
    floor = EPS + 1e-3 * float(np.var(vectors, axis=0).mean())
    centre = np.mean([part.mean(axis=0) for part in parts], axis=0)
    return Head(centre, directions / np.sqrt(np.maximum(within, floor)))


def spiked(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances [D], ascending, and their directions [D, D], of rows [N, D] of mean zero; D may be larger than N.

    A spiked covariance (Johnstone 2001): the largest variances are kept, as many as pass what noise alone gives so few
    rows (the edge of Marchenko and Pastur), an eighth of the rows at most; all others are taken to be the same.
    """
    count, size = rows.shape
    values, directions = np.linalg.eigh(rows.T @ rows / count)
    kept, most = 0, min(size - 1, max(DIRECTIONS, count // 8))
    while kept < most:
        noise = float(values[: size - kept].mean())
        found = int((values > noise * (1 + np.sqrt(size / count)) ** 2).sum())
        if found <= kept:
            break
        kept = min(found, most)
    values[: size - kept] = values[: size - kept].mean()
    return values, directions


def folds(persons: NDArray[Any], rng: np.random.Generator, count: int = FOLDS) -> NDArray[np.intp]:
    """[N] the fold of each face: people are drawn into folds of equal size, and stay together."""
    people, index = np.unique(persons, return_inverse=True)
    return np.asarray(rng.permutation(len(people))[index] % count)


def trainable(templates: Templates) -> bool:
    """Whether enough people have two templates."""
    _, counts = np.unique(templates.subjects[templates.acquired], return_counts=True)
    return int((counts > 1).sum()) >= LEAST_PEOPLE


def train(templates: Templates, fold: NDArray[np.intp], fit: Fit = fit) -> list[Head]:
    """A head for each fold, from the other folds' templates [N]; fold: [N].

    Raises:
        ValueError: as `fit`.
    """
    heads = []
    for number in range(int(fold.max()) + 1):
        chosen = (fold != number) & templates.acquired
        heads.append(fit(Templates(templates.vectors[chosen], templates.subjects[chosen])))
    return heads


def compact(templates: Templates) -> Templates:
    """The same templates, turned so that as few values hold them as there are templates; every distance stays."""
    vectors, known = np.asarray(templates.vectors, np.float64), templates.acquired
    if not known.any() or vectors.shape[1] <= known.sum():
        return templates
    return Templates(vectors @ np.linalg.qr(vectors[known].T)[0], templates.subjects)


def disturbed(templates: Templates, rng: np.random.Generator) -> Templates:
    """The templates with a disturbance that only training can undo: in a few directions, the same for all pictures,
    each picture is moved at random by several times what people differ by.
    """
    vectors = np.asarray(templates.vectors, np.float64)
    size = vectors.shape[1]
    directions = np.linalg.qr(rng.normal(size=(size, max(1, min(DIRECTIONS, size // 5)))))[0]
    spread = np.sqrt(np.var(vectors[templates.acquired], axis=0).sum())
    moved = DISTURBANCE * spread * rng.normal(size=(len(vectors), directions.shape[1])) @ directions.T
    return Templates(vectors + moved, templates.subjects)


def attack(
    heads: list[Head],
    enrolled: Templates,
    probes: Templates,
    fold: NDArray[np.intp],
    groups: dict[Any, Any],
    within: bool,
    trained_on: bool = False,
) -> Comparison:
    """Every probe against everybody enrolled, by the head of its fold [P]; trained_on: by another fold's instead,
    which knows the probe's person."""
    parts = []
    for number, head in enumerate(heads):
        chosen = (fold + 1) % len(heads) == number if trained_on else fold == number
        some = Templates(probes.vectors[chosen], probes.subjects[chosen])
        if np.isin(some.subjects, enrolled.subjects[enrolled.acquired]).any():
            parts.append(compare(head(enrolled), head(some), "cosine", groups, within))
    return Comparison(
        scores=np.concatenate([part.scores for part in parts]),
        mate=np.concatenate([part.mate for part in parts]),
        impostor=np.concatenate([part.impostor for part in parts]),
        group_size=np.concatenate([part.group_size for part in parts]),
        unenrolled_subjects=parts[0].unenrolled_subjects,
        unenrolled_probes=int((~np.isin(probes.subjects, enrolled.subjects[enrolled.acquired])).sum()),
    )


def rank1(comparison: Comparison) -> float:
    """Share of probes whose person comes first."""
    return float(rank_probabilities(comparison)[:, 0].mean())
