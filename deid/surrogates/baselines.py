"""Blur and pixelation, over the shape that `cover` covers. Baselines to compare with, not protection.

What they leave is the source's own, so people may stay recognizable: under weak blur to any recognizer, under more to
one that is trained on such pictures (Newton, Sweeney and Malin 2005; McPherson, Shokri and Shmatikov 2016, "Defeating
Image Obfuscation with Deep Learning"). `benchmarks/baselines.py` measures it for recognizers that are not; the
audit and the manifest name every face that was treated so.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid import config
from deid.interfaces import Face, Picture
from deid.surrogates import cover, masks
from deid.surrogates.masks import Field

Mask = NDArray[np.bool_]


def apply_in_place(
    source: Picture, result: Picture, face: Face, region: config.Region, classic: config.Classic
) -> None:
    """Blur or pixelate one face (`face.anonymizer`) of `source`, into `result`.

    Raises:
        FaceError: the box is not finite, so nothing says where the face is.
    """
    found = cover.mask(face, region, source.shape)
    if found is None:
        return
    window, mask = found
    inside = source[window]
    if face.anonymizer == "blur":
        changed = blurred(inside, mask, classic.blur_sigma * max(face.height, 1.0))
    else:
        changed = pixelated(inside, mask, max(face.height, 1.0) / classic.pixelate_blocks)
    result[window][mask] = changed[mask]


def blurred(inside: Picture, mask: Mask, sigma: float) -> Picture:
    """Gaussian blur [h, w, 3] by sigma px, of the mask's [h, w] own pixels: the border does not bleed in."""
    weights = mask.astype(np.float32)
    total = _gaussian(inside * masks.channels(weights), sigma)
    mean = total / masks.channels(np.maximum(_gaussian(weights, sigma), 1e-6))
    return np.clip(mean.round(), 0, 255).astype(np.uint8)


def pixelated(inside: Picture, mask: Mask, side: float) -> Picture:
    """Mean colours [h, w, 3] of square blocks of about `side` px, at least 2, over the mask's [h, w] own pixels."""
    height, width = mask.shape
    rows, columns = (np.arange(length) // max(2, round(side)) for length in (height, width))
    blocks = (rows[:, None] * (columns[-1] + 1) + columns).ravel()
    weights = mask.ravel().astype(np.float64)
    count = np.maximum(np.bincount(blocks, weights), 1)
    means = [np.bincount(blocks, weights * inside[..., c].ravel()) / count for c in range(3)]
    return np.stack([mean[blocks].reshape(height, width) for mean in means], -1).round().astype(np.uint8)


def _gaussian(field: Field, sigma: float) -> Field:
    """Wide blurs at a quarter of the side or less: the kernel would be as large as the picture."""
    factor = max(1, int(sigma // 8))
    height, width = field.shape[:2]
    size = (max(1, width // factor), max(1, height // factor))
    small = cv2.resize(field, size, interpolation=cv2.INTER_AREA) if factor > 1 else field
    soft = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
