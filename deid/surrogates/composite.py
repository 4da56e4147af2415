"""Put surrogates in the place of faces, at the picture's own resolution.

Every region is emptied first and filled after that, so no source pixel of any face's region can survive, whatever
overlaps and whatever fails. All blending with the source happens outside the regions.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from deid import config
from deid.errors import FaceError
from deid.interfaces import Face, Picture
from deid.surrogates import baselines, colour, head, ladder, masks
from deid.surrogates.cover import COLOUR, cover_in_place
from deid.surrogates.masks import Field, Region

OUTLINE_SHARE = 0.5  # weight of the outline in the alignment, all its points together, against the features
OUTLINE_PULL = (
    1.0  # part of the way that the surrogate's outline is drawn to the source's when the region ends there
)
PULL_REACH = 0.6  # region scale, above the outline, at which it is not drawn at all
UNLIKE = 60.0  # grey levels between surrogate and surroundings from which they are different things
LOOSE_REACH = 0.25  # radii over which a loose region's face gives way to its surroundings
INNER = 0.5  # radius, in outlines, within which the surrogate's own geometry is untouched


def composite_all(
    picture: Picture, faces: Sequence[Face], region: config.Region, classic: config.Classic | None = None
) -> Picture:
    """A new picture with every face replaced, or covered where that fails.

    Sets `status` of each face to "replaced" or "covered" (grey, and the baselines), `anonymizer` to what stands there,
    and `failure` to "composite_failed" where only this step failed. Small faces first, as these stand behind;
    pixels away from all faces stay as they are.

    Raises:
        FaceError: a face could be neither replaced nor covered; nothing may go out.
    """
    result = picture.copy()
    hidden = np.zeros(picture.shape[:2], np.bool_)
    order = sorted(range(len(faces)), key=lambda n: (faces[n].height, n))
    done = {n for n in order if _obscured(picture, result, faces[n], region, classic or config.Classic())}
    order = [n for n in order if n not in done]
    places = {n: found for n in order if (found := _place(picture, faces[n], region)) is not None}
    for place in places.values():
        emptied = place if isinstance(place, Region) else place.region
        result[emptied.window][emptied.mask] = COLOUR
        hidden[emptied.window] |= emptied.mask
    hidden |= _covered_first(result, [faces[n] for n in order if n not in places], region)
    for n in order:
        face = faces[n]
        if n in places and _replaced(picture, result, hidden, face, places[n]):
            face.status, face.anonymizer = "replaced", face.anonymizer or ladder.RUNGS[0]
            continue
        face.failure = face.failure or "composite_failed"
        cover_in_place(result, face, region)
        face.status, face.anonymizer, face.k = "covered", "solid", 0
    return result


def _obscured(
    picture: Picture, result: Picture, face: Face, region: config.Region, classic: config.Classic
) -> bool:
    """Blur or pixelate a face of which the configuration asks it; False: it is still to be replaced or covered."""
    if face.anonymizer not in ladder.BASELINES:
        return False
    try:
        baselines.apply_in_place(picture, result, face, region, classic)
    except Exception:  # noqa: BLE001 - fail closed: whatever went wrong, the face is covered
        return False
    face.status = "covered"
    return True


def _covered_first(result: Picture, faces: Sequence[Face], region: config.Region) -> NDArray[np.bool_]:
    """Cover faces that get no surrogate, so that nothing of them reaches a neighbour's; where they were, [H, W]."""
    if not faces:
        return np.zeros(result.shape[:2], np.bool_)
    marks = np.zeros_like(result)
    for face in faces:
        cover_in_place(marks, face, region)
    covered = np.asarray(marks.any(axis=2))
    result[covered] = COLOUR
    return covered


def composite(picture: Picture, face: Face, region: config.Region) -> Picture:
    """A new picture with one face replaced.

    Raises:
        FaceError: the surrogate cannot be put in place.
    """
    place = masks.region(face, region, picture.shape)
    result, hidden = picture.copy(), np.zeros(picture.shape[:2], np.bool_)
    result[place.window][place.mask], hidden[place.window] = COLOUR, place.mask
    paste(picture, result, hidden, face, place)
    return result


def _place(picture: Picture, face: Face, options: config.Region) -> Region | head.Place | None:
    """What is to be emptied and filled; None when the face is to be covered."""
    if not ladder.fills(face):
        return None
    if options.kind == "head" and face.segments is not None and face.surrogate_segments is not None:
        try:
            return head.locate(picture, face)
        except Exception:  # noqa: BLE001 - whatever is wrong with its parts, they are not to be believed
            face.surrogate_segments = None  # replaced as a face
    try:
        return masks.region(face, options, picture.shape)
    except FaceError:
        return None


