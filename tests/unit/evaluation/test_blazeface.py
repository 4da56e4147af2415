import numpy as np
import pytest
from skimage import data

from deid.evaluation.blazeface import SIDE, BlazeFace, decode
from deid.models.store import default_store


@pytest.fixture(scope="module")
def detector():
    return BlazeFace(default_store().files("blazeface"))


@pytest.fixture(scope="module")
def portrait():
    """The astronaut's head and shoulders; her face is about at x 95 to 165, y 80 to 165 of 300."""
    return np.ascontiguousarray(data.astronaut()[:300, 80:380])


def test_boxes_of_one_face_are_averaged_by_their_scores():
    raw, scores = np.zeros((896, 16)), np.zeros(896)
    raw[[0, 1, 895], 2:4] = SIDE / 4
    raw[1, :2] = SIDE / 32
    scores[[0, 1, 895]] = 0.6, 0.9, 0.7
    boxes = decode(raw, scores)
    assert len(boxes) == 2
    assert (boxes[0, :2] + boxes[0, 2:]) / 2 == pytest.approx([1 / 32 + 0.6 / 32] * 2)
    assert boxes[1] == pytest.approx([15 / 16 - 1 / 8] * 2 + [15 / 16 + 1 / 8] * 2)
    assert decode(raw, scores * 0.5).shape == (0, 4)


def test_the_face_is_where_it_is(detector, portrait):
    boxes = detector.boxes(portrait)
    assert len(boxes) == 1
    centre = (boxes[0, :2] + boxes[0, 2:]) / 2
    assert centre == pytest.approx([145, 120], abs=20)
    assert 60 < boxes[0, 2] - boxes[0, 0] < 130


def test_a_picture_that_is_not_square_gives_the_same_box(detector, portrait):
    whole = detector.boxes(portrait)[0]
    low = np.zeros((300, 400, 3), np.uint8)
    low[:, 60:360] = portrait
    assert detector.boxes(low)[0] == pytest.approx(whole + np.array([60, 0, 60, 0]), abs=12)


def test_no_face_no_box(detector):
    assert detector.boxes(np.full((200, 200, 3), 127, np.uint8)).shape == (0, 4)
