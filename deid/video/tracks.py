"""Which faces of consecutive frames are one person's: tracks, found when all frames have been searched.

A track that is cut in two loses what stands between its sightings, and the face would show there; two people in one
track share a surrogate. So a face is linked to what is near and not clearly someone else. No track crosses a scene cut.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from deid.interfaces import Picture

Numbers = NDArray[np.int64]
Floats = NDArray[np.float32]

SIGNATURE = (16, 9)  # px, width and height of a frame's signature
_CUT = 24.0  # levels of 255 by which the signatures on both sides of a cut differ, at least
_STANDS_OUT = 2.5  # times the median difference around
_AROUND = 4  # frames before and after
_FLASH = 4  # frames: what looks again as before within as many was no cut

_REACH, _REACH_KNOWN = (
    0.7,
    1.5,
)  # face sizes to where it is expected; if the embedding says that it is the same
_WIDER = 0.08  # more of it for each frame without a sighting
_OTHER = 1.3  # times `same`: someone else, unless it stands where it stood
_PUT = 0.35  # face sizes: where it stood
_GROWS = 2.0  # times, within a gap
_PACE = 0.5  # share of the newest step in the velocity
_COASTS = 8  # frames for which a lost face is expected to keep its velocity


@dataclass(frozen=True)
class Settings:
    """Args:
    same: embedding distance (Euclidean) up to which pictures are one person's (`deid.privacy.people.calibrated`).
    gap: frames without a sighting after which a track ends, at most.
    extend: frames before the first and after the last sighting in which the face is replaced, too.
    smooth: frames on each side over which places are smoothed; 0: none.
    """

    same: float
    gap: int = 25
    extend: int = 5
    smooth: int = 3


def signature(pixels: Picture) -> NDArray[np.uint8]:
    """What `cuts` compares of a frame [H, W, 3]: uint8 [9, 16, 3]. It shows the frame, hence is of the state alone."""
    return np.asarray(cv2.resize(pixels, SIGNATURE, interpolation=cv2.INTER_AREA), np.uint8)


def cuts(signatures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether a new scene begins with a frame, bool [F], of signatures [F, 9, 16, 3]; the first frame begins none.

    Quick movement all over the picture is no cut, and neither is a flash.
    """
    count = len(signatures)
    found = np.zeros(count, bool)
    if count < 2:
        return found
    steps = [_apart(signatures[n - 1], signatures[n]) for n in range(1, count)]
    for n, step in enumerate(steps):
        around = steps[max(0, n - _AROUND) : n] + steps[n + 1 : n + 1 + _AROUND]
        found[n + 1] = step >= max(_CUT, _STANDS_OUT * float(np.median(around)) if around else 0)
    for first in np.flatnonzero(found).tolist():
        for back in range(first + 1, min(count, first + _FLASH + 1)):
            again = _apart(signatures[first - 1], signatures[back]) < steps[first - 1] / 2
            if found[first] and found[back] and again:
                found[first : back + 1] = False
    return found


def _apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


class _Track:
    """A track while it grows."""

    __slots__ = ("centre", "embedding", "frame", "known", "number", "size", "velocity")

    def __init__(self, number: int, frame: int, centre: Floats, size: float, embedding: Floats) -> None:
        self.number, self.frame, self.centre, self.size = number, frame, centre, size
        self.velocity = np.zeros(2, np.float32)
        self.known = int(np.isfinite(embedding[:1]).all() and len(embedding) > 0)
        self.embedding = embedding if self.known else np.zeros_like(embedding)

    def expected(self, frame: int) -> Floats:
        return self.centre + self.velocity * np.float32(min(frame - self.frame, _COASTS))

    def add(self, frame: int, centre: Floats, size: float, embedding: Floats) -> None:
        step = (centre - self.centre) / np.float32(frame - self.frame)
        self.velocity = self.velocity + np.float32(_PACE) * (step - self.velocity)
        self.frame, self.centre, self.size = frame, centre, size
        if len(embedding) and np.isfinite(embedding[0]):
            self.known += 1
            self.embedding = self.embedding + (embedding - self.embedding) / np.float32(self.known)


