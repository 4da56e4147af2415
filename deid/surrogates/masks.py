"""Which pixels of a picture a face's surrogate replaces: the face outline, scaled about its centre.

The outline is the convex hull of the whole mesh, not only of its 36 oval points, so that nothing of a turned face
(a nose in profile) sticks out. The replaced region is a plain polygon; a segmented head (hair, ears, neck) would
replace `Region.mask` and nothing else.

Mesh indices are those of MediaPipe's 468-point face mesh.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from deid import config
from deid.errors import FaceError
from deid.interfaces import Face

Points = NDArray[np.float64]  # [N, 2] x, y in pixels
Field = NDArray[np.float32]  # [h, w] or [h, w, C]

_RIGHT = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)
_LEFT = (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
OVAL = np.array([*_RIGHT, *_LEFT])  # clockwise in the picture, from the forehead's middle
EYES = (
    np.array([33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246]),
    np.array([263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466]),
)
MOUTH = np.array([78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191])
LIPS = np.array([61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185])
BROWS = np.array([276, 283, 282, 295, 285, 300, 293, 334, 296, 336, 46, 53, 52, 65, 55, 70, 63, 105, 66, 107])
# Eye corners, bridge, tip and wings of the nose, mouth corners: what a face is aligned on.
ANCHORS = np.array([33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 61, 291])
SKIN = np.setdiff1d(np.arange(468), np.concatenate([*EYES, MOUTH, LIPS, BROWS]))

FARTHEST = 1e5  # px; an outline beyond is no face of any picture, and OpenCV's fixed-point range has an end
MIN_SIDE = 4.0  # px; an outline below it has no shape left
DETECTION_REACH = 1.35  # what the detector saw must lie within the outline scaled by this
BOX_SCALE = (
    1.3  # detectors' boxes are tight: where only the box says where the face is, this much of it counts
)
LOOSE_BELOW = 24.0  # px of outline height
INSET = 0.1  # of a box's sides, which detectors place loosely
GRID = 32  # cells a side on which smooth fields are computed


def outline(mesh: NDArray[np.float32]) -> Points:
    """Face outline [M, 2] of a mesh [468, 2 or 3]: its convex hull.

    Raises:
        FaceError: not finite, or smaller than `MIN_SIDE`.
    """
    if mesh.ndim != 2 or not len(mesh) > OVAL.max() or not np.isfinite(mesh).all():
        raise FaceError("composite_failed")
    hull = cv2.convexHull(mesh[:, :2].astype(np.float32))[:, 0].astype(np.float64)
    if np.ptp(hull, axis=0).min() < MIN_SIDE:
        raise FaceError("composite_failed")
    return hull


def centre(polygon: Points) -> Points:
    """Centre of area [2] of a polygon [M, 2]."""
    following = np.roll(polygon, -1, axis=0)
    cross = polygon[:, 0] * following[:, 1] - following[:, 0] * polygon[:, 1]
    if abs(cross.sum()) < 1e-9:
        return np.asarray(polygon.mean(0))
    return np.asarray(((polygon + following) * cross[:, None]).sum(0) / (3 * cross.sum()))


def scaled(polygon: Points, scale: float) -> Points:
    """The polygon scaled about its centre of area."""
    middle = centre(polygon)
    return middle + (polygon - middle) * scale


def fill(polygon: Points, shape: tuple[int, int], offset: Points) -> NDArray[np.bool_]:
    """Mask [h, w] of a window at `offset` (x, y): every pixel that the polygon touches, and one more around it."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round((polygon - offset) * 16).astype(np.int32)], 1, shift=4)
    return cv2.dilate(mask, np.ones((3, 3), np.uint8)).astype(np.bool_)


