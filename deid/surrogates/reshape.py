"""The surrogate's hair, stretched or shrunk so that its outline comes near the outline of the source's head.

In the middle of the face nothing moves. Along each ray from it, what lies between the outlines of the surrogate's
face and head is scaled to end where the source's head ends, as far as that looks natural; downwards, the jaw is drawn
to the source's by a few per cent at most, so that it meets the neck.
"""

import numpy as np
from numpy.typing import NDArray

from deid.faces.appearance import CENTRE, RAYS, Silhouette, angles
from deid.surrogates import masks

STRETCH = (0.6, 1.5)  # of the thickness of hair, the surrogate's over the source's
JAW = (0.92, 1.08)  # of the jaw's distance from the middle, the source's over the surrogate's
UPWARD = (95.0, 125.0)  # degrees from straight up between which hair ends and jaw begins
ALLOWED = 0.06  # sides of a generated picture by which the surrogate's head may be larger than the source's
STILL = 0.6  # part of the way from the middle to the face's outline within which nothing moves
SMOOTH = 2  # rays: standard deviation of the smoothing along the outline


def warp(
    points: masks.Points, source: Silhouette, surrogate: Silhouette
) -> tuple[masks.Points, NDArray[np.float64]]:
    """Where in the surrogate's picture the content of each point [N, 2] comes from; both in sides of that picture.

    Args:
        source: outline of the source's head, in the same frame.
        surrogate: outline of the surrogate's head.

    Returns:
        The places [N, 2], and how far each point lies outside the outline that the head is given [N], negative inside;
        the head ends at the latest `ALLOWED` beyond the source's: what the segmenter takes for hair there is mostly
        the surrogate's own background.
    """
    upward = np.abs((angles() + np.pi) % (2 * np.pi) - np.pi)
    low, high = np.radians(UPWARD)
    jaw = masks.smoothstep((upward - low) / (high - low)).astype(np.float64)
    face = surrogate.face
    edge = face * np.exp(_smooth(np.log(np.clip(source.face / face, *JAW)) * jaw))
    wanted, drawn = (_smooth(np.maximum(head, face * 1.02)) for head in (source.head, surrogate.head))
    ratio = np.clip((drawn - face) / np.maximum(wanted - edge, 1e-3), *STRETCH)
    ratio = np.exp(_smooth(np.log(ratio) * (1 - jaw)))
    end = edge + (drawn - face) / ratio
    knots = np.stack([STILL * face, edge, end, end + 1]), np.stack([STILL * face, face, drawn, drawn + 1])
    arm = points - CENTRE
    radius = np.hypot(arm[:, 0], arm[:, 1])
    bearing = np.mod(np.arctan2(arm[:, 0], -arm[:, 1]), 2 * np.pi)
    target, origin = ([np.interp(bearing, angles(), row, period=2 * np.pi) for row in rows] for rows in knots)
    moved = radius.copy()
    for inner, outer, begin, finish in zip(target, target[1:], origin, origin[1:], strict=False):
        part = begin + (radius - inner) * (finish - begin) / np.maximum(outer - inner, 1e-6)
        moved = np.where(radius > inner, part, moved)
    allowed = np.interp(bearing, angles(), np.maximum(wanted, edge) + ALLOWED, period=2 * np.pi)
    outside = radius - np.minimum(target[2], allowed)
    return CENTRE + arm * (moved / np.maximum(radius, 1e-6))[:, None], outside


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values [RAYS] smoothed around the circle."""
    away = np.minimum(np.arange(RAYS), RAYS - np.arange(RAYS))
    kernel = np.exp(-0.5 * (away / SMOOTH) ** 2)
    found = np.fft.ifft(np.fft.fft(values) * np.fft.fft(kernel / kernel.sum()))
    return np.asarray(found.real)
