"""Faces of tracks, settled: none missing between two sightings, none jumping from frame to frame.

A unit of frames is settled by itself, with `margin` frames of its neighbours on each side, and comes out as if the
whole file had been settled at once. Everything is symmetric in time; nothing lags.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Face
from deid.surrogates import masks
from deid.video.tracks import Settings

Floats = NDArray[np.float32]
Frames = Mapping[int, Sequence[tuple[int, Face]]]  # by number of the frame: (track, face)

_TREND = 3  # frames from which the movement beyond the first and last sighting is taken
_HIDDEN = 0.6  # share of its box from which on a face that was not seen stands behind another that was
_MENDED = frozenset({"mesh_failed", "embed_failed"})  # what the other sightings of a track make up for


def margin(settings: Settings) -> int:
    """Frames of the neighbours that a unit is settled with, on each side."""
    return settings.gap + settings.extend + 2 * settings.smooth + _TREND


def settle(
    frames: Frames,
    start: int,
    stop: int,
    breaks: NDArray[np.bool_],
    size: tuple[int, int],
    settings: Settings,
    embeddings: Floats,
    looks: Floats | None = None,
) -> dict[int, list[tuple[int, Face]]]:
    """Track and face of each face of the frames `start` to `stop`, by frame, those that were not seen included.

    A face that was not seen is left out where the face of someone else is before it. Else it has the score 0, of its
    track's next sightings the mesh between them, and the parts of the head of the nearest. Boxes, points and meshes
    are smoothed; a mesh that failed is filled in as if the face had not been seen. Embeddings and looks are those of
    the track.

    Args:
        frames: faces of these frames and of `margin` more on each side, as far as there are any.
        breaks: [F] of the whole file, as `tracks.cuts` gives them: nothing is filled in beyond a cut.
        size: px, width and height of the frames.
        embeddings: [T, dim] of the tracks; NaN: none (`tracks.pooled`).
        looks: [T, L] of the tracks; None: each face keeps its own.
    """
    seen: dict[int, list[tuple[int, Face]]] = {}
    for frame in sorted(frames):
        for track, face in frames[frame]:
            seen.setdefault(track, []).append((frame, face))
    scenes: NDArray[np.int64] = np.cumsum(breaks, dtype=np.int64)
    result: dict[int, list[tuple[int, Face]]] = {frame: [] for frame in range(start, stop)}
    for track in sorted(seen):
        own = _finite(embeddings[track])
        look = None if looks is None else _finite(looks[track])
        for run in _runs(seen[track], settings.gap):
            for frame, face in _settled(run, settings, scenes, size):
                if start <= frame < stop:
                    face = replace(face, embedding=face.embedding if own is None else own)
                    face = replace(face, looks=face.looks if looks is None else look)
                    result[frame].append((track, face))
    return {frame: _shown(found) for frame, found in result.items()}


def _shown(found: list[tuple[int, Face]]) -> list[tuple[int, Face]]:
    """Without those that were not seen because someone else's face is before them: it would get theirs."""
    seen = [face.box for _, face in found if face.score]
    return [
        (track, face)
        for track, face in found
        if face.score or not any(_behind(face.box, box) for box in seen)
    ]


def _behind(box: Floats, front: Floats) -> bool:
    inside = np.maximum(np.minimum(box[2:], front[2:]) - np.maximum(box[:2], front[:2]), 0)
    return bool(np.prod(inside) > _HIDDEN * np.prod(np.maximum(box[2:] - box[:2], 1)))


def _finite(values: Floats) -> Floats | None:
    return values if np.isfinite(values).all() else None


def _runs(sightings: list[tuple[int, Face]], gap: int) -> Iterator[list[tuple[int, Face]]]:
    """Sightings of a track in one piece; a unit's margin may hold pieces that hang together further away."""
    run: list[tuple[int, Face]] = []
    for frame, face in sightings:
        if run and frame - run[-1][0] > gap:
            yield run
            run = []
        run.append((frame, face))
    yield run


def _settled(
    run: list[tuple[int, Face]], settings: Settings, scenes: NDArray[np.int64], size: tuple[int, int]
) -> Iterator[tuple[int, Face]]:
    at = np.array([frame for frame, _ in run])
    faces = [face for _, face in run]
    inner = np.arange(at[0], at[-1] + 1)
    boxes = _smooth(_between(inner, at, np.array([face.box for face in faces])), settings.smooth)
    points = _smooth(_between(inner, at, np.array([face.points.ravel() for face in faces])), settings.smooth)
    shapes = _shapes(inner, at, faces, settings)
    nearest = np.abs(inner[:, None] - at[None]).argmin(1) if len(run) < 64 else _nearest(inner, at)
    sighted = set(at.tolist())
    first, last = _reach(at, settings, scenes)
    for frame in range(first, last + 1):
        n = int(np.clip(frame - at[0], 0, len(inner) - 1))
        beyond = frame - int(inner[n])
        box, five = _moved(boxes, n, beyond), _moved(points, n, beyond).reshape(5, 2)
        middle = (box[:2] + box[2:]) / 2
        if beyond and not (0 <= middle[0] < size[0] and 0 <= middle[1] < size[1]):
            continue
        mesh = None if shapes is None or np.isnan(shapes[n, 0]) else _placed(shapes[n], box)
        source = faces[nearest[n]]
        face = replace(source, box=box, points=five)
        if frame not in sighted:
            face.score = 0.0
        if mesh is not None:
            face.mesh, face.mesh_score = mesh, source.mesh_score or _score(faces)
            if source.failure in _MENDED:
                face.failure = ""
        yield frame, face


