"""The eight panels of the picture of the method."""

import cv2
import numpy as np
from matplotlib.patches import Circle, Rectangle

from deid.demo.sheet import around
from deid.evaluation.method_canvas import (
    BLUE,
    BODY,
    FAINT,
    GREEN,
    INK,
    INSET,
    ORANGE,
    PANEL,
    SMALL,
    TEXT,
    Panel,
)
from deid.evaluation.method_people import AUDITED, Run
from deid.faces import appearance, segment
from deid.faces.segment import FACE, HAIR
from deid.interfaces import Face, Picture
from deid.surrogates import masks

CLEAR = 4  # whose head is wholly in the picture
WIDE = PANEL[0] - 2 * INSET  # px
AUDIT_AT = (0, 92, 156, 256)  # px of the audit's columns
NAMES = "ABCDE"
GREY_DOT = "#9aa0a8"


def source(panel: Panel, run: Run) -> None:
    panel.said("Photographs come in", "They may carry names, captions,\nplaces and camera data.")
    _grid(panel, [one.source for one in run.treated], NAMES)


def found(panel: Panel, run: Run) -> None:
    panel.said(
        "Find and take apart", "Find the face (box), measure it (dots),\ntell head from the rest (colour)."
    )
    one, face = run.treated[CLEAR], run.faces[CLEAR]
    panel.picture(_head(_marked(one.source, face), face, 2.1), INSET + 14, BODY, WIDE - 28)


def grouped(panel: Panel, run: Run) -> None:
    count = len(run.treated)
    text = f"At least {count} people become one group,\nif it can be of one apparent sex\nand age band."
    panel.said("Gather a group", text)
    middle, reach = np.array([PANEL[0] / 2, BODY + 178]), 124
    for number, (one, face) in enumerate(zip(run.treated, run.faces, strict=True)):
        turn = 2 * np.pi * number / count - np.pi / 2
        toward = -np.array([np.cos(turn), np.sin(turn)])
        place = middle - reach * toward
        panel.picture(_head(one.source, face, 1.35), float(place[0]) - 48, float(place[1]) - 48, 96)
        begin, end = place + 51 * toward / np.abs(toward).max(), middle - 37 * toward
        panel.arrow((begin[0], begin[1]), (end[0], end[1]), BLUE, 3)
    panel.axes.add_patch(Circle((panel.left + middle[0], panel.top + middle[1]), 36, color=BLUE, zorder=4))
    look = {"color": "white", "ha": "center", "va": "center", "weight": "bold"}
    panel.text(float(middle[0]), float(middle[1]), f"k = {count}", 15, **look)


def drawn(panel: Panel, run: Run) -> None:
    count = len(run.identities)
    text = f"{count} invented faces, all far from the\nwhole group, are averaged into one."
    panel.said("Draw a surrogate", text)
    _radar(panel, run, (PANEL[0] / 2, BODY + 70), 92)
    step, top, low = WIDE / count, BODY + 172, BODY + 253
    for number, picture in enumerate(run.drawn):
        x = INSET + number * step
        panel.picture(picture, x + 4, top, step - 8)
        panel.arrow((x + step / 2, top + step - 5), (PANEL[0] / 2 + (number - 2) * 16, low), ORANGE)
    panel.picture(run.surrogate, PANEL[0] / 2 - 39, low + 2, 78, ORANGE)
    panel.text(PANEL[0] / 2 + 52, low + 42, "the group's\nsurrogate", TEXT, va="center")


def rendered(panel: Panel, run: Run) -> None:
    panel.said("Draw it to fit", "One invented person, in the pose and\nwith the expression of each picture.")
    pictures = [face.surrogate for face in run.faces if face.surrogate is not None]
    places = _grid(panel, pictures, NAMES, square=True)
    for (x, y, width), one, face in zip(places, run.treated, run.faces, strict=True):
        panel.picture(_head(one.source, face, 1.3), x + width - 40, y + width - 40, 44)
    panel.text(PANEL[0] / 2, PANEL[1] - 42, "small: the picture that is followed", color=FAINT, ha="center")


