"""Whole heads: where the source's face, ears, hair and jaw stand in a picture, and what of them is emptied.

"Below" is measured in face heights below the surrogate's chin.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.errors import FaceError
from deid.faces import segment
from deid.faces.align import expression
from deid.faces.segment import FACE, HAIR, OTHER
from deid.interfaces import Face, Picture
from deid.surrogates import masks, matting
from deid.surrogates.masks import Field, Points, Region

HULL = 1.06  # scale of the face outline that is always emptied
EMPTIED = {FACE: 0.35, HAIR: 0.15}  # shares from which a pixel of the source is emptied
MARGIN = 0.025  # of the face height: how far the emptied area is grown
TRUSTED = 0.6  # mean share of face inside the outline below which the parts are not believed
STAYS = {FACE: (-0.3, -0.2), HAIR: (-0.02, 0.08)}  # below: from where to where the source's own begin to stay


@dataclass(frozen=True)
class Drawn:
    """A generated head."""

    picture: Picture  # [S, S, 3]
    mesh: NDArray[np.float32]  # [468, 3] px
    segments: segment.Segments  # [128, 128, 5] of the whole picture


@dataclass(frozen=True)
class Place:
    """Where a head stands in a picture."""

    mesh: NDArray[np.float32]  # [468, 3] px of the picture
    expression: NDArray[np.floating]  # [5] `align.EXPRESSION` that the surrogate is to have
    segments: segment.Segments  # [128, 128, 5] on its chip
    region: Region  # window, and what is emptied in it
    parts: Field  # [h, w, 5] of the source, 0..1
    frame: NDArray[np.float64]  # [2, 3] pixels of the window to sides of a generated picture (`segment`)
    height: float  # px, of the face outline


def locate(picture: Picture, face: Face) -> Place:
    """Where the head of a face is, and what of it will be emptied.

    Raises:
        FaceError: no usable mesh or parts, a mesh that is not where the detector saw the face, parts that do not fit
            the mesh, or what the detector saw is not all emptied.
    """
    if face.mesh is None or face.segments is None:
        raise FaceError("composite_failed")
    outline = masks.trusted(face)
    chip = segment.frame(face.mesh)
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * float(segment.INPUT)
    edge = masks.scaled(outline, HULL)
    reach = np.concatenate([apply(inverse(chip), corners), edge])
    low = np.maximum(np.floor(reach.min(0)) - 2, 0).astype(int)
    high = np.minimum(np.ceil(reach.max(0)) + 3, picture.shape[1::-1]).astype(int)
    if (high - low < 4).any():
        raise FaceError("composite_failed")
    chip = np.hstack([chip[:, :2], apply(chip, low[None]).T])
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    refined = refined_parts(segment.head_chip(picture, face.mesh), face.segments)
    parts = from_chip(refined, chip, size)
    frame = to_units(chip)
    hull = masks.fill(edge, size[::-1], low.astype(np.float64))
    if not hull.any() or parts[hull][:, FACE].mean() < TRUSTED:
        raise FaceError("composite_failed")
    height = float(np.ptp(outline[:, 1]))
    chin = apply(frame, (face.mesh[152:153, :2] - low))[0, 1]
    below = (axis(frame, size) - chin) / float(np.ptp(apply(frame, outline - low)[:, 1]))
    gone = [parts[..., part] * fade(below, *STAYS[part]) > least for part, least in EMPTIED.items()]
    found = gone[0] | gone[1]
    mask = hull | (_connected(found, hull, MARGIN * height) & (parts[..., OTHER] < 0.5))
    if not _holds(mask, masks.seen(face) - low):
        raise FaceError("composite_failed")
    crop = _used(mask, frame, MARGIN * height)
    first = np.array([crop[1].start, crop[0].start])
    low, frame = low + first, np.hstack([frame[:, :2], apply(frame, first[None]).T])
    window = (
        slice(int(low[1]), int(low[1]) + len(mask[crop])),
        slice(int(low[0]), int(low[0]) + mask[crop].shape[1]),
    )
    middle, feather = masks.centre(outline), max(1.0, 0.01 * height)
    region = Region(outline, middle, 1.0, outline, False, outline, feather, window, mask[crop])
    wanted = expression(face.mesh) if face.wanted is None else face.wanted
    return Place(face.mesh, wanted, face.segments, region, parts[crop], frame, height)


def _holds(mask: NDArray[np.bool_], points: Points) -> bool:
    """All points [N, 2] that lie in the window lie in the mask [h, w]."""
    x, y = np.round(points).astype(int).T
    within = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    return bool(mask[y[within], x[within]].all())


def _used(mask: NDArray[np.bool_], frame: NDArray[np.float64], margin: float) -> tuple[slice, slice]:
    """Rows and columns of a window that hold what is emptied and a margin (px), and a generated picture."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    corners = apply(inverse(frame), np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]]))
    grown = 4 + 2 * margin
    low = np.minimum(corners.min(0), [columns[0] - grown, rows[0] - grown])
    high = np.maximum(corners.max(0), [columns[-1] + grown, rows[-1] + grown])
    x, y = (slice(max(0, int(a)), int(np.ceil(b)) + 1) for a, b in zip(low, high, strict=True))
    return slice(*y.indices(mask.shape[0])[:2]), slice(*x.indices(mask.shape[1])[:2])


