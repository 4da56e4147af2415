"""Solid cover of a face: what goes out when no surrogate can."""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid import config
from deid.errors import FaceError
from deid.interfaces import Face, Picture
from deid.surrogates import masks

COLOUR = (128, 128, 128)  # fixed: a colour of the face would tell of its skin
MIN_SCALE = masks.BOX_SCALE  # a smaller region still covers this much of the box


def cover(picture: Picture, face: Face, region: config.Region) -> Picture:
    """The picture with the face under one solid grey shape.

    The shape is the box, and the face outline where there is a mesh, both scaled about their centres by the
    region's scale (at least `MIN_SCALE`), and all between the two.

    Raises:
        FaceError: the box is not finite, so nothing says where the face is.
    """
    covered = picture.copy()
    cover_in_place(covered, face, region)
    return covered


def cover_in_place(picture: Picture, face: Face, region: config.Region) -> None:
    """`cover` without a copy."""
    found = mask(face, region, picture.shape)
    if found is not None:
        window, inside = found
        picture[window][inside] = COLOUR


def mask(
    face: Face, region: config.Region, size: tuple[int, ...]
) -> tuple[tuple[slice, slice], NDArray[np.bool_]] | None:
    """What is covered, in a picture of this size: a window (rows, columns) and the mask [h, w] in it; None when it
    lies outside."""
    height, width = size[:2]
    corners = shape(face, max(region.scale, MIN_SCALE))
    # Far corners are drawn from a picture's length away: OpenCV's fixed-point coordinates have an end.
    limit = 4.0 * max(height, width)
    polygon = cv2.convexHull(np.clip(corners, -limit, limit).astype(np.float32))[:, 0].astype(np.float64)
    first = np.clip(np.floor(polygon.min(0)) - 1, 0, [width, height]).astype(int)
    last = np.clip(np.ceil(polygon.max(0)) + 2, 0, [width, height]).astype(int)
    if (last <= first).any():
        return None
    window = (slice(int(first[1]), int(last[1])), slice(int(first[0]), int(last[0])))
    extent = (int(last[1] - first[1]), int(last[0] - first[0]))
    return window, masks.fill(polygon, extent, first.astype(np.float64))


def shape(face: Face, scale: float) -> NDArray[np.float64]:
    """Corners [N, 2] whose convex hull is covered, pixels."""
    box = np.asarray(face.box, np.float64).reshape(2, 2)
    if not np.isfinite(box).all():
        raise FaceError("composite_failed")
    low, high = box.min(0), box.max(0)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 0.5) * scale
    corners = middle + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    if face.mesh is None or not np.isfinite(face.mesh).all():
        return corners
    hull = cv2.convexHull(face.mesh[:, :2].astype(np.float32))[:, 0].astype(np.float64)
    return np.concatenate([corners, masks.scaled(hull, scale)])
