"""Skin tone of a face in a picture: individual typology angle and its bands.

The angle (ITA) is atan2(L* - 50, b*) in degrees, of CIE L*a*b* under D65; the bands are those of Del Bino and Bernerd
2013, "Variations in skin colour and the biological consequences of ultraviolet radiation exposure". From a photograph
it also holds the light of the scene, so angles compare only within a scene: a picture with its result, or a studio set.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture
from deid.surrogates import masks

BANDS = (  # least angle in degrees (exclusive), name; the darkest has no bound
    (55.0, "very light"),
    (41.0, "light"),
    (28.0, "intermediate"),
    (10.0, "tan"),
    (-30.0, "brown"),
    (-np.inf, "dark"),
)
BROWS = (masks.BROWS[:10], masks.BROWS[10:])


def skin_mask(shape: tuple[int, ...], mesh: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Pixels [H, W] inside the face outline of a mesh [468, 2 or 3], without eyes, lips and brows."""
    mask = np.zeros(shape[:2], np.uint8)
    points = np.round(mesh[:, :2]).astype(np.int32)
    cv2.fillPoly(mask, [points[masks.OVAL]], 1)
    for polygon in (*masks.EYES, masks.LIPS):
        cv2.fillPoly(mask, [points[polygon]], 0)
    for brow in BROWS:
        cv2.fillConvexPoly(mask, cv2.convexHull(points[brow]), 0)
    return mask.astype(np.bool_)


def skin_lab(picture: Picture, mesh: NDArray[np.floating]) -> NDArray[np.float32]:
    """Median L*, a*, b* [3] of the face's skin; NaN where none of it lies in the picture.

    The median keeps beards, fringes, highlights and nostrils out as long as most of the face is skin.
    """
    mask = skin_mask(picture.shape, mesh)
    if not mask.any():
        return np.full(3, np.nan, np.float32)
    pixels = picture[mask].astype(np.float32)[None] / 255
    return np.asarray(np.median(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0], axis=0), np.float32)


def ita(lab: NDArray[np.floating]) -> NDArray[np.float64]:
    """Individual typology angle [...] in degrees, of colours [..., 3] in L*a*b*; larger is lighter."""
    colour = np.asarray(lab, np.float64)
    return np.asarray(np.degrees(np.arctan2(colour[..., 0] - 50, colour[..., 2])))


def band(angle: float) -> str:
    """Name of the band of an angle in degrees; "unknown" for NaN."""
    return next((name for least, name in BANDS if angle > least or angle == least == -np.inf), "unknown")
