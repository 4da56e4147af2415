import io

import numpy as np
import pytest
from PIL import Image

from deid.evaluation import plots
from deid.evaluation.sections import NAN, Cell, Column, Plot, Table

NAMES = [f"treatment {n} with a name that does not fit in one line of a legend" for n in range(14)]


def table(rows: int = 14) -> tuple[Table, list[Column]]:
    columns = [Column("a", "a", "lower", 0.1), Column("b", "b", "higher", 0.9)]
    cells = {name: {"a": Cell(0.2, 0.1, 0.3), "b": Cell(0.8)} for name in NAMES[:rows]}
    cells[NAMES[0]]["a"] = Cell(NAN)
    cells["nothing"] = {"a": Cell(NAN)}
    return Table("t", "Title", columns, cells), columns


def pixels(plot: Plot) -> "np.ndarray":
    with Image.open(io.BytesIO(plot.png)) as picture:
        assert not picture.text  # type: ignore[attr-defined]
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="module")
def drawn() -> list[Plot]:
    return all_kinds()


def all_kinds() -> list[Plot]:
    curve = {name: ([0.0, 0.5, 1.0], [0.0, 0.5 + n / 40, 1.0]) for n, name in enumerate(NAMES)}
    points = {name: (Cell(n / 20, 0, 1), Cell(NAN if n == 3 else 0.5)) for n, name in enumerate(NAMES)}
    shown, columns = table()
    return [
        plots.lines("l", "Lines", "alt", curve, "x", "y", ([0, 1], [0, 1]), chosen=NAMES[1]),
        plots.bars("b", "alt", shown, columns, "y"),
        plots.dots("d", "alt", shown, columns, "x"),
        plots.scatter("s", "Scatter", "alt", points, "x", "y", NAMES[0], NAMES[:2], (0.1, 0.9)),
    ]


def test_no_plot_is_cut_off_at_its_edges(drawn: list[Plot]) -> None:
    for plot in drawn:
        shown = pixels(plot)
        border = np.concatenate(
            [
                shown[:2].reshape(-1, 3),
                shown[-2:].reshape(-1, 3),
                shown[:, :2].reshape(-1, 3),
                shown[:, -2:].reshape(-1, 3),
            ]
        )
        assert (border == 255).all(), plot.id
        assert shown.shape[1] == round(plots.WIDTH * plots.DPI)


def test_the_same_figures_give_the_same_bytes(drawn: list[Plot]) -> None:
    assert [plot.png for plot in drawn] == [plot.png for plot in all_kinds()]


def test_twenty_one_series_look_different_without_colour() -> None:
    looks = {
        (look["marker"], look["fillstyle"], look["markerfacecolor"] == "white")
        for look in map(plots._look, range(21))
    }
    assert len(looks) == 21


def test_neighbouring_colours_differ_in_grey() -> None:
    grey = [int(c[1:3], 16) * 0.299 + int(c[3:5], 16) * 0.587 + int(c[5:], 16) * 0.114 for c in plots.COLOURS]
    assert min(abs(np.diff(grey))) > 20


def test_one_row_and_one_column() -> None:
    shown, columns = table(1)
    assert pixels(plots.bars("b", "alt", shown, columns[:1], "y")).std() > 0


@pytest.mark.parametrize("value", [(0.3, 0.3), (0.3, NAN), (NAN, 0.3)])
def test_an_interval_without_an_end_has_no_length(value: tuple[float, float]) -> None:
    assert plots._gap(*value) == 0


def test_a_row_without_a_figure_says_so() -> None:
    shown, columns = table(2)
    assert plots._labels(shown, columns) == [NAMES[0], NAMES[1], "nothing (not measured)"]
    assert plots._labels(shown, columns[:1])[0] == f"{NAMES[0]} (not measured)"
