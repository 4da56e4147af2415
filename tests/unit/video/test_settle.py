"""Settled faces: none missing, none jumping, the same by units as for the whole."""

import numpy as np
import pytest
from numpy.typing import NDArray

from deid.interfaces import Face
from deid.video.settle import margin, settle
from deid.video.tracks import Settings, link, pooled
from tests.unit.video.walks import DIM, SAME, Walk, faces, line, walk

SETTINGS = Settings(SAME)
SIZE = (1000, 600)
Settled = dict[int, list[tuple[int, Face]]]


def whole(
    walked: Walk, count: int, breaks: NDArray[np.bool_] | None = None, settings: Settings = SETTINGS
) -> Settled:
    return settled(walked, count, [(0, count)], breaks, settings)


def settled(
    walked: Walk,
    count: int,
    units: list[tuple[int, int]],
    breaks: NDArray[np.bool_] | None = None,
    settings: Settings = SETTINGS,
) -> Settled:
    breaks = np.zeros(count, bool) if breaks is None else breaks
    tracks = link(walked.frames, walked.boxes, walked.embeddings, breaks, settings)
    vectors = pooled(tracks, walked.embeddings, np.ones(len(tracks), np.float32), int(tracks.max()) + 1)
    result: Settled = {}
    for start, stop in units:
        around: dict[int, list[tuple[int, Face]]] = {}
        for n in np.flatnonzero(
            (walked.frames >= start - margin(settings)) & (walked.frames < stop + margin(settings))
        ):
            around.setdefault(int(walked.frames[n]), []).append((int(tracks[n]), faces(walked, n)))
        result |= settle(around, start, stop, breaks, SIZE, settings, vectors)
    return result


def middles(result: Settled) -> NDArray[np.float64]:
    return np.array(
        [(face.box[:2] + face.box[2:]) / 2 for frame in sorted(result) for _, face in result[frame]]
    )


def test_every_frame_has_the_face() -> None:
    """Half of the sightings are missing; box, points, mesh and embedding are there in each frame, where they belong."""
    path = line((150, 100), (800, 500), 80, 150)
    walked = walk({0: path}, np.random.default_rng(0), missing=0.5)
    assert len(walked.frames) < 90
    result = whole(walked, 150)
    assert all(len(result[frame]) == 1 for frame in range(150))
    assert np.abs(middles(result) - path[:, :2]).max() < 0.15 * 80
    for frame, ((_, face),) in result.items():
        assert face.mesh is not None
        assert face.embedding is not None
        assert (face.score == 0) == (frame not in walked.frames)
        span = face.mesh[:, :2].max(0) - face.mesh[:, :2].min(0)
        assert np.allclose(span, face.box[2:] - face.box[:2], rtol=0.15)
        assert (np.abs(face.points.mean(0) - (face.box[:2] + face.box[2:]) / 2) < 12).all()
    assert (
        len({face.embedding.tobytes() for ((_, face),) in result.values() if face.embedding is not None}) == 1
    )


def test_before_and_after_but_not_outside() -> None:
    path = np.full((100, 3), np.nan)
    path[40:60] = line((500, 300), (600, 300), 60, 20)
    result = whole(walk({0: path}, np.random.default_rng(0), jitter=0.0), 100)
    there = [frame for frame in result if result[frame]]
    assert there == list(range(40 - SETTINGS.extend, 60 + SETTINGS.extend))
    step = 100 / 19
    assert np.allclose(middles(result)[:, 0], 500 + step * np.arange(-5, 25), atol=1)
    path[40:60] = line((900, 300), (998, 300), 60, 20)
    result = whole(walk({0: path}, np.random.default_rng(0), jitter=0.0), 100)
    assert max(frame for frame in result if result[frame]) == 59


def test_hidden_behind_another() -> None:
    """He gets nothing while another's face is before his, and is filled in on both sides of it."""
    front, behind = line((500, 300), (500, 300), 100, 40), line((400, 300), (600, 300), 70, 40)
    behind[9:31] = np.nan
    result = whole(walk({0: front, 1: behind}, np.random.default_rng(0), jitter=0.0), 40)
    counts = [len(result[frame]) for frame in range(40)]
    hidden = [frame for frame in range(40) if counts[frame] == 1]
    assert hidden == list(range(hidden[0], hidden[-1] + 1))
    assert 9 < hidden[0] < 18 < 22 < hidden[-1] < 30
    assert all(face.score for frame in hidden for _, face in result[frame])


def test_stops_at_a_cut() -> None:
    breaks = np.zeros(60, bool)
    breaks[[20, 40]] = True
    path = np.full((60, 3), np.nan)
    path[22:37] = line((500, 300), (520, 300), 60, 15)
    result = whole(walk({0: path}, np.random.default_rng(0)), 60, breaks)
    assert [frame for frame in result if result[frame]] == list(range(20, 40))


def test_smoothing_calms_and_does_not_lag() -> None:
    rng = np.random.default_rng(0)
    turns = np.arange(200) / 30 * 2 * np.pi
    path = np.column_stack([500 + 120 * np.sin(turns), 300 + 40 * np.cos(turns), np.full(200, 100)])
    walked = walk({0: path}, rng, jitter=0.02)
    rough, calm = (
        middles(whole(walked, 200, settings=Settings(SAME, smooth=radius)))[10:-10] for radius in (0, 3)
    )
    truth = path[10:-10, :2]

    def shake(places: NDArray[np.float64]) -> float:
        return float(np.abs(np.diff(places - truth, n=2, axis=0)).mean())

    assert shake(calm) < 0.4 * shake(rough)
    assert np.abs(calm - truth).mean() < np.abs(rough - truth).mean()


def test_units_settle_as_the_whole() -> None:
    rng = np.random.default_rng(2)
    paths = {n: line((100, 100 + 120 * n), (900, 130 + 120 * n), 60, 240) for n in range(3)}
    paths[1][70:90] = np.nan
    walked = walk(paths, rng, missing=0.4)
    once = whole(walked, 240)
    by_units = settled(walked, 240, [(0, 80), (80, 81), (81, 160), (160, 240)])
    assert list(once) == list(by_units)
    for frame in once:
        assert [track for track, _ in once[frame]] == [track for track, _ in by_units[frame]]
        for (_, one), (_, other) in zip(once[frame], by_units[frame], strict=True):
            assert np.allclose(one.box, other.box, atol=1e-3)
            assert one.mesh is not None
            assert other.mesh is not None
            assert np.allclose(one.mesh, other.mesh, atol=1e-3)


@pytest.mark.parametrize("mesh", ["some", "none"])
def test_failed_meshes_are_made_up_for(mesh: str) -> None:
    walked = walk({0: line((300, 300), (400, 300), 80, 30)}, np.random.default_rng(0))
    given: dict[int, list[tuple[int, Face]]] = {}
    for n in range(30):
        face = faces(walked, n)
        if mesh == "none" or n % 3:
            face.mesh, face.mesh_score, face.failure = None, 0.0, "mesh_failed"
        given[n] = [(0, face)]
    nothing = np.full((1, DIM), np.nan, np.float32)
    result = settle(given, 0, 30, np.zeros(30, bool), SIZE, SETTINGS, nothing)
    for ((_, face),) in result.values():
        assert (face.mesh is None) == (mesh == "none")
        assert face.failure == ("mesh_failed" if mesh == "none" else "")
        assert face.embedding is not None
    assert given[1][0][1].failure == "mesh_failed"  # what was given stays as it was
