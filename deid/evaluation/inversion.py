"""Whether what a face was can be restored from what was made of it: by attackers that learn on other people.

Half of the people are learned from and the other half are tested, then the halves change sides. Two attackers try: a
ridge regression, on every treatment, and a small network, on a few. Both see the treated chip and the recognizers'
embeddings of the treated face, and know which region is the face.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.evaluation import controls, learning, reid
from deid.evaluation.faces import Faces
from deid.evaluation.inversion_tables import (
    CLEAR,
    DETAIL,
    GREY,
    NETWORK,
    PIXELS,
    RIDGE,
    SHUFFLED,
    Attempt,
    Rank,
    embedding_table,
    pixel_table,
    plot,
)
from deid.evaluation.observe import Observation
from deid.evaluation.reid import Templates
from deid.evaluation.restoring import STEPS, Pairs, Restorer, Ridge, linear_kernel
from deid.evaluation.sections import Section
from deid.evaluation.settings import Evaluation

Floats = NDArray[np.float64]
T = TypeVar("T")
NETWORKED = (
    "blur, strong",
    "k-Same nearest, face (published)",
)  # beside the controls and the chosen treatment
MOST_FACES = 1500  # above it, some people are drawn
FEWEST_FACES = 8  # in a half
SMALL = 32  # px, side of the chips that the ridge regression looks at
CHIP = 64
ELLIPSE = (31.5, 38.0, 15.0, 19.0)  # middle x, y and half axes of a face in its chip, where no mask is known


@dataclass(frozen=True)
class _Truth:
    """What is to be restored."""

    faces: Faces
    side: NDArray[np.intp]  # [N] half
    persons: NDArray[np.intp]  # [N]
    known: NDArray[np.bool_]  # [N] the source's chip and embeddings are there
    chips: NDArray[np.uint8]  # [N, 64, 64, 3]
    vectors: list[Floats]  # by attacker, [N, D]
    masks: NDArray[np.bool_]  # [N, 64, 64] where the face is in its clear chip

    def centred(self, number: int, vectors: Floats) -> Floats:
        """Embeddings [N, D] of an attacker less the mean clear one of the half that was learned from."""
        means = [self.vectors[number][self.known & (self.side != half)].mean(axis=0) for half in (0, 1)]
        return vectors - np.stack(means)[self.side]


@dataclass(frozen=True)
class _Row:
    """A treatment on its way through the attackers."""

    name: str
    usable: NDArray[np.bool_]  # [N]
    chips: NDArray[np.uint8] | None
    vectors: list[Floats]
    networked: bool


def inversion(faces: Faces, evaluation: Evaluation, rng: np.random.Generator, effort: float = 1.0) -> Section:
    """Restore the source face's embeddings and pixels from every treatment, on people not learned from.

    effort: of the network's steps, this share; for trials.
    """
    faces = _some(faces, rng)
    truth = _truth(faces, learning.halves(faces.persons, rng))
    seeds = rng.integers(2**31, size=2).tolist()
    networked = {CLEAR, SHUFFLED, evaluation.favourite, *NETWORKED}
    seen = {CLEAR: faces.clear, SHUFFLED: faces.clear, GREY: faces.grey, **faces.treated}
    rows = [_row(name, observed, truth, name in networked) for name, observed in seen.items()]
    attempts = _attempts(truth, rows, seeds, max(1, round(effort * STEPS)))
    people = int(truth.persons.max()) + 1 if len(faces) else 0
    draws = learning.weights(people, rng, evaluation.resamples)[:, truth.persons]
    tables = [
        embedding_table(a, attempts, _rank(truth, n, evaluation.resamples, rng), draws)
        for n, a in enumerate(faces.attackers)
    ]
    tables.append(pixel_table(attempts, draws))
    for table in tables:
        if people < learning.FEWEST:
            table.problems.append(f"{people} people are too few to learn from half of them")
        table.about |= {
            "people": str(people),
            "folds": "2, over people",
            "learned from": f"{people // 2} people",
        }
    return Section(
        "inversion", "Inversion: restoring the source face", _intro(people), tables, [plot(tables)]
    )


def _rank(truth: _Truth, number: int, resamples: int, rng: np.random.Generator) -> Rank:
    """How restored embeddings [N, D] of an attacker lead back to the tested half's clear enrolment."""
    faces, name = truth.faces, truth.faces.attackers[number].name
    enrolled = faces.enrolled[truth.known[faces.enrolled]]
    gallery = Templates(truth.centred(number, truth.vectors[number])[enrolled], truth.persons[enrolled])
    halves = dict(zip(truth.persons.tolist(), truth.side.tolist(), strict=True))

    def rank(attempt: Attempt) -> reid.Result | None:
        if name not in attempt.vectors:
            return None
        restored = truth.centred(number, attempt.vectors[name])[faces.probes]
        probes = Templates(restored, truth.persons[faces.probes])
        if not probes.acquired.any():
            return None
        try:
            compared = reid.compare(gallery, probes, "cosine", halves, within=True)
            return reid.reidentify(reid.of_probes(compared, compared.acquired), rng, resamples)
        except ValueError:  # fewer than two people enrolled, or nobody probed
            return None

    return rank


