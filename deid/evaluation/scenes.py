"""Small scenes with one face somewhere in them: what the detector of `downstream` learns from and is tested on."""

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture

SIDE = 96  # px, of a scene
HEIGHTS = (16.0, 48.0)  # px, of the face in it
OVERHANG = 1.25  # side of the window over the picture's shorter side, where the face then is not too large
BEYOND = 0.15  # of the window's side, at most beyond one border of the picture, where the face then is inside
FILLED = 0.9  # of a face's sides, half axes of what is filled: the head
MARGIN = 2.0  # px, between the face and the border of the scene
REPAIR = 3.0  # px, how far around a filled face OpenCV looks

Box = NDArray[np.float64]  # [4] x0, y0, x1, y1
Boxes = NDArray[np.float64]  # [N, 4]


def scene(
    picture: Picture, box: NDArray[np.floating], seed: str, others: NDArray[np.floating] | None = None
) -> tuple[NDArray[np.uint8], Box]:
    """A window around a face, moved and scaled at random: the same one for the same size, box and seed.

    Beyond the picture's border it is mirrored; every other face, and every mirrored one, is filled from around it, so
    that the scene holds one face. Call it with the source's box, and one seed, for the source and for its results.

    Args:
        picture: [H, W, 3] RGB; a result of another size than its source must be resized first.
        box: [4] of the face, in pixels of the picture; finite, with an area.
        seed: the picture's key, and the number of the face in it.
        others: [N, 4] boxes of the picture's other faces.

    Returns:
        The scene [96, 96, 3], and the box [4] of its face in pixels of the scene, 16 to 48 px high.

    Raises:
        ValueError: the box is not finite, or has no area.
    """
    face = np.asarray(box, np.float64)
    if not np.isfinite(face).all() or (face[2:] <= face[:2]).any():
        raise ValueError(f"a scene needs a box with an area, not {face.tolist()}")
    rest = np.zeros((0, 4)) if others is None else np.asarray(others, np.float64).reshape(-1, 4)
    boxes = np.concatenate([face[None], rest[np.isfinite(rest).all(axis=1)]])
    scale, corner = _window(np.array(picture.shape[1::-1], np.float64), face, seed)
    part, start = _around(picture, corner, SIDE / scale)
    size = np.array(part.shape[1::-1])
    small = np.maximum(np.round(size * scale), 1).astype(int)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(part, tuple(small.tolist()), interpolation=how), np.uint8)
    ratio = small / size
    at = np.floor((corner - start) * ratio).astype(int)
    placed = (boxes - np.tile(start, 2)) * np.tile(ratio, 2)
    copies = np.concatenate([_mirrored(placed, small), placed[1:]]) - np.tile(at, 2)
    own = placed[0] - np.tile(at, 2)
    return _without(_cut(resized, at), copies, own), own


def _window(size: NDArray[np.float64], face: Box, seed: str) -> tuple[float, NDArray[np.float64]]:
    """Scale of the picture in the scene, and the scene's upper left corner [2] in pixels of the picture."""
    number = int.from_bytes(hashlib.sha256(f"scene {seed}".encode()).digest()[:8], "big")
    rng = np.random.default_rng(number)
    sides = face[2:] - face[:2]
    small, large = HEIGHTS
    least = float(np.clip(SIDE * sides[1] / (OVERHANG * size.min()), small, large))
    scale = np.exp(rng.uniform(np.log(least), np.log(large))) / sides[1]
    scale = min(scale, (SIDE - 2 * MARGIN) / sides[0])  # a face wider than high
    side, margin = SIDE / scale, MARGIN / scale
    low, high = face[2:] - side + margin, face[:2] - margin  # corners that leave the face inside
    inside = np.clip(-BEYOND * side, low, high), np.clip(size - (1 - BEYOND) * side, low, high)
    low, high = np.minimum(*inside), np.maximum(*inside)
    return float(scale), low + rng.uniform(0, 1, 2) * (high - low)


def _around(picture: Picture, corner: NDArray[np.float64], side: float) -> tuple[Picture, NDArray[np.intp]]:
    """The part of a picture that can be seen in a window of that side (px), and its upper left corner [2] (x, y)."""
    size = np.array(picture.shape[1::-1])
    low = np.clip(np.floor(corner - side), 0, size - 1).astype(int)
    high = np.clip(np.ceil(corner + 2 * side), low + 1, size).astype(int)
    return picture[low[1] : high[1], low[0] : high[0]], low


def _cut(picture: Picture, corner: NDArray[np.intp]) -> Picture:
    """[96, 96, 3] from that corner on, mirrored beyond the border."""
    height, width = picture.shape[:2]
    rows, columns = (
        [cv2.borderInterpolate(int(at), length, cv2.BORDER_REFLECT) for at in range(start, start + SIDE)]
        for start, length in ((corner[1], height), (corner[0], width))
    )
    return np.ascontiguousarray(picture[np.ix_(rows, columns)])


def _mirrored(boxes: Boxes, size: NDArray[np.intp]) -> Boxes:
    """Where boxes [N, 4] are seen again beyond the borders of a picture of that size (width, height): [24 N, 4]."""
    copies = []
    for across in range(-2, 3):
        for down in range(-2, 3):
            if across or down:
                turn = np.array([across, down])
                ends = np.where(turn % 2, size * (turn + 1) - boxes.reshape(-1, 2, 2), 0) + np.where(
                    turn % 2, 0, size * turn + boxes.reshape(-1, 2, 2)
                )
                copies.append(np.concatenate([ends.min(axis=1), ends.max(axis=1)], axis=1))
    return np.concatenate(copies)


def _without(found: Picture, boxes: Boxes, face: Box) -> Picture:
    """The scene with what lies in these boxes filled from around them; the face itself stays as it is."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for x0, y0, x1, y1 in boxes:
        centre, axes = ((x0 + x1) / 2, (y0 + y1) / 2), (FILLED * (x1 - x0), FILLED * (y1 - y0))
        if (np.abs(np.subtract(centre, SIDE / 2)) < SIDE / 2 + np.array(axes)).all():
            middle, half = np.round(centre).astype(int), np.ceil(axes).astype(int)
            cv2.ellipse(mask, middle.tolist(), half.tolist(), 0, 0, 360, 255, -1)
    x0, y0, x1, y1 = np.round(np.clip(face, 0, SIDE)).astype(int)
    own = np.zeros_like(mask)
    own[y0:y1, x0:x1] = 255
    if not (mask > own).any():
        return found
    filled = np.asarray(cv2.inpaint(found, mask | own, REPAIR, cv2.INPAINT_TELEA), np.uint8)
    filled[own > 0] = found[own > 0]  # filled only lest it spread
    return filled
