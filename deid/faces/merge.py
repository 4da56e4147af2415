"""One box with five points out of the many that views and detectors give for a face.

Source of the weighted means: Solovyev, Wang, Gabruseva 2021, "Weighted boxes fusion: Ensembling boxes from different
object detection models".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deid.faces.detect import INSIDE, IOU
from deid.interfaces import Detections

JOINED = 0.4  # IoU from which a box has a say in where the face is
LEAST_WEIGHT = 1e-3  # of a box whose rank is not above 0

MIRRORED = [1, 0, 2, 4, 3]  # the points after the picture was mirrored: right and left change places


@dataclass
class View:
    """What one view of a picture gives, in pixels of that picture; a face may have many boxes."""

    boxes: NDArray[np.float32]  # [N, 4]
    scores: NDArray[np.float32]  # [N] 0..1
    points: NDArray[np.float32]  # [N, 5, 2]
    ranks: NDArray[np.float32]  # [N] the higher, the better placed

    def mirrored(self, width: int) -> "View":
        """The same in a picture that was mirrored left to right; `width` in pixels."""
        boxes = self.boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (width, 0, width, 0)
        points = self.points[:, MIRRORED] * (-1, 1) + (width, 0)
        return View(boxes.astype(np.float32), self.scores, points.astype(np.float32), self.ranks)


def vote(views: Sequence[View]) -> Detections:
    """Every face once, by falling score.

    Boxes that overlap a better one, or lie within it, are the same face. Its box and points are the means of those
    that overlap the best one well, weighted by rank and overlap; its score is the mean of the views' best scores, 0
    for a view that does not see it.
    """
    boxes, scores, points, ranks = (
        np.concatenate([getattr(view, name) for view in views])
        for name in ("boxes", "scores", "points", "ranks")
    )
    source = np.repeat(np.arange(len(views)), [len(view.boxes) for view in views])
    left = np.argsort(-ranks, kind="stable")
    found = []
    while len(left):
        overlap, inside = overlaps(boxes[left[0]], boxes[left])
        overlap[0] = 1  # also of a box without area
        joined = overlap > JOINED
        members = left[joined]
        weights = np.maximum(ranks[members], LEAST_WEIGHT) * overlap[joined]
        weights /= weights.sum()
        best = np.zeros(len(views))
        np.maximum.at(best, source[members], scores[members])
        found.append((weights @ boxes[members], best.mean(), np.tensordot(weights, points[members], 1)))
        left = left[(overlap <= IOU) & (inside <= INSIDE)]
    found.sort(key=lambda face: -face[1])
    return Detections(
        np.array([face[0] for face in found], np.float32).reshape(-1, 4),
        np.array([face[1] for face in found], np.float32),
        np.array([face[2] for face in found], np.float32).reshape(-1, 5, 2),
    )


def overlaps(
    box: NDArray[np.floating], others: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of a box [4] and others [N, 4]: intersection over union [N], and over the smaller of the two areas [N]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.prod(np.maximum(sides, 0), axis=1, dtype=np.float64)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1, dtype=np.float64)
    area = float(np.prod(box[2:] - box[:2]))
    smaller = np.minimum(areas, area)
    return common / np.maximum(areas + area - common, 1e-9), common / np.maximum(smaller, 1e-9)


def joined(parts: Sequence[Detections]) -> Detections:
    """All detections in one, in their order."""
    return Detections(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.points for part in parts]),
    )


def chosen(detections: Detections, kept: NDArray[np.generic]) -> Detections:
    """Those detections that indices or a mask name."""
    return Detections(detections.boxes[kept], detections.scores[kept], detections.points[kept])