def apply(matrix: NDArray[np.float64], points: NDArray[np.floating]) -> Points:
    """Points [N, 2] under an affine map [2, 3]."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


def inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse [2, 3] of an affine map [2, 3]."""
    return np.asarray(cv2.invertAffineTransform(matrix), np.float64)


def fade(values: Field, begin: float, end: float) -> Field:
    """1 below `begin`, 0 above `end`."""
    return 1 - masks.smoothstep((values - begin) / (end - begin))


def to_units(chip: NDArray[np.float64]) -> NDArray[np.float64]:
    """The map [2, 3] to sides of a generated picture, of one to pixels of a chip."""
    scale = segment.SPAN / segment.INPUT
    shift = np.array([(1 - 1 / segment.SPAN) / 2, segment.ABOVE]) * segment.SPAN
    return np.hstack([chip[:, :2] * scale, (chip[:, 2] * scale - shift)[:, None]])


def refined_parts(chip: Picture, segments: segment.Segments) -> Field:
    """Parts [INPUT, INPUT, 5], 0..1, with the edges of their chip [S, S, 3]."""
    size = (segment.INPUT, segment.INPUT)
    guide = np.asarray(cv2.resize(chip, size, interpolation=cv2.INTER_AREA), np.uint8)
    return matting.refine(guide, segments.astype(np.float32) / np.float32(255))


def from_chip(parts: Field, chip: NDArray[np.float64], size: tuple[int, int]) -> Field:
    """Parts on a chip in the window [h, w] that the map `chip` [2, 3] takes to its pixels."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = cv2.warpAffine(parts, chip, size, None, flags, cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32)


def axis(frame: NDArray[np.float64], size: tuple[int, int]) -> Field:
    """Height [h, w], downwards, of a window's pixels in the units of its frame."""
    x, y = np.arange(size[0])[None], np.arange(size[1])[:, None]
    return np.asarray(frame[1, 0] * x + frame[1, 1] * y + frame[1, 2], np.float32)


def _connected(found: NDArray[np.bool_], hull: NDArray[np.bool_], margin: float) -> NDArray[np.bool_]:
    """`found`, grown by `margin` px, as far as it then hangs together with the face."""
    size = 2 * max(1, round(margin)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    grown = cv2.dilate((found | hull).astype(np.uint8), kernel)
    _, labels = cv2.connectedComponents(grown)
    return np.isin(labels, np.unique(labels[hull]))
