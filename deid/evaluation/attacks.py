"""Re-identification of de-identified faces by every recognizer, in four settings, with the controls beside it.

Enrolled is what the attacker holds with names on it, probed what he wants a name for; see `reid` for the figures, and
`heads` for the retrained attack.
"""

from typing import Any

import numpy as np

from deid.evaluation import attack_plots, behind, heads
from deid.evaluation.adversary import IMPOSTORS, SETTINGS, Attack, Setting
from deid.evaluation.attack_tables import GREY, Rows, add, curves, empty, finished
from deid.evaluation.faces import Faces
from deid.evaluation.reid import permuted
from deid.evaluation.retrained import retrained
from deid.evaluation.sections import Section, Table
from deid.evaluation.settings import Evaluation
from deid.evaluation.table import CLEAR, RANDOM_PAIRS, RANDOM_REPEATS

INTRO = (
    "A recognizer compares every probe with everybody who is enrolled, and the most alike is its guess. Rank-1 is how "
    "often that is the right person, rank-5 how often the person is among the first five. AUC is the chance that a "
    "picture is more like one of the same person than like one of somebody else: .5 is no better than guessing, and "
    "as far below .5 is as much of a link as above. EER, and TAR at a FAR, are those of a yes-or-no comparison. Least "
    "alike of all counts the probes whose own person comes last: above chance, avoiding the person gives him away.",
    "Four attackers: one holds clear photographs with names and looks for de-identified faces (forward); one holds "
    "de-identified faces with names and looks for clear photographs (reverse); one holds other de-identified faces of "
    "the same release with names (parrot); and one has, beyond that, retrained the recognizer's head on them "
    "(parrot, retrained).",
    "Each table has its controls. Clear probes must be recognized, or the attack is too weak to say anything. Random "
    "pairs must be at AUC .5. The grey head is what is left of a person outside of it. Brackets are 95 % intervals, "
    "bootstrap over people. A table whose controls fail is marked invalid.",
)


def privacy(
    faces: Faces, evaluation: Evaluation, notes: dict[str, dict[str, Any]], rng: np.random.Generator
) -> Section:
    """Every attack on every treatment, people behind a surrogate as a recognizer counts them, CMC and ROC.

    notes: of each treatment, what its run says about itself; `people` of a manifest is shown beside the count.
    """
    section = Section("privacy", "Re-identification", list(INTRO))
    drawn: dict[str, dict[str, Any]] = {}
    fold = heads.folds(faces.persons, rng)
    for attacker in faces.attackers:
        for impostors in IMPOSTORS:
            attack = Attack(faces, evaluation, attacker, impostors, fold, rng)
            for setting, (table, rows) in attacked(attack).items():
                section.tables.append(table)
                if impostors == "all":
                    drawn.setdefault(attacker.name, {})[setting] = curves(rows)
                if impostors == "all" and setting == "forward" and table.rows:
                    section.plots += attack_plots.forward(attacker.name, rows, evaluation, table.valid)
        section.tables.append(behind.table(faces, evaluation, attacker, notes, rng))
    section.data["curves"] = drawn
    return section


def attacked(attack: Attack) -> dict[str, tuple[Table, Rows]]:
    """By name of the setting, the table and its results."""
    made: dict[str, tuple[Table, Rows]] = {}
    controls: dict[int, Rows] = {}
    for setting in SETTINGS:
        table = empty(attack, setting)
        if not table.problems and setting.retrained:
            made[setting.name] = table, retrained(attack, setting, table)
        elif not table.problems:
            known = controls.setdefault(len(attack.probes(setting)), {})
            made[setting.name] = table, _plain(attack, setting, table, known)
        else:
            made[setting.name] = table, {}
    return made


def _plain(attack: Attack, setting: Setting, table: Table, controls: Rows) -> Rows:
    """Fill the table; controls: of the same probes, measured here if they are not there yet."""
    if not controls:
        enrolled, probes = attack.sides(setting, attack.faces.clear)
        pairs = {CLEAR: probes, RANDOM_PAIRS: permuted(probes, attack.rng, RANDOM_REPEATS)}
        made = {name: attack.figures(attack.compared(enrolled, some)) for name, some in pairs.items()}
        controls |= {name: result for name, result in made.items() if result is not None}
    rows = dict(controls)
    for name, seen in {GREY: attack.faces.grey, **attack.faces.treated}.items():
        result = attack.released(attack.compared(*attack.sides(setting, seen)))
        add(table, rows, name, result, attack.evaluation)
    return finished(attack, setting, table, rows)
