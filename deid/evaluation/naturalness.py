"""How natural treated faces look, without a network trained to judge it: confidence, seam, sharpness, features."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import kernel, plots, surrogates
from deid.evaluation.faces import Faces
from deid.evaluation.observe import Observation
from deid.evaluation.reid import Estimate
from deid.evaluation.sections import Cell, Column, Plot, Section, Table, cell
from deid.evaluation.settings import Evaluation

Floats = NDArray[np.float64]
HALVES = "clear, two halves"  # the row that says what the distance is where nothing was done
COLUMNS = (
    Column("score", "detector's confidence, result over source", "higher"),
    Column("mesh_score", "mesh's confidence, result over source", "higher"),
    Column("seam", "gradient along the seam, result over source", "lower", surrogates.SEAM),
    Column("seam_worst", "the same, worst of 12 sides", "lower"),
    Column("sharpness", "sharpness, result less source"),
    Column("sharpness_off", "sharpness changed, either way", "lower"),
)
DISTANCE = Column("distance", "kernel distance to the clear faces", "lower", digits=4)
MOST = 2000  # faces that the kernel distance is over; of more, as many are drawn


def naturalness(faces: Faces, evaluation: Evaluation, rng: np.random.Generator) -> Section:
    """Confidence, seam, sharpness and kernel distance of every treatment."""
    resamples = evaluation.resamples
    signs = Table(
        "naturalness.signs",
        "Confidence, seam and sharpness",
        list(COLUMNS),
        notes=[
            "A face that is found no more has confidence 0, and no sharpness. Seam: 1 where the border of the replaced "
            "part looks as the source does there, above it an edge was added, below it the border is blurred. "
            "Sharpness: below 0, the result is more blurred than its source. 95 % intervals: bootstrap over people."
        ],
        about=_about(faces),
    )
    for name in faces.treated:
        found = values(faces, name)
        signs.rows[name] = {
            c.id: _cell(
                surrogates.bootstrap(found[c.id], faces.persons, "mean", rng, resamples), c, found[c.id]
            )
            for c in COLUMNS
        }
    distances = _distances(faces, rng, resamples)
    intro = [
        "Whether a treated picture looks like a photograph, by signs that can be measured without a network that was "
        "trained to judge it. How pictures look to people is what the human study asks."
    ]
    return Section("naturalness", "Naturalness", intro, [signs, distances], [_plot(distances)])


def values(faces: Faces, treatment: str) -> dict[str, Floats]:
    """Values [N] of each of `COLUMNS`, of every face in a treatment; NaN where it was not measured."""
    before, after, seams = faces.clear, faces.treated[treatment], faces.seams[treatment]
    sharper = _of(after, "sharpness") - _of(before, "sharpness")
    return {
        "score": _ratio(_of(after, "score"), _of(before, "score")),
        "mesh_score": _ratio(_of(after, "mesh_score"), _of(before, "mesh_score")),
        "seam": np.array([seam.whole for seam in seams], np.float64),
        "seam_worst": np.array([seam.worst for seam in seams], np.float64),
        "sharpness": sharper,
        "sharpness_off": np.abs(sharper),
    }


def _of(seen: Sequence[Observation], name: str) -> Floats:
    return np.array([getattr(o, name) for o in seen], np.float64)


def _ratio(after: Floats, before: Floats) -> Floats:
    """[N] NaN where there was nothing before."""
    return np.divide(after, before, out=np.full(len(before), np.nan), where=before > 0)


def _cell(estimate: Estimate, column: Column, found: Floats) -> Cell:
    measured = int(np.isfinite(found).sum())
    return cell(estimate, column, measured, len(found), "" if measured else "not measured in any face")


def _distances(faces: Faces, rng: np.random.Generator, resamples: int) -> Table:
    """The kernel distance of each treatment, and of clear faces to clear faces."""
    count = len(faces)
    chosen = np.sort(rng.permutation(count)[:MOST])
    people, clear = faces.persons[chosen], _features(faces.clear, chosen)
    unit = kernel.scale(clear)
    table = Table(
        "naturalness.distance",
        "Kernel distance between the features of clear and treated faces",
        [DISTANCE],
        notes=[
            "Squared maximum mean discrepancy, unbiased (it may fall below 0), with the polynomial kernel of Binkowski "
            "et al. 2018; features: the 256 activations before the outputs of MTCNN's O-Net, over their root mean "
            "square in the clear faces. These are not the features of other published distances, and the numbers do "
            f"not compare with them. {HALVES!r} is the distance of clear faces of one half of the people to those of "
            "the other half, over random halves: nothing within its interval differs from chance. Other rows compare "
            "each result with its source among pairs of different people; 95 % intervals: bootstrap over people.",
            "Faces that are not found, in the source or in the result, have no features and are left out: a treatment "
            "that leaves few faces is judged by those few.",
        ],
        about=_about(faces) | {"faces": str(len(chosen)), "features": "MTCNN O-Net, 256"},
    )
    floor = kernel.halves(clear / unit, people, rng, resamples)
    table.rows[HALVES] = {DISTANCE.id: _distance_cell(floor, clear)}
    for name, seen in faces.treated.items():
        after = _features(seen, chosen)
        found = kernel.paired(clear / unit, after / unit, people, rng, resamples)
        table.rows[name] = {DISTANCE.id: _distance_cell(found, clear + after)}
    return table


def _features(seen: Sequence[Observation], chosen: NDArray[np.intp]) -> Floats:
    return np.stack([seen[n].features for n in chosen]).astype(np.float64)


def _distance_cell(estimate: Estimate, features: Floats) -> Cell:
    measured = int(np.isfinite(features).all(axis=1).sum())
    text = "" if np.isfinite(estimate.value) else "too few faces found"
    return cell(estimate, DISTANCE, measured, len(features), text)


def _about(faces: Faces) -> dict[str, str]:
    return {"faces": str(len(faces)), "people": str(len(set(faces.persons)))}


def _plot(table: Table) -> Plot:
    said = "; ".join(_said(name, row[DISTANCE.id]) for name, row in table.rows.items())
    alt = f"Kernel distance of each treatment to the clear faces, smaller is more natural: {said}."
    return plots.bars("naturalness-distance", alt, table, [DISTANCE], "kernel distance")


def _said(name: str, found: Cell) -> str:
    if not np.isfinite(found.value):
        return f"{name} {found.text}"
    return f"{name} {found.value:.4f} ({found.low:.4f} to {found.high:.4f})"
