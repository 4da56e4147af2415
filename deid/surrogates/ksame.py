"""k-Same-Pixel: the average of k aligned gallery faces (Newton, Sweeney and Malin 2005).

The paper averages the k nearest people of the set itself; here the k are gallery identities, drawn as for every
other surrogate, so no pixel of a source takes part. Each is warped to one mesh, piecewise affine, and the average
has weights 1/k. Its picture and mesh go the way of every other surrogate: into a region that was emptied first.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.errors import FaceError
from deid.faces import align
from deid.faces.mesh import as_detection
from deid.interfaces import Gallery, Mesher, Picture
from deid.surrogates import composite, masks, triangles
from deid.surrogates.triangles import FLAT, LEAST_FACING

SIDES = (
    128,
    256,
    512,
)  # px of the gallery pictures and of their average, whose face is two thirds of that high
OFF = 0.05  # mean distance, in picture sides, from which a rendering is not the gallery's face
CACHE_BYTES = 64 * 2**20
LAID = (0.6, 1.6)  # height of a mesh laid on five points over the longer side of the box

Mesh = NDArray[np.float32]  # [468, 3]


@dataclass(frozen=True)
class Warp:
    """Triangles over the mesh; made once, on the gallery's mean mesh."""

    mean: Mesh  # in units of the picture's side
    triangles: NDArray[np.int64]  # [T, 3] rows of a mesh
    areas: NDArray[np.float64]  # [T] signed, of the mean mesh

    @classmethod
    def fit(cls, meshes: NDArray[np.float32]) -> "Warp":
        """Delaunay triangles of the mean of meshes [N, 468, 3], in units of the picture's side."""
        mean = meshes.mean(0)
        found = triangles.delaunay(mean[:, :2])
        return cls(mean, found, triangles.areas(mean[found, :2].astype(np.float64)))

    def frame(self, mesh: Mesh, side: int) -> Mesh:
        """A mesh of any place, size and roll (px) as it stands in a gallery picture of this side (px).

        Raises:
            FaceError: the mesh has no size.
        """
        _, matrix = composite.similarity(mesh, (self.mean * side).astype(np.float32))
        flat = mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        depth = mesh[:, 2:] * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        return np.hstack([flat, depth]).astype(np.float32)

    def average(self, pictures: Sequence[Picture], meshes: NDArray[np.float32], target: Mesh) -> Picture:
        """Average [side, side, 3] of pictures of one side with meshes [k, 468, 3], each warped to the target (px)."""
        side = pictures[0].shape[0]
        index, weights = self._places(target.astype(np.float64), side)
        inside = index >= 0
        total = np.zeros((side, side, 3), np.float32)
        for picture, mesh in zip(pictures, meshes, strict=True):
            at = _outside(target, mesh, side)
            corners = mesh[:, :2][self.triangles[index[inside]]]  # [n, 3, 2]
            at[inside] = (weights[..., None] * corners).sum(1)
            x, y = cv2.split(at)
            total += cv2.remap(picture, x, y, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT_101)
        return (total / len(pictures)).round().astype(np.uint8)

    def _places(
        self, target: NDArray[np.float64], side: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """For each pixel its triangle [side, side], -1 where there is none, and for each pixel that has one the
        weights [n, 3] of its corners.

        Triangles turned away from the camera are left out, and near ones lie over far ones.

        Raises:
            FaceError: nearly all are turned away, so it is no mesh of a face.
        """
        corners = target[self.triangles]
        facing = np.flatnonzero(triangles.areas(corners[..., :2]) / self.areas > FLAT)
        if len(facing) < LEAST_FACING * len(self.triangles):
            raise FaceError("generate_failed")
        order = facing[np.argsort(-corners[facing, :, 2].mean(1), kind="stable")]
        index = triangles.cover(corners, order, (side, side))
        y, x = np.nonzero(index >= 0)
        a, b, c = np.moveaxis(corners[index[y, x]][..., :2], 1, 0)
        first, second, arm = b - a, c - a, np.column_stack([x, y]) - a
        area = triangles.cross(first, second)
        v, w = triangles.cross(arm, second) / area, triangles.cross(first, arm) / area
        return index, np.stack([1 - v - w, v, w], -1).astype(np.float32)


def lay(mesh: Mesh, points: NDArray[np.float32], box: NDArray[np.float32]) -> Mesh:
    """The mesh [468, 3] of a generated face where a detector's five points [5, 2] and box [4] are, px.

    A similarity, so the roll is followed and nothing else; by the box alone where the points make no face of its size.

    Raises:
        FaceError: the box is not finite or has no size.
    """
    low, high = box[:2].astype(np.float64), box[2:].astype(np.float64)
    size = float((high - low).max())
    if not (np.isfinite(box).all() and size > 0):
        raise FaceError("mesh_failed")
    edge = np.ptp(mesh[:, :2], axis=0)
    try:
        matrix = align.similarity(align.five_points(mesh), points)
    except ValueError:
        matrix = np.zeros((2, 3))
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if not LAID[0] < scale * edge[1] / size < LAID[1]:
        scale = float((high - low)[1] / edge[1])
        middle = (mesh[:, :2].min(0) + mesh[:, :2].max(0)) / 2
        matrix = np.column_stack([np.eye(2) * scale, (low + high) / 2 - scale * middle])
    flat = mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return np.hstack([flat, mesh[:, 2:] * scale]).astype(np.float32)


class Faces:
    """Pictures of gallery identities, rendered when they are first asked for; the last `CACHE_BYTES` are kept.

    Args:
        portrait: renders an identity, by its number and a side (px).
        least: mesh score below which a rendering is not a face.
    """

    def __init__(
        self, gallery: Gallery, portrait: Callable[[int, int], Picture], mesher: Mesher, least: float
    ) -> None:
        self.gallery, self.portrait, self.mesher, self.least = gallery, portrait, mesher, least
        self.warp = Warp.fit(gallery.meshes)
        self._kept: OrderedDict[tuple[int, int], Picture] = OrderedDict()

    def average(self, indices: Sequence[int], mesh: Mesh, height: float) -> tuple[Picture, Mesh]:
        """Average [side, side, 3] of identities in the shape of a mesh (px), and that mesh in px of the average.

        Args:
            height: px of the face in the picture, which decides on the side.

        Raises:
            FaceError: a rendering does not show the gallery's face.
        """
        side = next(
            (side for side in SIDES if side * np.ptp(self.warp.mean[:, 1]) >= 0.9 * height), SIDES[-1]
        )
        pictures = [self.picture(index, side) for index in indices]
        side = len(pictures[0])
        target = self.warp.frame(mesh, side)
        return self.warp.average(pictures, self.gallery.meshes[list(indices)] * side, target), target

    def picture(self, index: int, side: int) -> Picture:
        """The rendering [side, side, 3] of one identity; smaller where the generator's are."""
        key = (int(index), side)
        if key not in self._kept:
            self._kept[key] = self._render(*key)
        self._kept.move_to_end(key)
        while sum(kept.nbytes for kept in self._kept.values()) > CACHE_BYTES and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _render(self, index: int, side: int) -> Picture:
        picture = reduced(self.portrait(index, side), side)
        side = len(picture)
        expected = self.gallery.meshes[index] * side
        meshes, scores = self.mesher.mesh(picture, as_detection(expected))
        off = np.linalg.norm(meshes[0][:, :2] - expected[:, :2], axis=1).mean() / side
        if not (scores[0] >= self.least and off < OFF):
            raise FaceError("generate_failed")
        return picture


def reduced(picture: Picture, side: int) -> Picture:
    """The picture [S, S, 3] averaged down to a side (px), where it is larger."""
    if picture.shape[0] <= side:
        return picture
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _outside(target: Mesh, mesh: Mesh, side: int) -> masks.Field:
    """Where each pixel [side, side, 2] comes from when the outline alone carries the warp on into hair and neck."""
    steps = (np.arange(masks.GRID) + 0.5) * side / masks.GRID - 0.5
    cells = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    ring = target[masks.OVAL, :2].astype(np.float64)
    moved = masks.spread(cells, ring, mesh[masks.OVAL, :2] - ring, np.ones(len(ring)))
    field = cv2.resize(moved.reshape(masks.GRID, masks.GRID, 2), (side, side), interpolation=cv2.INTER_LINEAR)
    y, x = np.mgrid[:side, :side]
    return np.asarray(field + np.stack([x, y], -1), np.float32)
