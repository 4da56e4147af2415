"""Soft labels of the parts of heads in photographs before a plain wall, by colour and the face mesh alone.

What differs from the wall is person; inside the mesh outline, from the eyes down, all is face; what is left is told by
its colour, by Gaussian mixtures in CIE L*a*b* of samples from this one picture: skin of the cheeks and of the neck,
hair from above the forehead, clothes from the lower border. No network but the mesh has a part in it.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from deid.faces.align import OVAL
from deid.faces.appearance import CHEEKS, FOREHEAD
from deid.faces.segment import BACKGROUND, FACE, HAIR, NECK, OTHER, PARTS, Points
from deid.interfaces import Picture
from deid.surrogates.masks import Field
from deid.surrogates.matting import refine
from deid.training.labels import sure_face

Mask = NDArray[np.bool_]

SIDE = 512  # px: side of the pictures that are labelled
WALL = (3.0, 8.0)  # colour distance from the wall, below which all is wall, above which nothing is
STEP = 4  # px: every so many the wall is looked at
WEIGHTS = (1.0, 2.0, 2.0)  # of L*, a* and b* in it
NOSE = (6, 197, 195, 5, 4, 45, 275, 122, 351)
JAW = (58, 288)  # mesh points: angles of the jaw
CHIN, TOP, EYE = 152, 10, 33  # mesh points
MIXED = 4  # Gaussians in a mixture
SAMPLES = 1500  # pixels a mixture is fitted to
UNLIKE = -13.0  # log density of colour below which a pixel is not of a kind; all kinds have this floor
RIM = 6.0  # px: how far from an edge the person's colour is looked up
BRIGHTER = 3.0  # L* above the wall's from which clothes are sure
NARROW, WIDE = 0.25, 0.38  # face heights: half of a neck at least, and at most above the shoulders
BESIDE, ABOVE = (
    6.0,
    2.0,
)  # log density that skin loses where hair is likelier: beyond neck and ears; over the outline
LOOSE = 350  # px: hair below the jaw of at least so many may hang by itself
EAR = 0.16  # face heights that a face reaches beyond the mesh outline
WARM = (2.5, 3.5)  # a* and b* from which nothing is white cloth
FLOOR = -40.0  # least log density that counts
FRINGE = 0.3  # share of hair on the forehead from which it hangs over the brows
BROWS = (
    46,
    53,
    52,
    65,
    55,
    70,
    63,
    105,
    66,
    107,
    33,
    133,
    276,
    283,
    282,
    295,
    285,
    300,
    293,
    334,
    296,
    336,
    263,
    362,
)
RADIUS, SMOOTH = 4, 2e-4  # of the guided filter


def label(picture: Picture, mesh: Points, bald: bool = False) -> Field:
    """Parts [SIDE, SIDE, 5], 0..1, adding up to 1, of a photograph [SIDE, SIDE, 3] of one person before a plain wall.

    Args:
        mesh: [468, 2 or 3] in pixels of the picture.
        bald: there is no hair at all; a shiny head is not told from hair by its colour.
    """
    lab = to_lab(picture)
    alpha = person(lab, mesh)
    kinds = sort_out(lab, alpha > 0.5, mesh, bald)
    parts = np.eye(len(PARTS), dtype=np.float32)[kinds]
    parts[..., BACKGROUND] = 0
    soft_parts = np.asarray(cv2.GaussianBlur(parts, (0, 0), 1.0), np.float32)
    parts = refine(picture, soft_parts, RADIUS, SMOOTH)
    parts[..., BACKGROUND] = 0
    parts /= np.maximum(parts.sum(-1, keepdims=True), 1e-6)
    parts *= alpha[..., None]
    parts[..., BACKGROUND] = 1 - alpha
    parts /= np.maximum(parts.sum(-1, keepdims=True), 1e-6)
    return np.asarray(parts, np.float32)


def to_lab(picture: Picture) -> Field:
    """CIE L*a*b* [h, w, 3] of a picture [h, w, 3], a little smoothed."""
    level = cv2.GaussianBlur(picture.astype(np.float32) / np.float32(255), (0, 0), 0.7)
    return np.asarray(cv2.cvtColor(level, cv2.COLOR_RGB2LAB), np.float32)


def wall(lab: Field) -> Field:
    """The wall's colour [h, w, 3] everywhere: a cubic surface through what it fits of the picture [h, w, 3]."""
    few = lab[::STEP, ::STEP].astype(np.float64)
    x, y, terms = _cubic(*few.shape[:2])
    used = ((np.abs(x) > 0.38) & (y < 0.1)) | (y < -0.46)  # beside and above a head
    for reach, low in ((12.0, 0.0), (6.0, 0.1), (4.0, 0.25), (4.0, 0.3), (4.0, 0.3)):
        fit = np.linalg.lstsq(terms[used], few[used], rcond=None)[0]
        away = np.linalg.norm((terms @ fit - few) * WEIGHTS, axis=-1)
        used = (away < reach) & (y < low)
    surface = (terms @ fit).astype(np.float32)
    return np.asarray(cv2.resize(surface, lab.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _cubic(height: int, width: int) -> tuple[NDArray[np.float64], ...]:
    """Columns and rows [h, w], -0.5..0.5, and the terms [h, w, 10] of a cubic in them."""
    y, x = np.mgrid[:height, :width] / np.array([height - 1, width - 1])[:, None, None] - 0.5
    return x, y, np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], -1)


