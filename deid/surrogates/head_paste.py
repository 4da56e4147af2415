"""Put the surrogate's head in the place of the source's.

Three layers: the source with its head emptied and filled from around it; the surrogate's head, its hair stretched
towards the outline of the source's; and what stands in front of the source's head (a collar, a hat).

"Below" is measured in face heights below the surrogate's chin.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.errors import FaceError
from deid.faces import appearance, segment
from deid.faces.align import OVAL
from deid.faces.crop import look_up
from deid.faces.segment import FACE, HAIR, NECK, OTHER
from deid.interfaces import Face, Picture
from deid.surrogates import colour, masks, matting, mimic, reshape
from deid.surrogates.cover import COLOUR
from deid.surrogates.head import EMPTIED, Drawn, Place, apply, axis, fade, inverse, refined_parts, to_units
from deid.surrogates.masks import Field

FADES = {FACE: (0.02, 0.1), HAIR: (-0.04, 0.11), NECK: (0.0, 0.1)}  # below: where the surrogate's parts end
ROUND = 0.5  # face heights by which hair ends higher for each face width that it is farther from the chin
EDGE = (0.5, 0.95)  # shares between which a part's opacity rises
SOLID = 0.8  # scale of the face outline within which the surrogate is opaque, whatever its parts say
OUTSIDE = (
    0.015,
    0.05,
)  # sides of a generated picture beyond the head's outline where what looks like it ends
JOINT = (
    -0.04,
    0.05,
    0.14,
)  # below: where the neck begins and has ended to change; where the two are compared
COARSE = 4  # px: cells in which necks are compared
JOINT_BLUR = 0.06  # face heights
FRONT_BLUR = 0.01  # face heights over which what stands in front of the head fades into it
JOINT_SHARE = 0.1  # of neck around a pixel from which the comparison is believed
TINTS = (0.6, 1.7)  # factors between which hair is tinted
BESIDE_SKIN = 2.0  # times the skin's gain that hair lighter than skin is tinted at most
SURE = 0.9  # share of hair from which its colour counts
LEAST_HAIR = 0.02  # squared face heights of hair below which its colour does not count
MIDDLE = ((0.55, 0.75), (0.4, 0.6))  # rows and columns of a generated picture in which its face surely is
REDUCED = 1.3  # pixels of the surrogate in one of the picture from which it is reduced first
GRID = 96  # cells a side on which the warp is computed
DOUBTFUL = (
    0.02  # face heights around what is emptied that still look of it, and are no source for the filling
)
THROAT = (
    0.28,
    0.36,
)  # widths of the face from its middle within which below the mouth there is neck, not background
SOFT = 0.03  # face heights over which the filling fades into the picture, outside what is emptied
BODY = 0.3  # share of neck and clothes from which a pixel is body, not background
FILL_SIDE = 150  # px: to which a window is reduced to be filled


def paste(source: Picture, result: Picture, hidden: NDArray[np.bool_], face: Face, place: Place) -> None:
    """Put one surrogate's head into `result`, in which its region has been emptied.

    Args:
        source: the picture as it was; only smooth and scalar quantities are taken from it.
        hidden: [H, W] regions of all faces that are emptied and not yet replaced; this one's is taken out.

    Raises:
        FaceError: no usable surrogate.
    """
    if face.surrogate is None or face.surrogate_mesh is None or face.surrogate_segments is None:
        raise FaceError("composite_failed")
    head, region = Drawn(face.surrogate, face.surrogate_mesh, face.surrogate_segments), place.region
    around, gone = result[region.window], hidden[region.window]
    others = gone & ~region.mask
    drawn, parts = _drawn(head, place)
    drawn = _coloured(source[region.window], drawn, parts, head, place)
    alpha = _opacity(parts, head, place)
    alpha[others] = 0
    behind = _filled(around, gone, place)
    drawn = _necked(drawn, behind, parts, head, place)
    drawn = colour.textured(drawn, source[region.window], region)
    blended = behind + (drawn - behind) * masks.channels(alpha)
    if not np.isfinite(cv2.sumElems(blended)).all():
        raise FaceError("composite_failed")
    around[~others] = cv2.convertScaleAbs(blended)[~others]
    hidden[region.window] &= ~region.mask


def _layers(head: Drawn) -> tuple[Field, Field]:
    """Colours [S, S, 3] of a generated head without what is behind it, and its parts [INPUT, INPUT, 5]."""
    parts = refined_parts(head.picture, head.segments)
    solid = parts[..., FACE] + parts[..., HAIR] + parts[..., NECK]
    _, labels = cv2.connectedComponents((solid > EDGE[0]).astype(np.uint8))
    rows, columns = (slice(*(round(share * len(labels)) for share in shares)) for shares in MIDDLE)
    found = labels[rows, columns]
    own = np.bincount(found[found > 0]).argmax() if found.any() else 0
    parts *= masks.channels((labels == own).astype(np.float32))[..., :1]
    side = len(head.picture)
    solid = cv2.resize(solid * (labels == own), (side, side), interpolation=cv2.INTER_LINEAR)
    colours = head.picture.astype(np.float32)
    return matting.foreground(colours, _opaque(np.asarray(solid, np.float32)), max(3, side // 24)), parts


def _opaque(share: Field) -> Field:
    return masks.smoothstep((share - EDGE[0]) / (EDGE[1] - EDGE[0]))


def _drawn(head: Drawn, place: Place) -> tuple[Field, Field]:
    """The surrogate's colours without its background [h, w, 3] and its parts [h, w, 5], in the window."""
    side, units = len(head.picture), to_units(segment.frame(head.mesh))
    height, width = place.region.mask.shape
    cells = np.stack(np.meshgrid(*((np.arange(GRID) + 0.5) * n / GRID - 0.5 for n in (width, height))), -1)
    source = appearance.silhouette(place.segments, place.mesh)
    drawn = appearance.silhouette(head.segments, head.mesh, segment.whole(side))
    moved = mimic.movements(place.expression, head.mesh, apply(units, head.mesh[:, :2]))
    cells = mimic.origins(apply(place.frame, cells.reshape(-1, 2)), moved)
    at, outside = reshape.warp(cells, source, drawn)
    grid = (
        np.column_stack([apply(inverse(units), at) + 0.5, outside]).reshape(GRID, GRID, 3).astype(np.float32)
    )
    fine = np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    field = fine[..., :2]
    colours, parts = _layers(head)
    scale = float(np.hypot(*place.frame[:, 0]) / np.hypot(*units[:, 0]))
    if scale > REDUCED:
        size = max(8, round(side / scale))
        colours = np.asarray(cv2.resize(colours, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    seen = look_up(colours, field * (len(colours) / side) - 0.5, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    found = look_up(parts, field * (len(parts) / side) - 0.5).clip(0, 1)
    found[..., [FACE, HAIR]] *= fade(fine[..., 2], *OUTSIDE)[..., None]
    return seen.clip(0, 255), found


def _below(head: Drawn, place: Place) -> Field:
    """Face heights [h, w] below the surrogate's chin."""
    mesh = apply(to_units(segment.frame(head.mesh)), head.mesh[:, :2])
    height, width = place.region.mask.shape
    return (axis(place.frame, (width, height)) - mesh[152, 1]) / float(np.ptp(mesh[:, 1]))


def _opacity(parts: Field, head: Drawn, place: Place) -> Field:
    """Opacity [h, w] of the surrogate's head."""
    below, front = _below(head, place), _front(place)
    aside = _aside(apply(to_units(segment.frame(head.mesh)), head.mesh[:, :2]), place)
    alpha = np.zeros_like(below)
    for part, (begin, end) in FADES.items():
        ends = below + ROUND * np.maximum(aside - 0.4, 0) if part == HAIR else below
        alpha += parts[..., part] * fade(ends, begin, end) * ((1 - front) if part == NECK else 1)
    region = place.region
    hull = masks.fill(region.outline, region.mask.shape, region.offset)
    alpha = _opaque(alpha) * np.where(hull, 1, 1 - front)
    solid = masks.fill(masks.scaled(region.outline, SOLID), region.mask.shape, region.offset)
    return np.maximum(alpha, colour.blurred(solid.astype(np.float32), max(0.5, 0.03 * place.height)) * solid)


def _front(place: Place) -> Field:
    """How far [h, w], 0..1, something stands in front of the head; where the head was emptied, as far as it reaches in
    from outside. The parts there have the edges of the source's pixels, which must not show."""
    outside = np.where(place.region.mask, 0, place.parts[..., OTHER])
    reaching = colour.blurred(outside, max(0.5, FRONT_BLUR * place.height))
    return np.where(place.region.mask, reaching, outside)


def _necked(drawn: Field, behind: Field, parts: Field, head: Drawn, place: Place) -> Field:
    """The surrogate with its neck drawn to the colour of the source's, all of it where the surrogate ends."""
    below, size = _below(head, place), drawn.shape[1::-1]
    both = np.minimum(parts[..., NECK], place.parts[..., NECK]) * fade(below, *JOINT[1:])
    both[place.region.mask] = 0
    small = (max(1, size[0] // COARSE), max(1, size[1] // COARSE))
    apart = cv2.resize(
        cv2.merge([(behind - drawn) * masks.channels(both), both]), small, interpolation=cv2.INTER_AREA
    )
    spread = colour.blurred(np.asarray(apart, np.float32), max(1.0, JOINT_BLUR * place.height / COARSE))
    share = spread[..., 3:]
    shift = spread[..., :3] / (share + 1e-3) * np.minimum(share / JOINT_SHARE, 1)
    shift = np.asarray(cv2.resize(shift, size, interpolation=cv2.INTER_LINEAR), np.float32)
    weight = parts[..., NECK] * (1 - fade(below, *JOINT[:2]))
    return np.clip(drawn + shift * masks.channels(weight), 0, 255)


def _coloured(source: Picture, drawn: Field, parts: Field, head: Drawn, place: Place) -> Field:
    """The surrogate's colours in the source's light, skin by the source's skin and hair by its hair."""
    region = place.region
    points = place.mesh[masks.SKIN, :2].astype(np.float64)
    skin = colour.sample(source, points - region.offset)
    bare = colour.bare(skin)
    points, skin = points[bare], skin[bare]
    painted = colour.sample(head.picture, head.mesh[masks.SKIN, :2].astype(np.float64)[bare])
    chroma = colour.saturation(skin)
    painted = colour.desaturate(painted, chroma)
    gains = colour.gains(region, skin, painted, points)
    drawn = colour.desaturate(drawn, chroma)
    lit = (drawn + colour.DARK) * region.enlarge(gains) - colour.DARK
    seen = (painted + colour.DARK) * np.median(gains, axis=0) - colour.DARK
    middle = np.median(seen, axis=0).astype(np.float32)
    darker = float(np.median(gains))
    lit = middle + (lit - middle) * np.float32(colour.contrast(skin, np.asarray(seen, np.float32), darker))
    eyes_and_mouth = colour.features(region, place.mesh)
    lit = colour.dimmed(lit, skin, parts[..., FACE] * (1 - eyes_and_mouth))
    hair = _tinted(source.astype(np.float32), drawn, parts, place, np.median(skin, axis=0), darker)
    share = masks.channels(np.minimum(parts[..., FACE] + parts[..., NECK], 1))
    return np.clip(lit * share + (lit if hair is None else hair) * (1 - share), 0, 255)


def _tinted(
    source: Field, drawn: Field, parts: Field, place: Place, skin: Field, darker: float
) -> Field | None:
    """The surrogate with the mean colour of the source's hair; None where one of them has no hair.

    A shaven dark head shines. Hair that is lighter than the source's skin [3] is made little lighter beside a
    surrogate's skin, whose gain is `darker`: what is hair only in part, at hairline and ears, would be a light rim.
    """
    means = []
    for picture, share in ((source, place.parts[..., HAIR]), (drawn, parts[..., HAIR])):
        sure = share * (share > SURE)
        if sure.sum() < LEAST_HAIR * place.height**2:
            return None
        means.append(np.einsum("hwc,hw->c", picture, sure) / sure.sum() + colour.DARK)
    tint = np.clip(means[0] / means[1], *TINTS)
    if means[0].mean() > skin.mean() + colour.DARK:
        tint *= min(1.0, BESIDE_SKIN * darker / float(tint.max()))
    return np.asarray((drawn + colour.DARK) * tint - colour.DARK, np.float32)


def _filled(around: Picture, gone: NDArray[np.bool_], place: Place) -> Field:
    """The window of the picture with what is emptied filled from around it: background by background, body by body."""
    grown = max(1, round(DOUBTFUL * place.height))
    kernel = np.ones((2 * grown + 1,) * 2, np.uint8)
    wide, hairy = (
        cv2.dilate(mask.astype(np.uint8), kernel).astype(np.bool_)
        for mask in (gone, gone | (place.parts[..., HAIR] > EMPTIED[HAIR]))
    )
    picture, body = around.astype(np.float32), place.parts[..., NECK] + place.parts[..., OTHER]
    picture[gone] = COLOUR
    behind, before = (
        _continued(picture, missing, gone) for missing in (hairy | (body > BODY), hairy | (body <= BODY))
    )
    levels = masks.channels(np.where(wide, 0, body) * 255)
    share = matting.fill(levels, wide, FILL_SIDE)[..., 0] / 255 if not wide.all() else np.zeros_like(body)
    share = np.maximum(masks.smoothstep((share - 0.3) / 0.4), _throat(place))
    found = behind + (before - behind) * masks.channels(np.asarray(share, np.float32))
    soft = np.where(gone, 1, colour.blurred(wide.astype(np.float32), max(0.5, SOFT * place.height)))
    return picture + (found - picture) * masks.channels(soft.astype(np.float32))


def _continued(picture: Field, missing: NDArray[np.bool_], gone: NDArray[np.bool_]) -> Field:
    """The picture with what is missing filled; where all is missing, from whatever was not emptied."""
    for unknown in (missing, gone):
        if not unknown.all():
            return matting.fill(picture, unknown, FILL_SIDE)
    return picture


def _throat(place: Place) -> Field:
    """Where [h, w], 0..1, what a chin leaves open shows neck: the lower middle of the face."""
    region, frame = place.region, place.frame
    height, width = region.mask.shape
    mesh = apply(frame, place.mesh[:, :2] - region.offset)
    near = fade(_aside(mesh, place), *THROAT)
    return near * (
        1 - fade((axis(frame, (width, height)) - mesh[14, 1]) / float(np.ptp(mesh[:, 1])), 0.0, 0.05)
    )


def _aside(mesh: masks.Points, place: Place) -> Field:
    """Distance [h, w] from the chin across, in widths of the face whose mesh [468, 2] is in the units of `frame`."""
    height, width = place.region.mask.shape
    x, y = np.arange(width)[None], np.arange(height)[:, None]
    across = place.frame[0, 0] * x + place.frame[0, 1] * y + place.frame[0, 2]
    return np.asarray(np.abs(across - mesh[152, 0]) / np.ptp(mesh[list(OVAL), 0]), np.float32)
