"""Colour, light, sharpness and grain of a surrogate, matched to the picture that it goes into.

Only smooth or scalar quantities of the source face pass: one gain plane a channel, a saturation, a blur and a noise
level. No pixel or gradient of it does.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture
from deid.surrogates import masks
from deid.surrogates.masks import Field, Points, Region

SAMPLING = 96  # px: side to which pictures are reduced before colours are taken from them
DARK = 12.0  # grey levels added before logarithms, so that black does not weigh
BARE_SHARE = 0.55  # of a face's redness that a point of it must have to be skin
MIN_SKIN = 20  # points
TONES = (
    0.15,
    0.04,
)  # least logarithms of red over blue and over green of what may be skin, where that is uncertain
CLEAR = 4.0  # px, two on each side, by which the ring that is looked at is clear of the emptied region
UNSURE_LIGHT = 0.7  # largest logarithm of the light's gain there
LIGHT_LIMIT = 1.5  # largest logarithm of the light's gain
TINT_LIMIT = 0.45  # largest logarithm of a channel's gain apart from the light's
MOST_EVEN = 0.4  # least share of the tones' spread that is kept
NO_CHROMA = 0.1  # chroma of skin, as a share of its light, below which a picture counts as tinted grey
CONTRAST_LIMIT = 1.8  # greatest factor of contrast
DARKENED = (0.9, 0.5)  # gains between which contrast begins to be changed, and is changed wholly
SHINE, SHINE_SLOPE = (
    1.1,
    0.2,
)  # of the source's brightest skin: where brighter skin is dimmed, and what is left of it
FEATURE_SHARE = 0.7  # part of the gain that eyes and the open mouth take
BLURS = (0.0, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # px
COLD = 25.0  # grey levels from which green or blue over red is a colour of neither hair nor skin
MAX_GRAIN = 8.0  # grey levels
GRAIN_SIDE = (48.0, 144.0)  # px of face below which texture passes for noise, and above which it does not
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def sample(picture: Picture | Field, points: Points) -> Field:
    """Local mean colours [N, C] of a picture at points [N, 2] (px); points outside take the border's."""
    height, width = picture.shape[:2]
    factor = min(1.0, SAMPLING / max(height, width))
    small = cv2.resize(
        picture,
        (max(1, round(width * factor)), max(1, round(height * factor))),
        interpolation=cv2.INTER_AREA,
    )
    small = cv2.GaussianBlur(small.astype(np.float32), (0, 0), 1.0)
    at = ((points + 0.5) * [small.shape[1] / width, small.shape[0] / height] - 0.5).astype(np.float32)
    found = cv2.remap(
        small, at[None, :, 0].copy(), at[None, :, 1].copy(), cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE
    )
    return np.asarray(found.reshape(len(points), -1), np.float32)


def bare(source: Field) -> NDArray[np.bool_]:
    """Which of a face's colours [N, 3] are skin: those nearly as red against blue as its reddest.

    Medical masks, dark hair and the frames of glasses are not. In grey pictures and under blue light nothing tells
    them apart, and all pass.
    """
    redness = np.log((source[:, 0] + DARK) / (source[:, 2] + DARK))
    top = float(np.quantile(redness, 0.85))
    found = redness >= BARE_SHARE * top
    return found if top > 0.08 and found.sum() >= MIN_SKIN else np.ones(len(source), np.bool_)


def toned(source: Field) -> NDArray[np.bool_]:
    """Which colours [N, 3] have a skin's tone, by a fixed measure: for points that may lie on anything."""
    lifted = np.log(source + DARK)
    return (lifted[:, 0] - lifted[:, 2] > TONES[0]) & (lifted[:, 0] - lifted[:, 1] > TONES[1])


