"""Square parts of a picture, turned and scaled."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture


def chip(
    picture: Picture, transform: NDArray[np.float64], size: int = 150, border: int = cv2.BORDER_CONSTANT
) -> Picture:
    """The part of a picture that a similarity [2, 3] maps to [size, size, 3]; black beyond the border, or as
    OpenCV's `border` says.

    Where the chip has at most half the picture's resolution, the picture is halved first, as dlib does, so that
    no pixel is skipped.
    """
    inverse = cv2.invertAffineTransform(transform)
    corners = inverse @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]], float)
    scale = np.hypot(inverse[0, 0], inverse[1, 0])  # pixels of the picture in one of the chip
    halvings = max(0, int(np.log2(scale)))
    margin = 4 * 2**halvings
    x0, y0 = np.maximum(np.floor(corners.min(axis=1)).astype(int) - margin, 0)
    x1, y1 = np.ceil(corners.max(axis=1)).astype(int) + margin
    part: Picture = picture[y0 : max(y1, 0), x0 : max(x1, 0)]
    if part.size == 0:
        return np.zeros((size, size, 3), np.uint8)
    for _ in range(halvings):
        part = np.asarray(cv2.pyrDown(part), np.uint8)
    moved = transform @ np.array([[2**halvings, 0, x0], [0, 2**halvings, y0], [0, 0, 1]], float)
    return np.asarray(
        cv2.warpAffine(part, moved, (size, size), flags=cv2.INTER_LINEAR, borderMode=border), np.uint8
    )


def look_up(
    field: NDArray[Any],
    at: NDArray[np.floating],
    kind: int = cv2.INTER_LINEAR,
    border: int = cv2.BORDER_CONSTANT,
) -> NDArray[np.float32]:
    """Values [h, w, ...] of a field [H, W, ...] at places [h, w, 2] (x, y in its pixels)."""
    x, y = (np.ascontiguousarray(at[..., axis], np.float32) for axis in (0, 1))
    return np.asarray(cv2.remap(field, x, y, kind, None, border), np.float32)
