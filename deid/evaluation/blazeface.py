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
from deid.interfaces import Picture

SIDE = 128  # px, of the network's input
GRIDS = ((16, 2), (8, 6))  # cells a side, anchors a cell
SCORE = 0.5  # least
SAME = 0.3  # IoU from which boxes are of one face


class BlazeFace:
    """The short-range model: faces from about a tenth of the picture's longer side.

    Args:
        files: the files of `blazeface`, from the model store.
        threads: of the CPU.
    """

    def __init__(self, files: Mapping[str, Path], threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._net = Interpreter(
            model_path=str(files["face_detection_short_range.tflite"]), num_threads=threads
        )
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = {int(o["shape"][-1]): o["index"] for o in self._net.get_output_details()}
        self._boxes, self._scores = outputs[16], outputs[1]

    def boxes(self, picture: Picture) -> NDArray[np.float64]:
        """Boxes [N, 4] in pixels of the picture, best first."""
        height, width = picture.shape[:2]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = cv2.copyMakeBorder(
            picture, top, side - height - top, left, side - width - left, cv2.BORDER_CONSTANT
        )
        pixels = cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        self._net.set_tensor(self._input, (pixels / 127.5 - 1)[None])
        self._net.invoke()
        logits = self._net.get_tensor(self._scores)[0, :, 0].astype(np.float64)
        found = decode(self._net.get_tensor(self._boxes)[0], 1 / (1 + np.exp(-np.clip(logits, -60, 60))))
        return found * side - [left, top, left, top]


def anchors() -> NDArray[np.float64]:
    """Centres [896, 2] of the anchors, x and y, in shares of the input's side."""
    made = []
    for cells, each in GRIDS:
        middle = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2)
        made.append(np.repeat(grid, each, axis=0))
    return np.concatenate(made)


def decode(raw: NDArray[np.floating], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Boxes [N, 4] in shares of the input's side, best first, of regressions [896, 16] and scores [896], 0..1.

    Boxes of one face are averaged by their scores, which moves less from picture to picture than the best alone.
    """
    kept = np.flatnonzero(scores >= SCORE)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    centre = raw[kept, :2] / SIDE + anchors()[kept]
    half = raw[kept, 2:4] / SIDE / 2
    boxes, weights = np.concatenate([centre - half, centre + half], axis=1), np.asarray(scores)[kept]
    found = []
    while len(boxes):
        same = iou(boxes[:1], boxes)[0] >= SAME
        same[0] = True
        found.append(np.average(boxes[same], axis=0, weights=weights[same]))
        boxes, weights = boxes[~same], weights[~same]
    return np.array(found, np.float64).reshape(-1, 4)
