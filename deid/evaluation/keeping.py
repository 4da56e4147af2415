"""What is left for use: agreement of each treatment's faces with their sources, by `surrogates.METRICS`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import plots, surrogates
from deid.evaluation.faces import Faces
from deid.evaluation.sections import Cell, Column, Plot, Section, Table, cell
from deid.evaluation.settings import Evaluation, Thresholds
from deid.evaluation.surrogates import METRICS, Figure

# Tables: title, metrics, and what to know about the estimators: whether the steering of surrogates uses them.
STEERED = "deid steers its own surrogates by this estimator, so for them the agreement is an upper bound"
TABLES: dict[str, tuple[str, Sequence[str], str]] = {
    "detection": (
        "Faces found again",
        ("found_again", "box_iou", "found_by_own", "own_iou"),
        "The unrelated detector is BlazeFace, which no part of the pipeline uses. The pipeline's own detector places "
        "the surrogate, so that it finds it again says less.",
    ),
    "geometry": (
        "Landmarks, pose and gaze",
        ("landmarks", "yaw", "pitch", "roll", "gaze", "gaze_side"),
        f"Landmarks and pose are the face mesh's: {STEERED}. Gaze is the iris model's, which no steering uses; one "
        f"within {surrogates.AHEAD:g} eye widths of the middle of the eye counts as straight ahead.",
    ),
    "expression": (
        "Expression",
        ("smile_mesh", "smile_network", "expression"),
        f"Mesh: {STEERED}. The network (fer) was trained by other people on other pictures; no steering uses it. Its "
        f"seven classes are {', '.join(surrogates.expression.CLASSES)}.",
    ),
    "attributes": (
        "Sex, age and skin tone",
        ("sex", "age", "skin"),
        f"Sex and age are those of the pipeline's own heads: {STEERED}. Skin tone is measured in the pixels inside "
        "the mesh's outline, and is steered too.",
    ),
    "picture": (
        "Traces in the picture",
        ("seam_shows", "score_fell"),
        "A seam is found from source and result alone; the scores are those of the pipeline's own detector and mesh.",
    ),
}
SHOWN = {  # in the plot, and what it is called there
    "found_again": "face found again",
    "smile_network": "smiling or neutral",
    "expression": "likeliest of 7 expressions",
    "gaze_side": "gaze: left, ahead, right",
    "sex": "apparent sex",
}
NOTE = (
    "Source and result are measured by the same estimator. A result without a face fails every share and takes no part "
    "in means and medians; a source without one is left out. 95 % intervals: bootstrap over people."
)


def utility(faces: Faces, evaluation: Evaluation, rng: np.random.Generator) -> Section:
    """Agreement of source and result for every treatment: one table a kind of figure, and a plot of shares."""
    figures = measured(faces, rng, evaluation.resamples)
    tables = [
        Table(
            f"utility.{id}",
            title,
            [column(name, evaluation.thresholds) for name in names],
            notes=[NOTE, note],
            about={"faces": str(len(faces)), "people": str(len(set(faces.persons)))},
        )
        for id, (title, names, note) in TABLES.items()
    ]
    for table in tables:
        table.rows = {name: _row(made, table.columns) for name, made in figures.items()}
    intro = [
        "A surrogate is of use where a face is still found, at the same place, with the same pose, gaze and "
        "expression, and apparently of the same sex, age and skin tone."
    ]
    return Section("utility", "Utility", intro, tables, [_plot(tables)])


def measured(faces: Faces, rng: np.random.Generator, resamples: int) -> dict[str, dict[str, Figure]]:
    """Every figure of `surrogates.compare` of every treatment, over all faces."""
    return {
        name: surrogates.summarize(values(faces, name), faces.persons, rng, resamples)
        for name in faces.treated
    }


def values(faces: Faces, treatment: str) -> dict[str, NDArray[np.float64]]:
    """Values [N] of each metric, of every face in a treatment; see `surrogates.compare`."""
    return surrogates.compare(
        faces.clear, faces.treated[treatment], faces.seams[treatment], faces.smile_threshold
    )


def column(metric: str, thresholds: Thresholds) -> Column:
    """The column of a metric; what the evaluation asks for goes before what `METRICS` asks."""
    about = METRICS[metric]
    asked = {"found_again": thresholds.found_again, "found_by_own": thresholds.found_again}
    asked |= dict.fromkeys(("smile_mesh", "smile_network"), thresholds.expression)
    title = about.title + ", median" * (about.statistic == "median")
    return Column(metric, title, "higher" if about.at_least else "lower", asked.get(metric, about.limit))


def _row(figures: dict[str, Figure], columns: Sequence[Column]) -> dict[str, Cell]:
    return {c.id: figure_cell(figures[c.id], c) for c in columns}


def figure_cell(figure: Figure, column: Column) -> Cell:
    """The cell of a figure; words where no face was measured."""
    text = "" if figure.measured else "not measured in any face"
    return cell(figure.estimate, column, figure.measured, figure.of, text)


def _plot(tables: Sequence[Table]) -> Plot:
    """The shares that are `SHOWN`, of every treatment, and their numbers in words."""
    rows: dict[str, dict[str, Cell]] = {}
    for table in tables:
        for name, row in table.rows.items():
            rows.setdefault(name, {}).update(row)
    columns = [Column(id, title, "higher") for id, title in SHOWN.items()]
    shown = Table("utility.shares", "Share of faces that keep what they should", columns, rows)
    said = [f"{name} " + ", ".join(row[c.id].short for c in columns) for name, row in rows.items()]
    alt = (
        f"Shares of the faces of each treatment that keep, in this order: {', '.join(SHOWN.values())}. "
        f"{'; '.join(said)}. 95 % intervals are in the tables."
    )
    return plots.dots("utility-shares", alt, shown, columns, "share of faces, with 95 % interval")
