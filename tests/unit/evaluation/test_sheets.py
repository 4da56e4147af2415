import io

import numpy as np
import pytest
from PIL import Image

from deid.config import Models
from deid.evaluation import sheets
from deid.interfaces import Picture

ALL = Models(accept=("clean", "permissive", "restricted"))


def noise(seed: int, height: int, width: int) -> Picture:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def plain(value: int) -> Picture:
    return np.full((100, 80, 3), value, np.uint8)


def opened(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return np.asarray(image.convert("RGB"), np.int16)


def test_before_stands_left_of_after() -> None:
    made = opened(sheets.sheet([(plain(0), plain(128))] * 4, 150))
    dark, mid = ((np.abs(made - value) < 12).all(2) for value in (0, 128))
    assert [np.flatnonzero(mask.sum(0) > 100)[0] for mask in (dark, mid)] == pytest.approx([54, 176], abs=2)
    assert dark.sum() == pytest.approx(4 * 150 * 120, rel=0.1)


def test_a_sheet_is_never_larger_than_a_report_can_hold() -> None:
    pairs = [(noise(n, 400, 300), noise(n + 50, 400, 300)) for n in range(12)]
    data = sheets.sheet(pairs, 400)
    assert len(data) <= sheets.MOST_BYTES
    assert opened(data).shape[1] > 300


def test_pairs_of_other_shapes_and_none_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        sheets.sheet([(plain(0), plain(0)[:50])], 100)
    with pytest.raises(ValueError, match="at least one pair"):
        sheets.sheet([], 100)


@pytest.mark.slow
def test_fictional_people_stand_in_where_sources_may_not_be_shown() -> None:
    data = sheets.synthetic_sheet(ALL, {"anonymizer": "solid"}, seed=1, count=2)
    assert len(data) <= sheets.MOST_BYTES
    made = opened(data)
    grey = (np.ptp(made, axis=2) < 4) & (np.abs(made[..., 0] - 128) < 4)
    left, right = np.array_split(grey[80:, : made.shape[1] // 2], 2, axis=1)
    assert right.mean() > 3 * left.mean()  # the first pair's result is covered
