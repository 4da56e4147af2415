"""Heat maps of an example: how much each region of the head contributes to identity, before and after."""

from collections.abc import Mapping

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deid.demo.sheet import around
from deid.evaluation import plots
from deid.evaluation.contribution import BEFORE, PERSON, SAME, STRANGERS, Example, Shown
from deid.evaluation.occlude import REGIONS, Mask
from deid.evaluation.sections import Plot
from deid.interfaces import Picture
from deid.surrogates import masks

COLOURS = matplotlib.colormaps[
    "cividis"
]  # rises evenly in lightness: in grey, and for the colour-blind (Nunez 2018)
OPACITY = 0.8  # of the colours over the picture
PALE = 0.45  # of the picture that is left where nothing was measured
SIZE = (12.4, 4.1)  # inches
EDGES = {
    "left": 0.005,
    "right": 0.995,
    "top": 0.86,
    "bottom": 0.19,
    "wspace": 0.03,
}  # of the pictures, in figures
BAR = (0.25, 0.12, 0.5, 0.03)  # left, bottom, width, height of the colour scale
SIDE = 360  # px of a picture shown
LEAST = 0.2  # top of the scale at least, so that nothing looks like much
TITLES = {
    BEFORE: "before: what tells\nwho it is",
    PERSON: "after: what still tells\nwho it was",
    SAME: "after: what ties\ntwo results together",
}
Levels = NDArray[np.float64]  # [parts] of `contribution.PARTS`


def plot(number: int, example: Example, maps: Mapping[str, Levels]) -> Plot:
    """Source, heat before, result, heat after against the person and against the same surrogate.

    Args:
        maps: by pair of `contribution`, the part of each region, a mean over the recognizers.
    """
    figure = Figure(SIZE, plots.DPI)
    axes = figure.subplots(1, 5, gridspec_kw=EDGES)
    top = max(LEAST, *(float(np.nanmax(maps[name][: len(REGIONS)])) for name in TITLES))
    _show(axes[0], _cropped(example.a, example.a.picture), f"example {number}: fictional person")
    _heat(axes[1], example.a, maps[BEFORE], top, TITLES[BEFORE])
    _show(axes[2], _cropped(example.result_a, example.result_a.picture), "result")
    for place, name in ((3, PERSON), (4, SAME)):
        _heat(axes[place], example.result_a, maps[name], top, TITLES[name])
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, top), COLOURS)
    bar = figure.colorbar(scale, cax=figure.add_axes(BAR), orientation="horizontal")
    bar.set_label("fall of similarity without the region; 1: from one person to two people", fontsize=9)
    bar.ax.tick_params(labelsize=9)
    title = f"What carries identity, example {number}"
    return Plot(f"explain_{number}", title, _said(number, maps), plots.png(figure))


def _said(number: int, maps: Mapping[str, Levels]) -> str:
    def most(name: str) -> str:
        levels = maps[name][: len(REGIONS)]
        best = np.argsort(-np.nan_to_num(levels, nan=-np.inf))[:3]
        return ", ".join(f"{REGIONS[n]} {levels[n]:.2f}" for n in best)

    control = maps[STRANGERS][: len(REGIONS)]
    return (
        f"Example {number}, a fictional person and the result, with heat maps of the regions of the head. Before, "
        f"these tell most: {most(BEFORE)}. After, against the person: {most(PERSON)}. After, against another result "
        f"of the surrogate: {most(SAME)}. Between strangers the most is {float(np.nanmax(control)):.2f}."
    )


def _cropped(shown: Shown, picture: Picture) -> Picture:
    edge = masks.outline(shown.mesh)
    window = around(picture, np.concatenate([edge.min(0), edge.max(0)]), 1.8)
    cut = picture[window]
    scale = SIDE / max(cut.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, None, fx=scale, fy=scale, interpolation=method), np.uint8)


def _show(axes: Axes, picture: Picture, title: str) -> None:
    axes.imshow(picture)
    axes.set_title(title, fontsize=11)
    axes.set_axis_off()


def _heat(axes: Axes, shown: Shown, levels: Levels, top: float, title: str) -> None:
    """The regions in colour over the picture in pale grey, each with its figure."""
    grey = cv2.cvtColor(shown.picture, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    coloured = np.repeat(255 - PALE * (255 - grey), 3, axis=2)
    regions = list(zip(REGIONS, levels[: len(REGIONS)], strict=True))
    for part, level in regions:
        if np.isfinite(level):
            colour = np.array(COLOURS(level / top)[:3], np.float32) * 255
            mask = shown.masks[part]
            coloured[mask] = OPACITY * colour + (1 - OPACITY) * grey[mask]
    drawn = np.clip(coloured, 0, 255).astype(np.uint8)
    _show(axes, _cropped(shown, drawn), title)
    for part, level in regions:
        mark = np.zeros(drawn.shape, np.uint8)
        mark[_middle(shown.masks[part])] = 255
        y, x = np.nonzero(
            _cropped(shown, np.asarray(cv2.dilate(mark, np.ones((3, 3), np.uint8)), np.uint8))[..., 0]
        )
        if len(x) and np.isfinite(level):
            ink = "black" if level / top > 0.55 else "white"
            text = f"{level + 0.0:.2f}".replace("-0.00", "0.00").replace("0.", ".", 1)
            axes.text(x.mean(), y.mean(), text, color=ink, fontsize=8, ha="center", va="center")


def _middle(mask: Mask) -> tuple[int, int]:
    """Row and column farthest from the border of the region: there is room for its figure."""
    away = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    return tuple(int(n) for n in np.unravel_index(int(away.argmax()), mask.shape))  # type: ignore[return-value]
