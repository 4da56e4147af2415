"""BlazeFace, a detector that the pipeline's default does not use: finds again what the pipeline put there.

Source: Bazarevsky, Kartynnik, Vakunov, Raveendran, Grundmann 2019, "BlazeFace: Sub-millisecond Neural Face Detection on
Mobile GPUs"; anchors and decoding as in MediaPipe's `face_detection_short_range` graph.
"""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.evaluation.utility import iou
from deid.faces import blazeface
from deid.interfaces import Picture

_, SIDE, GRIDS = blazeface.NETWORKS["short"]  # side: px, of the input
ANCHORS = blazeface.anchors(GRIDS)  # [896, 2]
SCORE = 0.5  # least
SAME = 0.3  # IoU from which boxes are of one face


class BlazeFace:
    """The short-range model: faces from about a tenth of the picture's longer side.

    Args:
        files: the files of `blazeface`, from the model store.
        threads: of the CPU.
    """

    def __init__(self, files: Mapping[str, Path], threads: int = 1) -> None:
        self._net = blazeface.BlazeFace(files, "short", threads)

    def boxes(self, picture: Picture) -> NDArray[np.float64]:
        """Boxes [N, 4] in pixels of the picture, best first."""
        height, width = picture.shape[:2]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = cv2.copyMakeBorder(
            picture, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT
        )
        raw, logits = self._net.run(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        found = decode(raw, 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -60, 60))))
        return found * side - [left, top, left, top]


def decode(raw: NDArray[np.floating], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Boxes [N, 4] in shares of the input's side, best first, of regressions [896, 16] and scores [896], 0..1.

    Boxes of one face are averaged by their scores, which moves less from picture to picture than the best alone.
    """
    kept = np.flatnonzero(scores >= SCORE)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    centre = raw[kept, :2] / SIDE + ANCHORS[kept]
    half = raw[kept, 2:4] / SIDE / 2
    boxes, weights = np.concatenate([centre - half, centre + half], axis=1), np.asarray(scores)[kept]
    found = []
    while len(boxes):
        same = iou(boxes[:1], boxes)[0] >= SAME
        same[0] = True
        found.append(np.average(boxes[same], axis=0, weights=weights[same]))
        boxes, weights = boxes[~same], weights[~same]
    return np.array(found, np.float64).reshape(-1, 4)
