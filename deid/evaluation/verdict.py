"""The first page: five figures of the chosen treatment against what the configuration asks. What was not measured is
red, never green.

Which of the three risks of Opinion 05/2014 of the Article 29 Working Party (WP 216, section 2.2) a figure speaks of is
part of it: singling out, linkability, inference.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from deid.evaluation.sections import NAN, Cell, Section, Table, number
from deid.evaluation.settings import Evaluation

State = Literal["met", "missed", "not measured", "not asked"]
EXPRESSION = {"smile_mesh": "face mesh", "smile_network": "expression network"}  # `surrogates.METRICS`
Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Figure:
    id: str
    title: str
    state: State
    asked: str  # "at most 0.10"
    cell: Cell  # the worst that was measured; NaN where nothing was
    by: str = ""  # which recognizer or estimator it is of
    meaning: str = ""
    risk: str = ""  # of Opinion 05/2014; "" for utility
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    treatment: str
    figures: tuple[Figure, ...]
    gap: dict[str, Any] | None = None  # the largest between groups: `Section("fairness").data["largest_gap"]`
    problems: tuple[str, ...] = ()  # titles of tables that must not be believed, with the reason

    @property
    def asked(self) -> tuple[Figure, ...]:
        return tuple(figure for figure in self.figures if figure.state != "not asked")

    @property
    def holds(self) -> bool:
        """Whether everything that was asked was measured and met."""
        return all(figure.state == "met" for figure in self.asked)

    @property
    def state(self) -> State:
        """Of all figures together; the worst of them."""
        states = {figure.state for figure in self.asked}
        worst: tuple[State, ...] = ("missed", "not measured")
        return next((state for state in worst if state in states), "met")

    def lines(self) -> dict[str, str]:
        """For a terminal: each figure's title, and its value, its state and what was asked."""

        def said(figure: Figure) -> str:
            value = figure.cell.value
            return "not measured" if math.isnan(value) else f"{value:.3f}: {figure.state}"

        return {figure.title: f"{said(figure)}; asked: {figure.asked}" for figure in self.figures}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "treatment": self.treatment,
            "holds": self.holds,
            "figures": {figure.id: _figure_dict(figure) for figure in self.figures},
            "largest_gap": self.gap,
            "invalid_tables": list(self.problems),
        }


@dataclass(frozen=True)
class _Found:
    """One candidate for the worst: a cell, or why there is none."""

    by: str
    cell: Cell | None = None
    why: str = ""


@dataclass(frozen=True)
class _Question:
    """What a figure asks: `bad` is larger the worse a value is, and `limit` the largest that is met."""

    id: str
    title: str
    asked: str
    limit: float
    bad: Callable[[float], float]
    meaning: str
    risk: str = ""
    remarks: tuple[str, ...] = field(default=())


def verdict(sections: Sequence[Section], evaluation: Evaluation, people: int | None = None) -> Verdict:
    """The five figures of `evaluation.favourite`, and the largest gap between groups.

    people: how many were probed, for the interval of 1/k where the parrot's tables name no limit.
    """
    name = evaluation.favourite
    tables = [table for section in sections for table in section.tables]
    figures = (
        _rank1(tables, name, evaluation),
        _alike(tables, name, evaluation),
        _parrot(tables, name, evaluation, people),
        _found_again(tables, name, evaluation),
        _expression(tables, name, evaluation),
    )
    gaps = [section.data.get("largest_gap") for section in sections if section.id == "fairness"]
    invalid = tuple(f"{table.title}: {'; '.join(table.problems)}" for table in tables if not table.valid)
    return Verdict(name, figures, next((gap for gap in gaps if gap), None), invalid)


def parrot_limit(k: int, people: int | None) -> float:
    """1/k and its 95 % interval over this many people (normal approximation, two-sided); 1/k where they are unknown."""
    share = 1 / k
    return share + Z * math.sqrt(share * (1 - share) / people) if people else share


def _parrot_limit(tables: list[Table], k: int, people: int | None) -> float:
    """What the parrot's own tables ask, the least of it; else by the number of people."""
    columns = [c for t in tables if t.about.get("setting", "").startswith("parrot") for c in t.columns]
    limits = [column.limit for column in columns if column.id == "rank1" and column.limit is not None]
    return min(limits, default=parrot_limit(k, people))


def _rank1(tables: list[Table], name: str, evaluation: Evaluation) -> Figure:
    limit = evaluation.thresholds.rank1
    question = _Question(
        "rank1",
        "People found from clear photographs (rank-1)",
        f"at most {limit:.2f}",
        limit,
        lambda value: value,
        "Somebody who holds named, clear photographs looks for each de-identified face: how often the first hit is "
        "the right person. Worst recognizer.",
        "singling out, linkability",
    )
    return _judged(question, _attacks(tables, name, ("forward",), "all", "rank1"))


def _alike(tables: list[Table], name: str, evaluation: Evaluation) -> Figure:
    limit = evaluation.thresholds.auc_alike
    question = _Question(
        "auc_alike",
        "What is left of identity among people who look alike (AUC)",
        f"at most {limit:.2f}",
        limit - 0.5,
        lambda value: abs(value - 0.5),
        "The same attack among people of one sex, age band and skin-tone band only, which surrogates keep on purpose. "
        "0.50 is guessing; as far below it is as much of a link. Worst recognizer.",
        "linkability",
    )
    return _judged(question, _attacks(tables, name, ("forward",), "alike", "auc"))