def put_in(panel: Panel, run: Run) -> None:
    panel.said(
        "Erase, then put in", "All of the head is erased first, then\nthe new one is put in its place."
    )
    width = (WIDE - 2 * 14) / 3
    for column, name in enumerate(("before", "erased", "after")):
        middle = INSET + column * (width + 14) + width / 2
        panel.text(middle, BODY - 8, name, TEXT, ha="center", va="center")
    for row, number in enumerate((0, CLEAR)):
        one, y = run.treated[number], BODY + row * 158 + 10
        for column, picture in enumerate((one.source, run.emptied[number], one.result)):
            x = INSET + column * (width + 14)
            if picture is not None:
                panel.picture(picture, x, y, width)
            if column:
                panel.arrow((x - 19, y + 70), (x + 6, y + 70), ORANGE, 3)


def checked(panel: Panel, run: Run) -> None:
    text = (
        "A recognizer compares each result\n"
        "with its person. Too close: it is taken\n"
        "back, for another face or for grey."
    )
    panel.said("Look again", text)
    one, face = run.treated[0], run.faces[0]
    middle, level = PANEL[0] / 2, BODY + 80
    if one.result is not None:
        panel.picture(_head(one.source, face, 1.35), INSET + 18, level - 62, 120)
        panel.picture(_head(one.result, face, 1.35), PANEL[0] - INSET - 138, level - 62, 120)
    panel.text(middle, level - 16, f"{run.gates[0]:.2f}", 16, ha="center", weight="bold")
    for side in (-1, 1):
        panel.arrow((middle, level), (middle + side * 34, level), INK)
    _scale(panel, run, BODY + 226)


def _scale(panel: Panel, run: Run, line: float) -> None:
    """Distances from nothing on, the margin, and where the results lie."""
    left, right = INSET + 8, PANEL[0] - INSET - 8
    scale = (right - left) / (0.15 + max(run.margin, *run.gates))
    gate = left + run.margin * scale
    sides = (("too close", left, gate, ORANGE, "#a04000"), ("passes", gate, right, GREEN, "#00614a"))
    for name, begin, end, colour, ink in sides:
        corner = (panel.left + begin, panel.top + line - 22)
        panel.axes.add_patch(Rectangle(corner, end - begin, 44, color=colour, alpha=0.22, zorder=2))
        panel.text((begin + end) / 2, line + 44, name, TEXT, ha="center", color=ink, weight="bold")
    ends = panel.top + line + np.array([-38, 24])
    panel.axes.plot(np.full(2, panel.left + gate), ends, color=INK, lw=2.5, zorder=3)
    panel.text(gate, line - 44, f"margin {run.margin:.2f}", TEXT, ha="center")
    for distance in run.gates:
        panel.axes.plot(
            panel.left + left + distance * scale,
            panel.top + line,
            "o",
            color=BLUE,
            ms=11,
            mec="white",
            zorder=4,
        )
    panel.text(left, line + 80, f"dots: the {len(run.gates)} results", color=FAINT)


def out(panel: Panel, run: Run) -> None:
    text = "Pictures alone, under random keys, in\nrandom order; and an audit in which\nno row stands alone."
    panel.said("Out goes", text)
    pictures = [one.result for one in run.treated if one.result is not None]
    width = WIDE / len(pictures)
    for number, place in enumerate(np.random.default_rng(0).permutation(len(pictures))):
        panel.picture(pictures[place], INSET + number * width + 2, BODY - 2, width - 4)
    _audit(panel, run, BODY + 96)


PANELS = (source, found, grouped, drawn, rendered, put_in, checked, out)


def _grid(
    panel: Panel, pictures: list[Picture], names: str, square: bool = False
) -> list[tuple[float, float, float]]:
    """Three pictures above two; left, top and width of each."""
    width = (WIDE - 2 * 12) / 3
    height = width if square else width * pictures[0].shape[0] / pictures[0].shape[1]
    places = []
    for number, picture in enumerate(pictures):
        row, column = divmod(number, 3)
        x = INSET + column * (width + 12) + (width + 12) / 2 * row
        y = BODY + row * (height + 34) + 2
        panel.picture(picture, x, y, width)
        panel.text(
            x + width / 2, y + height + 16, names[number], TEXT, ha="center", va="center", weight="bold"
        )
        places.append((x, y, width))
    return places


