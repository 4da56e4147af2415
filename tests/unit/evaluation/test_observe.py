import numpy as np
import pytest

from deid.evaluation.controls import GREY, grey_head
from deid.evaluation.observe import WINDOW, Observation, Observer
from deid.interfaces import Detections, Face

POINTS = np.array([[40, 40], [60, 40], [50, 50], [42, 60], [58, 60]], np.float32)


class Parts:
    """Every measuring model in one, each with a plain answer; a black picture has no face."""

    name, metric, dim = "one", "cosine", 128
    mesh_probability = 1.0

    def __init__(self):
        turn = np.linspace(0, 2 * np.pi, 468, endpoint=False)
        ring = np.stack([50 + 30 * np.cos(turn), 50 + 40 * np.sin(turn), np.zeros(468)], 1)
        self.ring = ring.astype(np.float32)

    def detect(self, pictures):
        some = [2 if picture.any() else 0 for picture in pictures]
        boxes = np.array([[0, 0, 5, 5], [20, 10, 80, 90]], np.float32)
        scores = np.array([0.9, 0.8], np.float32)
        return [Detections(boxes[:n], scores[:n], np.stack([POINTS] * 2)[:n]) for n in some]

    def mesh(self, picture, detections):
        return self.ring[None], np.array([self.mesh_probability], np.float32)

    def boxes(self, picture):
        return np.array([[0, 0, 9, 9], [10, 10, 90, 90.0]])[: 2 if picture.any() else 0]

    def probabilities(self, picture, mesh):
        return np.eye(7, dtype=np.float32)[3]

    def embed(self, pictures, faces=None):
        if isinstance(pictures, list):
            return [np.full((1, 128), 0.01 if faces[0][0].mesh is not None else 0.02, np.float32)]
        return np.full(4, float(pictures.mean()), np.float32)


@pytest.fixture
def parts():
    return Parts()


@pytest.fixture
def observer(parts):
    return Observer(parts, parts, parts, parts, parts, [parts])


@pytest.fixture
def picture():
    return np.full((100, 100, 3), 180, np.uint8)


def test_the_largest_face_is_observed(observer, picture):
    seen = observer.observe(picture)
    assert seen.score == pytest.approx(0.8)
    assert seen.box.tolist() == [10, 10, 90, 90]
    assert seen.mesh.shape == (468, 3)
    assert seen.lab[0] > 70
    assert seen.expression[3] == 1
    assert 0 <= seen.sex <= 1
    assert 0 <= seen.age <= 100
    assert seen.vectors["one"].tolist() == [180.0] * 4


def test_no_face_is_nothing_observed(observer):
    seen = observer.observe(np.zeros((100, 100, 3), np.uint8))
    assert (seen.score, seen.mesh_score, seen.vectors, seen.face) == (0.0, 0.0, {}, None)
    assert np.isnan(seen.box).all()
    assert np.isnan(seen.mesh).all()


def test_a_mesh_that_is_not_trusted_counts_for_nothing(observer, parts, picture):
    parts.mesh_probability = 0.2
    seen = observer.observe(picture)
    assert seen.mesh_score == 0
    assert np.isnan(seen.mesh).all()
    assert np.isfinite(seen.sex)
    assert seen.vectors


def test_a_grey_head_is_seen_where_the_face_was(observer, picture):
    before = observer.observe(picture)
    covered = grey_head(picture, before.mesh, 1.0)
    assert (covered[50, 50] == GREY).all()
    assert (covered[2, 2] == 180).all()
    assert (picture == 180).all()
    seen = observer.observe(np.zeros_like(picture), before.face)
    assert seen.score == before.score
    assert seen.vectors["one"].tolist() == [0.0] * 4


def test_a_grey_head_grows_with_its_scale(picture, parts):
    areas = [(grey_head(picture, parts.ring, scale) == GREY).all(axis=2).sum() for scale in (1.0, 1.2)]
    assert areas[1] / areas[0] == pytest.approx(1.44, rel=0.05)


def test_an_empty_observation_is_of_no_face():
    assert Observation().face is None


def test_faces_are_observed_at_their_places(observer, picture):
    places = [
        Face(np.array(box, np.float32), 1.0, POINTS)
        for box in ([22, 12, 82, 92], [0, 0, 5, 5], [40, 0, 60, 9])
    ]
    first, second, third = observer.observe_at(picture, places)
    assert first.score == pytest.approx(0.8)
    assert second.score == pytest.approx(0.9)
    assert third.score == 0
    assert np.isnan(third.mesh).all()
    assert np.isnan(third.sharpness)
    assert third.vectors["one"].tolist() == [180.0] * 4
    assert third.chip.shape == first.chip.shape == (64, 64, 3)


def test_a_face_without_a_mesh_is_attacked_at_its_place(observer, parts, picture, monkeypatch):
    parts.mesh_probability = 0.2
    asked = []
    monkeypatch.setattr(parts, "embed", lambda pictures, faces=None: _noted(asked, pictures, faces))
    place = Face(np.array([22, 12, 82, 92], np.float32), 1.0, POINTS + 1)
    seen = observer.observe_at(picture, [place])[0]
    assert seen.score == pytest.approx(0.8)
    assert asked[-1] is place


def _noted(asked, pictures, faces):
    if isinstance(pictures, list):
        return [np.full((1, 128), 0.01, np.float32)]
    asked.append(faces)
    return np.zeros(4, np.float32)


def test_the_second_detector_looks_around_the_place(observer, parts, monkeypatch):
    picture = np.full((1000, 1000, 3), 180, np.uint8)
    shapes = []
    found = np.array([[35, 35, 75, 75], [0, 0, 90, 20.0]])
    monkeypatch.setattr(parts, "boxes", lambda part: shapes.append(part.shape) or found)
    place = Face(np.array([500, 500, 540, 540], np.float32), 1.0, POINTS + 480)
    seen = observer.observe_at(picture, [place])[0]
    assert shapes == [(2 * WINDOW * 40, 2 * WINDOW * 40, 3)]
    assert np.isnan(seen.box).all()  # what it found lies beside the face
    found[0] += 25
    assert observer.observe_at(picture, [place])[0].box.tolist() == [500, 500, 540, 540]


def test_no_places_are_not_looked_at(observer, parts, picture, monkeypatch):
    monkeypatch.setattr(parts, "detect", lambda pictures: pytest.fail("nobody is there"))
    assert observer.observe_at(picture, []) == []


def test_control_faces_are_taken_as_they_are(observer, picture):
    place = Face(np.array([22, 12, 82, 92], np.float32), 0.7, POINTS)
    seen = observer.observe_known(np.zeros_like(picture), [place])[0]
    assert seen.score == pytest.approx(0.7)
    assert np.isnan(seen.box).all()
    assert seen.vectors["one"].tolist() == [0.0] * 4
