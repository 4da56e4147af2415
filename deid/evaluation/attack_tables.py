"""The tables of attacks: columns and what is asked of them, rows, and what the controls say."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import groups, heads, verdict
from deid.evaluation.adversary import IMPOSTORS, Attack, Setting
from deid.evaluation.reid import Estimate, Result
from deid.evaluation.sections import NAN, Cell, Column, Table, cell, number, slug
from deid.evaluation.settings import Evaluation
from deid.evaluation.table import CLEAR, RANDOM_PAIRS, problems

GREY = "grey head"
CONTROLS = (CLEAR, RANDOM_PAIRS, GREY)
POINTS = 200  # of a curve in the JSON
Rows = dict[str, Result]


def empty(attack: Attack, setting: Setting) -> Table:
    """A table without rows, with the problem where the faces do not allow for it."""
    faces, evaluation, probes = attack.faces, attack.evaluation, attack.probes(setting)
    tested = len(np.unique(faces.persons[probes]))
    table = Table(
        f"privacy.{slug(setting.name)}.{slug(attack.attacker.name)}.{attack.impostors}",
        f"{setting.name.capitalize()}: {setting.title}; {attack.attacker.name} against {IMPOSTORS[attack.impostors]}",
        columns(evaluation, setting, attack.impostors, tested),
        about={
            "recognizer": attack.attacker.name,
            "own": "yes" if attack.attacker.own else "no",
            "setting": setting.name,
            "impostors": attack.impostors,
        },
    )
    enrolled, _ = attack.sides(setting, faces.clear)
    people = len(np.unique(enrolled.subjects[enrolled.acquired]))
    if setting.parrot and len(faces.probes) and not len(probes):
        table.problems.append(
            "not measurable: every probe is a picture that is enrolled itself, and two of a person are needed"
        )
    elif people < 2 or not tested:
        table.problems.append(f"not measurable: {people} people are enrolled and {tested} probed")
    elif setting.retrained and not _trainable(attack):
        table.problems.append(
            f"the attack was not trained: fewer than {heads.LEAST_PEOPLE} people have two pictures"
        )
    return table


def _trainable(attack: Attack) -> bool:
    faces = attack.faces
    return heads.trainable(faces.templates(attack.attacker, faces.clear, np.arange(len(faces))))


def columns(evaluation: Evaluation, setting: Setting, impostors: str, people: int) -> list[Column]:
    """The figures of a table, with what is asked of them; people: that are probed."""
    rank1 = area = None
    if impostors == "all":
        rank1 = evaluation.thresholds.rank1 if setting.name == "forward" else None
        rank1 = parrot_limit(evaluation, people) if setting.parrot else rank1
    elif not setting.parrot:
        area = evaluation.thresholds.auc_alike
    last = [Column("training", "rank-1, training people")] if setting.retrained else []
    return [
        Column("rank1", "rank-1", "lower", rank1),
        Column("rank5", "rank-5", "lower"),
        Column("auc", "AUC", "lower", area),
        Column("eer", "EER", "higher"),
        Column("tar_1", "TAR at FAR 1 %", "lower"),
        Column("tar_01", "TAR at FAR 0.1 %", "lower"),
        Column("furthest", "least alike of all", "lower"),
        Column("lost", "no picture"),
        *last,
    ]


def parrot_limit(evaluation: Evaluation, people: int) -> float | None:
    """What is asked of the parrot's rank-1: the setting, else 1/k and half of a 95 % interval of such a share."""
    if evaluation.thresholds.parrot is not None or evaluation.k is None or not people:
        return evaluation.thresholds.parrot
    return verdict.parrot_limit(evaluation.k, people)


