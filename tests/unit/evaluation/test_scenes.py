import numpy as np
import pytest

from deid.evaluation import scenes

RED, GREEN = np.array([250, 0, 0]), np.array([0, 250, 0])


def picture(box, size=(600, 800), others=()):
    """Grey noise with a red face in it, and green ones."""
    made = np.random.default_rng(0).integers(90, 110, (*size, 3)).astype(np.uint8)
    for place, colour in ((box, RED), *((other, GREEN) for other in others)):
        x0, y0, x1, y1 = np.round(place).astype(int)
        made[max(y0, 0) : y1, max(x0, 0) : x1] = colour
    return made


def coloured(scene, colour):
    return (np.abs(scene.astype(int) - colour) < 60).all(axis=2)


@pytest.mark.parametrize(
    "box",
    [
        (300, 200, 380, 300),
        (0, 0, 60, 80),
        (740, 520, 800, 600),
        (100, 10, 500, 590),
        (395, 295, 405, 307),
        (200, 300, 500, 340),
    ],
)
def test_the_face_is_where_the_box_says(box):
    for seed in range(5):
        found, place = scenes.scene(picture(box), np.array(box, float), f"key {seed}")
        assert found.shape == (96, 96, 3)
        assert found.dtype == np.uint8
        assert (place[:2] >= 0).all()
        assert (place[2:] <= 96).all()
        wide, high = place[2:] - place[:2]
        assert high <= 48.5
        assert high >= 15.5 or wide > 90
        rows, columns = np.nonzero(coloured(found, RED))
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_allclose(seen, place, atol=1.6)


def test_the_window_is_the_same_for_a_result_and_another_one_for_another_key():
    box = np.array([300.0, 200, 380, 300])
    source = picture(box)
    result = source.copy()
    result[200:300, 300:380] = (0, 0, 250)
    one, place = scenes.scene(source, box, "a#0")
    same, again = scenes.scene(source, box, "a#0")
    other, elsewhere = scenes.scene(result, box, "a#0")
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(place, again)
    np.testing.assert_array_equal(place, elsewhere)
    x0, y0, x1, y1 = np.round(place).astype(int)
    outside = np.ones((96, 96), bool)
    outside[y0 - 2 : y1 + 2, x0 - 2 : x1 + 2] = False
    np.testing.assert_array_equal(one[outside], other[outside])
    assert coloured(one, RED).any()
    assert not coloured(other, RED).any()
    assert not np.allclose(scenes.scene(source, box, "b#0")[1], place)


def test_other_faces_and_mirrored_ones_are_filled():
    box, other = np.array([20.0, 20, 120, 140]), np.array([150.0, 20, 230, 120])
    made = picture(box, others=[other])
    for seed in range(8):
        found, place = scenes.scene(made, box, str(seed), others=np.array([other, [np.nan] * 4]))
        x0, y0, x1, y1 = np.round(place).astype(int)
        assert coloured(found, GREEN).sum() == 0
        red = coloured(found, RED)
        assert red[y0:y1, x0:x1].mean() > 0.8
        red[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2] = False
        assert red.mean() < 0.01


def test_positions_and_sizes_differ():
    box = np.array([350.0, 250, 410, 330])
    places = np.array([scenes.scene(picture(box), box, str(seed))[1] for seed in range(40)])
    heights = places[:, 3] - places[:, 1]
    assert heights.min() < 20
    assert heights.max() > 40
    assert places[:, 0].std() > 10


@pytest.mark.parametrize("box", [(1, 1, 1, 5), (5, 5, 2, 9), (np.nan, 0, 4, 4)])
def test_a_box_without_an_area_is_refused(box):
    with pytest.raises(ValueError, match="box with an area"):
        scenes.scene(np.zeros((50, 50, 3), np.uint8), np.array(box, float), "a")
