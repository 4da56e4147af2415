import cv2
import numpy as np
import pytest

from deid.surrogates import matting
from tests.unit.surrogates import drawn

FRONT, BACK = np.float32([200, 140, 110]), np.float32([40, 90, 180])


def step(side: int = 96, at: int = 48) -> np.ndarray:
    """A picture of two colours that meet at a column, with a little noise."""
    picture = np.broadcast_to(BACK, (side, side, 3)).copy()
    picture[:, :at] = FRONT
    noise = np.random.default_rng(0).normal(0, 2, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_masks_stay(value):
    masks = np.full((60, 70, 2), value, np.float32)
    found = matting.refine(drawn.texture(60, 70, 1), masks)
    assert found.shape == masks.shape
    assert np.abs(found - value).max() < 2e-3


@pytest.mark.parametrize("shift", [-1, 0, 1, 2])
def test_edges_snap_to_the_pictures(shift):
    given = np.tile((np.arange(96) < 48 + shift).astype(np.float32), (96, 1))
    given = cv2.GaussianBlur(given, (0, 0), 1.5)
    found = matting.refine(step(), given[..., None])[..., 0]
    falls = (found[:, :-1] - found[:, 1:]).mean(0)
    assert falls.argmax() == 47, "the edge is not where the picture's is"
    assert falls[47] > 0.4
    assert falls[47] > 1.6 * (given[:, :-1] - given[:, 1:]).mean(0).max()


def test_masks_of_a_flat_picture_are_only_smoothed():
    mask = cv2.GaussianBlur((np.arange(96) < 48).astype(np.float32) * np.ones((96, 1), np.float32), (0, 0), 8)
    found = matting.refine(np.full((96, 96, 3), 128, np.uint8), mask[..., None])[..., 0]
    assert np.abs(found - mask).max() < 0.1


def test_masks_are_refined_each_alone_and_stay_in_range():
    rng = np.random.default_rng(1)
    masks = rng.random((64, 64, 3)).astype(np.float32)
    picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
    together = matting.refine(picture, masks)
    assert 0 <= together.min() <= together.max() <= 1
    for channel in range(3):
        alone = matting.refine(picture, masks[..., channel : channel + 1])
        np.testing.assert_allclose(together[..., channel : channel + 1], alone, atol=1e-6)


def test_a_larger_picture_gives_its_own_resolution():
    picture = step(192, 97)
    mask = (np.arange(96) < 48).astype(np.float32) * np.ones((96, 1), np.float32)
    found = matting.refine(picture, mask[..., None])[..., 0]
    assert found.shape == (192, 192)
    assert (found[:, :-1] - found[:, 1:]).mean(0).argmax() == 96


@pytest.mark.parametrize("width", [4, 6])
def test_the_front_colour_of_a_known_composite_is_found(width):
    y, x = np.mgrid[:128, :128]
    alpha = np.clip((44 - np.hypot(x - 64, y - 64)) / width, 0, 1).astype(np.float32)
    picture = (FRONT * alpha[..., None] + BACK * (1 - alpha[..., None])).astype(np.float32)
    found = matting.foreground(picture, alpha, 2 * width)
    for low, high in ((0.05, 0.3), (0.3, 0.6), (0.6, 0.95)):
        band = (alpha > low) & (alpha < high)
        assert np.abs(found - FRONT)[band].mean() < 0.35 * np.abs(picture - FRONT)[band].mean()
        assert np.abs(found - FRONT)[band].max() < 25
    assert np.abs(found - picture)[alpha == 1].max() < 1
    assert 0 <= found.min() <= found.max() <= 255


def gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([60 + 0.5 * x, 90 + 0.4 * y, 120 + 0.2 * (x + y)], -1).astype(np.float32)


def hole(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((x - width / 2) / 30) ** 2 + ((y - height / 2) / 40) ** 2 < 1


@pytest.mark.parametrize("side", [80, 150, 1000])
def test_filling_continues_a_gradient(side):
    whole, missing = gradient(200, 170), hole(200, 170)
    holed = whole.copy()
    holed[missing] = drawn.KEY
    found = matting.fill(holed, missing, side)
    assert found.shape == whole.shape
    assert np.abs(found - whole)[missing].mean() < 8
    assert np.abs(found - whole)[missing].max() < 25
    assert np.abs(found - whole)[~missing].max() < 6


@pytest.mark.parametrize("side", [40, 150, 1000])
def test_filling_takes_nothing_from_what_is_missing(side):
    missing, results = hole(200, 170), []
    for seed in range(2):
        picture = gradient(200, 170)
        picture[missing] = np.random.default_rng(seed).integers(0, 256, (missing.sum(), 3))
        results.append(matting.fill(picture, missing, side))
    np.testing.assert_array_equal(*results)


def test_filling_of_everything_and_of_nothing():
    picture = gradient(60, 50)
    assert np.abs(matting.fill(picture, np.zeros((60, 50), np.bool_), 1000) - picture).max() < 1
    assert np.isfinite(matting.fill(picture, np.ones((60, 50), np.bool_), 1000)).all()