def _parrot(tables: list[Table], name: str, evaluation: Evaluation, people: int | None) -> Figure:
    title = "People found from other de-identified pictures (parrot, rank-1)"
    meaning = (
        "Somebody who holds named pictures of the same release looks for the others: how often the first hit is the "
        "right person. Worst recognizer and training."
    )
    if evaluation.k is not None:
        meaning += " k people share a surrogate, so about 1/k is promised."
    found = _attacks(tables, name, ("parrot", "parrot, retrained"), "all", "rank1")
    asked, k = evaluation.thresholds.parrot, evaluation.k
    if asked is None and k is None:
        cells = [(each.cell.value, each) for each in found if each.cell and math.isfinite(each.cell.value)]
        worst = max(cells, key=lambda pair: pair[0])[1] if cells else _Found("")
        cell = worst.cell or Cell(NAN)
        return Figure(
            "parrot", title, "not asked", "nothing", cell, worst.by, meaning, "linkability, k-anonymity"
        )
    if asked is None:
        asked = _parrot_limit(tables, k or 1, people)
        limit = f"at most {asked:.3f} (1/k and its interval, k = {k})"
    else:
        limit = f"at most {asked:.2f}"
    question = _Question(
        "parrot", title, limit, asked, lambda value: value, meaning, "linkability, k-anonymity"
    )
    return _judged(question, found)


def _found_again(tables: list[Table], name: str, evaluation: Evaluation) -> Figure:
    limit = evaluation.thresholds.found_again
    question = _Question(
        "found_again",
        "Faces found again",
        f"at least {limit:.2f}",
        -limit,
        lambda value: -value,
        "How many of the faces that a detector, unrelated to the job, finds in the source it finds at the same place "
        "in the result.",
    )
    return _judged(question, [_utility(tables, name, "found_again", "unrelated detector")])


def _expression(tables: list[Table], name: str, evaluation: Evaluation) -> Figure:
    limit = evaluation.thresholds.expression
    question = _Question(
        "expression",
        "Expression kept",
        f"at least {limit:.2f}",
        -limit,
        lambda value: -value,
        "How many faces are smiling or neutral as they were before. Worse of two estimators.",
    )
    return _judged(question, [_utility(tables, name, key, by) for key, by in EXPRESSION.items()])


def _attacks(
    tables: list[Table], name: str, settings: tuple[str, ...], impostors: str, column: str
) -> list[_Found]:
    """Of every recognizer that any table is of, its cell in each of the settings; only the first of them must be."""
    recognizers = sorted(
        {t.about["recognizer"] for t in tables if {"recognizer", "setting"} <= t.about.keys()}
    )
    found = []
    for recognizer in recognizers:
        for setting in settings:
            about = {"recognizer": recognizer, "setting": setting, "impostors": impostors}
            fitting = [table for table in tables if about.items() <= table.about.items()]
            by = recognizer if len(settings) == 1 else f"{recognizer}, {setting}"
            if fitting or setting == settings[0]:
                found.append(_one(fitting, name, column, by))
    return found or [_Found("", why="no recognizer was tried")]


def _utility(tables: list[Table], name: str, column: str, by: str) -> _Found:
    """Of the only table of the utility section that has such a column."""
    ours = [table for table in tables if table.id.partition(".")[0] == "utility"]
    return _one([t for t in ours if column in {c.id for c in t.columns}], name, column, by)


def _one(tables: list[Table], name: str, column: str, by: str) -> _Found:
    """The cell of a treatment in the only table that fits, or why there is none."""
    if len(tables) != 1:
        return _Found(by, why="there is more than one such table" if tables else "there is no such table")
    if not tables[0].valid:
        return _Found(by, why=f"its table is invalid: {'; '.join(tables[0].problems)}")
    cell = tables[0].rows.get(name, {}).get(column)
    if cell is None or not math.isfinite(cell.value):
        return _Found(by, why=cell.text if cell and cell.text else "there is no such figure")
    return _Found(by, cell)


def _judged(question: _Question, found: Iterable[_Found]) -> Figure:
    """Missed where any candidate is; else not measured where any is not; else met."""
    known = [(question.bad(each.cell.value), each.cell, each.by) for each in found if each.cell]
    missing = [each for each in found if not each.cell]
    badness, cell, by = max(known, key=lambda item: item[0]) if known else (NAN, Cell(NAN), "")
    remarks = [f"not measured{f' by {each.by}' if each.by else ''}: {each.why}" for each in missing]
    if known and badness > question.limit:
        state: State = "missed"
    elif missing or not known:
        state = "not measured"
    else:
        state = "met"
        if any(question.bad(end) > question.limit for end in (cell.low, cell.high) if math.isfinite(end)):
            remarks.append("the interval reaches past what is asked")
    if cell.of and cell.measured is not None and cell.measured < cell.of:
        remarks.append(f"measured on {cell.measured} of {cell.of}")
    remarks += [cell.text] if cell.text else []
    return Figure(
        question.id,
        question.title,
        state,
        question.asked,
        cell,
        by,
        question.meaning,
        question.risk,
        tuple(remarks),
    )


def _figure_dict(figure: Figure) -> Mapping[str, Any]:
    return {
        "title": figure.title,
        "state": figure.state,
        "asked": figure.asked,
        "value": number(figure.cell.value),
        "low": number(figure.cell.low),
        "high": number(figure.cell.high),
        "by": figure.by,
        "risk": figure.risk,
        "remarks": list(figure.remarks),
    }
