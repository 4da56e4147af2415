"""Drawn faces with a mesh: no model and no person behind them."""

import cv2
import numpy as np
from numpy.typing import NDArray

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
