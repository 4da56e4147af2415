import cv2
import numpy as np
import pytest

from deid.evaluation.seam import SIDES, Seam, border, changed, gradient, seam, sides

SIDE = 200


@pytest.fixture
def source():
    """A picture with structure of every size."""
    rng = np.random.default_rng(1)
    noise = [cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), sigma) for sigma in (2, 4, 20)]
    grey = 128 + sum(14 * layer / layer.std() for layer in noise)
    return np.clip(grey[..., None] + [10, 0, -10], 0, 255).astype(np.uint8)


def replaced(source, alpha, shift=30):
    """The source made lighter in a disk, with opacity `alpha` of the distance to its border (px, inside)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = 60 - np.hypot(x - SIDE / 2, y - SIDE / 2)
    return np.clip(source + shift * alpha(inside)[..., None], 0, 255).astype(np.uint8)


def test_nothing_changed(source):
    assert seam(source, source) == Seam(1.0, 1.0)
    assert not changed(source, source).any()


def test_noise_of_encoding_is_no_change(source):
    encoded = cv2.imdecode(cv2.imencode(".jpg", source, [cv2.IMWRITE_JPEG_QUALITY, 95])[1], 1)
    assert not changed(source, encoded).any()
    assert seam(source, encoded).whole == 1.0


def test_a_hard_edge_shows_and_a_soft_one_does_not(source):
    hard = seam(source, replaced(source, lambda inside: (inside > 0).astype(float), 60)).whole
    soft = seam(source, replaced(source, lambda inside: np.clip(inside / 50, 0, 1))).whole
    assert hard > 2
    assert soft == pytest.approx(1, abs=0.1)


def test_a_blurred_border_is_below_one(source):
    blurred = cv2.GaussianBlur(source, (0, 0), 6)
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = np.hypot(x - SIDE / 2, y - SIDE / 2) < 60
    assert seam(source, np.where(inside[..., None], blurred, source)).whole < 0.9


def test_the_replaced_part_is_where_it_is(source):
    mask = changed(source, replaced(source, lambda inside: (inside > 0).astype(float)))
    assert mask.sum() == pytest.approx(np.pi * 60**2, rel=0.1)
    assert mask[100, 100]
    assert not mask[5, 5]


def test_a_hole_that_did_not_change_is_part_of_it(source):
    ring = replaced(source, lambda inside: ((inside > 0) & (inside < 30)).astype(float))
    assert changed(source, ring)[100, 100]


def test_the_border_is_on_both_sides_and_not_at_the_picture_s_edge():
    mask = np.zeros((50, 50), bool)
    mask[:, :25] = True
    ring = border(mask, 2)
    assert np.flatnonzero(ring[25]).tolist() == [23, 24, 25, 26]
    assert not ring[:, 0].any()
    assert not border(np.ones((50, 50), bool), 2).any()


def test_everything_replaced_has_no_seam(source):
    made = seam(source, 255 - source // 2)
    assert np.isnan([made.whole, made.worst]).all()


def test_gradient_is_in_levels_a_pixel():
    ramp = np.repeat(np.arange(0, 200, 4, dtype=np.uint8)[None], 50, axis=0)
    assert gradient(np.dstack([ramp] * 3))[25, 25] == pytest.approx(4)


def test_pictures_of_two_sizes_are_refused(source):
    with pytest.raises(ValueError, match="its source"):
        seam(source, source[:100])


def test_an_edge_on_one_side_shows_there(source):
    """Soft all around, but cut straight below."""
    y = np.mgrid[:SIDE, :SIDE][0]
    soft = replaced(source, lambda inside: np.clip(inside / 30, 0, 1), 60)
    cut = np.where((y < 120)[..., None], soft, source)
    assert seam(source, cut).worst > 1.5 * seam(source, soft).worst
    assert seam(source, cut).worst > 1.2 * seam(source, cut).whole


def test_sides_go_around_the_centre():
    mask = np.zeros((100, 100), bool)
    mask[20:80, 20:80] = True
    ring = border(mask, 2)
    numbers = sides(mask, ring)
    assert set(numbers) == set(range(SIDES))
    assert len(numbers) == ring.sum()
