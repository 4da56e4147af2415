"""Plots as PNG, readable in print, in grey and by the colour-blind: a marker and a line beside every colour."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deid.evaluation.sections import NAN, Cell, Column, Plot, Table

# Okabe and Ito 2008, "Color Universal Design": told apart with every common colour blindness. Yellow is left out; the
# order is such that neighbours differ in grey too.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#009E73", "#CC79A7", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo")
GREY = "#595959"
WIDTH, HEIGHT = 7.2, 4.0  # inches, without the legend
ROW = 0.2  # inches of a row of the legend
DPI = 150
WIDEST = 34  # characters of a name before it is broken

Floats = NDArray[np.floating[Any]]
Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]  # name: x, y


def lines(
    id: str,
    title: str,
    alt: str,
    series: Series,
    x: str,
    y: str,
    chance: Sequence[Sequence[float]] | None = None,
    log_x: bool = False,
    limits: tuple[float, float] | None = (0.0, 1.0),
    chosen: str | None = None,
) -> Plot:
    """Curves of several treatments over one axis. chance: x and y of a dotted line of no skill. limits: of y.
    chosen: the one drawn thicker, above the others."""
    figure, axes = _axes(title, x, y, HEIGHT + _legend_height(series))
    for number, (name, (across, up)) in enumerate(series.items()):
        step = max(1, len(across) // 7)
        look = _look(number) | {"linewidth": 2.8 if name == chosen else 1.4}
        axes.plot(
            across, up, label=_named(name, chosen), markevery=(number * step // 5 % step, step), markersize=5,
            zorder=3 if name == chosen else 2, linestyle=STYLES[(number + number // 7) % len(STYLES)], **look,
        )  # fmt: skip
    if chance is not None:
        axes.plot(*chance, color=GREY, linestyle=(0, (1, 3)), linewidth=1.4, label="chance", zorder=1)
    if log_x:
        axes.set_xscale("log")
    if limits:
        margin = 0.02 * (limits[1] - limits[0])
        axes.set_ylim(limits[0] - margin, limits[1] + margin)
    return _plot(id, title, alt, figure, axes)


def bars(id: str, alt: str, table: Table, columns: Sequence[Column], y: str) -> Plot:
    """The rows of a table one below the other, a bar with its interval for each of these columns; limits as lines."""
    width = 0.8 / max(1, len(columns))
    figure, axes = _rows(table, columns, y, 0.17 * max(2, len(columns)))
    for number, column in enumerate(columns):
        place, values, spread = _cells(table, column, number, len(columns), width)
        axes.barh(
            place,
            values,
            width,
            xerr=spread,
            capsize=2,
            label=_titled(column),
            color=COLOURS[number % len(COLOURS)],
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor="white",
            linewidth=0.5,
            error_kw={"linewidth": 1.2},
        )
    _without(axes, table, columns, width)
    return _plot(id, table.title, alt, figure, axes)


def dots(id: str, alt: str, table: Table, columns: Sequence[Column], x: str) -> Plot:
    """The rows of a table one below the other, a marker with its interval for each of these columns, in 0..1."""
    width = 0.74 / max(1, len(columns))
    figure, axes = _rows(table, columns, x, 0.11 * max(2, len(columns)))
    for number, column in enumerate(columns):
        place, values, spread = _cells(table, column, number, len(columns), width)
        look = _look(number) | {"linewidth": 0.9}
        axes.errorbar(
            values,
            place,
            xerr=spread,
            label=_titled(column),
            linestyle="none",
            capsize=1.5,
            ms=5.5,
            **look,
        )
    _without(axes, table, columns, width)
    axes.set_xlim(-0.03, 1.03)
    for border in range(1, len(table.rows)):
        axes.axhline(border - 0.5, color="#CCCCCC", linewidth=0.5)
    return _plot(id, table.title, alt, figure, axes)


def scatter(
    id: str,
    title: str,
    alt: str,
    points: Mapping[str, tuple[Cell, Cell]],
    x: str,
    y: str,
    chosen: str | None = None,
    joined: Sequence[str] = (),
    limits: tuple[float | None, float | None] = (None, None),
) -> Plot:
    """Named points with their intervals on both axes. chosen: the one marked. joined: in order, on one line (the
    points that no other is better than). limits: of x and y, as lines."""
    figure, axes = _axes(title, x, y, HEIGHT + 0.6 + _legend_height(points))
    for number, (name, (across, up)) in enumerate(points.items()):
        if name == chosen:
            axes.plot(across.value, up.value, "o", ms=17, mfc="none", mec="black", mew=1.4, zorder=4)
        error = [[[_gap(c.value, c.low)], [_gap(c.high, c.value)]] for c in (across, up)]
        axes.errorbar(
            across.value, up.value, xerr=error[0], yerr=error[1], label=f"{number + 1}  {_named(name, chosen)}",
            capsize=1.5, linestyle="none", markersize=7, zorder=3, **_look(number) | {"linewidth": 0.7},
        )  # fmt: skip
    if len(joined) > 1:
        axes.plot(
            *zip(*[(points[n][0].value, points[n][1].value) for n in joined], strict=True),
            color=GREY, linestyle="--", linewidth=1, zorder=1, label="none is better than these",
        )  # fmt: skip
    for limit, draw in zip(limits, (axes.axvline, axes.axhline), strict=True):
        if limit is not None:
            draw(limit, color=GREY, linestyle=":", linewidth=1.4, zorder=1)
    if any(limit is not None for limit in limits):
        axes.plot([], [], color=GREY, linestyle=":", linewidth=1.4, label="asked")
    _numbered(figure, axes, [(across.value, up.value) for across, up in points.values()])
    return _plot(id, title, alt, figure, axes)


def _look(number: int) -> dict[str, Any]:
    """Colour and marker; the markers are full, then hollow, then half full."""
    colour = COLOURS[number % len(COLOURS)]
    turn = number // len(COLOURS) % 3
    return {
        "color": colour,
        "marker": MARKERS[number % len(MARKERS)],
        "fillstyle": ("full", "full", "left")[turn],
        "markerfacecolor": (colour, "white", colour)[turn],
        "markerfacecoloralt": "white",
        "markeredgecolor": colour,
        "markeredgewidth": (0.6, 1.4, 1.0)[turn],
    }


def _named(name: str, chosen: str | None) -> str:
    return textwrap.fill(name + " (chosen)" * (name == chosen), WIDEST)


def _rows(table: Table, columns: Sequence[Column], x: str, height: float) -> tuple[Figure, Axes]:
    """Axes with a row of this height in inches for each row of the table, from the top, and the columns' limits."""
    legend = dict.fromkeys(map(_titled, columns))
    figure, axes = _axes(
        table.title, x, "", 1.1 + max(0.9, max(0.3, height) * len(table.rows)) + _legend_height(legend)
    )
    axes.set_yticks(range(len(table.rows)), [textwrap.fill(name, WIDEST) for name in _labels(table, columns)])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    for number, column in enumerate(columns):
        if column.limit is not None:
            colour = COLOURS[number % len(COLOURS)]
            style = STYLES[1 + number % (len(STYLES) - 1)]
            axes.axvline(column.limit, color=colour, linestyle=style, linewidth=1.2, zorder=3)
    return figure, axes


