"""The composite score of `hifd` 0.1.0 (InfraFace, MIT) of every treatment, by hifd itself, with intervals over people.

hifd's components: P, half of one minus the cosine of the templates of source and result; Q, quality; U1, agreement of
age, sex, ethnicity, expression and landmarks; U2, of gaze and micro-expression; U3, of the pulse. A composite is their
weighted harmonic mean. What is not there is None; hifd then drops it and renormalises the weights (`hifd.composite`),
and takes the mean over the tasks that are there for U1 (`hifd.aggregate`). Q stays None for a second reason: in 0.1.0
the pipeline takes the mean NIQE for it as it is, of which less is better, and has no place for LPIPS. Look again with
the next version.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import plots
from deid.evaluation.faces import Faces
from deid.evaluation.hifd_export import Export, export
from deid.evaluation.observe import Observation
from deid.evaluation.reid import Estimate
from deid.evaluation.sections import Cell, Column, Plot, Section, Table, cell
from deid.evaluation.settings import Evaluation
from deid.evaluation.table import RANDOM_PAIRS

if TYPE_CHECKING:
    import hifd
    import pandas as pd

Floats = NDArray[np.float64]
U1 = ("age", "gender", "macro_exp", "landmark")  # hifd's tasks of U1, less ethnicity
COMPONENTS = {"P": ("privacy",), "U1": U1, "U2": ("gaze",)}  # the tasks that are there
EXPORTED = {"privacy": "face_embedding"}  # hifd's name of a task in the scores, and in the predictions
PROFILES = {"privacy_first": "privacy first", "balanced": "balanced", "clinical": "clinical"}
COLUMNS = (
    Column("P", "privacy P", "higher"),
    Column("U1", "utility U1: age, sex, expression, landmarks", "higher"),
    Column("U2", "utility U2: gaze", "higher"),
    *(Column(id, f"composite, {title}", "higher") for id, title in PROFILES.items()),
)
SHOWN = {"P": "privacy P", "U1": "utility U1", "U2": "utility U2"} | {
    id: f"composite, {title}" for id, title in PROFILES.items()
}
NOTES = (
    "A face that is not found in the result has agreement 0 in all of U1 and U2, so that a treatment gains nothing by "
    "destroying faces; the counts say how many were found. P is over the pictures that are there.",
    "P is no rate of re-identification: it is the mean distance of a face to its own source, half of one minus the "
    "cosine. 'random pairs' shows what P is for a clear photograph of somebody else, and how much two unrelated "
    "photographs agree.",
    "95 % intervals: bootstrap over people, of hifd's scores of single faces.",
)


def composite(faces: Faces, evaluation: Evaluation, rng: np.random.Generator) -> Section:
    """hifd's components and composites, for the source against itself, random pairs of people, and every treatment."""
    made = Table("composite.hifd", "Composite score (hifd 0.1.0)", list(COLUMNS), about=_about(faces))
    made.notes = [*_missing(), *NOTES]
    pairs = _random_pairs(faces, rng)
    scores = _scored(faces, {RANDOM_PAIRS: pairs} if pairs else {})
    if scores is None:
        made.problems.append("no face was found in the source")
        return _section(made)
    written, result = scores
    for name, title in written.methods.items():
        made.rows[name] = _row(result, written, name, title, faces, rng, evaluation.resamples)
    for name in written.left_out:
        made.rows[name] = {c.id: Cell(float("nan"), text="no pictures") for c in COLUMNS}
    return _section(made)


def weights() -> dict[str, dict[str, float]]:
    """Of each profile, the weights of the components that are there, as hifd renormalises them."""
    import hifd

    chosen = {
        p: {c: w for c, w in given.items() if c in COMPONENTS} for p, given in hifd.DEFAULT_PROFILES.items()
    }
    return {
        p: {c: round(w / sum(given.values()), 6) for c, w in given.items()} for p, given in chosen.items()
    }


def _section(table: Table) -> Section:
    intro = [
        "One number for privacy and use together, as hifd defines it: the weighted harmonic mean of its components, "
        "under its three profiles, on the predictions of this evaluation's estimators. 1 is best. The harmonic mean is "
        "near 0 where a single component is, so neither the source nor a black square can do well."
    ]
    plot = [_plot(table)] if table.rows else []
    return Section("composite", "Composite score", intro, [table], plot, {"weights": weights()})


def _plot(table: Table) -> Plot:
    columns = [Column(id, title) for id, title in SHOWN.items()]
    said = [f"{name} {', '.join(row[c.id].short for c in columns)}" for name, row in table.rows.items()]
    alt = f"Components and composite scores of hifd, in this order: {', '.join(SHOWN.values())}. {'; '.join(said)}."
    return plots.dots("composite-hifd", alt, table, columns, "score, with 95 % interval; 1 is best")


def _missing() -> list[str]:
    """What hifd asks for and this evaluation has not, in plain words."""
    used = weights()
    said = "; ".join(
        f"{PROFILES[p]}: " + ", ".join(f"{c} {w:.2f}" for c, w in given.items()) for p, given in used.items()
    )
    note = (
        "Not the whole of hifd: picture quality (Q: LPIPS and NIQE) and the pulse in video (U3) were not measured, and "
        f"hifd shares out their weights among the rest ({said})."
    )
    if used["balanced"] == used["clinical"]:
        note += " Balanced and clinical then weigh the same: what tells them apart is the pulse."
    return [
        note,
        "There is no estimator of ethnicity here: hifd then takes the mean of the other four parts of U1. There is "
        "none of micro-expressions: U2 is gaze alone. Scores do not compare with published ones that had all parts.",
    ]


