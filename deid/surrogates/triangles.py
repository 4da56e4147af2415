"""Triangles over points: Delaunay's, which of them face the camera, and the piecewise affine maps between two places.

Pure NumPy and OpenCV; corners are pixels, x to the right, y down, z away from the camera.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Triangles = NDArray[np.int64]  # [T, 3] rows of points
Corners = NDArray[np.float64]  # [T, 3, 2] or [T, 3, 3]

FLAT = 0.02  # a triangle with less than this share of its usual area is turned away
LEAST_FACING = 0.25  # share of the triangles of a face; in a profile about half of them are turned away


def delaunay(nodes: NDArray[np.floating]) -> Triangles:
    """Delaunay triangles [T, 3] of points [N, 2]."""
    nodes = nodes.astype(np.float32)
    low, high = nodes.min(0) - 1, nodes.max(0) + 1
    subdivision = cv2.Subdiv2D((*low.tolist(), *(high - low).tolist()))  # type: ignore[arg-type]
    rows = {}
    for row, point in enumerate(nodes):
        rows[subdivision.insert((float(point[0]), float(point[1])))] = row
    where = {tuple(subdivision.getVertex(vertex)[0]): row for vertex, row in rows.items()}
    corners = np.asarray(subdivision.getTriangleList(), np.float32).reshape(-1, 3, 2)
    found = [[where.get(tuple(corner.tolist())) for corner in triangle] for triangle in corners]
    return np.array([triangle for triangle in found if None not in triangle], np.int64)


def areas(corners: Corners) -> NDArray[np.float64]:
    """Twice the signed areas [T] of triangles [T, 3, 2]."""
    return cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def cross(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cross product [...] of vectors [..., 2]."""
    return np.asarray(first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0])


def cover(corners: Corners, order: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int32]:
    """For each pixel [h, w] its triangle, -1 where there is none; later ones of `order` lie over earlier ones."""
    index = np.full(shape, -1, np.int32)
    polygons = np.round(np.clip(corners[..., :2], -1e5, 1e5) * 16).astype(np.int32)
    for one in order.tolist():
        cv2.fillConvexPoly(index, polygons[one], one, cv2.LINE_8, 4)
    return index


def affine(here: Corners, there: Corners) -> NDArray[np.float64]:
    """Maps [T, 2, 3] that take each triangle [T, 3, 2] of `here` to that of `there`; here none may be flat."""
    first, second = here[:, 1] - here[:, 0], here[:, 2] - here[:, 0]
    area = cross(first, second)[:, None]
    v = np.stack([second[:, 1], -second[:, 0]], 1) / area  # of a point: its weight of the second corner
    w = np.stack([-first[:, 1], first[:, 0]], 1) / area
    linear = (there[:, 1] - there[:, 0])[:, :, None] * v[:, None]
    linear += (there[:, 2] - there[:, 0])[:, :, None] * w[:, None]
    shift = there[:, 0] - (linear @ here[:, 0, :, None])[..., 0]
    return np.concatenate([linear, shift[..., None]], 2)
