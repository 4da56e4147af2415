"""Smiling or neutral, by two unrelated measures: the mesh's mouth corners, and an expression network."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.faces import align, litert
from deid.faces.crop import chip
from deid.interfaces import Picture

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIDE = 64  # px, of the network's input
SMILING = 0.0172  # `smile` above it is a smile: `threshold` of the clear pictures, benchmarks/RESULTS.md
REACH = 0.9  # side of the crop over the longer side of the mesh


def smile(meshes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Height [...] of the mouth corners over the middle of the lips, in face sizes, of meshes [..., 468, 3]."""
    return align.expression(meshes)[..., align.EXPRESSION.index("smile")]


def threshold(values: NDArray[np.floating], smiling: NDArray[np.bool_]) -> tuple[float, float]:
    """The threshold that tells smiling (above it) from neutral best, and its balanced accuracy.

    values: [N]; those that are not finite take no part. Of equally good thresholds, the middle one.

    Raises:
        ValueError: not both kinds are there.
    """
    known = np.isfinite(values)
    value, label = np.asarray(values, np.float64)[known], np.asarray(smiling, bool)[known]
    if label.all() or not label.any():
        raise ValueError("a threshold needs smiling and neutral pictures")
    levels = np.unique(value)
    cuts = np.concatenate([[levels[0] - 1], (levels[1:] + levels[:-1]) / 2, [levels[-1] + 1]])
    above = value[None] > cuts[:, None]
    accuracy = (above[:, label].mean(axis=1) + (~above[:, ~label]).mean(axis=1)) / 2
    best = np.flatnonzero(accuracy == accuracy.max())
    return float(cuts[best[len(best) // 2]]), float(accuracy.max())


def happier(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """How much likelier [...] happy is than neutral, -1..1, of probabilities [..., 7] of `CLASSES`."""
    p = np.asarray(probabilities, np.float64)
    return np.asarray(p[..., CLASSES.index("happy")] - p[..., CLASSES.index("neutral")])


class ExpressionNetwork:
    """A small network trained on FER-2013 by other people than the mesh's, as packaged by fer (Justin Shenk, MIT).

    Args:
        files: the files of `fer_expression`, from the model store.
        threads: of the CPU.
    """

    def __init__(self, files: Mapping[str, Path], threads: int = 1) -> None:
        self._net, self._input = litert.load(files["emotion_model_quantized.tflite"], threads)
        self._output = self._net.get_output_details()[0]["index"]

    def probabilities(self, picture: Picture, mesh: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities [7] of `CLASSES`, of the face with this mesh [468, 3] (pixels of the picture)."""
        grey = cv2.cvtColor(crop(picture, mesh), cv2.COLOR_RGB2GRAY)
        self._net.set_tensor(self._input, (grey.astype(np.float32) / 127.5 - 1)[None, :, :, None])
        self._net.invoke()
        return np.array(self._net.get_tensor(self._output)[0], np.float32)


def crop(picture: Picture, mesh: NDArray[np.float32]) -> Picture:
    """Square [64, 64, 3] around a mesh, as it stands in the picture."""
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    scale = SIDE / (REACH * float((high - low).max()))
    shift = SIDE / 2 - scale * (low + high) / 2
    return chip(picture, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float64), SIDE)
