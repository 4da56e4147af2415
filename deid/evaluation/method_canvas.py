"""A page in pixels on which the picture of the method is drawn: panels, pictures, words, arrows."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

from deid.evaluation import plots
from deid.interfaces import Picture

COLUMNS, ROWS = 4, 2
PANEL = (380, 500)  # px
GAP, TOP = 16, 74  # px: between panels, and above them
WIDTH = COLUMNS * PANEL[0] + (COLUMNS + 1) * GAP
HEIGHT = TOP + ROWS * PANEL[1] + ROWS * GAP
INSET, BODY = 16, 148  # px: of what is in a panel, and where it begins
BLUE, ORANGE, GREEN = plots.COLOURS[:3]
INK, FAINT, PAPER = "#1e2024", "#5c6066", "#f4f5f7"
TITLE, TEXT, SMALL = 18, 13.5, 12  # points


@dataclass(frozen=True)
class Panel:
    """A part of the page; x and y are from its left upper corner, px."""

    axes: Axes
    left: float
    top: float
    number: int

    def said(self, title: str, text: str) -> None:
        """Number, title and what happens, in two or three short lines."""
        middle = (self.left + INSET + 17, self.top + INSET + 17)
        self.axes.add_patch(Circle(middle, 17, color=BLUE, zorder=3))
        self.axes.text(
            *middle,
            str(self.number),
            color="white",
            fontsize=16,
            ha="center",
            va="center_baseline",
            weight="bold",
        )
        self.text(INSET + 44, INSET + 17, title, TITLE, weight="bold", va="center")
        self.text(INSET, INSET + 46, text, TEXT, va="top")

    def text(self, x: float, y: float, text: str, size: float = SMALL, **look: Any) -> None:
        usual: dict[str, Any] = {"color": INK, "linespacing": 1.25, "fontsize": size, "zorder": 5}
        self.axes.text(self.left + x, self.top + y, text, **(usual | look))

    def picture(self, picture: Picture, x: float, y: float, width: float, edge: str = "white") -> float:
        """Show a picture [H, W, 3] `width` px wide; its height in px."""
        height = width * picture.shape[0] / picture.shape[1]
        size = (round(width), round(height))
        method = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
        small = cv2.resize(picture, size, interpolation=method)
        box = (self.left + x, self.left + x + width, self.top + y + height, self.top + y)
        self.axes.imshow(small, extent=box, zorder=2, interpolation="antialiased", aspect="auto")
        self.axes.plot(
            np.array(box)[[0, 1, 1, 0, 0]],
            np.array(box)[[3, 3, 2, 2, 3]],
            color=edge,
            linewidth=1.5,
            zorder=3,
        )
        return height

    def arrow(
        self, start: tuple[float, float], end: tuple[float, float], colour: str = INK, width: float = 2
    ) -> None:
        begin, tip = ((x + self.left, y + self.top) for x, y in (start, end))
        look = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "mutation_scale": 16}
        self.axes.annotate("", tip, begin, arrowprops=look | {"shrinkA": 0, "shrinkB": 0}, zorder=4)


class Canvas:
    def __init__(self, figure: Figure) -> None:
        self.axes = figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), autoscale_on=False)
        self.axes.set_axis_off()

    def heading(self, text: str) -> None:
        self.axes.text(GAP + 4, 38, text, fontsize=25, weight="bold", color=INK, va="center")
        note = "fictional people, real steps"
        self.axes.text(WIDTH - GAP - 4, 40, note, fontsize=15, color=FAINT, va="center", ha="right")

    def panel(self, number: int) -> Panel:
        """The `number`-th panel, from 0, with its background and an arrow to the next."""
        row, column = divmod(number, COLUMNS)
        left, top = GAP + column * (PANEL[0] + GAP), TOP + row * (PANEL[1] + GAP)
        shape = FancyBboxPatch(
            (left + 6, top + 6),
            PANEL[0] - 12,
            PANEL[1] - 12,
            boxstyle="round,pad=6",
            fc=PAPER,
            ec="#d5d8dd",
            zorder=1,
        )
        self.axes.add_patch(shape)
        made = Panel(self.axes, left, top, number + 1)
        if column < COLUMNS - 1:
            made.arrow((PANEL[0] - 8, 33), (PANEL[0] + GAP + 10, 33), BLUE, 3)
        return made
