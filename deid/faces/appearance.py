"""What a head looks like apart from who it is: skin tone, light, hair and beard, measured on its chip.

Measured alike on photographs and on generated faces (`deid.faces.segment` has the chips and their parts), so that a
surrogate can be chosen and steered to look the part.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.faces import segment
from deid.faces.align import OVAL
from deid.faces.crop import look_up
from deid.faces.segment import BACKGROUND, FACE, HAIR, OTHER, Points, Segments
from deid.interfaces import Picture

Values = NDArray[np.float32]

COLOURS = (  # CIE L*a*b*, D65
    *("skin_l", "skin_a", "skin_b"),
    *("hair_l", "hair_a", "hair_b"),
    *("back_l", "back_a", "back_b"),  # background around the head
)
LIGHT = (
    "light_x",
    "light_y",
)  # logarithm of the right over the left cheek's light, of the forehead's over the chin's
SHAPE = (
    "hair_top",  # thickness of the hair above the forehead, in face heights
    "hair_side",  # at the temples
    "bald",  # share of skin in the head above the forehead, 0..1
    "hair_low",  # share of hair beside jaw and neck, 0..1
    "fringe",  # share of hair on the forehead, 0..1
    "beard",  # how much darker chin and upper lip are than the cheeks, in L*
)
LOOKS = (*COLOURS, *LIGHT, *SHAPE)

SIDE = segment.SIDE
RAYS = 96  # directions of a silhouette, clockwise from straight up
REACH = 0.75  # of a ray, in sides of a generated picture
STEPS = 80  # of a ray
CENTRE = np.array([0.5, 0.56])  # of the rays, in the same unit and frame: about the tip of the nose's root
MIN_HAIR = 0.01  # part of the chip below which there is no hair whose colour could be told
WITHIN = 0.95  # scale of the face's outline inside which nothing may cover it
CHEEKS = ((50, 101, 118, 117, 123, 187, 205, 36), (280, 330, 347, 346, 352, 411, 425, 266))
FOREHEAD = (67, 109, 10, 338, 297, 334, 9, 105)
CHIN = (83, 18, 313, 406, 428, 199, 208, 182)
MOUSTACHE = (97, 2, 326, 391, 393, 164, 167, 165)


@dataclass(frozen=True)
class Silhouette:
    """A head's outline in polar coordinates, in sides of a generated picture about `CENTRE`; each [RAYS]."""

    face: NDArray[np.float64]  # radius of the mesh's outline
    head: NDArray[np.float64]  # radius of face and hair together, never less than `face`


def angles() -> NDArray[np.float64]:
    """Directions [RAYS] of the rays, radians clockwise from straight up."""
    return np.asarray(np.arange(RAYS) * (2 * np.pi / RAYS), np.float64)


def to_chip(points: Points) -> NDArray[np.float64]:
    """Pixels [N, 2] of the segments (`SIDE`) of points [N, 2] in sides of a generated picture."""
    return np.asarray((points / segment.SPAN + [(1 - 1 / segment.SPAN) / 2, segment.ABOVE]) * SIDE - 0.5)


def from_chip(points: Points) -> NDArray[np.float64]:
    """The inverse of `to_chip`."""
    shift = np.array([(1 - 1 / segment.SPAN) / 2, segment.ABOVE])
    return np.asarray(((points + 0.5) / SIDE - shift) * segment.SPAN, np.float64)


def on_chip(mesh: Points, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A mesh's points [468, 2] on the chip that `matrix` [2, 3] leads to, in pixels of the segments."""
    return np.asarray((mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2] + 0.5) * (SIDE / segment.INPUT) - 0.5)


def silhouette(segments: Segments, mesh: Points, chip: NDArray[np.float64] | None = None) -> Silhouette:
    """The outline of a head from its parts [128, 128, 5] and its mesh [468, 2 or 3] (pixels of the picture).

    Args:
        chip: map [2, 3] of the picture's pixels to those of the chip that the parts are of; None: `segment.frame`.
            A head ends where its chip ends.
    """
    turns = angles()
    canonical = segment.frame(mesh)
    chip = canonical if chip is None else chip
    edge = from_chip(on_chip(mesh, canonical)[list(OVAL)]) - CENTRE
    bearing = np.mod(np.arctan2(edge[:, 0], -edge[:, 1]), 2 * np.pi)
    order = np.argsort(bearing)
    face = np.interp(turns, bearing[order], np.hypot(edge[:, 0], edge[:, 1])[order], period=2 * np.pi)
    radii = (np.arange(STEPS) + 0.5) * (REACH / STEPS)
    rays = np.stack([np.sin(turns), -np.cos(turns)], -1)
    at = to_chip((CENTRE + radii[None, :, None] * rays[:, None]).reshape(-1, 2)).reshape(RAYS, STEPS, 2)
    to_parts = half(chip) @ np.vstack([cv2.invertAffineTransform(half(canonical)), [0, 0, 1]])
    at = at @ to_parts[:, :2].T + to_parts[:, 2]
    head = segments[..., [FACE, HAIR]].astype(np.float32).sum(-1)
    seen = look_up(head, at) > 127
    outside = ~seen & (radii[None] > 0.9 * face[:, None])
    first = np.where(outside.any(1), outside.argmax(1), STEPS - 1)
    return Silhouette(face, np.maximum(radii[first] - REACH / STEPS / 2, face))