def person(lab: Field, mesh: Points) -> Field:
    """How much of each pixel [h, w], 0..1, is not the wall."""
    behind, rows = wall(lab), np.arange(len(lab))[:, None]
    away = np.linalg.norm((lab - behind) * np.array(WEIGHTS, np.float32), axis=-1)
    alpha = np.clip((away - WALL[0]) / (WALL[1] - WALL[0]), 0, 1).astype(np.float32)
    bright = (lab[..., 0] > behind[..., 0] + BRIGHTER) & (rows > mesh[CHIN, 1])
    solid = largest((alpha > 0.5) | bright | inside(mesh, lab.shape[:2]))
    near = cv2.dilate(solid.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    alpha = np.where(near, soft(away, solid), 0).astype(np.float32)
    alpha[closed(solid, mesh) | covered(lab, solid, mesh) | (bright & near)] = 1
    return alpha


def soft(away: Field, solid: Mask) -> Field:
    """How much of each pixel [h, w] is person: its distance from the wall over that of the person just inside."""
    core = cv2.erode(solid.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(np.float32)
    weight = cv2.GaussianBlur(core, (0, 0), RIM)
    inner = cv2.GaussianBlur(core * away, (0, 0), RIM) / (weight + 1e-4)
    full = np.maximum(0.8 * inner, WALL[1])
    alpha = np.clip((away - WALL[0]) / (full - WALL[0]), 0, 1)
    return np.asarray(np.where(core > 0, 1, alpha), np.float32)


def covered(lab: Field, solid: Mask, mesh: Points) -> Mask:
    """What lies [h, w] below a shoulder: clothes that shade into the wall's colour."""
    rows, columns = np.mgrid[: lab.shape[0], : lab.shape[1]]
    chin, tall = float(mesh[CHIN, 1]), float(mesh[CHIN, 1] - mesh[TOP, 1])
    shoulder = solid & clothes_like(lab) & (rows > mesh[CHIN, 1])
    shoulder = cv2.erode(shoulder.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    shoulder |= solid & (rows > chin + WIDE * tall)
    shoulder |= (rows > chin) & (np.abs(columns - mesh[CHIN, 0]) < NARROW * tall)
    return np.asarray(np.maximum.accumulate(shoulder, axis=0))


def closed(solid: Mask, mesh: Points) -> Mask:
    """Holes of the person [h, w] that are no gaps between strands of hair: small ones, and those of the clothes."""
    width = solid.shape[1]
    count, numbers, stats, _ = cv2.connectedComponentsWithStats((~solid).astype(np.uint8), connectivity=4)
    result = np.zeros_like(solid)
    chin = float(mesh[CHIN, 1])
    tall = chin - float(mesh[TOP, 1])
    for part in range(1, count):
        left, top, wide, _, size = stats[part]
        border = left == 0 or top == 0 or left + wide == width
        if not border and (size < 60 or top > chin + 0.35 * tall):
            result |= numbers == part
    return result


def largest(mask: Mask) -> Mask:
    """The largest connected part of a mask [h, w]."""
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(numbers == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def inside(points: Points, shape: Sequence[int]) -> Mask:
    """The inside [h, w] of the mesh outline."""
    return polygon(points[list(OVAL), :2], shape)


def polygon(points: Points, shape: Sequence[int]) -> Mask:
    mask = np.zeros(tuple(shape[:2]), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points).astype(np.int32)), 1)
    return mask > 0


def sort_out(lab: Field, solid: Mask, mesh: Points, bald: bool = False) -> NDArray[np.intp]:
    """The part [h, w] of every pixel of the person `solid` [h, w]; elsewhere that of the nearest kind of colour."""
    shape = lab.shape[:2]
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    chin, top, tall = (float(v) for v in (mesh[CHIN, 1], mesh[TOP, 1], mesh[CHIN, 1] - mesh[TOP, 1]))
    oval, aside = inside(mesh, shape), np.abs(columns - float(mesh[CHIN, 0]))
    wide = float(np.ptp(mesh[list(JAW), 0])) / 2
    under = (rows > np.interp(columns, *jaw(mesh))) & ~oval
    forehead = polygon(mesh[list(FOREHEAD), :2], shape)
    cheeks = np.any([polygon(mesh[list(part), :2], shape) for part in (*CHEEKS, NOSE)], 0)
    cloth = clothes_like(lab)
    core = cv2.erode(solid.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0

    skin = Colours(lab[cheeks])
    skin = Colours(lab[cheeks | (forehead & (skin(lab) > UNLIKE))])
    likely = skin(lab)
    below = solid & ~cloth & (aside < 0.22 * tall) & (rows > chin + 0.06 * tall) & (rows < chin + 0.3 * tall)
    throat = Colours(lab[below])
    above = core & (rows < top - 0.04 * tall) & (likely < UNLIKE + 3)
    above |= core & ~oval & (rows < mesh[EYE, 1]) & (likely < UNLIKE)
    hair = Colours(lab[above & (not bald)])
    clothes = Colours(lab[solid & (rows > 0.97 * shape[0]) & cloth])

    scores = np.full((*shape, len(PARTS)), FLOOR, np.float32)
    scores[..., HAIR] = hair(lab)
    far = cv2.distanceTransform((~oval).astype(np.uint8), cv2.DIST_L2, 5)
    rather = np.where(far > EAR * tall, BESIDE, np.where((far > 0) & (rows < top), ABOVE, 0))
    scores[..., FACE] = likely - hair.known * rather
    slope = aside - 0.95 * wide - 1.5 * np.maximum(0, rows - chin - 0.15 * tall)
    scores[..., NECK] = np.maximum(throat(lab), likely) - BESIDE * (slope > 0)
    scores[..., OTHER] = np.where(cloth, np.maximum(clothes(lab), UNLIKE + 3), FLOOR)
    scores = np.asarray(cv2.GaussianBlur(np.maximum(scores, FLOOR), (0, 0), 2.0), np.float32)
    never = -10 * abs(FLOOR)
    scores[..., BACKGROUND] = scores[..., FACE][under] = scores[..., NECK][~under] = never
    scores[..., OTHER][~under] = scores[..., HAIR][under & (aside < 0.9 * wide)] = never
    if hair.known and np.median(lab[above][:, 0]) < np.median(lab[cheeks][:, 0]):
        scores[..., HAIR][oval & (lab[..., 0] > np.percentile(lab[cheeks][:, 0], 80))] = never
    if bald:
        scores[..., HAIR] = never
    kinds = np.asarray(scores.argmax(-1))
    edge = np.zeros(shape, np.bool_)
    edge[-3:] = edge[:, :3] = edge[:, -3:] = True
    kinds[stray(kinds == HAIR, ~under, LOOSE)] = NECK
    kinds[stray((kinds == HAIR) & ~under, ~under & ~oval)] = FACE
    kinds[stray((kinds == OTHER) & solid, edge)] = NECK
    kinds[sure_face(mesh, shape[0])] = FACE
    if (kinds == HAIR)[forehead].mean() < FRINGE:
        kinds[brows(mesh, shape)] = FACE
    return kinds


def stray(mask: Mask, home: Mask, large: int | None = None) -> Mask:
    """The connected pieces of a mask [h, w] that have no pixel at `home` [h, w], and fewer than `large` in all."""
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    kept = np.zeros(len(stats), np.bool_) if large is None else stats[:, cv2.CC_STAT_AREA] >= large
    kept[numbers[mask & home]] = True
    return np.asarray(mask & ~kept[numbers])


def brows(mesh: Points, shape: Sequence[int]) -> Mask:
    """Where [h, w] the brows are, and what is between them and the eyes."""
    return polygon(mesh[list(BROWS), :2], shape)


def jaw(mesh: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of the line below which skin outside the outline is neck."""
    right, left = (mesh[point, :2].astype(np.float64) for point in JAW)
    return np.array([right[0], left[0]]), np.array([right[1], left[1]])


def clothes_like(lab: Field) -> Mask:
    """Where [h, w] a colour may be white cloth, lit or in shade."""
    cool = (lab[..., 1] < WARM[0]) & (lab[..., 2] < WARM[1])
    return np.asarray((lab[..., 0] > 60) & (np.hypot(lab[..., 1], lab[..., 2]) < 9) & cool)


class Colours:
    """How densely samples [N, 3] lie about a colour: a Gaussian mixture. With hardly any samples nothing is alike."""

    def __init__(self, samples: Field, seed: int = 0) -> None:
        self.known = len(samples) >= 50
        if self.known:
            rng = np.random.default_rng(seed)
            few = rng.choice(len(samples), min(SAMPLES, len(samples)), replace=False)
            mixture = GaussianMixture(MIXED, reg_covar=2.0, random_state=seed, max_iter=20, tol=1e-2)
            mixture.fit(samples[few])
            self.means, self.roots = mixture.means_, mixture.precisions_cholesky_
            self.heights = (
                np.log(mixture.weights_) + np.log(np.linalg.det(self.roots)) - 1.5 * np.log(2 * np.pi)
            )

    def __call__(self, lab: Field) -> Field:
        """Log density [h, w] at colours [h, w, 3]."""
        if not self.known:
            return np.full(lab.shape[:2], -100, np.float32)
        given = zip(self.means, self.roots, self.heights, strict=True)
        each = [
            h - 0.5 * np.square((lab - m.astype(np.float32)) @ r.astype(np.float32)).sum(-1)
            for m, r, h in given
        ]
        return np.asarray(np.logaddexp.reduce(each), np.float32)
