"""The seam: whether an edge shows where the replaced part of a picture meets the rest.

From source and result alone, so that any tool's output can be measured: the replaced part is where the two differ.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture

Mask = NDArray[np.bool_]
THRESHOLD = 6  # of 255, after smoothing: above the noise of JPEG at quality 90 and better
SMOOTHING = (
    5  # px, side of the median: it leaves edges where they are, a Gaussian would move the border off them
)
RING = 0.01  # half the ring's width over the square root of the replaced area: 4 px for a head of 400 px
LEAST_HALF_WIDTH = 3  # px
LEAST_AREA = 64  # px; parts below it are noise
LEAST_PART = 0.01  # and so are those below this share of the largest
SIDES = 12  # of the border, by the angle about the centre
FLOOR = 1.0  # grey levels a pixel: on a flat wall a faint edge is no multiple of nothing


def changed(source: Picture, result: Picture, threshold: int = THRESHOLD) -> Mask:
    """Pixels [H, W] of the replaced parts, holes filled; none where nothing changed by more than the threshold.

    Raises:
        ValueError: the pictures differ in size.
    """
    if source.shape != result.shape:
        raise ValueError(f"the result is {result.shape}, its source {source.shape}")
    difference = cv2.medianBlur(cv2.absdiff(source, result).max(axis=2), SMOOTHING)
    rough = (difference > threshold).astype(np.uint8)
    closed = cv2.morphologyEx(rough, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = [cv2.contourArea(contour) for contour in contours]
    least = max(LEAST_AREA, LEAST_PART * max(areas, default=0))
    kept = [contour for contour, area in zip(contours, areas, strict=True) if area >= least]
    filled = np.zeros_like(closed)
    cv2.drawContours(filled, kept, -1, 1, cv2.FILLED)
    return filled.astype(np.bool_)


def border(mask: Mask, half_width: int | None = None) -> Mask:
    """Pixels [H, W] within `half_width` px of the mask's border, on both sides; the picture's own edge is no border."""
    reach = (
        max(LEAST_HALF_WIDTH, round(RING * float(mask.sum()) ** 0.5)) if half_width is None else half_width
    )
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    pixels = mask.astype(np.uint8)
    wide = cv2.dilate(pixels, kernel)
    narrow = cv2.erode(pixels, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return np.asarray(wide > narrow)


def gradient(picture: Picture) -> NDArray[np.float32]:
    """Magnitude [H, W] of the luminance's gradient, grey levels a pixel (Sobel, 3 x 3)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.hypot(*(cv2.Sobel(grey, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))))


@dataclass(frozen=True)
class Seam:
    """Gradient along a border, of the result over the source.

    1 where nothing was replaced, or the border looks as the source does there; above it, an edge was added; below it,
    the border is blurred. NaN where the replaced part has no border inside the picture, or only flat pixels along it.
    """

    whole: float = float("nan")  # ratio of the means along all of the border
    worst: float = float("nan")  # highest of its `SIDES`, each side's mean raised by `FLOOR`


def seam(source: Picture, result: Picture) -> Seam:
    """How the border of the replaced part looks, all around and where it looks worst.

    Raises:
        ValueError: the pictures differ in size.
    """
    mask = changed(source, result)
    if not mask.any():
        return Seam(1.0, 1.0)
    ring = border(mask)
    before, after = gradient(source)[ring], gradient(result)[ring]
    if not before.any():
        return Seam()
    side = sides(mask, ring)
    means = [[np.mean(values[side == number]) for number in np.unique(side)] for values in (after, before)]
    ratios = (np.array(means[0]) + FLOOR) / (np.array(means[1]) + FLOOR)
    return Seam(float(after.mean() / before.mean()), float(ratios.max()))


def sides(mask: Mask, ring: Mask) -> NDArray[np.intp]:
    """Number of the side, by the angle about the mask's centre, of each pixel of the ring [ring.sum()]."""
    (y0, x0), (y, x) = (np.nonzero(part) for part in (mask, ring))
    angle = np.arctan2(y - y0.mean(), x - x0.mean())
    return np.floor((angle + np.pi) / (2 * np.pi) * SIDES).astype(np.intp) % SIDES
