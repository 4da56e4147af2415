"""Tracks: one person one track, through misses, crossings, and no further than a cut."""

import time

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deid.video.tracks import Settings, cuts, link, pooled, signature, switches
from tests.unit.video.walks import DIM, SAME, Walk, embedding, line, walk

SETTINGS = Settings(SAME)


def linked(walked: Walk, count: int, breaks: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    none = np.zeros(count, bool)
    return link(walked.frames, walked.boxes, walked.embeddings, none if breaks is None else breaks, SETTINGS)


@pytest.mark.parametrize("unknown", [0.0, 0.3, 1.0])
def test_one_track_through_misses(unknown: float) -> None:
    """A third of the sightings are missing, and some or all embeddings."""
    rng = np.random.default_rng(1)
    paths = {n: line((100, 80 + 150 * n), (900, 120 + 150 * n), 60, 200) for n in range(4)}
    walked = walk(paths, rng, missing=0.33, unknown=unknown)
    tracks = linked(walked, 200)
    assert len(set(tracks.tolist())) == 4
    assert switches(tracks.tolist(), walked.people.tolist()) == 0


@pytest.mark.parametrize("seed", range(5))
def test_crossing(seed: int) -> None:
    """Two pass each other; the one behind is not seen while the other is before him."""
    paths = {0: line((100, 200), (800, 210), 80, 120), 1: line((800, 205), (100, 200), 80, 120)}
    hidden = np.abs(paths[0][:, 0] - paths[1][:, 0]) < 60
    paths[1][hidden] = np.nan
    walked = walk(paths, np.random.default_rng(seed), missing=0.1)
    tracks = linked(walked, 120)
    assert switches(tracks.tolist(), walked.people.tolist()) == 0


def test_leaving_and_another_enters() -> None:
    """At the same place, within the gap: the embedding says that it is someone else."""
    gone, come = (np.full((60, 3), np.nan) for _ in range(2))
    gone[:25], come[33:] = line((300, 200), (320, 200), 70, 25), line((325, 200), (350, 200), 70, 27)
    walked = walk({0: gone, 1: come}, np.random.default_rng(0))
    tracks = linked(walked, 60)
    assert set(tracks[walked.people == 0].tolist()).isdisjoint(tracks[walked.people == 1].tolist())
    assert len(set(tracks.tolist())) == 2


def test_longer_than_the_gap_is_another_track() -> None:
    path = line((300, 200), (300, 200), 70, 100)
    path[30 : 30 + SETTINGS.gap] = np.nan
    assert linked(walk({0: path}, np.random.default_rng(0)), 100).max() == 1
    path = line((300, 200), (300, 200), 70, 100)
    path[30 : 30 + SETTINGS.gap - 1] = np.nan
    assert linked(walk({0: path}, np.random.default_rng(0)), 100).max() == 0


def test_nothing_crosses_a_cut() -> None:
    walked = walk({0: line((300, 200), (300, 200), 70, 50)}, np.random.default_rng(0))
    breaks = np.zeros(50, bool)
    breaks[20] = True
    assert linked(walked, 50, breaks).tolist() == [0] * 20 + [1] * 30


def test_quick_and_the_same_each_time() -> None:
    rng = np.random.default_rng(5)
    paths = {n: line((60 + 170 * n, 100), (100 + 170 * n, 600), 60, 1000) for n in range(10)}
    walked = walk(paths, rng, missing=0.1)
    begin = time.process_time()
    first = linked(walked, 1000)
    assert time.process_time() - begin < 2
    assert np.array_equal(first, linked(walked, 1000))
    assert switches(first.tolist(), walked.people.tolist()) == 0


def test_no_faces() -> None:
    empty = link(
        np.zeros(0, np.int64),
        np.zeros((0, 4), np.float32),
        np.zeros((0, DIM), np.float32),
        np.zeros(9, bool),
        SETTINGS,
    )
    assert empty.shape == (0,)


def scene(seed: int, count: int, shift: int) -> list[NDArray[np.uint8]]:
    """A camera that pans over a landscape of its own."""
    rng = np.random.default_rng(seed)
    wide = cv2.resize(rng.integers(0, 255, (6, 24, 3)).astype(np.uint8), (1200, 180))
    return [wide[:, n * shift : n * shift + 320] for n in range(count)]


@pytest.mark.parametrize("shift", [0, 2, 12])
def test_cuts_between_scenes_alone(shift: int) -> None:
    """Still, slow, and quick: 12 of 320 px a frame."""
    frames = [frame for seed in range(3) for frame in scene(seed, 30, shift)]
    found = cuts(np.array([signature(frame) for frame in frames]))
    assert np.flatnonzero(found).tolist() == [30, 60]


def test_flash_is_no_cut() -> None:
    frames = scene(0, 40, 1)
    for number in (15, 16):
        frames[number] = np.full_like(frames[number], 250)
    assert not cuts(np.array([signature(frame) for frame in frames])).any()


def test_fade_and_single_frames() -> None:
    first, second = scene(0, 1, 0)[0].astype(float), scene(1, 1, 0)[0].astype(float)
    fade = [(first * (1 - t) + second * t).astype(np.uint8) for t in np.linspace(0, 1, 25)]
    assert not cuts(np.array([signature(frame) for frame in fade])).any()
    assert cuts(np.array([signature(fade[0])])).tolist() == [False]


def test_pooled_is_robust() -> None:
    """One face in five was someone else's, or blurred."""
    rng = np.random.default_rng(0)
    good = np.array([embedding(0, rng) for _ in range(40)])
    bad = np.array([embedding(1 + n, rng) for n in range(10)])
    values = np.concatenate([good, bad, np.full((3, DIM), np.nan, np.float32)])
    mean, none, single = pooled(
        np.array([0] * 52 + [2]), np.concatenate([values[:52], good[:1]]), np.ones(53, np.float32), 3
    )
    truth = embedding(0, rng, 0.0)
    assert np.linalg.norm(mean - truth) < 0.1 < 0.15 < np.linalg.norm(values[:50].mean(0) - truth)
    assert np.isnan(none).all()
    assert np.allclose(single, good[0], atol=1e-6)


def test_pooled_by_weight() -> None:
    rng = np.random.default_rng(0)
    values = np.array([embedding(n, rng) for n in range(4)])
    weights = np.array([0, 1, 0, 0], np.float32)
    assert np.allclose(pooled(np.zeros(4, np.int64), values, weights, 1)[0], values[1], atol=1e-6)
