"""The parts of a head, and the square chips in which every face stands as the gallery's mean face does."""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.faces.align import similarity
from deid.faces.crop import chip
from deid.interfaces import Picture

Points = NDArray[np.floating]
Segments = NDArray[np.uint8]  # [SIDE, SIDE, len(PARTS)], 0..255, the parts of a pixel add up to about 255

PARTS = (
    "background",
    "face",
    "hair",
    "neck",
    "other",
)  # face: with ears, eyes and mouth; other: clothes, hats, hands
BACKGROUND, FACE, HAIR, NECK, OTHER = range(len(PARTS))
INPUT = 256  # px: side of the network's chips
SIDE = 128  # px: side of its answers
SPAN = 1.45  # side of a chip over the side of a generated picture of the same face
ABOVE = 0.28  # part of a chip that lies above the top of such a picture
ANCHORS = (
    33,
    133,
    362,
    263,
    168,
    6,
    197,
    195,
    5,
    4,
    1,
    2,
    98,
    327,
    61,
    291,
)  # mesh points a chip is aligned on
# Where these stand on the mean face of the default gallery, in sides of its pictures.
FRAME = np.array(
    [
        *((0.312, 0.472), (0.427, 0.479), (0.568, 0.478), (0.682, 0.470), (0.499, 0.456), (0.499, 0.488)),
        *((0.499, 0.518), (0.500, 0.545), (0.500, 0.574), (0.501, 0.609), (0.501, 0.635), (0.500, 0.657)),
        *((0.426, 0.645), (0.573, 0.644), (0.380, 0.727), (0.617, 0.725)),
    ]
)


def frame(mesh: Points) -> NDArray[np.float64]:
    """The similarity [2, 3] that takes pixels of a picture to those of the face's chip (`INPUT` px a side).

    Args:
        mesh: [468, 2 or 3] in pixels of the picture.
    """
    inside = (FRAME / SPAN + [(1 - 1 / SPAN) / 2, ABOVE]) * INPUT
    return similarity(mesh[list(ANCHORS), :2], inside)


def whole(side: int) -> NDArray[np.float64]:
    """The map [2, 3] of pixels of a generated picture to those of a chip that is this picture, whole."""
    scale = INPUT / side
    return np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])


def head_chip(picture: Picture, mesh: Points) -> Picture:
    """The chip [INPUT, INPUT, 3] of one face of a picture."""
    return chip(picture, frame(mesh), INPUT, cv2.BORDER_REPLICATE)
