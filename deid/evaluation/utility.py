"""What is left for use: whether faces are still found, where they were, with the same landmarks and pose."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deid.records import face_height_band

Boxes = NDArray[np.floating[Any]]  # [N, 4] x0, y0, x1, y1 in pixels


@dataclass
class Counts:
    truth: int = 0
    found: int = 0

    @property
    def recall(self) -> float:
        return self.found / self.truth if self.truth else float("nan")


@dataclass
class Recall:
    """Recall of boxes over pictures, in all and by height of the true box (`records.face_height_band`)."""

    total: Counts = field(default_factory=Counts)
    bands: dict[str, Counts] = field(default_factory=dict)
    predicted: int = 0

    @property
    def precision(self) -> float:
        return self.total.found / self.predicted if self.predicted else float("nan")


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection over union [N, M] of boxes [N, 4] and [M, 4]."""
    first, second = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None]
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(box[..., 2:] - box[..., :2], 0, None).prod(-1) for box in (first, second)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-12)


def match(truth: Boxes, predicted: Boxes, threshold: float) -> list[tuple[int, int]]:
    """One-to-one pairs (index of truth, index of prediction) of IoU at or above the threshold.

    Predictions come best first, and each takes the true box that it overlaps most among those still free.
    """
    if not len(truth) or not len(predicted):
        return []
    overlap, pairs = iou(truth, predicted), []
    for index in range(len(predicted)):
        best = int(np.argmax(overlap[:, index]))
        if overlap[best, index] >= threshold:
            pairs.append((best, index))
            overlap[best] = -1
    return pairs


def recall(truth: Sequence[Boxes], predicted: Sequence[Boxes], threshold: float = 0.4) -> Recall:
    """Recall over pictures: true boxes [N, 4] and predicted boxes [M, 4] (best first) of each."""
    result = Recall()
    for true, found in zip(truth, predicted, strict=True):
        hits = {index for index, _ in match(true, found, threshold)}
        result.predicted += len(found)
        for index, box in enumerate(true):
            band = result.bands.setdefault(face_height_band(float(box[3] - box[1])), Counts())
            for counts in (result.total, band):
                counts.truth += 1
                counts.found += index in hits
    return result


def agreement(before: Boxes, after: Boxes) -> NDArray[np.float64]:
    """[N] IoU of each box [N, 4] found before with the best of those [M, 4] after, or 0."""
    return iou(before, after).max(axis=1) if len(before) and len(after) else np.zeros(len(before))


def landmark_error(
    truth: NDArray[Any],
    measured: NDArray[Any],
    eyes: tuple[Sequence[int], Sequence[int]] = ((0,), (1,)),
    only: Sequence[int] | NDArray[np.integer] | None = None,
) -> NDArray[np.float64]:
    """[N] mean distance of landmarks [N, L, 2 or 3] (x and y count) over the true inter-ocular distance.

    eyes: indices of the landmarks whose means are the centres of the two eyes; by default the first two of
    the detector's five points. only: indices of the landmarks that count; None: all.
    """
    a, b = np.asarray(truth, np.float64)[..., :2], np.asarray(measured, np.float64)[..., :2]
    right, left = (a[:, list(side)].mean(axis=1) for side in eyes)
    between = np.linalg.norm(right - left, axis=1)
    apart = np.linalg.norm(a - b, axis=2)
    return (apart if only is None else apart[:, np.asarray(only)]).mean(axis=1) / np.maximum(between, 1e-9)


def pose_error(truth: NDArray[Any], measured: NDArray[Any]) -> NDArray[np.float64]:
    """[N, A] absolute difference of angles [N, A] (degrees), the short way round."""
    difference = np.asarray(measured, np.float64) - np.asarray(truth, np.float64)
    return np.abs((difference + 180) % 360 - 180)
