"""Continuing a cut-out person past the borders of the generated picture: crown, shoulders and a plain garment.

The generator frames heads closely. What lies outside is drawn: hair ends in an arc, shoulders round off, and below
the picture goes on a garment in the colour of what the person wears, or in a colour of its own where only the neck
is to be seen.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture

Layer = NDArray[np.float32]  # [h, w, 4] colour and opacity, 0..1

ABOVE, ASIDE, BELOW = 0.2, 0.3, 0.4  # margins, in sides of the picture
HEAD_RADIUS = 0.27  # sides: of the arc in which hair ends that the upper border cuts
_HALF_WIDTH = 0.64  # sides: from the middle to the arm
_WORN = 0.62  # sides: a body at least as wide at the lower border shows what it wears
_DROP = 0.26  # sides: height from the shoulder's begin to the arm


def margins(side: int) -> tuple[int, int, int]:
    """Pixels above, at either side, below."""
    return int(ABOVE * side), int(ASIDE * side), int(BELOW * side)


def continued(picture: Picture, alpha: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A person [S, S, 3] with opacity [S, S], on the larger canvas of `margins`: colour and opacity [h, w, 4].

    Colours at the sides are those of the mirror image, colours under soft edges those of the person alone.
    """
    side = len(picture)
    above, aside, below = margins(side)
    colours = _without_background(np.float32(1 / 255) * picture, alpha)
    wide = cv2.copyMakeBorder(colours, above, 0, aside, aside, cv2.BORDER_REFLECT_101)
    opacity = np.pad(alpha, ((above, 0), (aside, aside)))
    _crown(opacity, alpha, above, aside)
    outward = np.arange(aside)
    for border, columns in ((0, aside - 1 - outward), (side - 1, aside + side + outward)):
        solid = np.flatnonzero(alpha[:, border] > 0.5)
        if len(solid) > 2:
            opacity[above:, columns] = _shoulder(side, float(side - solid[0]), aside)
    person = np.dstack([wide, opacity]).astype(np.float32)
    return np.asarray(np.round(_dressed(person, side, below, rng) * 255), np.uint8)


def _crown(opacity: NDArray[np.float32], alpha: NDArray[np.float32], above: int, aside: int) -> None:
    """Draw the arc over the hair that the upper border cuts into `opacity`."""
    crown = np.flatnonzero(alpha[0] > 0.5)
    if not len(crown):
        return
    half = (np.ptp(crown) + 1) / 2
    radius = max(HEAD_RADIUS * len(alpha), 1.02 * half)
    x = np.arange(opacity.shape[1]) - aside - (crown[0] + crown[-1]) / 2
    height = np.sqrt(np.clip(radius**2 - x**2, 0, None)) - np.sqrt(radius**2 - half**2)
    rows = np.arange(above, dtype=np.float32)[:, None]
    opacity[:above] = np.clip(rows - (above - height) + 0.5, 0, 1) * (np.abs(x) <= half)
    opacity[:above] = cv2.GaussianBlur(opacity[: above + 1], (0, 0), 1)[:above]


def _shoulder(side: int, drop: float, aside: int) -> NDArray[np.float32]:
    """Opacity [side, aside], outward from the border that a shoulder meets `drop` pixels above the lower border."""
    reach = np.arange(aside, dtype=np.float32)[None]
    width = min(0.95 * aside, max(0.06 * side, drop))
    line = side - drop * np.sqrt(np.clip(1 - (reach / width) ** 2, 0, 1))
    rows = np.arange(side, dtype=np.float32)[:, None]
    return np.asarray(np.clip(rows - line + 0.5, 0, 1) * (reach < width), np.float32)