def link(
    frames: Numbers, boxes: Floats, embeddings: Floats, breaks: NDArray[np.bool_], settings: Settings
) -> Numbers:
    """Track of each face, int64 [N], numbered from 0 in the order of their first sightings.

    Args:
        frames: [N] number of the frame, ascending.
        boxes: [N, 4] pixels.
        embeddings: [N, dim]; NaN where there is none.
        breaks: [F] as `cuts` gives them.
    """
    found = np.full(len(frames), -1, np.int64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / np.float32(2)
    sizes = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1), axis=1)).astype(np.float32)
    scenes = np.cumsum(breaks)
    live: list[_Track] = []
    count, scene = 0, 0
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    for start, stop in zip(starts, np.append(starts, len(frames))[1:], strict=True):
        frame = int(frames[start])
        live = (
            [track for track in live if frame - track.frame <= settings.gap] if scenes[frame] == scene else []
        )
        scene = scenes[frame]
        here = np.arange(start, stop)
        rows, columns = _pairs(live, frame, centres[here], sizes[here], embeddings[here], settings.same)
        for row, column in zip(rows, columns, strict=True):
            face = here[column]
            live[row].add(frame, centres[face], float(sizes[face]), embeddings[face])
            found[face] = live[row].number
        for face in here[found[here] < 0]:
            live.append(_Track(count, frame, centres[face], float(sizes[face]), embeddings[face]))
            found[face], count = count, count + 1
    return found


def _pairs(
    live: list[_Track], frame: int, centres: Floats, sizes: Floats, embeddings: Floats, same: float
) -> tuple[Numbers, Numbers]:
    """Tracks and faces of a frame that belong together, each at most once, at the least cost (Kuhn 1955)."""
    if not live:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    waited = np.array([[frame - track.frame] for track in live], np.float32)
    before = np.array([[track.size] for track in live], np.float32)
    places = np.array([track.expected(frame) for track in live])
    away = np.linalg.norm(places[:, None] - centres[None], axis=2) / np.maximum(before, sizes[None])
    means = np.array([track.embedding for track in live])
    unlike = np.linalg.norm(means[:, None] - embeddings[None], axis=2) / same
    unlike[[track.known == 0 for track in live]] = np.nan
    known = ~np.isnan(unlike)
    unlike = np.where(known, unlike, 1.0)
    reach = np.where(known & (unlike < 1), _REACH_KNOWN, _REACH) + _WIDER * (waited - 1)
    grown = np.maximum(before / sizes, sizes / before)
    put = (away < _PUT) & (waited <= 2)
    fits = (away < reach) & (grown < _GROWS) & ((unlike < _OTHER) | put)
    cost = np.where(fits, away / reach + 0.5 * np.minimum(unlike, 2), 1e3)
    rows, columns = linear_sum_assignment(cost)
    keep = fits[rows, columns]
    return rows[keep], columns[keep]


def pooled(tracks: Numbers, values: Floats, weights: Floats, count: int) -> Floats:
    """Robust mean of the values [N, D] of each track, [count, D]; NaN where it has none.

    Of a track's values with the highest weight of all (1: it can be relied on, 0: it cannot) those count that are
    not much farther from their median than most; the mean is as long as they are on average.

    Args:
        weights: [N] 0..1.
    """
    result = np.full((count, values.shape[1]), np.nan, np.float32)
    usable = np.asarray(np.isfinite(values).all(1))
    order = np.argsort(tracks, kind="stable")
    bounds = np.searchsorted(tracks[order], np.arange(count + 1))
    for track in range(count):
        own = order[bounds[track] : bounds[track + 1]]
        own = own[usable[own]]
        if not len(own):
            continue
        own = own[weights[own] >= weights[own].max()]
        chosen = values[own]
        far = np.linalg.norm(chosen - np.median(chosen, axis=0), axis=1)
        chosen = chosen[far <= 1.5 * np.median(far) + 1e-6]
        mean = chosen.mean(0)
        length = float(np.linalg.norm(mean))
        wanted = float(np.linalg.norm(chosen, axis=1).mean())
        result[track] = mean * (wanted / length if length > 1e-6 else 1.0)
    return result


def switches(tracks: Iterable[int], people: Iterable[int]) -> int:
    """How often a person's track changes from one sighting to the next (a measure for tests)."""
    last: dict[int, int] = {}
    changed = 0
    for track, person in zip(tracks, people, strict=True):
        changed += last.setdefault(person, track) != track
        last[person] = track
    return changed
