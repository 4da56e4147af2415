"""Square parts of a picture, turned and scaled."""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture


def chip(picture: Picture, transform: NDArray[np.float64], size: int = 150) -> Picture:
    """The part of a picture that a similarity [2, 3] maps to [size, size, 3]; black beyond the border.

    Where the chip has at most half the picture's resolution, the picture is halved first, as dlib does, so that
    no pixel is skipped.
    """
    inverse = cv2.invertAffineTransform(transform)
    corners = inverse @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]], float)
    scale = np.hypot(inverse[0, 0], inverse[1, 0])  # pixels of the picture in one of the chip
    halvings = max(0, int(np.log2(scale)))
    border = 4 * 2**halvings
    x0, y0 = np.maximum(np.floor(corners.min(axis=1)).astype(int) - border, 0)
    x1, y1 = np.ceil(corners.max(axis=1)).astype(int) + border
    part: Picture = picture[y0 : max(y1, 0), x0 : max(x1, 0)]
    if part.size == 0:
        return np.zeros((size, size, 3), np.uint8)
    for _ in range(halvings):
        part = np.asarray(cv2.pyrDown(part), np.uint8)
    moved = transform @ np.array([[2**halvings, 0, x0], [0, 2**halvings, y0], [0, 0, 1]], float)
    return np.asarray(cv2.warpAffine(part, moved, (size, size), flags=cv2.INTER_LINEAR), np.uint8)