def _titled(column: Column) -> str:
    """For the legend: a column's title, and what its line is."""
    least = "at least" if column.better == "higher" else "at most"
    said = f" (line: {least} {column.limit:.3g})" if column.limit is not None else ""
    return textwrap.fill(column.title + said, WIDEST)


def _cells(
    table: Table, column: Column, number: int, columns: int, width: float
) -> tuple[Floats, Floats, Floats]:
    """Places [R], values [R] and distances [2, R] to the ends of the intervals, of one column."""
    cells = [row.get(column.id, Cell(NAN)) for row in table.rows.values()]
    place = np.arange(len(cells)) + (number - (columns - 1) / 2) * width
    values = np.array([cell.value for cell in cells], np.float64)
    spread = np.array(
        [[_gap(c.value, c.low) for c in cells], [_gap(c.high, c.value) for c in cells]], np.float64
    )
    return place, values, spread.reshape(2, len(cells))


def _gap(high: float, low: float) -> float:
    """Length of a side of an interval, 0 where it is not known."""
    return max(0.0, high - low) if math.isfinite(high - low) else 0.0


def _labels(table: Table, columns: Sequence[Column]) -> list[str]:
    """The rows' names; that nothing was measured is said, since an empty place looks like 0."""
    measured = {
        n: any(np.isfinite(r[c.id].value) for c in columns if c.id in r) for n, r in table.rows.items()
    }
    return [name if known else f"{name} (not measured)" for name, known in measured.items()]


def _without(axes: Axes, table: Table, columns: Sequence[Column], width: float) -> None:
    """Words where a bar or marker is missing, and others of its row are there."""
    for number, row in enumerate(table.rows.values()):
        lacking = [n for n, c in enumerate(columns) if not math.isfinite(row.get(c.id, Cell(NAN)).value)]
        for place in lacking if len(lacking) < len(columns) else ():
            at = number + (place - (len(columns) - 1) / 2) * width
            axes.text(0, at, " not measured", va="center", size=7, color=GREY).set_in_layout(False)


def _numbered(figure: Figure, axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """A number beside each point, where it is furthest from all other points and numbers."""
    figure.canvas.draw()
    taken = [axes.transData.transform(point) for point in points if np.isfinite(point).all()]
    reach = 13 * DPI / 72
    for number, point in enumerate(points):
        if not np.isfinite(point).all():
            continue
        here = axes.transData.transform(point)
        angles = np.deg2rad([45, 135, 225, 315, 0, 90, 180, 270])
        spots = here + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        others = np.array([spot for spot in taken if not np.array_equal(spot, here)]).reshape(-1, 2)
        room = np.linalg.norm(spots[:, None] - others[None], axis=2).min(axis=1, initial=1e9)
        best = spots[int(np.argmax(np.minimum(room, 3 * reach)))]
        taken.append(best)
        offset = (best - here) * 72 / DPI
        axes.annotate(
            str(number + 1),
            point,
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            size=7.5,
            zorder=5,
        )


def _axes(title: str, x: str, y: str, height: float) -> tuple[Figure, Axes]:
    matplotlib.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure((WIDTH, height), DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(textwrap.fill(title, 80), loc="left", fontsize=10, fontweight="bold", pad=14)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _legend_columns(names: Mapping[str, Any]) -> int:
    longest = max((min(len(name), WIDEST) for name in names), default=0)
    return max(1, min(4, 96 // (longest + 8)))


def _legend_height(names: Mapping[str, Any]) -> float:
    """Inches that the legend beneath will take."""
    rows = sum(-(-len(name) // WIDEST) for name in names) / _legend_columns(names)
    return ROW * math.ceil(rows + 0.5)


def _plot(id: str, title: str, alt: str, figure: Figure, axes: Axes) -> Plot:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = _legend_columns(dict.fromkeys(labels))
        figure.legend(
            handles,
            labels,
            loc="outside lower left",
            ncols=columns,
            fontsize=8,
            frameon=False,
            handlelength=3,
        )
    return Plot(id, title, alt, png(figure))


def png(figure: Figure) -> bytes:
    """A figure as PNG; the same bytes for the same figure."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()
