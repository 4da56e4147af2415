"""How a face looks: its head upright in a small chip, its sharpness, and features for a distance of distributions."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deid.faces import align, crop
from deid.faces import mtcnn as detector
from deid.faces.embed import DETECTOR_SHAPE
from deid.interfaces import Face, Picture
from deid.models import mtcnn as nets
from deid.surrogates import masks

SIDE = 64  # px, of a chip
# Where the five points of a face lie in its chip: dlib's mean shape in a box, from the brows to
# the chin, of nearly half the chip's side; there is room for hair and ears.
TEMPLATE = (DETECTOR_SHAPE + np.array([0.55, 0.75])) / 2.1 * SIDE - 0.5
INNER = 0.9  # of the face outline: without the border of what was replaced
FLOOR = 1e-3  # of the variance, grey levels squared: of a flat face, log is -6.9


def chip(picture: Picture, face: Face) -> Picture:
    """The head [64, 64, 3] upright, by the mesh's five points or else the detector's; black beyond the picture.

    The face, brows to chin, takes half of the chip's height. Empty [0, 0, 3] where the points make no face.
    """
    points = face.points if face.mesh is None else align.five_points(face.mesh)
    try:
        return crop.chip(picture, align.similarity(points, TEMPLATE), SIDE)
    except ValueError:
        return np.zeros((0, 0, 3), np.uint8)


def sharpness(picture: Picture, place: NDArray[np.floating]) -> float:
    """Log (natural) of the variance of the Laplacian of the face's luminance, at the picture's own resolution.

    Pech-Pacheco, Cristobal, Chamorro-Martinez, Fernandez-Valdivia 2000, "Diatom autofocusing in brightfield
    microscopy". It grows with detail and falls with a face's size, so it compares only faces in one place, as those of
    a picture and of its result.

    Args:
        picture: [H, W, 3].
        place: the face's mesh [468, 2 or 3], of which the inside of the outline counts, or its box [4], px.

    Returns:
        NaN where the face has no pixels in the picture.
    """
    outline = (
        masks.scaled(np.asarray(align.outline(place), np.float64), INNER)
        if place.ndim == 2
        else _ellipse(place)
    )
    low = np.maximum(np.floor(outline.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(outline.max(0)).astype(int) + 1, picture.shape[1::-1])
    if (high - low < 3).any():
        return float("nan")
    grey = cv2.cvtColor(picture[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY)
    inside = np.zeros(grey.shape, np.uint8)
    cv2.fillPoly(inside, [np.round(outline - low).astype(np.int32)], 1)
    values = cv2.Laplacian(grey, cv2.CV_32F)[inside.astype(np.bool_)]
    return float(np.log(values.var() + FLOOR)) if len(values) else float("nan")


def _ellipse(box: NDArray[np.floating]) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * INNER
    return np.asarray(middle + half * np.stack([np.cos(turn), np.sin(turn)], 1), np.float64)


class Features:
    """256 activations of a network that tells faces from other things: O-Net of MTCNN, its last layer but one.

    For a kernel distance between the distributions of clear and of de-identified faces. Not Inception's, so its
    numbers compare with no others than those of this extractor.

    Args:
        files: the files of `mtcnn`, from the model store.
        threads: of torch.
    """

    SIZE = 256

    def __init__(self, files: Mapping[str, Path], threads: int = 1) -> None:
        torch.set_num_threads(threads)
        net = nets.load(nets.ONet(), files["onet.pt"])
        self._net: nets.ONet = net  # type: ignore[assignment]

    def of(self, picture: Picture, face: Face) -> NDArray[np.float32]:
        """Features [256] of a face in its box, widened to a square."""
        cut = detector.cut(picture, detector.square(face.box[None])[0], nets.O_SIDE)
        with torch.inference_mode():
            found = self._net.features(detector.normal(torch.from_numpy(cut[None])))
        return np.asarray(found[0].numpy(), np.float32)