def half(chip: NDArray[np.float64]) -> NDArray[np.float64]:
    """A map [2, 3] to a chip's pixels, to those of its segments."""
    factor = SIDE / segment.INPUT
    return np.hstack([chip[:, :2] * factor, (chip[:, 2:] + 0.5) * factor - 0.5])


def looks(picture: Picture, segments: Segments, mesh: Points) -> Values:
    """The looks [len(LOOKS)] of one face; NaN where there is nothing to measure (the hair of a bald head).

    Args:
        picture: chip [INPUT, INPUT, 3] of `segment.head_chip`.
        segments: its parts [SIDE, SIDE, 5].
        mesh: [468, 2 or 3] in pixels of the picture that the chip was taken from.
    """
    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    points = on_chip(mesh, segment.frame(mesh))
    parts = segments.astype(np.float32) / np.float32(255)
    cheeks = [_inside(points, cheek) for cheek in CHEEKS]
    forehead = _inside(points, FOREHEAD) & (parts[..., HAIR] < 0.3)
    bare = cheeks[0] | cheeks[1]
    skin = np.median(lab[bare], axis=0)
    values = dict(zip(COLOURS[:3], skin, strict=True))
    hair = parts[..., HAIR] * (parts[..., HAIR] > 0.7)
    colour = np.full(3, np.nan)
    if hair.mean() > MIN_HAIR:
        colour = (lab * hair[..., None]).sum((0, 1)) / hair.sum()
    values |= dict(zip(COLOURS[3:6], colour, strict=True))
    back = parts[..., BACKGROUND] > 0.9
    back[round(0.7 * SIDE) :] = False
    colour = np.median(lab[back], axis=0) if back.mean() > MIN_HAIR else np.full(3, np.nan)
    values |= dict(zip(COLOURS[6:], colour, strict=True))
    values |= _light(lab[..., 0], cheeks, forehead, _inside(points, CHIN))
    values |= _hair(parts, silhouette(segments, mesh), points)
    lower = _inside(points, CHIN) | _inside(points, MOUSTACHE)
    values["beard"] = np.median(lab[bare, 0]) - np.median(lab[lower, 0])
    return np.array([values[name] for name in LOOKS], np.float32)


def _inside(points: Points, polygon: tuple[int, ...]) -> NDArray[np.bool_]:
    return _filled(points[list(polygon)])


def _filled(corners: Points) -> NDArray[np.bool_]:
    """Mask [SIDE, SIDE] of the convex hull of corners [N, 2]."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(corners).astype(np.int32)), 1)
    return mask.astype(np.bool_)


def _light(
    level: Values, cheeks: list[NDArray[np.bool_]], forehead: NDArray[np.bool_], chin: NDArray[np.bool_]
) -> dict[str, float]:
    left, right, top, low = (
        np.log(np.median(level[part]) + 5) if part.any() else np.nan for part in (*cheeks, forehead, chin)
    )
    return {"light_x": float(right - left), "light_y": float(top - low)}


def _hair(parts: Values, outline: Silhouette, points: Points) -> dict[str, float]:
    height = float(np.ptp(from_chip(points)[:, 1]))
    away = np.degrees(np.abs((angles() + np.pi) % (2 * np.pi) - np.pi))
    thick = (outline.head - outline.face) / height
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mouth, chin = points[[13, 152], 1]
    jaw = points[list(OVAL)]
    middle, half = jaw[:, 0].mean(), np.ptp(jaw[:, 0]) / 2
    aside = (np.abs(columns - middle) > 0.8 * half) & (np.abs(columns - middle) < 1.35 * half)
    low = aside & (rows > mouth) & (rows < chin + 0.25 * (chin - mouth) * 2)
    brow = _inside(points, FOREHEAD)
    share = parts[..., HAIR]
    return {
        "hair_top": float(thick[away < 25].mean()),
        "hair_side": float(thick[(away > 50) & (away < 85)].mean()),
        "bald": _bald(parts, outline),
        "hair_low": float(share[low].mean()) if low.any() else 0.0,
        "fringe": float(share[brow].mean()) if brow.any() else 0.0,
    }


def _bald(parts: Values, outline: Silhouette) -> float:
    """Share of skin between the forehead's outline and the head's, within 60 degrees from straight up."""
    turns = angles()
    up = np.abs((turns + np.pi) % (2 * np.pi) - np.pi) < np.radians(60)
    share = np.linspace(0.1, 0.9, 9)[None]
    radii = outline.face[up, None] + share * (outline.head - outline.face)[up, None]
    rays = np.stack([np.sin(turns[up]), -np.cos(turns[up])], -1)[:, None]
    at = to_chip((CENTRE + radii[..., None] * rays).reshape(-1, 2)).astype(np.float32)
    seen = look_up(np.ascontiguousarray(parts[..., [FACE, HAIR]]), at[:, None])
    face, hair = seen.reshape(-1, 2).mean(0)
    return float(face / max(face + hair, 1e-6))


def hidden(segments: Segments, mesh: Points) -> float:
    """Share of a face's inside that something else covers (a hand, a microphone, a collar), 0..1.

    Args:
        segments: parts [SIDE, SIDE, 5] of the face's chip; mesh: [468, 2 or 3] in pixels of its picture.
    """
    points = on_chip(mesh, segment.frame(mesh))
    middle = points[list(OVAL)].mean(0)
    inside = _filled(middle + (points[list(OVAL)] - middle) * WITHIN)
    return float(segments[inside][:, [OTHER, BACKGROUND]].sum(-1).mean() / 255)
