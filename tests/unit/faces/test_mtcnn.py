"""The cascade on a public-domain portrait, and its arithmetic."""

import numpy as np
import pytest
import skimage.data

from deid.faces import mtcnn
from deid.faces.merge import overlaps
from deid.faces.mtcnn import MTCNN
from deid.interfaces import Picture
from deid.models.store import default_store

BOX = np.array([183, 65, 271, 179], np.float32)  # of the face in the portrait, px
POINTS = np.array([[206, 102], [248, 106], [225, 127], [205, 144], [241, 146]], np.float32)


@pytest.fixture(scope="module")
def detector() -> MTCNN:
    return MTCNN(default_store().files("mtcnn"))


@pytest.fixture(scope="module")
def portrait() -> Picture:
    picture: Picture = skimage.data.astronaut()
    return picture


def test_portrait_has_one_face_with_its_points(detector: MTCNN, portrait: Picture) -> None:
    found = detector.detect(portrait, height=40)
    assert len(found) == 1
    assert overlaps(BOX, found.boxes)[0][0] > 0.75
    assert found.scores[0] > 0.95
    assert np.abs(found.points[0] - POINTS).max() < 7
    assert (found.boxes.dtype, found.scores.dtype, found.points.dtype) == (np.float32,) * 3


def test_tiles_change_nothing(detector: MTCNN, portrait: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = detector.detect(portrait, height=30)
    monkeypatch.setattr(mtcnn, "TILE", 100)
    tiled = detector.detect(portrait, height=30)
    assert len(whole) == len(tiled) == 1
    assert overlaps(whole.boxes[0], tiled.boxes)[0][0] > 0.85


def test_a_face_is_told_from_its_surroundings(detector: MTCNN, portrait: Picture) -> None:
    boxes = np.array([BOX, [10, 10, 110, 110], [400, 20, 460, 90]], np.float32)
    found = detector.judge(portrait, boxes)
    assert len(found) == 3
    assert found.scores[0] > 0.99
    assert found.scores[1:].max() < 0.1
    assert np.abs(found.points[0] - POINTS).max() < 7


def test_no_boxes_and_tiny_pictures_give_nothing(detector: MTCNN) -> None:
    none = detector.judge(np.zeros((40, 40, 3), np.uint8), np.empty((0, 4), np.float32))
    assert (none.boxes.shape, none.scores.shape, none.points.shape) == ((0, 4), (0,), (0, 5, 2))
    for shape in [(1, 1), (2, 900), (50, 80)]:
        assert len(detector.detect(np.zeros((*shape, 3), np.uint8))) == 0


def test_square_keeps_centre_and_longer_side() -> None:
    boxes = mtcnn.square(np.array([[0, 0, 10, 20], [5, 5, 9, 7]], np.float32))
    np.testing.assert_allclose(boxes, [[-5, 0, 15, 20], [5, 4, 9, 8]])


def test_shifts_are_in_sides_of_the_box() -> None:
    boxes = np.array([[10, 20, 20, 40]], np.float32)
    moved = mtcnn.shifted(boxes, np.array([[0.1, -0.1, 0.2, 0.5]], np.float32))
    np.testing.assert_allclose(moved, [[11, 18, 22, 50]])


def test_cut_holds_the_box_alone() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:20, 30:40] = 200
    assert (mtcnn.cut(picture, np.array([30, 10, 40, 20]), 10) == 200).all()
    beyond = mtcnn.cut(picture, np.array([35, 10, 45, 20]), 10)
    assert (beyond[:, :5] == 200).all()
    assert (beyond[:, 5:] == 0).all()


def test_suppress_keeps_the_best_of_boxes_that_overlap_too_much() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]], np.float32)
    assert mtcnn.suppress(boxes, np.array([0.5, 0.9, 0.7]), 0.5).tolist() == [1, 2]
    assert mtcnn.suppress(boxes, np.array([0.5, 0.9, 0.7]), 0.9).tolist() == [1, 2, 0]