def _dressed(person: Layer, side: int, below: int, rng: np.random.Generator) -> Layer:
    """The person with a garment behind and below."""
    height, width = person.shape[:2]
    solid = np.flatnonzero(person[-2, :, 3] > 0.5)
    left, right = float(solid[0]), float(solid[-1])
    worn = right - left > _WORN * side
    middle = (left + right) / 2
    cloth = _cloth(rng, (height + below, width), _worn_colour(person, middle, side) if worn else None)
    start = height if worn else height - 0.05 * side
    shape = _body(height + below, width, (left, right), start, side)
    shape[:height] *= float(not worn)
    cloth *= _roundness(width, middle, side)[None, :, None]
    canvas = np.dstack([cloth, shape])
    longer = np.asarray(cv2.copyMakeBorder(person, 0, below, 0, 0, cv2.BORDER_REFLECT_101), np.float32)
    rows, columns = np.mgrid[: height + below, :width].astype(np.float32)
    if worn:  # the cloth at the border fades into the garment
        keep = 1 - (rows - height) / (0.09 * side)
        longer[height:, :, 3] = shape[height:]
    else:  # skin down to a round neckline
        neck = np.hypot((columns - middle) / (0.49 * (right - left)), (rows - height) / (0.09 * side))
        keep = (1 - neck) / 0.012 + 0.5
    keep = np.where(rows < height, 1, np.clip(keep, 0, 1))
    over = longer[..., 3:] * keep[..., None].astype(np.float32)
    opacity = over + canvas[..., 3:] * (1 - over)
    colours = longer[..., :3] * over + canvas[..., :3] * (1 - over)
    return np.dstack([np.clip(colours, 0, 1), opacity]).astype(np.float32)


def _body(
    height: int, width: int, extent: tuple[float, float], start: float, side: int
) -> NDArray[np.float32]:
    """Opacity [height, width] of shoulders that begin at row `start` and reach the arms' width."""
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None]
    t = np.clip((rows - start) / (_DROP * side), 0, 1)
    grown = np.sqrt(1 - (1 - t) ** 2)
    middle = (extent[0] + extent[1]) / 2
    arms = max(_HALF_WIDTH * side, 1.02 * (extent[1] - extent[0]) / 2)
    left = extent[0] + (middle - arms - extent[0]) * grown
    right = extent[1] + (middle + arms - extent[1]) * grown
    inside = np.minimum(columns - left, right - columns)
    return np.asarray(np.clip(inside + 0.5, 0, 1) * (rows >= start), np.float32)


def _roundness(width: int, middle: float, side: int) -> NDArray[np.float32]:
    """Light on the body [width]: less of it towards the arms."""
    away = (np.arange(width, dtype=np.float32) - middle) / (_HALF_WIDTH * side)
    return 1.04 - 0.28 * np.clip(np.abs(away), 0, 1.2) ** 2.5


def _worn_colour(person: Layer, middle: float, side: int) -> NDArray[np.float32]:
    """Median colour [3] of the clothes at the lower border, away from the neck."""
    band = person[-max(2, side // 40) :]
    columns = np.abs(np.arange(person.shape[1]) - middle) > 0.2 * side
    return np.asarray(np.median(band[:, columns][band[:, columns, 3] > 0.5][:, :3], axis=0), np.float32)


def _cloth(
    rng: np.random.Generator, shape: tuple[int, int], colour: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Plain cloth [h, w, 3] with soft folds and a weave."""
    if colour is None:
        hsv = np.array([[[rng.uniform(0, 360), rng.uniform(0.05, 0.5), rng.uniform(0.15, 0.75)]]], np.float32)
        colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]
    folds = cv2.resize(rng.random((5, 12), np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    weave = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), 0.7)
    light = 0.9 + 0.22 * (folds - 0.5) + 0.025 * weave
    return np.asarray(colour * light[..., None], np.float32)


def _without_background(colours: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours [S, S, 3] where every pixel that is not wholly the person's takes those of his nearest."""
    solid = cv2.erode(alpha, np.ones((3, 3), np.uint8)) > 0.95
    _, labels = cv2.distanceTransformWithLabels(
        (~solid).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((int(labels.max()) + 1, 3), np.float32)
    table[labels[solid]] = colours[solid]
    filled = cv2.blur(table[labels], (5, 5))
    share = np.where(solid, 1, np.clip(alpha * 1.2 - 0.2, 0, 1) ** 3)[..., None]
    return np.asarray(filled + (colours - filled) * share, np.float32)