@dataclass(frozen=True)
class Region:
    """Replaced region of one face, in a window of the picture."""

    outline: Points  # [M, 2] face outline, pixels of the picture
    centre: Points  # [2]
    scale: float
    face: Points  # [K, 2] outline of the face that goes in: the outline, or within it where the mesh is laid
    loose: bool  # placed roughly, or too small for texture: the face fades into its surroundings
    polygon: Points  # [M, 2] outline times scale
    feather: float  # px, outside the polygon
    window: tuple[slice, slice]  # rows, columns: polygon and feather, clipped to the picture
    mask: NDArray[np.bool_]  # [h, w] of the window: what must be replaced entirely

    @property
    def offset(self) -> Points:
        """x, y of the window's first pixel."""
        return np.array([self.window[1].start, self.window[0].start], np.float64)

    @property
    def size(self) -> float:
        """Height and width of the face outline, geometric mean, px."""
        return float(np.sqrt(np.prod(np.ptp(self.outline, axis=0))))

    def alpha(self) -> Field:
        """Opacity [h, w] of the surrogate: 1 in the region, falling to 0 over the feather outside it."""
        away = cv2.distanceTransform((~self.mask).astype(np.uint8), cv2.DIST_L2, 3)
        return 1 - smoothstep(away / self.feather)

    @cached_property
    def grid(self) -> tuple[Points, Field]:
        """Cell centres [g*g, 2] of a coarse grid over the window, and their radius [g*g]: 0 at the centre, 1 on
        the outline, `scale` on the region's border."""
        height, width = self.mask.shape
        x = (np.arange(GRID) + 0.5) * width / GRID - 0.5 + self.offset[0]
        y = (np.arange(GRID) + 0.5) * height / GRID - 0.5 + self.offset[1]
        cells = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        return cells, _radius(cells, self.outline, self.centre)

    @cached_property
    def face_radius(self) -> Field:
        """The radius [g*g] of the grid's cells in outlines of the face that goes in."""
        return _radius(self.grid[0], self.face, centre(self.face))

    def enlarge(self, field: NDArray[np.floating]) -> Field:
        """A field [g*g, ...] of the coarse grid, at the window's resolution."""
        cells = np.asarray(field, np.float32).reshape(GRID, GRID, -1)
        return np.asarray(
            cv2.resize(cells, self.mask.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32
        )


def region(face: Face, options: config.Region, shape: tuple[int, ...]) -> Region:
    """Replaced region of a face in a picture of this shape.

    Raises:
        FaceError: no usable mesh, a mesh that is not where the detector saw the face, or all outside the picture.
    """
    edge = trusted(face)
    scale = max(options.scale, BOX_SCALE) if face.laid else options.scale
    polygon = scaled(edge, scale)
    feather = max(1.0, options.feather * float(np.ptp(edge[:, 1])))
    first = np.maximum(np.floor(polygon.min(0) - feather) - 2, 0)
    last = np.minimum(np.ceil(polygon.max(0) + feather) + 3, [shape[1], shape[0]])
    if (last - first < 1).any():
        raise FaceError("composite_failed")
    window = (slice(int(first[1]), int(last[1])), slice(int(first[0]), int(last[0])))
    extent = (int(last[1] - first[1]), int(last[0] - first[0]))
    own = edge if face.mesh is None else outline(face.mesh)
    loose = face.laid or float(np.ptp(edge[:, 1])) < LOOSE_BELOW
    mask = fill(polygon, extent, first)
    return Region(edge, centre(edge), scale, own, loose, polygon, feather, window, mask)


def _radius(cells: Points, polygon: Points, middle: Points) -> Field:
    """How far out cells [N, 2] lie in a polygon: 0 at its middle, 1 on it."""
    edge, arm = polygon - middle, cells - middle
    angles, order = np.unique(np.arctan2(edge[:, 1], edge[:, 0]), return_index=True)
    reach = np.hypot(edge[:, 0], edge[:, 1])[order]
    limit = np.interp(np.arctan2(arm[:, 1], arm[:, 0]), angles, reach, period=2 * np.pi)
    return (np.hypot(arm[:, 0], arm[:, 1]) / limit).astype(np.float32)


def trusted(face: Face) -> Points:
    """Face outline [M, 2] that agrees with the detector; of a laid mesh, together with a rounded box.

    Raises:
        FaceError: no usable mesh, one without bounds, or one that is not where the detector saw the face.
    """
    if face.mesh is None:
        raise FaceError("composite_failed")
    edge = outline(face.mesh)
    if face.laid:
        both = np.concatenate([edge, _rounded(face.box)]).astype(np.float32)
        edge = np.asarray(cv2.convexHull(both)[:, 0], np.float64)
    if np.abs(edge).max() > FARTHEST:
        raise FaceError("composite_failed")
    reach = scaled(edge, DETECTION_REACH).astype(np.float32)
    if any(cv2.pointPolygonTest(reach, (float(x), float(y)), False) < 0 for x, y in seen(face)):
        raise FaceError("composite_failed")
    return edge


def agrees(face: Face) -> bool:
    """The face has a usable mesh where the detector saw it."""
    try:
        trusted(face)
    except FaceError:
        return False
    return True


def _rounded(box: NDArray[np.float32]) -> Points:
    """Superellipse [64, 2] of order 3 in a box: scaled by `BOX_SCALE` it holds the whole box."""
    if not np.isfinite(box).all():
        raise FaceError("composite_failed")
    low, high = box[:2].astype(np.float64), box[2:].astype(np.float64)
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    arm = np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.asarray((low + high) / 2 + (high - low) / 2 * np.sign(arm) * np.abs(arm) ** (2 / 3))


def seen(face: Face) -> Points:
    """Where the detector saw the face, [9, 2]: its five points and the middles of the box's sides, inset."""
    low, high = face.box[:2].astype(np.float64), face.box[2:].astype(np.float64)
    sides = np.array([[0.5, INSET], [0.5, 1 - INSET], [INSET, 0.5], [1 - INSET, 0.5]])
    return np.concatenate([face.points, low + sides * (high - low)])


def smoothstep(values: ArrayLike) -> Field:
    """0 below 0, 1 above 1, cubic between."""
    t = np.clip(np.asarray(values, np.float32), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def spread(
    cells: Points, points: Points, values: NDArray[np.floating], weights: NDArray[np.floating]
) -> Field:
    """Smooth extension [len(cells), C] of values [N, C] at points [N, 2] along a closed curve.

    Inverse squared distances: on a disk with evenly spaced points this is its Poisson kernel, so the result is
    close to the harmonic membrane of gradient-domain blending (Perez et al. 2003) without solving for it.
    """
    apart = (
        np.subtract.outer(cells[:, 0], points[:, 0]) ** 2 + np.subtract.outer(cells[:, 1], points[:, 1]) ** 2
    )
    step = np.ptp(points, axis=0).max() / len(points)
    closeness = weights / (apart + 0.25 * step**2 + 1e-6)
    return np.asarray(closeness @ values / closeness.sum(1, keepdims=True), np.float32)


def resample(polygon: Points, count: int) -> Points:
    """Points [count, 2] evenly spaced along a closed polygon [M, 2]."""
    closed = np.concatenate([polygon, polygon[:1]])
    steps = np.concatenate([[0], np.hypot(*np.diff(closed, axis=0).T).cumsum()])
    at = np.linspace(0, steps[-1], count, endpoint=False)
    return np.stack([np.interp(at, steps, closed[:, axis]) for axis in (0, 1)], 1)


def channels(field: Field) -> Field:
    """A field [h, w] as three equal channels [h, w, 3]: far quicker to multiply with than broadcasting."""
    return np.asarray(cv2.merge([field, field, field]), np.float32)