def _replaced(
    source: Picture, result: Picture, hidden: NDArray[np.bool_], face: Face, place: Region | head.Place
) -> bool:
    try:
        if isinstance(place, Region):
            paste(source, result, hidden, face, place)
        else:
            head.paste(source, result, hidden, face, place)
    except Exception:  # noqa: BLE001 - fail closed: whatever went wrong, the face is covered
        return False
    return True


def paste(source: Picture, result: Picture, hidden: NDArray[np.bool_], face: Face, region: Region) -> None:
    """Put one surrogate into `result`, in which the region has been emptied.

    Args:
        source: the picture as it was; only smooth and scalar quantities are taken from it.
        hidden: [H, W] regions of all faces that are emptied and not yet replaced; this one's is taken out.

    Raises:
        FaceError: the surrogate does not fill the whole region.
    """
    if face.surrogate is None or face.surrogate_mesh is None or face.mesh is None:
        raise FaceError("composite_failed")
    around, usable = result[region.window], ~hidden[region.window]
    surrogate = _matched(source, face, face.surrogate, face.surrogate_mesh, region)
    surrogate = _joined(surrogate, around, usable, region)
    surrogate = colour.textured(surrogate, source[region.window], region)
    alpha = region.alpha()
    if (alpha < 1)[region.mask].any() or not np.isfinite(cv2.sumElems(surrogate)).all():
        raise FaceError("composite_failed")
    around[:] = cv2.convertScaleAbs(around + (surrogate - around) * masks.channels(alpha))
    hidden[region.window] &= ~region.mask


def fit_size(
    picture: Picture, mesh: NDArray[np.float32], face: Face, sizes: Sequence[int]
) -> tuple[Picture, NDArray[np.float32]]:
    """A surrogate [S, S, 3] and its mesh [468, 3] at the least of `sizes` (px) that its place in the picture needs.

    Raises:
        FaceError: the face has no usable mesh.
    """
    side = picture.shape[0]
    size = min(side, least_size(mesh / side, face, sizes, tolerance=0.9))
    if size == side:
        return picture, mesh
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small, (mesh * (size / side)).astype(np.float32)


def least_size(mesh: NDArray[np.float32], face: Face, sizes: Sequence[int], tolerance: float = 1.0) -> int:
    """The least of `sizes` (px), else the greatest, that covers a face's place in its picture.

    Args:
        mesh: [468, 3] of the surrogate, in units of its picture's side.
        tolerance: share of the needed pixels that will do.

    Raises:
        FaceError: the face has no usable mesh.
    """
    if face.mesh is None:
        raise FaceError("composite_failed")
    needed = 1 / similarity(face.mesh, mesh)[0]
    return next((s for s in sorted(sizes) if s >= tolerance * needed), max(sizes))


