"""Soft masks: their edges drawn to a picture's, and the colours of what stands in front."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.surrogates.masks import Field

EDGE = 3  # px of a mask: radius of the windows in which it is a linear function of colour
SMOOTH = 3e-4  # variance of colour (0..1) below which a window counts as flat


def refine(picture: NDArray[np.number], masks: Field, radius: int = EDGE, smooth: float = SMOOTH) -> Field:
    """Masks [h, w, C], 0..1, at the resolution and with the edges of a picture [H, W, 3], 0..255.

    The guided filter in colour (He, Sun, Tang 2010): within each window a mask is a linear function of the colour. It
    is fitted at the masks' resolution and applied at the picture's (the fast guided filter, He and Sun 2015).

    Args:
        radius: of the windows, px of the masks.
        smooth: variance of colour (0..1) below which a window counts as flat.
    """
    size = masks.shape[1::-1]
    full = picture.astype(np.float32) / np.float32(255)
    levels = _planes(
        full if full.shape[1::-1] == size else cv2.resize(full, size, interpolation=cv2.INTER_AREA)
    )
    means = [_blur(level, radius) for level in levels]
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    spread = [_blur(levels[i] * levels[j], radius) - means[i] * means[j] for i, j in pairs]
    for diagonal in (0, 3, 5):
        spread[diagonal] += np.float32(smooth)
    inverse = _inverse(spread)
    channels = []
    for mask in _planes(masks):
        mean = _blur(mask, radius)
        shared = [_blur(levels[i] * mask, radius) - means[i] * mean for i in range(3)]
        slopes = [_dot(row, shared) for row in inverse]
        linear = np.dstack([_blur(field, radius) for field in (*slopes, mean - _dot(slopes, means))])
        fine = _planes(cv2.resize(linear, full.shape[1::-1], interpolation=cv2.INTER_LINEAR))
        channels.append(_dot(fine[:3], _planes(full)) + fine[3])
    return np.clip(np.stack(channels, -1), 0, 1)


def foreground(picture: Field, alpha: Field, radius: int) -> Field:
    """Colours [h, w, 3], 0..255, of what covers `alpha` [h, w] of each pixel, so that nothing of its background
    comes along (Forte 2021, "Approximate Fast Foreground Colour Estimation", one pass).

    Args:
        radius: px, about the width of the soft edges.
    """
    share = _blur(alpha, radius)[..., None]
    alpha = alpha[..., None]
    front = _blur(picture * alpha, radius) / (share + 1e-3)
    behind = _blur(picture * (1 - alpha), radius) / (1 - share + 1e-3)
    return np.clip(front + alpha * (picture - alpha * front - (1 - alpha) * behind), 0, 255)


def fill(picture: Field, missing: NDArray[np.bool_], side: int) -> Field:
    """A picture [h, w, 3] whose missing pixels [h, w] continue what is around them.

    Fast marching (Telea 2004) on the picture reduced to `side` px, smoothed where it was filled: sharp structure that
    leads into a large gap ends there.
    """
    height, width = missing.shape
    factor = min(1.0, side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    known = (~missing).astype(np.float32)
    share = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(picture * known[..., None], size, interpolation=cv2.INTER_AREA)
    small = np.clip(small / np.maximum(share, 1e-3)[..., None], 0, 255)
    gap = (share < 0.7).astype(np.uint8)
    found = cv2.inpaint(small.round().astype(np.uint8), gap, 4, cv2.INPAINT_TELEA).astype(np.float32)
    found = np.where(gap[..., None] > 0, cv2.GaussianBlur(found, (0, 0), 1.5), small)
    return np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _planes(field: NDArray[Any]) -> list[Field]:
    return [np.asarray(plane, np.float32) for plane in cv2.split(field)]


def _dot(a: Sequence[Field], b: Sequence[Field]) -> Field:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _blur(field: NDArray[np.floating], radius: int) -> Field:
    return np.asarray(
        cv2.blur(field, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT), np.float32
    )


def _inverse(m: list[Field]) -> list[list[Field]]:
    """Inverse of symmetric 3x3 matrices, given and returned entry by entry (upper triangle, rows), each [h, w]: far
    quicker than LAPACK's one by one."""
    a, b, c, d, e, f = m
    co = [d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b]
    scale = 1 / (a * co[0] + b * co[1] + c * co[2])
    co = [entry * scale for entry in co]
    return [[co[0], co[1], co[2]], [co[1], co[3], co[4]], [co[2], co[4], co[5]]]
