"""Tables and the plot of `inversion`: gains over the constant guess, and how far restored embeddings lead back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import learning, plots, reid
from deid.evaluation.faces import Attacker
from deid.evaluation.sections import NAN, Cell, Column, Plot, Table, cell

Floats = NDArray[np.float64]
CLEAR, SHUFFLED, GREY = "clear", "shuffled pairs", "grey head"
RIDGE, NETWORK = "ridge", "network"
PIXELS, DETAIL = "pixels", "pixels, colour apart"
LEAST_CLEAR, MOST_SHUFFLED = 0.5, 0.1  # gain that the controls must show
MISSING = "too few pictures to learn from"


@dataclass
class Attempt:
    """Squared errors [N] of a guess and of the constant one by what was restored; NaN for faces left out."""

    errors: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    vectors: dict[str, Floats] = field(
        default_factory=dict
    )  # restored embeddings [N, D] less the constant guess

    def gain(self, target: str, weight: Floats | None = None) -> float:
        """Share of the constant guess's error that is gone, where face n counts `weight` [N] times."""
        if target not in self.errors:
            return NAN
        error, constant = self.errors[target]
        heavy = np.where(np.isfinite(error), 1.0 if weight is None else weight, 0.0)
        whole = float((heavy * np.nan_to_num(constant)).sum())
        return 1 - float((heavy * np.nan_to_num(error)).sum()) / whole if whole > 0 else NAN


Attempts = Mapping[str, dict[str, Attempt]]  # by treatment and attacker
Rank = Callable[[Attempt], reid.Result | None]

GAIN = Column("gain", "gain over a constant guess, the stronger attacker", "lower")
DETAILS = Column("gain_detail", "the same, mean colour of the face apart", "lower")
BY = {
    RIDGE: Column("gain_ridge", "gain, ridge", "lower"),
    NETWORK: Column("gain_network", "gain, network", "lower"),
}
RANK1 = Column("rank1", "rank-1 of the restored embedding", "lower")
AUC = Column("auc", "AUC of the same", "lower")


def embedding_table(attacker: Attacker, attempts: Attempts, rank: Rank, draws: Floats) -> Table:
    """Of one recognizer's embeddings, each row by the attackers that tried. draws: [R, N] weights of the faces."""
    title = f"Restoring the source's embedding by {_short(attacker.name)}"
    table = Table(f"inversion.{attacker.name}", title, [GAIN, RANK1, AUC, *BY.values()])
    table.about["recognizer"] = attacker.name
    chance = NAN
    for name, tried in attempts.items():
        best, row = _gains(attacker.name, tried, draws)
        found = rank(tried[best]) if best else None
        for column in (RANK1, AUC):
            row[column.id] = cell(getattr(found, column.id), column) if found else Cell(NAN, text=MISSING)
        table.rows[name] = row
        chance = found.chance if found else chance
    table.problems += _problems(table)
    table.notes += [
        "Rank-1 and AUC: cosine of the restored embedding with the clear enrolment of the tested half, both less the "
        f"mean of the other half; rank-1 of a guess is {chance:.3f}.",
        "The attackers hold the embedding of the treated picture too: on clear pictures that is the target itself.",
    ]
    return table


def pixel_table(attempts: Attempts, draws: Floats) -> Table:
    """Of the pixels inside the face. draws: [R, N] weights of the faces."""
    table = Table("inversion.pixels", "Restoring the source's pixels", [GAIN, DETAILS, *BY.values()])
    for name, tried in attempts.items():
        best, row = _gains(PIXELS, tried, draws)
        row[DETAILS.id] = _gain(tried[best], DETAIL, DETAILS, draws) if best else Cell(NAN, text=MISSING)
        table.rows[name] = row
    table.problems += _problems(table)
    table.notes.append(
        "Errors inside the face only, in chips of 64 px: what a treatment leaves around it is no restored face. Light, "
        "pose and skin tone are part of the gain; its second column leaves out the mean colour of each face."
    )
    return table


def _short(name: str) -> str:
    """A recognizer's name without what is said about it."""
    return name.partition(",")[0].partition(" (")[0]


def _gains(target: str, tried: dict[str, Attempt], draws: Floats) -> tuple[str, dict[str, Cell]]:
    """The stronger attacker's name, "" where none tried, and the cells of the gains."""
    gains = {kind: attempt.gain(target) for kind, attempt in tried.items()}
    known = {kind: gain for kind, gain in gains.items() if np.isfinite(gain)}
    if not known:
        return "", {column.id: Cell(NAN, text=MISSING) for column in (GAIN, *BY.values())}
    best = max(known, key=lambda kind: known[kind])
    row = {
        BY[kind].id: _gain(tried[kind], target, BY[kind], draws)
        if kind in known
        else Cell(NAN, text="not tried")
        for kind in tried
    }
    return best, {GAIN.id: _gain(tried[best], target, GAIN, draws, best), **row}


def _gain(attempt: Attempt, target: str, column: Column, draws: Floats, text: str = "") -> Cell:
    value, samples = attempt.gain(target), np.array([attempt.gain(target, weight) for weight in draws])
    known = int(np.isfinite(attempt.errors[target][0]).sum())
    return cell(learning.interval(value, samples), column, known, draws.shape[1], text)


def _problems(table: Table) -> list[str]:
    """What the controls say against the attackers."""
    clear, shuffled = table.rows[CLEAR][GAIN.id].value, table.rows[SHUFFLED][GAIN.id]
    found = []
    if not clear >= LEAST_CLEAR:
        said = "not there" if np.isnan(clear) else f"{clear:.2f}, below {LEAST_CLEAR:.2f}"
        found.append(f"the gain on clear pictures is {said}: the attack was not trained")
    if shuffled.low > MOST_SHUFFLED:  # a point alone may be the luck of one shuffle
        found.append(
            f"the gain on shuffled pairs is {shuffled.value:.2f}: the attack sees more than the pairs"
        )
    return found


def plot(tables: Sequence[Table]) -> Plot:
    """Gains of the stronger attacker on every target, side by side."""
    columns = [Column(t.id, t.title.removeprefix("Restoring the source's ")) for t in tables]
    rows = {
        name: {c.id: t.rows[name][GAIN.id] for c, t in zip(columns, tables, strict=True)}
        for name in tables[0].rows
    }
    joined = Table("inversion", "What is restored of the source face", columns, rows)
    said = "; ".join(
        f"{name} " + ", ".join(f"{row[c.id].value:.2f}" for c in columns) for name, row in rows.items()
    )
    names = ", ".join(c.title for c in columns)
    alt = f"Bars of the gain over a constant guess, for {names}: {said}."
    return plots.bars("inversion", alt, joined, columns, "gain over a constant guess")
