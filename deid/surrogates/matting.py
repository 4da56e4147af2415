"""Soft masks: their edges drawn to a picture's, and the colours of what stands in front."""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.surrogates.masks import Field

EDGE = 6  # px: radius of the windows in which a mask is a linear function of colour
SMOOTH = 3e-4  # variance of colour (0..1) below which a window counts as flat


def refine(picture: NDArray[np.number], masks: Field, radius: int = EDGE, smooth: float = SMOOTH) -> Field:
    """Masks [h, w, C], 0..1, with the edges of a picture [h, w, 3], 0..255.

    The guided filter in colour (He, Sun, Tang 2010): within each window a mask is a linear function of the colour.
    """
    guide = picture.astype(np.float32) / np.float32(255)
    means, size = _blur(guide, radius), guide.shape[:2]
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    spread = [_blur(guide[..., i] * guide[..., j], radius) for i, j in pairs]
    covariance = np.empty((*size, 3, 3), np.float32)
    for number, (i, j) in enumerate(pairs):
        covariance[..., i, j] = covariance[..., j, i] = spread[number] - means[..., i] * means[..., j]
    covariance += smooth * np.eye(3, dtype=np.float32)
    inverse = _inverse(covariance)
    result = np.empty_like(masks)
    for channel in range(masks.shape[2]):
        mask = masks[..., channel]
        mean = _blur(mask, radius)
        shared = _blur(guide * mask[..., None], radius) - means * mean[..., None]
        slope = (inverse * shared[..., None, :]).sum(-1)
        offset = mean - (slope * means).sum(-1)
        smooth_both = _blur(np.dstack([slope, offset]), radius)
        result[..., channel] = (smooth_both[..., :3] * guide).sum(-1) + smooth_both[..., 3]
    return np.clip(result, 0, 1)


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


def _blur(field: NDArray[np.floating], radius: int) -> Field:
    return np.asarray(
        cv2.blur(field, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT), np.float32
    )


def _inverse(m: Field) -> Field:
    """Inverses of symmetric matrices [..., 3, 3]: far quicker than LAPACK's one by one."""
    a, b, c, d, e, f = m[..., 0, 0], m[..., 0, 1], m[..., 0, 2], m[..., 1, 1], m[..., 1, 2], m[..., 2, 2]
    co = [d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b]
    determinant = a * co[0] + b * co[1] + c * co[2]
    rows = [(co[0], co[1], co[2]), (co[1], co[3], co[4]), (co[2], co[4], co[5])]
    return np.stack([np.stack(row, -1) for row in rows], -2) / determinant[..., None, None]