def similarity(
    mesh: NDArray[np.float32], surrogate_mesh: NDArray[np.float32]
) -> tuple[float, NDArray[np.float64]]:
    """Scale, and matrix [2, 3], of the similarity that takes the face's pixels to the surrogate's.

    Least squares over features and outline (Umeyama 1991, in complex numbers; no mirroring).
    """
    rows = np.concatenate([masks.ANCHORS, masks.OVAL])
    weights = np.concatenate(
        [
            np.full(len(masks.ANCHORS), 1 / len(masks.ANCHORS)),
            np.full(len(masks.OVAL), OUTLINE_SHARE / len(masks.OVAL)),
        ]
    )
    weights /= weights.sum()
    here = mesh[rows, :2].astype(np.float64) @ [1, 1j]
    there = surrogate_mesh[rows, :2].astype(np.float64) @ [1, 1j]
    from_mean, to_mean = weights @ here, weights @ there
    turn = (
        (weights * np.conj(here - from_mean)) @ (there - to_mean) / (weights @ np.abs(here - from_mean) ** 2)
    )
    shift = to_mean - turn * from_mean
    scale = float(np.abs(turn))
    if not 1e-4 < scale < 1e4:
        raise FaceError("composite_failed")
    return scale, np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _matched(
    source: Picture,
    face: Face,
    drawn: Picture,
    drawn_mesh: NDArray[np.float32],
    region: Region,
) -> Field:
    """The surrogate warped to the window, [h, w, 3] 0..255, in the light and tint of the source."""
    mesh = face.mesh
    if mesh is None:
        raise FaceError("composite_failed")
    _, matrix = similarity(mesh, drawn_mesh)
    points = mesh[masks.SKIN, :2].astype(np.float64)
    skin = colour.sample(source[region.window], points - region.offset)
    bare = np.ones(len(skin), np.bool_) if face.laid else colour.bare(skin)
    points, skin = points[bare], skin[bare]
    painted = colour.sample(drawn, drawn_mesh[masks.SKIN, :2].astype(np.float64)[bare])
    chroma = colour.saturation(skin, 0.9 if face.laid else 0.5)
    painted = colour.desaturate(painted, chroma)
    if face.laid:
        gain = colour.level_gain(region, skin, painted)
        even = 1.0, np.median(painted, axis=0) / max(float(np.median(painted @ colour.LUMINANCE)), 1.0)
    else:
        gain = colour.gains(region, skin, painted, points)
        lit = (painted + colour.DARK) * np.float32(np.median(gain, axis=0)) - colour.DARK
        even = colour.evenness(skin, lit)
    placed = (drawn_mesh[:, :2] - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    return colour.relight(
        colour.desaturate(_warp(mesh, drawn, drawn_mesh, region), chroma),
        region.enlarge(gain),
        region.enlarge(1 - masks.smoothstep((region.face_radius - 0.85) / 0.3)),
        colour.features(region, placed.astype(np.float32)),
        even,
    )


def _warp(
    mesh: NDArray[np.float32], drawn: Picture, drawn_mesh: NDArray[np.float32], region: Region
) -> Field:
    scale, matrix = similarity(mesh, drawn_mesh)
    cells, radius = region.grid
    pull = OUTLINE_PULL * (1 - masks.smoothstep((region.scale - 1) / PULL_REACH))
    ring = mesh[masks.OVAL, :2].astype(np.float64)
    apart = drawn_mesh[masks.OVAL, :2] - (ring @ matrix[:, :2].T + matrix[:, 2])
    ramp = pull * masks.smoothstep((radius - INNER) / (1 - INNER))
    moved = region.enlarge(masks.spread(cells, ring, apart, np.ones(len(ring))) * ramp[:, None])
    height, width = region.mask.shape
    x = (np.arange(width) + region.offset[0]).astype(np.float32)
    y = (np.arange(height) + region.offset[1]).astype(np.float32)[:, None]
    a, b, c = np.moveaxis(matrix.astype(np.float32), 1, 0)
    at = [a[axis] * x + (b[axis] * y + c[axis]) + moved[..., axis] for axis in (0, 1)]
    if scale > 1:
        size = max(8, round(drawn.shape[0] / scale))
        shrink = size / drawn.shape[0]
        drawn = cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8)
        at = [(field + 0.5) * shrink - 0.5 for field in at]
    warped = cv2.remap(drawn, at[0], at[1], cv2.INTER_CUBIC, None, cv2.BORDER_REFLECT_101)
    return warped.astype(np.float32)


def _joined(surrogate: Field, around: Picture, usable: NDArray[np.bool_], region: Region) -> Field:
    """The surrogate, drawn towards the picture's colours at the region's border, and not at all inside the face.

    Where the two differ little (skin and skin, hair and hair) the difference is taken out and the surrogate's
    texture stays; where they differ much (hair and background) the surrogate fades into the smooth surroundings.
    """
    found = colour.membrane(region, around, usable, surrogate)
    if found is None:
        return surrogate
    surroundings, lacking = found
    inner = min(1.0, region.scale - 0.2)
    ramp = masks.smoothstep((region.grid[1] - inner) / (region.scale - inner))[:, None]
    unlike = masks.smoothstep(np.abs(lacking).max(1, keepdims=True) / UNLIKE - 0.3)
    free = masks.smoothstep((region.scale - 1) / 0.3)
    if region.loose:
        away = masks.smoothstep((region.face_radius - 0.95) / LOOSE_REACH)[:, None]
        ramp = np.maximum(ramp, away)
        unlike = np.ones_like(unlike)
    faded = masks.channels(region.enlarge(ramp**2 * unlike * free))
    shifted = surrogate + region.enlarge(ramp * lacking * (1 - unlike * (1 - free)))
    return np.clip(shifted + (region.enlarge(surroundings) - shifted) * faded, 0, 255)