def _intro(people: int) -> list[str]:
    return [
        f"Each attacker learned from pairs of treated and clear faces of {people // 2} people, and was tested on the "
        "others; then the halves changed sides, so that every person was tested once. A gain is the share of the "
        "squared error of a constant guess (the mean of the training's clear faces) that is gone: 1 restores the face, "
        "0 is no better than the constant, below 0 is worse. The stronger attacker is the one with the larger gain on "
        "the tested people, which favours the attack.",
        f"An attacker with pairs of more than {people // 2} people, larger networks, or models that know faces already "
        "is stronger than these: a low gain here is no proof that nothing can be restored. A gain above 0 is not a "
        "person found again either: it holds what a surrogate keeps on purpose (skin tone, pose, expression, apparent "
        "sex and age). Rank-1 and AUC beside it say how far the restored embedding leads back to its person.",
    ]


def _some(faces: Faces, rng: np.random.Generator) -> Faces:
    """The faces, or those of so many people drawn at random that there are not too many."""
    if len(faces) <= MOST_FACES:
        return faces
    people, index = np.unique(faces.persons, return_inverse=True)
    order = rng.permutation(len(people))
    counts = np.bincount(index)[order].cumsum()
    kept = np.flatnonzero(np.isin(index, order[: max(1, int((counts <= MOST_FACES).sum()))]))

    def of(values: Sequence[T]) -> list[T]:
        return [values[int(n)] for n in kept]

    treated = {name: of(seen) for name, seen in faces.treated.items()}
    seams = {name: of(measured) for name, measured in faces.seams.items()}
    return Faces(
        of(faces.subjects),
        of(faces.clear),
        of(faces.grey),
        treated,
        seams,
        faces.attackers,
        faces.smile_threshold,
    )


def _truth(faces: Faces, side: NDArray[np.intp]) -> _Truth:
    chips, there = _chips(faces.clear)
    vectors = _vectors(faces, faces.clear)
    known = there & np.all([np.isfinite(v).all(axis=1) for v in vectors], axis=0)
    masks = np.array([_mask(o.chip) for o in faces.grey], np.bool_).reshape(-1, CHIP, CHIP)
    return _Truth(faces, side, np.unique(faces.persons, return_inverse=True)[1], known, chips, vectors, masks)