def level_gain(region: Region, source: Field, surrogate: Field) -> Field:
    """`gains` without a plane of light, and not far from 1: for a face whose place is known only roughly.

    Where hardly any colour of `source` [N, 3] can be skin (a mask, hair), only the light is taken.
    """
    found = toned(source)
    if found.sum() < MIN_SKIN:
        source, surrogate = ((colours @ LUMINANCE)[:, None] for colours in (source, surrogate))
        found = np.ones(len(source), np.bool_)
    ratio = np.median(np.log((source[found] + DARK) / (surrogate[found] + DARK)), axis=0)
    light = np.clip(ratio.mean(), -UNSURE_LIGHT, UNSURE_LIGHT)
    gain = np.exp(light + np.clip(ratio - ratio.mean(), -TINT_LIMIT, TINT_LIMIT))
    return np.broadcast_to(gain, (len(region.grid[0]), 3)).astype(np.float32)


def gains(region: Region, source: Field, surrogate: Field, points: Points) -> Field:
    """Gain [g*g, 3], on the region's grid, that gives the surrogate the source's light and tint.

    One tint, and a plane of light, fitted robustly (a fringe, a beard or glasses must not count as light) to the
    logarithms of the ratio of `source` to `surrogate` [N, 3], mean colours of the same skin at `points` [N, 2].
    """
    cells, radius = region.grid
    ratio = np.log((source + DARK) / (surrogate + DARK)).astype(np.float64)
    plane = np.column_stack([np.ones(len(points)), (points - region.centre) / region.size])
    weights = np.ones(len(points))
    damping = np.diag([0.0, 1.0, 1.0]) * 0.05 * len(points)
    for _ in range(6):
        weighted = plane * weights[:, None]
        fit = np.linalg.solve(weighted.T @ plane + damping, weighted.T @ ratio)
        miss = np.abs(ratio - plane @ fit).max(1)
        spread = max(1.4826 * float(np.median(miss)), 0.03)
        weights = 1 / (1 + (miss / (2 * spread)) ** 2) ** 2
    inside = (cells - region.centre) / region.size / np.maximum(radius, 1)[:, None]
    gain = np.column_stack([np.ones(len(cells)), inside]) @ fit
    light = gain.mean(1, keepdims=True)
    tint = np.clip(fit[0] - fit[0].mean(), -TINT_LIMIT, TINT_LIMIT)
    return np.exp(np.clip(light, -LIGHT_LIMIT, LIGHT_LIMIT) + tint).astype(np.float32)


def saturation(source: Field, quantile: float = 0.5) -> float:
    """Factor 0..1 for the surrogate's chroma: below 1 where the source's skin [N, 3] has next to none, as in grey
    pictures."""
    light = source.mean(1, keepdims=True)
    chroma = np.abs(source - light).sum(1) / (light[:, 0] + DARK)
    return float(np.clip(np.quantile(chroma, quantile) / NO_CHROMA - 0.1, 0, 1))


def desaturate(picture: Field, factor: float) -> Field:
    """The picture [..., 3] with its chroma times a factor; at 0 the channels are equal."""
    if factor >= 1:
        return picture
    grey = (picture @ LUMINANCE)[..., None]
    return np.asarray(grey + (picture - grey) * factor, np.float32)


def evenness(source: Field, surrogate: Field) -> tuple[float, Field]:
    """How far the surrogate's skin must go towards one tone (1: not at all), and that tone [3], luminance 1.

    Overexposed or blotchy skin keeps its highlights' white and its shadows' red under any gain, which then turn
    green and pink; the spread of tones is brought to the source's. Both [N, 3] are mean colours of the same skin.
    """
    tones = [skin / np.maximum(skin @ LUMINANCE, 1)[:, None] for skin in (source, surrogate)]
    middles = [np.median(tone, axis=0) for tone in tones]
    spreads = [float(np.median(np.abs(t - m).max(1))) for t, m in zip(tones, middles, strict=True)]
    factor = np.clip(spreads[0] / max(spreads[1], 1e-3), MOST_EVEN, 1)
    return float(factor), middles[1].astype(np.float32)


