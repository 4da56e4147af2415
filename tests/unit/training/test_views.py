import numpy as np
import pytest

from deid.faces.segment import BACKGROUND, FACE, INPUT, PARTS
from deid.training.views import Views


@pytest.fixture(scope="module")
def heads():
    """Two discs on a dark ground: pictures [2, 256, 256, 3] and parts [2, 256, 256, 5]."""
    rows, columns = np.mgrid[:INPUT, :INPUT]
    inside = np.hypot(rows - 128, columns - 128) < 60
    parts = np.zeros((2, INPUT, INPUT, len(PARTS)), np.uint8)
    parts[..., FACE], parts[..., BACKGROUND] = 255 * inside, 255 * ~inside
    pictures = np.where(inside[..., None], np.uint8(200), np.uint8(20)).repeat(3, -1)
    return np.stack([pictures, pictures]), parts


def test_views_are_the_same_again_wherever_one_starts(heads):
    whole, late = Views(*heads, 3, range(8)), Views(*heads, 3, range(5, 8))
    assert len(late) == 3
    for n in range(3):
        for one, other in zip(whole[5 + n], late[n], strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(whole[0][0], whole[1][0])
    assert not np.array_equal(whole[0][0], Views(*heads, 4, range(8))[0][0])


def test_views_are_what_the_network_takes(heads):
    for chips, parts in (Views(*heads, 1, range(24))[n] for n in range(24)):
        assert chips.shape == (3, INPUT, INPUT)
        assert -1 <= chips.min() <= chips.max() <= 1
        assert parts.shape == (len(PARTS), INPUT, INPUT)
        np.testing.assert_allclose(parts.sum(0), 1, atol=1e-4)
        assert 0.01 < parts[FACE].mean() < 0.3  # smaller, larger or half hidden, but there
