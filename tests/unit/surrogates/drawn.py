"""Drawn faces with a mesh: no model and no person behind them."""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.faces import segment
from deid.faces.crop import chip
from deid.faces.segment import FACE, HAIR, NECK, OTHER
from deid.interfaces import Face, Picture
from deid.surrogates import masks

KEY = (255, 0, 255)  # magenta: in no drawn face and no drawn background


def mesh(
    centre: tuple[float, float], height: float, width: float | None = None, turn: float = 0.0
) -> NDArray[np.float32]:
    """Face-like mesh [468, 3]: the oval on an ellipse, features at their usual places, the rest spread inside."""
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, 468)
    points = np.stack([np.sin(angles), -np.cos(angles)], 1) * np.sqrt(rng.uniform(0, 0.9, 468))[:, None]
    ring = np.linspace(0, 2 * np.pi, len(masks.OVAL), endpoint=False)
    points[masks.OVAL] = np.stack([np.sin(ring), -np.cos(ring)], 1)
    for rings, middle, size in (
        (masks.EYES[0], (-0.4, -0.2), (0.18, 0.07)),
        (masks.EYES[1], (0.4, -0.2), (0.18, 0.07)),
        (masks.LIPS, (0.0, 0.5), (0.35, 0.12)),
        (masks.MOUTH, (0.0, 0.5), (0.28, 0.03)),
    ):
        ring = np.linspace(0, 2 * np.pi, len(rings), endpoint=False)
        points[rings] = np.stack([-np.cos(ring), np.sin(ring)], 1) * size + middle
    for index, y in (
        (168, -0.25),
        (6, -0.15),
        (197, -0.05),
        (195, 0.0),
        (5, 0.08),
        (4, 0.15),
        (1, 0.2),
        (2, 0.25),
    ):
        points[index] = (0, y)
    points[98], points[327] = (-0.15, 0.2), (0.15, 0.2)
    points = points * [(width or 0.8 * height) / 2, height / 2]
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.column_stack([points @ rotation + centre, np.zeros(468)]).astype(np.float32)


def texture(height: int, width: int, seed: int) -> Picture:
    """Smooth colours between 60 and 200, never near `KEY`."""
    rng = np.random.default_rng(seed)
    cells = rng.uniform(60, 200, (6, 6, 1)) + rng.uniform(-20, 20, (6, 6, 3))
    smooth = cv2.resize(cells.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, 60, 200).astype(np.uint8)


def surrogate(size: int = 128, seed: int = 1) -> tuple[Picture, NDArray[np.float32]]:
    """Picture [size, size, 3] of skin over a darker background, eyes and mouth, and its mesh."""
    picture = texture(size, size, seed) // 2
    shape = mesh((size / 2, size * 0.55), size * 0.55)
    cv2.fillPoly(picture, [shape[masks.OVAL, :2].round().astype(np.int32)], (200, 150, 120))
    for ring in (*masks.EYES, masks.MOUTH):
        cv2.fillPoly(picture, [shape[ring, :2].round().astype(np.int32)], (240, 240, 240))
    return cv2.GaussianBlur(picture, (0, 0), size / 128), shape


def face(
    centre: tuple[float, float], height: float, turn: float = 0.0, seed: int = 1, size: int = 128
) -> Face:
    """A face ready to be composited."""
    shape = mesh(centre, height, turn=turn)
    low, high = shape[:, :2].min(0), shape[:, :2].max(0)
    points = shape[[33, 263, 1, 61, 291], :2]
    picture, picture_mesh = surrogate(size, seed)
    return Face(
        box=np.concatenate([low, high]).astype(np.float32),
        score=0.9,
        points=points.copy(),
        mesh=shape,
        mesh_score=0.9,
        surrogate=picture,
        surrogate_mesh=picture_mesh,
        k=5,
    )


