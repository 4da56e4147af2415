"""The shape-free frame: a picture of a head in which the mean mesh stands still, so that faces can be averaged.

Inside the face the map between a picture and the frame is piecewise affine over the mesh. Hair, ears and neck lie
outside the mesh: a collar of points around it, which follows the head by a similarity, carries them along smoothly.
The lips of the frame are parted, so that a smile's teeth have room in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.errors import FaceError
from deid.faces import align
from deid.surrogates import masks, triangles
from deid.surrogates.triangles import FLAT, LEAST_FACING

Mesh = NDArray[np.float32]  # [468, 3]
Texture = NDArray[np.uint8] | NDArray[np.float32]  # [h, w, C]

FACE = 0.42  # height of the face, in sides of the frame
CENTRE = (0.5, 0.54)  # of the face's box
PARTED = 0.05  # face heights between the lips, more than the mean has
COLLAR = (1.55, 4.5)  # rings of the collar, in outlines of the mean face
AROUND = 36  # points of a ring
SIDES_OF_FACE = (234, 454)  # before the ears: the middle of the head lies between them
ROUNDS = 5  # of the generalized Procrustes analysis
# Points that no expression moves much: forehead, temples, bridge and base of the nose, corners of the eyes.
STEADY = np.array(
    [
        *(10, 338, 297, 332, 284, 251, 389, 356, 454, 109, 67, 103, 54, 21, 162, 127, 234),
        *(168, 6, 197, 195, 5, 4, 1, 33, 133, 362, 263),
    ]
)


@dataclass(frozen=True)
class Frame:
    """The frame of a mean mesh.

    Args:
        mean: [468, 3] in units of the frame's side, upright and frontal.
    """

    mean: Mesh

    @classmethod
    def fit(cls, meshes: NDArray[np.float32]) -> "Frame":
        """The frame of meshes [N, 468, 3] in any unit and pose: their mean by generalized Procrustes analysis."""
        mean = _upright(meshes[0].astype(np.float64))
        for _ in range(ROUNDS):
            placed = []
            for mesh in meshes.astype(np.float64):
                scale, turn, shift = align.rigid(mesh[STEADY], mean[STEADY])
                placed.append(scale * mesh @ turn.T + shift)
            mean = _upright(np.mean(placed, axis=0))
        mean = _parted(mean)
        low, high = mean[:, :2].min(0), mean[:, :2].max(0)
        mean[:, :2] -= (low + high) / 2
        mean *= FACE / (high - low)[1]
        mean[:, 2] -= mean[list(SIDES_OF_FACE), 2].mean()
        mean[:, :2] += CENTRE
        return cls(mean.astype(np.float32))

    def to_frame(self, picture: Texture, mesh: Mesh, side: int) -> Texture:
        """A picture [H, W, C] of a head as it stands in the frame, [side, side, C] of the same type.

        Parts of the face that are turned away show what covers them; beyond the picture its border goes on.

        Args:
            mesh: [468, 3] px of the picture.

        Raises:
            FaceError: the mesh has no size.
        """
        nodes = self._nodes(mesh)[:, :2]
        index, here = self._still(side)
        picture, shrink = _shrunk(picture, _scale(mesh, self.mean * side))
        there = ((nodes + 0.5) * shrink - 0.5)[self._triangles]
        return _remap(picture, _origins(index, triangles.affine(here, there)))

    def from_frame(self, texture: Texture, mesh: Mesh, shape: int | tuple[int, ...]) -> Texture:
        """The head of a texture [S, S, C] at a mesh [468, 3] (px), in a picture [side, side, C] or [H, W, C].

        Triangles that are turned away are left out, and near ones lie over far ones; where the mesh leaves a gap, the
        head's similarity fills it.

        Raises:
            FaceError: the mesh has no size, or nearly all of it is turned away.
        """
        height, width = (shape, shape) if isinstance(shape, int) else (shape[0], shape[1])
        nodes, side = self._nodes(mesh), texture.shape[0]
        corners = nodes[self._triangles]
        facing = triangles.areas(corners[..., :2]) / (self._areas * _scale(mesh, self.mean) ** 2) > FLAT
        face = self._triangles.max(1) < len(mesh)
        if facing[face].mean() < LEAST_FACING:
            raise FaceError("generate_failed")
        depth = np.where(face, corners[..., 2].mean(1), np.inf)
        order = np.flatnonzero(facing)
        order = order[np.argsort(-depth[order], kind="stable")]
        index = triangles.cover(corners, order, (height, width))
        texture, shrink = _shrunk(texture, _scale(self.mean * side, mesh))
        there = self._still_nodes * (side * shrink) - 0.5
        maps = np.zeros((len(corners) + 1, 2, 3))
        maps[order] = triangles.affine(corners[order, :, :2], there[self._triangles[order]])
        ring = slice(len(mesh), len(nodes))
        maps[-1] = align.similarity(nodes[ring, :2], there[ring])
        return _remap(texture, _origins(index, maps))

    def facing(self, mesh: Mesh, side: int) -> NDArray[np.bool_]:
        """Where in the frame [side, side] a mesh's triangles face the camera: elsewhere a picture shows nothing."""
        corners = self._nodes(mesh)[self._triangles, :2]
        facing = triangles.areas(corners) / (self._areas * _scale(mesh, self.mean) ** 2) > FLAT
        index, _ = self._still(side)
        return np.asarray(facing[index] & (index >= 0))

    @cached_property
    def _still_nodes(self) -> NDArray[np.float64]:
        """Points [468 + collar, 2] of the frame, in units of its side."""
        return np.concatenate([self.mean[:, :2].astype(np.float64), self._collar])

    @cached_property
    def _collar(self) -> NDArray[np.float64]:
        edge = self.mean[:, :2]
        middle = (edge.min(0) + edge.max(0)) / 2
        angles = np.linspace(0, 2 * np.pi, AROUND, endpoint=False)
        ring = np.stack([np.cos(angles), np.sin(angles)], 1) * np.ptp(edge, axis=0) / 2
        return np.concatenate([middle + scale * ring for scale in COLLAR]).astype(np.float64)

    @cached_property
    def _triangles(self) -> triangles.Triangles:
        return triangles.delaunay(self._still_nodes * 512)

    @cached_property
    def _areas(self) -> NDArray[np.float64]:
        return triangles.areas(self._still_nodes[self._triangles])

    @cached_property
    def _seen(self) -> dict[int, tuple[NDArray[np.int32], triangles.Corners]]:
        return {}

    def _still(self, side: int) -> tuple[NDArray[np.int32], triangles.Corners]:
        """For each pixel of the frame its triangle [side, side], and the triangles' corners [T, 3, 2], px."""
        if side not in self._seen:
            corners = (self._still_nodes * side - 0.5)[self._triangles]
            everything = np.arange(len(corners))
            self._seen[side] = triangles.cover(corners, everything, (side, side)), corners
        return self._seen[side]

    def _nodes(self, mesh: Mesh) -> NDArray[np.float64]:
        """Points [468 + collar, 3] of a mesh, with the collar where its head is.

        Raises:
            FaceError: the mesh has no size or is not finite.
        """
        mesh64, mean = mesh.astype(np.float64), self.mean.astype(np.float64)
        try:
            scale, turn, _ = align.rigid(mean[STEADY], mesh64[STEADY])
        except ValueError:
            raise FaceError("generate_failed") from None
        across = turn[:2, 0] / max(float(np.hypot(*turn[:2, 0])), 1e-6)
        roll = scale * np.array([[across[0], -across[1]], [across[1], across[0]]])
        sides = list(SIDES_OF_FACE)
        flat = mesh64[sides, :2].mean(0) + (self._collar - mean[sides, :2].mean(0)) @ roll.T
        depth = np.full((len(flat), 1), mesh64[sides, 2].mean())
        return np.concatenate([mesh64, np.hstack([flat, depth])])


