"""Where the head is in a photograph before a plain backdrop: no network, so that nothing is inherited from one.

The backdrop is a smooth surface of colour, fitted where no person is; what differs from it is told apart by GrabCut
(Rother, Kolmogorov, Blake 2004). Neck and clothes are left out by place and colour.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture

Field = NDArray[np.float32]

HEIGHT = 160  # px of a face, from forehead to chin, at which heads are looked for
NEAR, FAR = 6.0, 16.0  # CIE L*a*b* distances from the backdrop: of it surely, of something else probably
REACH = 1.25  # face heights around the middle of the face within which a head ends
SKULL = 0.14  # face heights above the forehead's mesh that every head reaches
BELOW = 0.06  # face heights below the chin over which hair ends
SKIN = ((50, 101, 118, 117, 123, 187, 205, 36), (280, 330, 347, 346, 352, 411, 425, 266))  # cheeks


def head_mask(picture: Picture, mesh: NDArray[np.floating]) -> Field:
    """Opacity [H, W], 0..1, of head and hair, without the neck, of the face with this mesh [468, 3]."""
    height, width = picture.shape[:2]
    scale = HEIGHT / max(1.0, float(np.linalg.norm(mesh[10, :2] - mesh[152, :2])))
    small = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    points = np.asarray(mesh[:, :2] * scale, np.float64)
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    hull = _filled(small.shape, np.asarray(cv2.convexHull(points.astype(np.float32))[:, 0], np.float64))
    distance = np.linalg.norm(lab - backdrop(lab, points), axis=-1)
    found = _cut(small, points, hull, distance)
    found &= ~_neck(lab, points, hull)
    count, parts = cv2.connectedComponents(found.astype(np.uint8))
    if count > 2:
        own = np.bincount(parts[hull & found], minlength=count)
        own[0] = 0
        found = parts == own.argmax()
    whole = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(whole, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(whole, outlines, -1, 1, -1)  # shine on the forehead is no hole
    soft = cv2.GaussianBlur(whole.astype(np.float32), (0, 0), 1.2)
    rows = np.arange(len(small))[:, None]
    soft *= np.clip(1 - (rows - points[152, 1]) / (BELOW * HEIGHT), 0, 1)
    whole_size = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(whole_size, 0, 1, dtype=np.float32)


def backdrop(lab: Field, points: NDArray[np.floating]) -> Field:
    """The backdrop's colours [h, w, 3]: a surface of second order, fitted beside and above the head, twice, the
    second time without what does not fit."""
    height, width = lab.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width]
    face, middle = float(np.ptp(points[:, 1])), points.mean(0)
    beside = (np.abs(columns - middle[0]) > 1.0 * face) & (rows < points[152, 1])
    away = (
        beside | (rows < middle[1] - 1.6 * face) | ((rows < 3) & (np.abs(columns - middle[0]) > 0.4 * face))
    )
    if away.sum() < 100:
        away = (columns < 3) | (columns >= width - 3)
    x, y = columns / width, rows / height
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1).astype(np.float64)
    kept = away
    for _ in range(2):
        solved, *_ = np.linalg.lstsq(terms[kept][::7], lab[kept][::7].astype(np.float64), rcond=None)
        surface = (terms @ solved).astype(np.float32)
        kept = away & (np.linalg.norm(lab - surface, axis=-1) < FAR)
        if kept.sum() < 100:
            break
    return surface


def _cut(
    small: Picture, points: NDArray[np.float64], hull: NDArray[np.bool_], distance: Field
) -> NDArray[np.bool_]:
    """Whether each pixel [h, w] belongs to a person's head or neck."""
    rows, columns = np.mgrid[0 : len(small), 0 : small.shape[1]]
    middle = (points[10] + points[152]) / 2
    away = np.hypot(columns - middle[0], rows - middle[1]) > REACH * HEIGHT
    seeds = np.where(distance > FAR, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    seeds[distance < NEAR] = cv2.GC_BGD
    seeds[away | (rows > points[152, 1] + 0.3 * HEIGHT)] = cv2.GC_BGD
    seeds[hull] = cv2.GC_FGD
    skull = np.zeros(small.shape[:2], np.uint8)
    axes = (round(0.36 * HEIGHT), round(0.5 * HEIGHT + SKULL * HEIGHT))
    cv2.ellipse(skull, tuple(np.round(middle).astype(int).tolist()), axes, 0, 180, 360, 1, -1)
    seeds[skull > 0] = cv2.GC_FGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(small[..., ::-1]), seeds, None, *models, 3, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    return np.asarray((seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD))


def _neck(lab: Field, points: NDArray[np.float64], hull: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What lies outside the face and below the mouth's height and looks like skin rather than like the hair above."""
    rows = np.arange(len(lab))[:, None]
    columns = np.arange(lab.shape[1])[None]
    skin = np.median(
        [lab[int(y), int(x)] for side in SKIN for x, y in _inside(points[list(side)], lab)], axis=0
    )
    top = points[10] - (0, 0.22 * HEIGHT)
    crown = (np.abs(rows - top[1]) < 0.06 * HEIGHT) & (np.abs(columns - top[0]) < 0.2 * HEIGHT)
    hair = np.median(lab[crown], axis=0) if crown.any() else skin
    weight = np.array([0.5, 1, 1])  # shade changes lightness most
    to_skin, to_hair = (np.linalg.norm((lab - colour) * weight, axis=-1) for colour in (skin, hair))
    level = points[[61, 291], 1].mean()
    inner = cv2.dilate(hull.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    return np.asarray(~inner & (rows > level) & ((to_skin < to_hair) | (rows > points[152, 1])))


def _inside(points: NDArray[np.float64], field: Field) -> NDArray[np.float64]:
    return np.clip(points, 0, np.array(field.shape[1::-1]) - 1)


def _filled(shape: tuple[int, ...], polygon: NDArray[np.floating]) -> NDArray[np.bool_]:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
    return mask.astype(bool)