def inside(face: Face, scale: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels [H, W] whose centre lies in the face's oval scaled about its centre; computed without the package."""
    assert face.mesh is not None
    ring = face.mesh[masks.OVAL, :2].astype(np.float64)
    polygon = ring.mean(0) + (ring - ring.mean(0)) * scale
    y, x = np.mgrid[: shape[0], : shape[1]]
    result = np.zeros(shape[:2], np.bool_)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y0 > y) != (y1 > y)
        slope = np.divide(x1 - x0, y1 - y0) if y1 != y0 else 0.0
        result ^= crosses & (x < slope * (y - y0) + x0)
    return result


def painted(picture: Picture, faces: list[Face], scale: float) -> Picture:
    """The picture with `KEY` in the region of every face."""
    result = picture.copy()
    for each in faces:
        result[inside(each, scale, picture.shape)] = KEY
    return result


def key_left(picture: Picture, where: NDArray[np.bool_], tolerance: int = 60) -> int:
    """Pixels of `where` that are still close to `KEY`."""
    return int((np.abs(picture[where].astype(int) - KEY).max(1) < tolerance).sum())


def labels(mesh: NDArray[np.float32], shape: tuple[int, ...], hair: float = 1.35) -> NDArray[np.uint8]:
    """Parts [H, W] of a drawn head: the oval, hair down to the mouth, a neck, shoulders.

    Args:
        hair: scale of the oval that the hair fills.
    """
    ring = mesh[masks.OVAL, :2].astype(np.float64)
    middle, up = ring.mean(0), (mesh[10, :2] - mesh[152, :2]).astype(np.float64) / 2
    right = np.array([-up[1], up[0]])

    def at(x: float, y: float) -> NDArray[np.float64]:
        return middle + x * right + y * up

    def filled(points: NDArray[np.float64]) -> NDArray[np.bool_]:
        mask = np.zeros(shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
        return mask.astype(np.bool_)

    y, x = np.mgrid[: shape[0], : shape[1]]
    upper = (x - middle[0]) * up[0] + (y - middle[1]) * up[1] > -0.3 * (up @ up)
    found = np.zeros(shape[:2], np.uint8)
    found[filled(np.array([at(-1.5, -3), at(1.5, -3), at(1.1, -1.4), at(-1.1, -1.4)]))] = OTHER
    found[filled(np.array([at(-0.4, -1.5), at(0.4, -1.5), at(0.4, -0.7), at(-0.4, -0.7)]))] = NECK
    found[filled(middle + (ring - middle) * hair + 0.1 * up) & upper] = HAIR
    found[filled(ring)] = FACE
    return found


def parts(found: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Parts [128, 128, 5], as the network would give them, of labels [H, W] on the chip of a map [2, 3]."""
    planes = []
    for part in range(len(segment.PARTS)):
        plane = np.repeat((found == part)[..., None].astype(np.uint8) * 255, 3, axis=2)
        seen = chip(plane, matrix, segment.INPUT, cv2.BORDER_REPLICATE)[..., 0]
        planes.append(cv2.resize(seen, (segment.SIDE, segment.SIDE), interpolation=cv2.INTER_AREA))
    return np.stack(planes, -1).astype(np.uint8)


TONES = {FACE: (205, 160, 135), HAIR: (70, 50, 40), NECK: (195, 150, 125), OTHER: (60, 90, 150)}


def with_head(picture: Picture, face: Face, tones: dict[int, tuple[int, int, int]] | None = None) -> Picture:
    """The picture with a head where the face is; the face and its surrogate get their parts."""
    assert face.mesh is not None
    assert face.surrogate is not None
    assert face.surrogate_mesh is not None
    result = picture.copy()
    found = labels(face.mesh, picture.shape)
    for part, colour in (TONES | (tones or {})).items():
        result[found == part] = colour
    face.segments = parts(found, segment.frame(face.mesh))
    own = labels(face.surrogate_mesh, face.surrogate.shape, 1.25)
    for part, colour in ((HAIR, (90, 60, 30)), (NECK, (190, 140, 110)), (OTHER, (140, 140, 140))):
        face.surrogate[own == part] = colour
    face.surrogate_segments = parts(own, segment.whole(len(face.surrogate)))
    return result