def contrast(source: Field, surrogate: Field, gain: float) -> float:
    """Factor for the differences of light of a surrogate that is made darker, so that its skin has the source's spread.

    Dark skin shines: light skin that is made dark by a gain alone is flat. No highlight gets farther from the skin than
    the source's are. Both [N, 3] are mean colours of the same skin, that of the surrogate in the source's light.

    Args:
        gain: by which the surrogate was made darker (below 1).
    """
    levels = [np.percentile(skin @ LUMINANCE, (10, 50, 90, 98)) for skin in (source, surrogate)]
    spread, shine = ([float(v[high] - v[low]) for v in levels] for low, high in ((0, 2), (1, 3)))
    wanted = min(source_is / max(is_now, 1.0) for source_is, is_now in (spread, shine))
    wanted = float(np.clip(wanted, 1, CONTRAST_LIMIT))
    return 1 + (wanted - 1) * float(np.clip((DARKENED[0] - gain) / (DARKENED[0] - DARKENED[1]), 0, 1))


def dimmed(lit: Field, skin: Field, share: Field) -> Field:
    """A surrogate [h, w, 3] in the source's light whose skin shines hardly more than the source's.

    A generated face that is lit from one side stays so under a smooth gain, and dark skin made of it burns out.

    Args:
        skin: mean colours [N, 3] of the source's skin.
        share: [h, w] of skin in the surrogate, 0..1.
    """
    top = SHINE * float(np.percentile(skin @ LUMINANCE, 98)) + DARK
    level = np.maximum(lit @ LUMINANCE, 1)
    wanted = np.minimum(level, top + SHINE_SLOPE * (level - top))
    factor = 1 + (wanted / level - 1) * share
    return np.asarray(lit * factor[..., None], np.float32)


def relight(surrogate: Field, gain: Field, skin: Field, feature: Field, even: tuple[float, Field]) -> Field:
    """The surrogate [h, w, 3] in the source's light.

    What is bluer or greener than grey around the face is neither hair nor skin but the surrogate's own clothes or
    background, and loses its colour (not under a light that makes skin itself blue).

    Args:
        gain: [h, w, 3]; features take only their share of it.
        skin: [h, w] where tones are evened, 0..1.
        feature: [h, w] eyes and mouth, 0..1.
        even: of `evenness`.
    """
    factor, tone = even
    taken = 1 - (1 - FEATURE_SHARE) * feature
    pairs = zip(cv2.split(surrogate), cv2.split(gain), strict=True)
    lit = [np.clip((level + DARK) * (1 + (by - 1) * taken) - DARK, 0, 255) for level, by in pairs]
    grey = sum(part * channel for part, channel in zip(LUMINANCE, lit, strict=True))
    share = (1 - factor) * skin * (1 - feature)
    red, green, blue = lit
    cold = np.clip((np.maximum(green, blue) - red) / COLD, 0, 1) * (1 - skin) if tone[0] > tone[2] else 0
    stays = (1 - share) * (1 - cold)
    greyed = [grey * (share * level + (1 - share) * cold) for level in tone]
    return np.asarray(cv2.merge([c * stays + g for c, g in zip(lit, greyed, strict=True)]), np.float32)


def features(region: Region, mesh: NDArray[np.float32]) -> Field:
    """How far [h, w] a pixel is eye or open mouth, 0..1: these stay white when skin is darkened."""
    mask = np.zeros(region.mask.shape, np.float32)
    for ring in (*masks.EYES, masks.MOUTH):
        polygon = np.round((mesh[ring, :2] - region.offset) * 16).astype(np.int32)
        cv2.fillPoly(mask, [polygon], 1.0, shift=4)
    return blurred(mask, max(0.5, 0.012 * region.size))


