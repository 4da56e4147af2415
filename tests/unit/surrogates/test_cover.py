import numpy as np
import pytest

from deid import config
from deid.errors import FaceError
from deid.interfaces import Face
from deid.surrogates.cover import COLOUR, cover
from tests.unit.surrogates import drawn


def boxed(*box: float) -> Face:
    return Face(box=np.array(box, np.float32), score=1.0, points=np.zeros((5, 2), np.float32))


def changed(source, result):
    return (source != result).any(2)


@pytest.mark.parametrize("scale", [1.0, 1.3, 2.0])
def test_box_times_scale_is_solid(scale):
    source = np.zeros((200, 220, 3), np.uint8)
    result = cover(source, boxed(80, 60, 120, 110), config.Region(scale=scale))
    half = np.array([20, 25]) * max(scale, 1.3)
    y, x = np.mgrid[:200, :220]
    within = (abs(x - 100) <= half[0]) & (abs(y - 85) <= half[1])
    assert (result[within] == COLOUR).all()
    assert (result[(abs(x - 100) > half[0] + 3) | (abs(y - 85) > half[1] + 3)] == 0).all()
    assert not source.any()


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_outline_and_box_are_both_covered(scale):
    face = drawn.face((150, 150), 120)
    face.box = np.array([140, 140, 230, 160], np.float32)
    source = drawn.texture(300, 320, 1)
    result = cover(source, face, config.Region(scale=scale))
    assert (result[drawn.inside(face, scale, source.shape)] == COLOUR).all()
    assert (result[140:161, 140:231] == COLOUR).all()


@pytest.mark.parametrize(
    "box",
    [
        (-50, -40, 20, 30),
        (90, 90, 150, 180),
        (-500, 20, 5000, 60),
        (40, -1e7, 60, 1e7),
        (-1e9, -1e9, 1e9, 1e9),
    ],
)
def test_boxes_partly_outside(box):
    source = drawn.texture(100, 100, 1)
    result = cover(source, boxed(*box), config.Region())
    y, x = np.mgrid[:100, :100]
    within = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
    assert within.any()
    assert (result[within] == COLOUR).all()


@pytest.mark.parametrize(
    "box", [(50, 50, 51, 51), (50, 50, 50, 50), (51, 51, 50, 50), (99.6, 99.6, 100, 100), (0, 0, 0.2, 0.2)]
)
def test_boxes_of_a_pixel(box):
    source = drawn.texture(100, 100, 1)
    result = cover(source, boxed(*box), config.Region())
    assert 1 <= changed(source, result).sum() <= 40
    assert (result[min(int(box[1]), 99), min(int(box[0]), 99)] == COLOUR).all()


def test_box_outside_changes_nothing():
    source = drawn.texture(100, 100, 1)
    assert np.array_equal(cover(source, boxed(200, 200, 300, 300), config.Region()), source)


@pytest.mark.parametrize("damaged", [np.nan, np.inf])
def test_box_that_is_no_place_raises(damaged):
    with pytest.raises(FaceError):
        cover(drawn.texture(100, 100, 1), boxed(10, damaged, 40, 50), config.Region())


def test_damaged_mesh_does_not_stop_the_cover():
    face = drawn.face((50, 50), 40)
    face.mesh[:, 0] = np.nan
    source = drawn.texture(100, 100, 1)
    assert (cover(source, face, config.Region())[35:65, 38:62] == COLOUR).all()


def test_colour_tells_nothing_of_the_face():
    face = drawn.face((50, 50), 40)
    dark, light = (np.full((100, 100, 3), level, np.uint8) for level in (10, 240))
    where = drawn.inside(face, 1.3, dark.shape)
    results = [cover(source, face, config.Region())[where] for source in (dark, light)]
    assert np.array_equal(*results)