def _chips(seen: Sequence[Observation]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """[N, 64, 64, 3], black where there is none, and which are there [N]."""
    there = np.array([o.chip.shape == (CHIP, CHIP, 3) for o in seen])
    empty = np.zeros((CHIP, CHIP, 3), np.uint8)
    return np.stack([o.chip if ok else empty for o, ok in zip(seen, there, strict=True)]), there


def _vectors(faces: Faces, seen: list[Observation]) -> list[Floats]:
    everyone = np.arange(len(faces))
    return [np.asarray(faces.templates(a, seen, everyone).vectors, np.float64) for a in faces.attackers]


def _mask(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[64, 64] the face in a chip of the control with a grey head: the head's mask, shrunk to the face."""
    y, x = np.mgrid[:CHIP, :CHIP].astype(np.float64)
    middle_x, middle_y, wide, high = ELLIPSE
    plain = ((x - middle_x) / wide) ** 2 + ((y - middle_y) / high) ** 2 < 1
    if grey.shape != (CHIP, CHIP, 3):
        return np.asarray(plain)
    head = (np.abs(grey.astype(int) - controls.GREY) <= 2).all(axis=2)
    if head.sum() < plain.sum() / 2:
        return np.asarray(plain)
    rows, columns = np.nonzero(head)
    scale, at = controls.SCALE, np.array([columns.mean(), rows.mean()])
    shrink = np.array([[1 / scale, 0, at[0] * (1 - 1 / scale)], [0, 1 / scale, at[1] * (1 - 1 / scale)]])
    small = cv2.warpAffine(head.astype(np.uint8), shrink, (CHIP, CHIP), flags=cv2.INTER_AREA)
    return np.asarray(small > 0)


def _row(name: str, seen: list[Observation], truth: _Truth, networked: bool) -> _Row:
    vectors = _vectors(truth.faces, seen)
    chips, there = _chips(seen)
    usable = truth.known & np.all([np.isfinite(v).all(axis=1) for v in vectors], axis=0)
    if (usable & there).sum() < 0.9 * usable.sum():  # hardly any chips: the embeddings alone
        return _Row(name, usable, None, vectors, False)
    return _Row(name, usable & there, chips, vectors, networked)


def _attempts(
    truth: _Truth, rows: Sequence[_Row], seeds: Sequence[int], steps: int
) -> dict[str, dict[str, Attempt]]:
    """By treatment and attacker."""
    found: dict[str, dict[str, Attempt]] = {row.name: {RIDGE: Attempt(), NETWORK: Attempt()} for row in rows}
    jobs, names = [], []
    for row in rows:
        halves = [_indices(truth, row, half) for half in (0, 1)]
        if min(len(part) for half in halves for part in half) < FEWEST_FACES:
            continue
        for kind in (RIDGE, NETWORK) if row.networked else (RIDGE,):
            names.append((row.name, kind))
            jobs.append(functools.partial(_attempt, truth, row, kind, halves, seeds, steps))
    for (name, kind), attempt in zip(names, learning.side_by_side(jobs), strict=True):
        found[name][kind] = attempt
    return found


def _indices(truth: _Truth, row: _Row, half: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Faces to learn from and to test when this half is tested."""
    return np.flatnonzero(row.usable & (truth.side != half)), np.flatnonzero(
        row.usable & (truth.side == half)
    )


def _attempt(
    truth: _Truth,
    row: _Row,
    kind: str,
    halves: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
    seeds: Sequence[int],
    steps: int,
) -> Attempt:
    """One attacker on one treatment, both halves."""
    made, count = Attempt(), len(truth.persons)
    for (train, test), seed in zip(halves, seeds, strict=True):
        source = _shuffled(truth.persons, train, seed) if row.name == SHUFFLED else train
        if kind == NETWORK and row.chips is not None:
            pixels, vectors = _by_network(truth, row, train, source, test, seed, steps)
        else:
            pixels, vectors = _by_ridge(truth, row, train, source, test)
        for attacker, guess, true in zip(truth.faces.attackers, vectors, truth.vectors, strict=True):
            constant = true[source].mean(axis=0)
            made.vectors.setdefault(attacker.name, np.full(true.shape, np.nan))[test] = guess
            _note(
                made,
                attacker.name,
                test,
                count,
                [((g - true[test]) ** 2).sum(axis=1) for g in (guess, constant)],
            )
        if pixels is not None:
            mean = truth.chips[source].mean(axis=0)[None].repeat(len(test), axis=0)
            both = [_pixel_errors(guess, truth.chips[test], truth.masks[test]) for guess in (pixels, mean)]
            _note(made, PIXELS, test, count, [errors[0] for errors in both])
            _note(made, DETAIL, test, count, [errors[1] for errors in both])
    return made


def _note(made: Attempt, target: str, test: NDArray[np.intp], count: int, errors: Sequence[Floats]) -> None:
    kept = made.errors.setdefault(target, (np.full(count, np.nan), np.full(count, np.nan)))
    for place, error in zip(kept, errors, strict=True):
        place[test] = error


def _shuffled(persons: NDArray[np.intp], train: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """The faces to learn from, each replaced by one of somebody else (unless one person has more than half)."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(int(persons.max()) + 1)[persons[train]]
    order = np.lexsort((rng.random(len(train)), place))  # a person's own pictures in no order either
    source = train.copy()
    source[order] = train[np.roll(order, np.bincount(persons[train]).max())]
    return source


def _by_ridge(
    truth: _Truth, row: _Row, train: NDArray[np.intp], source: NDArray[np.intp], test: NDArray[np.intp]
) -> tuple[Floats | None, list[Floats]]:
    everyone = np.concatenate([train, test])
    local = np.arange(len(train)), np.arange(len(train), len(everyone))
    blocks = [v[everyone] for v in row.vectors]
    kernels = [linear_kernel(blocks, local[0])]
    if row.chips is not None:
        chips = row.chips[everyone].astype(np.float64)
        few = chips.reshape(len(chips), SMALL, CHIP // SMALL, SMALL, CHIP // SMALL, 3).mean(axis=(2, 4))
        small = few.reshape(len(chips), -1)
        kernels += [linear_kernel([small], local[0]), linear_kernel([*blocks, small], local[0])]
    ridge = Ridge(kernels, *local, truth.persons[everyone])
    wanted = np.concatenate([source, test])
    vectors = [ridge.restore(v[wanted], own)[0] for v, own in zip(truth.vectors, blocks, strict=True)]
    if row.chips is None:
        return None, vectors
    face = truth.masks[train].any(axis=0)  # only where faces are: nothing is learned of what is behind them
    pixels = np.repeat(truth.chips[source].mean(axis=0)[None], len(test), axis=0)
    target = truth.chips[wanted][:, face].reshape(len(everyone), -1).astype(np.float64)
    guess, _ = ridge.restore(target, chips[:, face].reshape(len(everyone), -1))
    pixels[:, face] = guess.reshape(len(test), -1, 3).clip(0, 255)
    return pixels, vectors


def _by_network(
    truth: _Truth,
    row: _Row,
    train: NDArray[np.intp],
    source: NDArray[np.intp],
    test: NDArray[np.intp],
    seed: int,
    steps: int,
) -> tuple[Floats | None, list[Floats]]:
    if row.chips is None:
        raise ValueError("the network needs chips")
    given = [v[train] for v in row.vectors]
    pairs = Pairs(row.chips[train], given, truth.chips[source], [v[source] for v in truth.vectors])
    network = Restorer(pairs, truth.persons[train], seed, steps)
    return network.restore(row.chips[test], [v[test] for v in row.vectors])


def _pixel_errors(guess: Floats, true: NDArray[np.uint8], masks: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """[S] mean squared error of chips [S, 64, 64, 3] inside the face; and without the error of its mean colour."""
    inside = masks[..., None].astype(np.float64)
    size = np.maximum(inside.sum(axis=(1, 2)), 1)  # [S, 1]
    off = (guess - true) * inside
    whole = ((off**2).sum(axis=(1, 2)) / size).mean(axis=1)
    return whole, whole - ((off.sum(axis=(1, 2)) / size) ** 2).mean(axis=1)
