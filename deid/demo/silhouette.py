"""Which pixels of a generated picture are the person, from the generator's own features.

The features of the 64 px block tell person from background linearly. A least-squares classifier is fitted on the
pictures at hand: first on places that are surely one or the other by the face mesh, then, a few times, on what it is
sure of itself. GrabCut (Rother et al. 2004) between what is sure and a guided filter (He et al. 2013) refine its
answer to the picture's resolution. Nothing is trained before, nothing is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deid.faces import align
from deid.interfaces import Picture
from deid.models import mobilestylegan

BLOCK = 3  # its features are 64 px
SIDE = 64
CUT_SIDE = 256  # px, at which GrabCut works
ROUNDS = 3
RIDGE = 0.03  # of a unit-variance feature
SHARE = 0.4  # of the pixels that a fit uses
_SURE_PERSON, _SURE_BACKGROUND = 0.35, -0.5

Scores = NDArray[np.float32]  # [64, 64], about 1 on the person, -1 on the background


class Features:
    """Features [64 * 64, 512] float16 of the generator's block for one style [512]."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._network = mobilestylegan.load_synthesis(files)

    def __call__(self, style: NDArray[np.float32]) -> NDArray[np.float16]:
        with torch.inference_mode():
            blocks = self._network.blocks(torch.from_numpy(style[None]))
            features = next(islice(blocks, BLOCK, None))
        return np.asarray(features[0].flatten(1).T.half().numpy())


@dataclass(frozen=True)
class Silhouette:
    """The classifier; `score` is about 1 on the person and -1 on the background."""

    mean: NDArray[np.float32] = field(repr=False)
    weights: NDArray[np.float32] = field(repr=False)  # [512], of centred features
    offset: float

    @classmethod
    def fit(
        cls, features: Sequence[NDArray[np.float16]], meshes: Sequence[NDArray[np.float32]], seed: int
    ) -> "Silhouette":
        """Fit on pictures with features [4096, 512] and meshes [468, 3] in units of the picture's side."""
        chosen = np.random.default_rng(seed).random((len(features), SIDE * SIDE)) < SHARE
        x = np.concatenate([f[c] for f, c in zip(features, chosen, strict=True)]).astype(np.float32)
        labels = np.concatenate([seeds(m).ravel()[c] for m, c in zip(meshes, chosen, strict=True)])
        mean, deviation = x.mean(0), x.std(0) + 1e-6
        x = (x - mean) / deviation
        weights, offset = _least_squares(x, labels)
        for _ in range(ROUNDS):
            scores = x @ weights + offset
            labels = np.where(scores > _SURE_PERSON, 1, np.where(scores < _SURE_BACKGROUND, -1, 0))
            weights, offset = _least_squares(x, labels)
        return cls(mean, weights / deviation, offset)

    def score(self, features: NDArray[np.float16]) -> Scores:
        scores = (features.astype(np.float32) - self.mean) @ self.weights + self.offset
        return np.asarray(scores.reshape(SIDE, SIDE), np.float32)


def _least_squares(x: NDArray[np.float32], labels: NDArray[np.integer]) -> tuple[NDArray[np.float32], float]:
    """Weights and offset of a ridge regression on labels 1 and -1, both classes with equal weight."""
    total, right, sums = np.zeros((x.shape[1],) * 2), np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for sign in (1, -1):
        part = x[labels == sign]
        total += part.T @ part / (2 * len(part))
        right += sign * part.mean(0) / 2
        sums += part.mean(0) / 2
    total -= np.outer(sums, sums)
    weights = np.linalg.solve(total + RIDGE * np.eye(len(total)), right)
    return weights.astype(np.float32), float(-sums @ weights)