def _upright(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mesh without yaw and roll; its pitch stays, for it is that of a plain portrait."""
    yaw, _, roll = np.radians(align.pose(mesh))
    lean = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    return np.asarray((mesh - mesh.mean(0)) @ lean @ turn)


def _parted(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mesh with lips `PARTED`; it fades out towards chin, nose and cheeks."""
    height, corners = np.ptp(mesh[:, 1]), mesh[[61, 291], :2]
    middle, half = corners.mean(0), np.ptp(corners[:, 0]) / 2
    low = mesh[:, 1] > middle[1]
    inner = masks.MOUTH[1:10], masks.MOUTH[11:]
    low[inner[0]], low[inner[1]] = True, False
    near = np.clip(1 - ((mesh[:, 0] - middle[0]) / (1.3 * half)) ** 2, 0, 1)
    reach = np.where(low, mesh[152, 1] - middle[1], middle[1] - mesh[2, 1])
    fade = np.clip(1.2 - np.abs(mesh[:, 1] - middle[1]) / reach, 0, 1)
    share = np.where(low, 0.7, -0.3)
    moved = mesh.copy()
    moved[:, 1] += PARTED * height * share * near * fade
    return moved


def _scale(mesh: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Size of a mesh over that of another.

    Raises:
        FaceError: one of them has none.
    """
    sizes = [float(np.sqrt((one[STEADY].std(0) ** 2).sum())) for one in (mesh, other)]
    if not (np.isfinite(sizes).all() and min(sizes) > 0):
        raise FaceError("generate_failed")
    return sizes[0] / sizes[1]


def _shrunk(picture: Texture, scale: float) -> tuple[Texture, NDArray[np.float64]]:
    """A picture averaged down where it is that many times larger than what is made of it, and by how much [2]."""
    if scale < 1.5:
        return picture, np.ones(2)
    height, width = picture.shape[:2]
    size = max(8, round(width / scale)), max(8, round(height / scale))
    small = _each(picture, lambda part: cv2.resize(part, size, interpolation=cv2.INTER_AREA))
    return small, np.array([size[0] / width, size[1] / height])


def _origins(index: NDArray[np.int32], maps: NDArray[np.float64]) -> list[NDArray[np.float32]]:
    """Where each pixel [h, w] comes from, by the map [2, 3] of its triangle: x and y."""
    height, width = index.shape
    own = maps.astype(np.float32).reshape(-1, 6).take(index, axis=0, mode="wrap")
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    return [own[..., n] * x + own[..., n + 1] * y + own[..., n + 2] for n in (0, 3)]


def _remap(picture: Texture, at: list[NDArray[np.float32]]) -> Texture:
    x, y = at
    return _each(picture, lambda part: cv2.remap(part, x, y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE))


def _each(picture: Texture, change: Callable[[Texture], NDArray[Any]]) -> Any:
    """What becomes of a picture [h, w, C], four channels at a time: OpenCV takes no more, and drops a single one's
    axis."""
    parts = [change(picture[..., n : n + 4]) for n in range(0, picture.shape[2], 4)]
    parts = [part.reshape(*part.shape[:2], -1) for part in parts]
    return np.concatenate(parts, axis=2)
