import numpy as np
import pytest

from deid.demo import backgrounds


@pytest.mark.parametrize("kind", range(len(backgrounds.KINDS)), ids=lambda n: backgrounds.KINDS[n].__name__)
def test_a_background_fills_the_picture_and_follows_its_seed(kind: int) -> None:
    first, same, other = (
        backgrounds.background(np.random.default_rng(seed), kind, 90, 140) for seed in (1, 1, 2)
    )
    assert first.shape == (90, 140, 3)
    assert np.isfinite(first).all()
    assert 0 <= first.min() <= first.max() <= 1
    assert first.std() > 0.01
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).mean() > 0.01


def test_a_parapet_of_any_height_is_drawn() -> None:
    for seed in range(8):
        for height in (1, 9, 200):
            drawn = backgrounds.parapet(np.random.default_rng(seed), height, 300)
            assert drawn.shape == (height, 300, 3)
            assert np.isfinite(drawn).all()