def seeds(mesh: NDArray[np.float32]) -> NDArray[np.int8]:
    """1 where a person surely is, -1 where surely none is, 0 elsewhere: int8 [64, 64]."""
    oval = align.outline(mesh) * SIDE
    x, y = (oval.min(0) + oval.max(0)) / 2
    width, height = np.ptp(oval, axis=0)
    chin = float(oval[:, 1].max())
    rows, columns = np.mgrid[:SIDE, :SIDE]
    away = ((columns - x) / (1.05 * width)) ** 2 + ((rows - y + 0.1 * height) / height) ** 2
    labels = np.where((away > 1) & (rows < y - 0.25 * height), -1, 0).astype(np.int8)
    person = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(person, [np.round(oval).astype(np.int32)], 1)
    brow = (int(x), int(y - 0.18 * height))
    cv2.ellipse(person, brow, (int(0.42 * width), int(0.52 * height)), 0, 0, 360, 1, -1)
    half = np.array([-0.2, 0.2, 0.5, -0.5]) * width + x
    body = np.stack([half, [chin, chin, SIDE, SIDE]], 1)
    cv2.fillPoly(person, [np.round(body).astype(np.int32)], 1)
    labels[person > 0] = 1
    return labels


def matte(picture: Picture, scores: Scores, inside: NDArray[np.floating]) -> NDArray[np.float32]:
    """Opacity of the person, float32 [S, S] 0..1; `inside` [2] is a point of the face in units of the side."""
    side = len(picture)
    small = np.asarray(cv2.resize(picture, (CUT_SIDE, CUT_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    person = _cut(small, scores)
    person = _one_piece(person, (inside * CUT_SIDE).astype(int))
    narrow = cv2.GaussianBlur(person.astype(np.float32), (0, 0), 1)
    soft = np.asarray(cv2.resize(narrow, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)
    guide = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32) / np.float32(255)
    alpha = np.clip((_guided(guide, soft, side // 128, 1e-3) - 0.3) / 0.6, 0, 1)
    alpha[soft < 0.02] = 0
    return np.asarray(alpha, np.float32)


def _cut(small: Picture, scores: Scores) -> NDArray[np.uint8]:
    large = cv2.resize(scores, (CUT_SIDE, CUT_SIDE), interpolation=cv2.INTER_CUBIC)
    mask = np.where(large > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    person = cv2.erode((large > _SURE_PERSON).astype(np.uint8), np.ones((3, 3)))
    background = cv2.erode((large < -0.45).astype(np.uint8), np.ones((5, 5)))
    mask[person > 0], mask[background > 0] = cv2.GC_FGD, cv2.GC_BGD
    if (mask == cv2.GC_FGD).any() and (mask == cv2.GC_BGD).any():
        cv2.setRNGSeed(0)
        models, unused = (np.zeros((1, 65)), np.zeros((1, 65))), (0, 0, 1, 1)
        cv2.grabCut(np.ascontiguousarray(small[..., ::-1]), mask, unused, *models, 2, cv2.GC_INIT_WITH_MASK)
    cut = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    return np.asarray(cv2.morphologyEx(cut, cv2.MORPH_OPEN, disc), np.uint8)


def _one_piece(person: NDArray[np.uint8], inside: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The piece with the face in it; small holes are closed, and gaps that only the lower border opens (a shirt)."""
    _, pieces = cv2.connectedComponents(person)
    piece = (pieces == pieces[inside[1], inside[0]]).astype(np.uint8)
    count, holes, statistics, _ = cv2.connectedComponentsWithStats(1 - piece, connectivity=4)
    for hole in range(1, count):
        left, top, width, _, area = statistics[hole]
        enclosed = left > 0 and left + width < len(piece) and top > inside[1]
        if area < 0.004 * piece.size or enclosed:
            piece[holes == hole] = 1
    return piece


def _guided(
    guide: NDArray[np.float32], soft: NDArray[np.float32], radius: int, epsilon: float
) -> NDArray[np.float32]:
    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(values, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT), np.float32)

    middle, level = mean(guide), mean(soft)
    slope = (mean(guide * soft) - middle * level) / (mean(guide * guide) - middle**2 + epsilon)
    return mean(slope) * guide + mean(level - slope * middle)