def finished(attack: Attack, setting: Setting, table: Table, rows: Rows) -> Rows:
    """Controls first, what they say, and the counts that all rows share."""
    ordered = {name: rows[name] for name in (*CONTROLS, *rows) if name in rows}
    if CLEAR not in rows or RANDOM_PAIRS not in rows:
        table.problems.append("the clear faces could not be compared")
        return ordered
    for name in (CLEAR, RANDOM_PAIRS):
        if name not in table.rows:
            table.rows[name] = cells(rows[name], table.columns, judged=False)
    table.rows = {
        name: table.rows[name] for name in dict.fromkeys((*CONTROLS, *table.rows)) if name in table.rows
    }
    table.problems += problems(rows)
    clear = rows[CLEAR]
    guess = f"rank-1 of a guess: {clear.chance:.3f}"
    if not attack.within:
        guess += (
            f"; of a guess that knows sex, age band and skin-tone band: {clear.chance_attributes:.3f}, and by luck up "
            f"to {_lucky(attack, setting):.3f} in 97.5 % of such guesses"
        )
    table.notes.insert(
        0,
        f"{clear.subjects} people enrolled, {clear.probes} probes; {guess}. Figures of a treatment are over the probes "
        "that it left a picture of; the last column says how many are lost. In the clear control a probe without a "
        "face is a miss, and no part of AUC, EER and TAR.",
    )
    table.notes += [
        f"An AUC keeps its limit either way round: here at least {1 - c.limit:.3g}, too."
        for c in table.columns
        if c.id == "auc" and c.limit is not None
    ]
    if setting.name != "parrot, retrained" and np.isin(attack.probes(setting), attack.faces.enrolled).any():
        table.notes.append(
            "Probes are the enrolled photographs themselves, so the clear control cannot fail for a weak recognizer."
        )
    return ordered


def _lucky(attack: Attack, setting: Setting) -> float:
    comparison = attack.compared(*attack.sides(setting, attack.faces.clear))
    return NAN if comparison is None else groups.chance_upper(comparison.group_size)


def add(
    table: Table, rows: Rows, name: str, result: Result | None, evaluation: Evaluation, why: str = ""
) -> None:
    """A row of the table; one of NaN where there is no result."""
    if result is None:
        text = why or "no pictures to compare"
        table.rows[name] = {column.id: Cell(NAN, text=text) for column in table.columns}
        return
    rows[name] = result
    promised = evaluation.thresholds.parrot is not None or name == evaluation.favourite
    judged = name not in CONTROLS and (promised or not table.about["setting"].startswith("parrot"))
    table.rows[name] = cells(result, table.columns, judged)


def cells(result: Result, asked: list[Column], judged: bool = True) -> dict[str, Cell]:
    """The cells of a result, by column; judged: held against the columns' limits."""
    found: dict[str, Estimate] = {
        name: getattr(result, name) for name in ("rank1", "rank5", "auc", "eer", "furthest", "lost")
    }
    found |= dict(zip(("tar_1", "tar_01"), result.tar.values(), strict=True))
    why = {"auc": "no face to compare", "eer": "no face to compare"}
    why |= dict.fromkeys(("tar_1", "tar_01"), "too few pairs")
    made = {}
    for column in asked:
        if column.id not in found:
            made[column.id] = Cell(NAN, text="not measured")
            continue
        estimate = found[column.id]
        text = why.get(column.id, "") if math.isnan(estimate.value) else ""
        if column.id == "rank1" and result.unenrolled_subjects:
            text = f"{result.unenrolled_subjects} people could not be enrolled"
        held = column if judged else Column(column.id, column.title)
        of = result.subjects + result.unenrolled_subjects
        if column.id == "rank1" and result.failures_to_acquire and not text:
            text = f"{result.failures_to_acquire} of {result.probes} probes have no picture"
        kept = cell(estimate, held, result.subjects, of, text)
        if column.id == "auc":  # as far below one half is as much of a link
            kept = replace(kept, met=held.met(max(estimate.value, 1 - estimate.value)))
        made[column.id] = kept
    return made


def curves(rows: Rows) -> dict[str, dict[str, list[float | None]]]:
    """CMC and ROC of each row, thinned out."""
    made = {}
    for name, result in rows.items():
        far, tar = thinned(result.far, result.tpr)
        made[name] = {
            "cmc": [number(v) for v in result.cmc[:POINTS]],
            "far": [number(v) for v in far],
            "tar": [number(v) for v in tar],
        }
    return made


def thinned(far: NDArray[np.float64], tar: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """At most `POINTS` of a curve's points: its ends, and between them those evenly far along it."""
    if len(far) <= POINTS or not np.isfinite(far + tar).all():
        return far[:POINTS], tar[:POINTS]
    along = far + tar + np.log10(np.maximum(far, 1e-4)) / 4
    chosen = np.searchsorted(along, np.linspace(along[0], along[-1], POINTS))
    chosen = np.unique(np.append(0, np.minimum(chosen, len(far) - 1)))[-POINTS:]
    return far[chosen], tar[chosen]
