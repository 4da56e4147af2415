from pathlib import Path

import cv2
import numpy as np
import pytest

from deid.demo import sheet
from deid.demo.sheet import Cell
from deid.interfaces import Picture

RED, BLUE = (200, 20, 20), (20, 20, 200)


def plain(height: int, width: int, colour: tuple[int, int, int]) -> Picture:
    return np.full((height, width, 3), colour, np.uint8)


def share(part: Picture, colour: tuple[int, int, int]) -> float:
    return float((part == np.array(colour, np.uint8)).all(-1).mean())


def test_before_stands_left_of_after_and_every_pair_is_there() -> None:
    cells = [Cell(plain(40, 80, RED), plain(40, 80, BLUE), "one") for _ in range(5)]
    made = sheet.contact_sheet(cells, "title", columns=2, cell=100)
    red, blue = ((made == np.array(c, np.uint8)).all(-1) for c in (RED, BLUE))
    pieces = [cv2.connectedComponentsWithStats(mask.astype(np.uint8)) for mask in (red, blue)]
    for count, _, statistics, _ in pieces:
        assert count - 1 == len(cells)
        assert {tuple(s) for s in statistics[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].tolist()} == {
            (100, 50)
        }
    lefts = [statistics[1:, cv2.CC_STAT_LEFT] for _, _, statistics, _ in pieces]
    assert (lefts[1] - lefts[0] == 102).all()


def test_a_sheet_is_written_as_png_and_over_an_older_one(tmp_path: Path) -> None:
    made = sheet.contact_sheet([Cell(plain(60, 30, RED), plain(60, 30, BLUE))], "title")
    for _ in range(2):
        sheet.save(made, str(tmp_path / "sheet.png"))
    read = cv2.imread(str(tmp_path / "sheet.png"))
    assert read is not None
    np.testing.assert_array_equal(read[..., ::-1], made)
    assert share(made, RED) == pytest.approx(share(made, BLUE))


def test_a_close_look_stays_inside_the_picture() -> None:
    picture = plain(100, 120, RED)
    rows, columns = sheet.around(picture, np.array([90, 80, 118, 99]))
    assert picture[rows, columns].shape[:2] == (100 - rows.start, 120 - columns.start)
    assert 0 < rows.start < 80
    assert 0 < columns.start < 90


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        sheet.contact_sheet([], "title")
