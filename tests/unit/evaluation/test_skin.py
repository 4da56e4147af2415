import cv2
import numpy as np
import pytest

from deid.evaluation import skin
from deid.surrogates import masks


@pytest.fixture
def mesh():
    """All points in the middle of a disk of skin of 60 px around (100, 100), but for outline, eyes, lips and brows."""
    points = np.full((468, 3), 100.0)
    turn = np.linspace(0, 2 * np.pi, len(masks.OVAL), endpoint=False) - np.pi / 2
    points[masks.OVAL, :2] += 60 * np.stack([np.cos(turn), np.sin(turn)], 1)
    for polygon, centre in (
        (masks.EYES[0], (75, 85)),
        (masks.EYES[1], (125, 85)),
        (masks.LIPS, (100, 130)),
    ):
        around = np.linspace(0, 2 * np.pi, len(polygon), endpoint=False)
        points[polygon, :2] = centre + 8 * np.stack([np.cos(around), np.sin(around)], 1)
    for brow, centre in zip(skin.BROWS, ((125, 70), (75, 70)), strict=True):
        points[brow, :2] = centre + np.stack([np.linspace(-10, 10, 10), np.tile([2, -2], 5)], 1)
    return points


def test_the_mask_is_skin_alone(mesh):
    mask = skin.skin_mask((200, 200, 3), mesh)
    assert mask[100, 100]
    assert mask[140, 120]
    for x, y in ((75, 85), (125, 85), (100, 130), (75, 70), (125, 70), (10, 10)):
        assert not mask[y, x]


def test_the_tone_is_the_skin_s_whatever_the_rest(mesh):
    lab = np.array([65.0, 12.0, 18.0], np.float32)
    rgb = cv2.cvtColor(lab[None, None], cv2.COLOR_LAB2RGB)[0, 0]
    picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    picture[skin.skin_mask(picture.shape, mesh)] = np.round(rgb * 255)
    picture[95:105, 90:110] = 0  # a mole
    assert skin.skin_lab(picture, mesh) == pytest.approx(lab, abs=0.5)
    assert skin.ita(skin.skin_lab(picture, mesh)) == pytest.approx(np.degrees(np.arctan2(15, 18)), abs=1.5)


def test_a_face_outside_the_picture_has_no_tone(mesh):
    assert np.isnan(skin.skin_lab(np.zeros((200, 200, 3), np.uint8), mesh + 500)).all()
    assert np.isnan(skin.ita(np.full(3, np.nan)))


@pytest.mark.parametrize(
    ("angle", "name"),
    [(60, "very light"), (55, "light"), (35, "intermediate"), (20, "tan"), (0, "brown"), (-30, "dark")],
)
def test_bands(angle, name):
    assert skin.band(angle) == name


def test_no_angle_is_no_band():
    assert skin.band(float("nan")) == "unknown"
    assert skin.band(-80) == "dark"
