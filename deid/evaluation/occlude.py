"""Regions of a head, and pictures in which one of them is taken away.

A region of the face is filled with the skin around it, without eyes, brows, nose and mouth, which would smear; one
outside of the face with what is around the head (fast marching, then smoothed). The filling fades in over a few pixels,
so that no edge is drawn that a recognizer could react to. Left over is the control: an equal area of background beside
the head, filled alike, should change next to nothing.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.evaluation.surrogates import NOSE
from deid.faces import appearance, segment
from deid.faces.segment import BACKGROUND
from deid.interfaces import Face, Picture
from deid.surrogates import masks, matting

Mask = NDArray[np.bool_]  # [H, W]

INSIDE = ("forehead", "brows", "eyes", "nose", "cheeks", "mouth", "jaw and chin")
OUTSIDE = ("ears and sides", "hair above")
REGIONS = (*INSIDE, *OUTSIDE)
CONTROL = "background beside the head"
WINGS = np.array([129, 358, 64, 294, 48, 278, 122, 351])  # of the nose, and its root's sides
FEATURES = ("brows", "eyes", "nose", "mouth")
SCALES = {
    "eyes": 1.5,
    "mouth": 1.25,
}  # of the hulls of eyelids and lips: lashes, bags and lip line belong to them
BROW = 0.02  # face heights by which the brows' hulls are grown
RINGS = {"ears and sides": 1.35, "hair above": 1.55}  # how far out, in outlines
RIM = 0.03  # face heights at the face's border and around its features that are not taken for skin
FADE = 0.025  # face heights over which a filling fades into the picture
FILL_SIDE = 150  # px to which the window is reduced to be filled
REACH = 0.35  # face heights around a region from which its filling comes
SURE = 0.9  # share of background from which a pixel is


def regions(mesh: NDArray[np.floating], shape: tuple[int, ...]) -> dict[str, Mask]:
    """Masks [H, W] of `REGIONS`, none of which overlap, for a mesh [468, 2 or 3] in pixels of a picture of this shape.

    The outline is cut into bands across the face's own up-down axis: what lies above the middle of the eyes and is
    neither eye nor brow is forehead, what lies below the corners of the mouth and is not mouth is jaw and chin.

    Raises:
        FaceError: the mesh is no face.
    """
    outline, height = masks.outline(np.asarray(mesh, np.float32)), _height(mesh)
    down = _down(mesh, shape)
    level = {name: float(_along(mesh, points).mean()) for name, points in _LEVELS.items()}
    free = _filled(outline, shape)
    face = free.copy()
    parts = {
        "brows": _any([_hull(mesh[brow], shape) for brow in (masks.BROWS[:10], masks.BROWS[10:])]),
        "eyes": _any([_hull(mesh[eye], shape, SCALES["eyes"]) for eye in masks.EYES]),
        "nose": _hull(mesh[np.concatenate([NOSE, WINGS])], shape),
        "mouth": _hull(mesh[masks.LIPS], shape, SCALES["mouth"]),
    }
    parts["brows"] = _grown(parts["brows"], BROW * height)
    found = {}
    for name, part in parts.items():
        found[name] = part & free
        free &= ~part
    found["forehead"] = free & (down < level["eyes"])
    found["jaw and chin"] = free & (down > level["mouth"])
    found["cheeks"] = free & ~found["forehead"] & ~found["jaw and chin"]
    rings = {name: _filled(masks.scaled(outline, scale), shape) & ~face for name, scale in RINGS.items()}
    found["hair above"] = rings["hair above"] & (down < level["brows"])
    middle = (down >= level["brows"]) & (down < level["mouth"])
    found["ears and sides"] = rings["ears and sides"] & middle
    return {name: found[name] for name in REGIONS}


_LEVELS = {
    "brows": masks.BROWS,
    "eyes": np.concatenate(masks.EYES),
    "mouth": np.array([61, 291]),
}


def background(face: Face, mesh: NDArray[np.floating], shape: tuple[int, ...], area: int) -> Mask | None:
    """The control: `area` px of background, those nearest to the face outline; None where there are not so many.

    Raises:
        FaceError: the mesh is no face.
    """
    if face.segments is None:
        return None
    chip = appearance.half(segment.frame(mesh))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    share = cv2.warpAffine(face.segments[..., BACKGROUND], chip, shape[1::-1], None, flags, borderValue=0)
    taken = _filled(masks.outline(np.asarray(mesh, np.float32)), shape)
    away = cv2.distanceTransform((~taken).astype(np.uint8), cv2.DIST_L2, 5)
    away[(share < SURE * 255) | _any(list(regions(mesh, shape).values()))] = np.inf
    nearest = np.sort(away[np.isfinite(away)])
    return None if len(nearest) < area or not area else np.asarray(away <= nearest[area - 1])


def without(picture: Picture, mask: Mask, height: float, unfit: Mask | None = None) -> Picture:
    """The picture [H, W, 3] with a region [H, W] filled from around it.

    Args:
        height: of the face, px.
        unfit: [H, W] what must not be used to fill it.
    """
    if not mask.any():
        return picture.copy()
    y, x = np.nonzero(mask)
    reach = max(4, round(REACH * height))
    rows, columns = (slice(max(0, int(a.min()) - reach), int(a.max()) + reach + 1) for a in (y, x))
    around, gone = picture[rows, columns].astype(np.float32), mask[rows, columns]
    fade = max(1.0, FADE * height)
    missing = _grown(gone if unfit is None else gone | unfit[rows, columns], fade)
    if missing.all():
        missing = _grown(gone, fade)
    found = matting.fill(around, missing, FILL_SIDE)
    away = cv2.distanceTransform((~gone).astype(np.uint8), cv2.DIST_L2, 3)
    alpha = masks.channels(1 - masks.smoothstep(away / fade))
    result = picture.copy()
    result[rows, columns] = np.clip(around + (found - around) * alpha, 0, 255).round().astype(np.uint8)
    return result


def without_each(picture: Picture, found: dict[str, Mask], height: float) -> dict[str, Picture]:
    """By name, the picture without each of `regions`, and without other masks [H, W], which are filled from around."""
    face = _any([found[name] for name in INSIDE])
    skinless = _grown(~face | _any([found[name] for name in FEATURES]), RIM * height)
    made = {}
    for name, mask in found.items():
        made[name] = without(picture, mask, height, skinless if name in INSIDE else face)
    return made


def _height(mesh: NDArray[np.floating]) -> float:
    return float(np.ptp(mesh[:, 1]))


def _axis(mesh: NDArray[np.floating]) -> NDArray[np.float64]:
    """Unit vector [2] in the picture from the top of the forehead to the chin."""
    down = (mesh[152, :2] - mesh[10, :2]).astype(np.float64)
    return np.asarray(down / max(float(np.linalg.norm(down)), 1e-6))


def _along(mesh: NDArray[np.floating], points: NDArray[np.integer]) -> NDArray[np.float64]:
    return np.asarray(mesh[points, :2] @ _axis(mesh), np.float64)


def _down(mesh: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """How far down the face's axis each pixel [H, W] lies."""
    across, down = _axis(mesh)
    return np.asarray(np.arange(shape[1])[None] * across + np.arange(shape[0])[:, None] * down)


def _filled(polygon: masks.Points, shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
    return mask.astype(np.bool_)


def _hull(points: NDArray[np.floating], shape: tuple[int, ...], scale: float = 1.0) -> Mask:
    hull = cv2.convexHull(points[:, :2].astype(np.float32))[:, 0].astype(np.float64)
    return _filled(masks.scaled(hull, scale), shape)


def _grown(mask: Mask, pixels: float) -> Mask:
    size = 2 * max(1, round(pixels)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(np.bool_)


def _any(found: list[Mask]) -> Mask:
    return np.asarray(np.logical_or.reduce(found))
