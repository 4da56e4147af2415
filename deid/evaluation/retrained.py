"""The parrot with a head retrained on what it attacks, and the controls that say whether the training worked."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import heads
from deid.evaluation.adversary import Attack, Setting
from deid.evaluation.attack_tables import GREY, Rows, add, finished
from deid.evaluation.reid import Comparison, Templates, permuted
from deid.evaluation.sections import NAN, Cell, Table, cell
from deid.evaluation.table import CLEAR, LEAST_CLEAR_RANK1, RANDOM_PAIRS, RANDOM_REPEATS

MOST_WORSE = 0.1  # rank-1 that training may lose where it must not lose any


def retrained(attack: Attack, setting: Setting, table: Table) -> Rows:
    """Fill the table, and give its results; every row has heads of its own."""
    rows: Rows = {}
    faces, evaluation = attack.faces, attack.evaluation
    treated = {CLEAR: faces.clear, GREY: faces.grey, **faces.treated}
    for name, seen in treated.items():
        every = heads.compact(faces.templates(attack.attacker, seen, np.arange(len(faces))))
        trained = _trained(attack, setting, every)
        if trained is None:
            add(table, rows, name, None, evaluation, "not trained: too few different pictures")
            continue
        figures = attack.figures if name == CLEAR else attack.released
        add(table, rows, name, figures(trained.comparison()), evaluation)
        known = figures(trained.comparison(known=True))
        table.rows[name]["training"] = cell(known.rank1, table.columns[-1]) if known else Cell(NAN)
        if name == CLEAR:
            mixed = trained.shuffled(attack.rng)
            add(table, rows, RANDOM_PAIRS, attack.figures(mixed), evaluation)
            table.problems += _untrained(attack, setting, every, table.rows[CLEAR])
    table.notes.append(
        f"Head: covariance within people whitened, compared by cosine; trained on the treatment's own pictures of the "
        f"people of {heads.FOLDS - 1} folds of {heads.FOLDS}, and tried on the people of the fifth against everybody "
        "enrolled. Beside it, the rank-1 of people whose pictures the head was trained on."
    )
    return finished(attack, setting, table, rows)


@dataclass(frozen=True)
class _Trained:
    """The heads of all folds with the templates that they are tried on."""

    attack: Attack
    heads: list[heads.Head]
    enrolled: Templates
    probes: Templates
    fold: NDArray[np.intp]  # [P]

    def comparison(self, known: bool = False) -> Comparison:
        """known: with heads that were trained on the probes' people."""
        groups, within = self.attack.faces.group_of, self.attack.within
        return heads.attack(self.heads, self.enrolled, self.probes, self.fold, groups, within, known)

    def shuffled(self, rng: np.random.Generator) -> Comparison:
        """Random pairs."""
        probes, fold = permuted(self.probes, rng, RANDOM_REPEATS), np.tile(self.fold, RANDOM_REPEATS)
        return replace(self, probes=probes, fold=fold).comparison()


def _trained(attack: Attack, setting: Setting, every: Templates) -> _Trained | None:
    """Heads for these templates of all faces; None where there is nothing to train on, or to compare."""
    places = attack.faces.enrolled, attack.probes(setting)
    enrolled, probes = (Templates(every.vectors[place], every.subjects[place]) for place in places)
    if attack.compared(enrolled, probes) is None:
        return None
    try:
        made = heads.train(every, attack.fold, attack.fit)
    except ValueError:
        return None
    return _Trained(attack, made, enrolled, probes, attack.fold[places[1]])


def _untrained(attack: Attack, setting: Setting, every: Templates, clear: dict[str, Cell]) -> list[str]:
    """What the controls say against the training: it must keep clear people apart, and undo a known disturbance."""
    found = []
    held, known = clear["rank1"].value, clear["training"].value
    if not held >= LEAST_CLEAR_RANK1:
        found.append(
            f"the attack was not trained: retrained on clear faces, rank-1 of other clear faces is {held:.2f}"
        )
    if known < held - MOST_WORSE:
        found.append(
            f"the attack was not trained: people that it was trained on score {known:.2f}, others {held:.2f}"
        )
    moved = heads.disturbed(every, attack.rng)
    trained = _trained(attack, setting, moved)
    if trained is None:
        return [*found, "the attack was not trained: the clear pictures are too few"]
    plain = attack.compared(trained.enrolled, trained.probes)
    after, before = heads.rank1(trained.comparison()), NAN if plain is None else heads.rank1(plain)
    if not after >= held - MOST_WORSE:
        found.append(
            f"the attack was not trained: of clear faces disturbed in a known way it finds {after:.2f}, and "
            f"{before:.2f} without training, but {held:.2f} of those that are not"
        )
    return found