def _head(picture: Picture, face: Face, scale: float) -> Picture:
    """A square about a face, as far as the picture goes."""
    cut = picture[around(picture, face.box, scale / 2 * 1.25)]
    side = min(cut.shape[:2])
    left = (cut.shape[1] - side) // 2
    return np.ascontiguousarray(cut[:side, left : left + side])


def _marked(picture: Picture, face: Face) -> Picture:
    """The picture with head, mesh and box drawn over it."""
    if face.mesh is None or face.segments is None:
        raise ValueError("a face without mesh and parts has nothing to mark")
    chip = appearance.half(segment.frame(face.mesh))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    parts = cv2.warpAffine(face.segments[..., [FACE, HAIR]], chip, picture.shape[1::-1], None, flags)
    share = masks.channels(np.minimum(parts.astype(np.float32).sum(-1) / 255, 1) * 0.42)
    marked = picture + share * (np.array([230, 159, 0], np.float32) - picture)
    marked = np.clip(marked, 0, 255).astype(np.uint8)
    for x, y in face.mesh[:, :2]:
        cv2.circle(
            marked, (round(float(x) * 8), round(float(y) * 8)), 10, (255, 255, 255), -1, cv2.LINE_AA, 3
        )
    low, high = (tuple(int(v) for v in np.round(face.box[part])) for part in (slice(0, 2), slice(2, 4)))
    cv2.rectangle(marked, low, high, (0, 114, 178), 4, cv2.LINE_AA)
    return np.asarray(marked, np.uint8)


def _radar(panel: Panel, run: Run, middle: tuple[float, float], reach: float) -> None:
    """Gallery identities around the group: how far each is from its nearest member, and the margin."""
    most = float(run.distances.max())
    turns = np.random.default_rng(1).uniform(0, 2 * np.pi, len(run.distances))
    turns[list(run.identities)] = np.linspace(0, 2 * np.pi, len(run.identities), endpoint=False) + 0.3
    radii = reach * run.distances / most
    x, y = panel.left + middle[0] + radii * np.cos(turns), panel.top + middle[1] + radii * np.sin(turns)
    panel.axes.scatter(x, y, 3, GREY_DOT, zorder=2, linewidths=0)
    centre = (panel.left + middle[0], panel.top + middle[1])
    limit = Circle(centre, reach * run.apart / most, fc="none", ec=INK, ls="--", lw=1.5, zorder=3)
    panel.axes.add_patch(limit)
    chosen = list(run.identities)
    panel.axes.scatter(x[chosen], y[chosen], 70, ORANGE, marker="D", edgecolors="white", zorder=4)
    panel.axes.add_patch(Circle(centre, 27, color=BLUE, zorder=4))
    panel.text(*middle, "group", 11.5, color="white", ha="center", va="center", weight="bold")
    panel.text(INSET, middle[1] - 62, "dashed:\nmargin", SMALL, color=FAINT)
    panel.text(PANEL[0] - INSET, middle[1] - 62, "dots:\ngallery", SMALL, color=FAINT, ha="right")


def _audit(panel: Panel, run: Run, top: float) -> None:
    """The audit's rows, as they are: classes that all of the group share."""
    for number, row in enumerate((AUDITED, *run.audit)):
        for column, value in enumerate(row):
            x, y = INSET + 10 + AUDIT_AT[column], top + 21 + 25 * number
            panel.text(x, y, value, SMALL, weight="normal" if number else "bold", va="center_baseline")
    low = top + 21 + 25 * (len(run.audit) + 0.6)
    corner = (panel.left + INSET, panel.top + top + 4)
    panel.axes.add_patch(Rectangle(corner, WIDE, low - top - 6, fc="white", ec=GREY_DOT, zorder=2))
    text = "Their link to the photographs was\nencrypted, and is destroyed."
    panel.text(INSET, low + 10, text, TEXT, va="top")