def _random_pairs(faces: Faces, rng: np.random.Generator) -> list[Observation]:
    """For each face the clear face of somebody else: the people in a random circle, each followed by the next."""
    people = rng.permutation(np.unique(faces.persons))
    if len(people) < 2:
        return []
    own = {person: np.flatnonzero(faces.persons == person) for person in people.tolist()}
    following = dict(zip(people.tolist(), np.roll(people, 1).tolist(), strict=True))
    taken = dict.fromkeys(people.tolist(), 0)
    chosen = list[Observation]()
    for person in faces.persons.tolist():
        others = own[following[person]]
        chosen.append(faces.clear[others[taken[person] % len(others)]])
        taken[person] += 1
    return chosen


def _scored(
    faces: Faces, references: Mapping[str, Sequence[Observation]]
) -> "tuple[Export, hifd.PipelineResult] | None":
    """hifd's own pipeline over the exported predictions, in a folder that is gone afterwards; None without a face."""
    import hifd

    with tempfile.TemporaryDirectory(prefix="deid-hifd-") as name:  # made with mode 700
        folder = Path(name)
        written = export(faces, folder / "predictions", references)
        if not next(iter(written.measured.values()), {}):
            return None
        return written, hifd.run_pipeline(
            str(written.methods_file),
            str(folder / "predictions"),
            str(folder / "scores"),
            estimators_config=str(written.estimators_file),
        )


def _row(
    result: "hifd.PipelineResult",
    written: Export,
    name: str,
    title: str,
    faces: Faces,
    rng: np.random.Generator,
    resamples: int,
) -> dict[str, Cell]:
    """Values are hifd's; the interval of each is over resampled people."""
    scored: Any = result.composite_df.set_index("method").loc[title].to_dict()
    low, high = _intervals(
        _samples(result.per_sample_df, title, written.samples), faces.persons, rng, resamples
    )
    row = dict[str, Cell]()
    for c in COLUMNS:
        known, found = _coverage(written, name, c.id)
        value = float("nan") if scored[c.id] is None else float(scored[c.id])
        text = "" if np.isfinite(value) else "not measured"
        row[c.id] = cell(Estimate(value, low[c.id], high[c.id]), c, found, known, text)
    return row


def _coverage(written: Export, name: str, column: str) -> tuple[int, int]:
    """Faces, and how many of them were found by every estimator of a column."""
    tasks = COMPONENTS.get(column, sum(COMPONENTS.values(), ()))
    found = [written.measured[name].get(EXPORTED.get(task, task)) for task in tasks]
    known = [f for f in found if f is not None]
    return len(written.samples), int(np.all(known, axis=0).sum()) if known else 0


def _samples(scores: "pd.DataFrame", method: str, samples: Sequence[str]) -> dict[str, Floats]:
    """Scores [N] of each task, the mean over its estimators, as `hifd.aggregate` takes it; NaN where there is none."""
    own = scores[scores["method"] == method]
    means = own.groupby(["task", "sample_id"])["s_k"].mean().unstack("task").reindex(list(samples))
    return {str(task): means[task].to_numpy(np.float64) for task in means.columns}


def _intervals(
    tasks: dict[str, Floats], people: NDArray[Any], rng: np.random.Generator, resamples: int
) -> tuple[dict[str, float], dict[str, float]]:
    """2.5 % and 97.5 % of every column over resamples of people [N]."""
    import hifd

    whose = np.unique(people, return_inverse=True)[1]
    size = int(whose.max()) + 1
    times = rng.multinomial(size, np.full(size, 1 / size), size=resamples)[:, whose].astype(np.float64)
    means = {task: _means(values, times) for task, values in tasks.items()}
    parts = {
        name: np.mean([means[task] for task in wanted if task in means], axis=0)
        for name, wanted in COMPONENTS.items()
        if any(task in means for task in wanted)
    }
    drawn = [
        dict(zip(parts, map(float, values), strict=True)) for values in zip(*parts.values(), strict=True)
    ]
    rows = [
        d | hifd.compose_profiles(d.get("P"), None, d.get("U1"), d.get("U2"), None)
        for d in drawn
        if np.isfinite(list(d.values())).all()
    ]
    bounds = {
        c.id: np.percentile([row.get(c.id, np.nan) for row in rows] or [np.nan], [2.5, 97.5]) for c in COLUMNS
    }
    return {id: float(b[0]) for id, b in bounds.items()}, {id: float(b[1]) for id, b in bounds.items()}


def _means(values: Floats, times: Floats) -> Floats:
    """[R] mean of the finite values [N], each taken as often as `times` [R, N] says; NaN where none is taken."""
    known = np.isfinite(values)
    weight = times[:, known].sum(axis=1)
    return np.divide(
        times[:, known] @ values[known], weight, out=np.full(len(times), np.nan), where=weight > 0
    )


def _about(faces: Faces) -> dict[str, str]:
    return {
        "faces": str(len(faces)),
        "people": str(len(set(faces.persons))),
        "recognizers": ", ".join(attacker.name for attacker in faces.attackers),
    }
