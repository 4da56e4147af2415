import cv2
import numpy as np
import pytest

from deid.faces import segment
from deid.gallery import store
from tests.unit.surrogates import drawn


def test_the_frame_is_where_the_gallerys_mean_face_stands():
    mean = store.load(None).meshes.mean(0)
    assert np.abs(mean[list(segment.ANCHORS), :2] - segment.FRAME).max() < 0.02


@pytest.mark.parametrize("turn", [0.0, 0.7, np.pi])
@pytest.mark.parametrize("height", [12, 150])
def test_every_face_stands_alike_on_its_chip(turn, height):
    here = segment.frame(drawn.mesh((300, 200), height, turn=turn))
    there = segment.frame(drawn.mesh((0, 0), 100))
    anchors = list(segment.ANCHORS)
    found, expected = (
        drawn.mesh(*where)[anchors, :2] @ matrix[:, :2].T + matrix[:, 2]
        for where, matrix in ((((300, 200), height, None, turn), here), (((0, 0), 100), there))
    )
    assert np.abs(found - expected).max() < 0.01
    assert here[0, 0] == pytest.approx(here[1, 1])
    assert here[0, 1] == pytest.approx(-here[1, 0])


def test_a_chip_shows_the_whole_generated_picture_and_more():
    side = 64
    mesh = np.zeros((468, 2))
    mesh[list(segment.ANCHORS)] = segment.FRAME * side
    matrix = segment.frame(mesh)
    corners = np.array([[0, 0], [side, side]]) @ matrix[:, :2].T + matrix[:, 2]
    assert (corners > 0).all()
    assert (corners < segment.INPUT).all()
    assert corners[1, 0] - corners[0, 0] == pytest.approx(segment.INPUT / segment.SPAN)
    assert corners[0, 1] == pytest.approx(segment.ABOVE * segment.INPUT)


@pytest.mark.parametrize("side", [64, 256, 1024])
def test_a_picture_as_a_chip_is_whole(side):
    """Borders of the outermost pixels meet the borders of the chip."""
    matrix = segment.whole(side)
    borders = np.array([[-0.5, -0.5], [side - 0.5, side - 0.5]]) @ matrix[:, :2].T + matrix[:, 2]
    assert np.allclose(borders, [[-0.5, -0.5], [segment.INPUT - 0.5, segment.INPUT - 0.5]])


def test_a_chip_repeats_the_border_of_the_picture():
    picture = np.full((60, 60, 3), (10, 200, 90), np.uint8)
    chip = segment.head_chip(picture, drawn.mesh((30, 30), 50))
    assert chip.shape == (segment.INPUT, segment.INPUT, 3)
    assert (chip == (10, 200, 90)).all()


def test_a_chip_is_the_picture_under_the_frame():
    picture, mesh = drawn.texture(300, 300, 1), drawn.mesh((150, 150), 120, turn=0.3)
    chip = segment.head_chip(picture, mesh)
    expected = cv2.warpAffine(
        picture, segment.frame(mesh), chip.shape[1::-1], borderMode=cv2.BORDER_REPLICATE
    )
    assert np.abs(chip.astype(int) - expected).max() <= 2


def test_points_that_coincide_have_no_frame():
    with pytest.raises(ValueError, match="coincide"):
        segment.frame(np.zeros((468, 3)))
    with pytest.raises(ValueError, match="finite"):
        segment.frame(np.full((468, 3), np.nan))