def _nearest(inner: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    after = np.clip(np.searchsorted(at, inner), 0, len(at) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(inner - at[before]) <= np.abs(at[after] - inner), before, after)


def _score(faces: Sequence[Face]) -> float:
    return min((face.mesh_score for face in faces if face.mesh is not None), default=0.0)


def _reach(at: NDArray[np.int64], settings: Settings, scenes: NDArray[np.int64]) -> tuple[int, int]:
    """First and last frame in which the face is replaced, within its scene."""
    scene = scenes[at[0]]
    first, last = int(at[0]), int(at[-1])
    low, high = max(0, first - settings.extend), min(len(scenes) - 1, last + settings.extend)
    while first > low and scenes[first - 1] == scene:
        first -= 1
    while last < high and scenes[last + 1] == scene:
        last += 1
    return first, last


def _shapes(
    inner: NDArray[np.int64], at: NDArray[np.int64], faces: Sequence[Face], settings: Settings
) -> Floats | None:
    """Meshes [n, 468 * 3] relative to the face's box, NaN further than `gap` frames from one; None: there is none."""
    meshed = [n for n, face in enumerate(faces) if face.mesh is not None]
    have = [n for n in meshed if masks.agrees(faces[n])] or meshed  # others may lie on a neighbour's face
    if not have:
        return None
    relative = np.array([_relative(faces[n]) for n in have])
    shapes = _smooth(_between(inner, at[have], relative), settings.smooth)
    near = at[have][_nearest(inner, at[have])]
    shapes[np.abs(near - inner) > settings.gap] = np.nan
    return shapes


def _relative(face: Face) -> Floats:
    mesh = np.asarray(face.mesh, np.float32)
    middle, side = _place(face.box)
    moved = mesh / side
    moved[:, :2] -= middle / side
    return moved.ravel()


def _placed(shape: Floats, box: Floats) -> Floats:
    middle, side = _place(box)
    mesh = shape.reshape(-1, 3) * side
    mesh[:, :2] += middle
    return mesh


def _place(box: Floats) -> tuple[Floats, np.float32]:
    side = np.sqrt(np.prod(np.maximum(box[2:] - box[:2], 1)))
    return (box[:2] + box[2:]) / np.float32(2), np.float32(side)


def _between(inner: NDArray[np.int64], at: NDArray[np.int64], values: Floats) -> Floats:
    """Values [n, D] of every frame, on straight lines between those [S, D] of the sightings."""
    after = np.clip(np.searchsorted(at, inner), 0, len(at) - 1)
    before = np.maximum(after - (at[after] > inner), 0)
    span = np.maximum(at[after] - at[before], 1)
    share = (np.clip(inner - at[before], 0, span) / span).astype(np.float32)[:, None]
    share = np.where((at[after] == at[before])[:, None], np.float32(0), share)
    return values[before] + share * (values[after] - values[before])


def _smooth(values: Floats, radius: int) -> Floats:
    """Local parabolas (Savitzky and Golay 1964), Gaussian weights, over `radius` frames on each side, fewer at ends."""
    count = len(values)
    if radius < 1 or count < 3:
        return values
    result = np.empty_like(values)
    for n in range(count):
        low, high = max(0, n - radius), min(count, n + radius + 1)
        result[n] = _kernel(low - n, high - n, radius) @ values[low:high]
    return result


def _kernel(low: int, high: int, radius: int) -> Floats:
    offsets = np.arange(low, high, dtype=np.float64)
    weights = np.exp(-0.5 * (offsets / (0.6 * radius + 0.4)) ** 2)
    # a parabola where both sides are there, else a line: it would swing at the ends
    order = 2 if low < -1 and high > 2 else 1
    terms = np.vander(offsets, order + 1, increasing=True)
    return (np.linalg.pinv(terms * weights[:, None])[0] * weights).astype(np.float32)


def _moved(values: Floats, n: int, beyond: int) -> Floats:
    """Value of frame `n`, or `beyond` frames before (negative) or behind it, as it was moving there."""
    if not beyond:
        return values[n]
    back = min(_TREND, len(values) - 1)
    if not back:
        return values[n]
    step = (values[back] - values[0]) / back if beyond < 0 else (values[-1] - values[-1 - back]) / back
    moved = values[n] + beyond * step
    return moved.astype(np.float32)