def membrane(
    region: Region, around: Picture, usable: NDArray[np.bool_], surrogate: Field
) -> tuple[Field, Field] | None:
    """The picture's colours around a region, and what the surrogate lacks to meet them, each [g*g, 3] on the
    region's grid, carried smoothly over the region.

    Args:
        around: window of the picture [h, w, 3].
        usable: where it may be looked at [h, w]: outside this and every other replaced region.
        surrogate: window of the surrogate [h, w, 3].

    Returns:
        None where nothing around the region may be looked at.
    """
    share = 1 + max(0.5 * region.feather, CLEAR) / (region.size * region.scale)
    border = masks.resample(masks.scaled(region.polygon, share), 2 * masks.GRID)
    at = border - region.offset
    visible = usable.astype(np.uint8) * 255
    colours, seen = (
        sample(around & np.dstack([visible] * 3), at),
        sample(visible, at)[:, 0] / 255,
    )
    height, width = usable.shape
    weights = np.where(((at >= 0) & (at < [width, height])).all(1) & (seen > 0.2), seen, 0)
    if weights.sum() < 1:
        return None
    outside = colours / np.maximum(seen, 0.05)[:, None]
    both = np.concatenate([outside, outside - sample(surrogate, at)], 1)
    smooth = masks.spread(region.grid[0], border, both, weights)
    return smooth[:, :3], smooth[:, 3:]


def blurred(picture: Field, sigma: float) -> Field:
    """Gaussian blur of a float picture [h, w, ...] by sigma px."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.float32)


def _bands(grey: Field) -> tuple[float, float]:
    fine = blurred(grey, 1.0)
    coarse = blurred(fine, 2.0)
    return float(np.std(grey - fine)), float(np.std(fine - coarse))


def noise(grey: Field) -> float:
    """Standard deviation of the noise in a grey picture [h, w] (Immerkaer 1996, with a median against texture)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, kernel))
    return float(np.median(response[::2, ::2])) / (0.6745 * 6)


def blur_to_match(source: Field, surrogate: Field) -> float:
    """Gaussian blur (px) after which the surrogate [h, w] is no sharper than the source [h, w]."""
    fine, coarse = _bands(source)
    fine = float(np.sqrt(max(fine**2 - noise(source) ** 2, 1e-6)))
    wanted = 1.1 * fine / max(coarse, 1e-3)
    for sigma in BLURS:
        fine, coarse = _bands(blurred(surrogate, sigma) if sigma else surrogate)
        if fine <= wanted * max(coarse, 1e-3):
            return sigma
    return BLURS[-1]


def grain(source: Field, surrogate: Field, size: float) -> float:
    """Standard deviation of the noise that the surrogate [h, w] lacks against the source [h, w], in a face of this
    size (px)."""
    level = np.sqrt(np.clip(noise(source) ** 2 - noise(surrogate) ** 2, 0, MAX_GRAIN**2))
    return float(level * np.clip((size - GRAIN_SIDE[0]) / (GRAIN_SIDE[1] - GRAIN_SIDE[0]), 0, 1))


def textured(surrogate: Field, source: Picture, region: Region) -> Field:
    """The source's sharpness and grain, both measured in the middle of the face."""
    low = np.maximum(np.floor(masks.scaled(region.outline, 0.6).min(0) - region.offset), 0).astype(int)
    high = np.maximum(np.ceil(masks.scaled(region.outline, 0.6).max(0) - region.offset), 0).astype(int)
    inner = (slice(low[1], high[1]), slice(low[0], high[0]))
    here = source[inner].astype(np.float32) @ LUMINANCE
    there = np.asarray(surrogate[inner] @ LUMINANCE, np.float32)
    if min(here.shape) < 8:
        return surrogate
    blur = blur_to_match(here, there)
    if blur:
        surrogate = blurred(surrogate, blur)
        there = blurred(there, blur)
    level = grain(here, there, region.size)
    if level > 0.3:
        rng = np.random.default_rng(surrogate.shape[:2])
        surrogate = surrogate + masks.channels(level * rng.standard_normal(surrogate.shape[:2], np.float32))
    return surrogate
