"""What every part of an evaluation hands over: tables of figures with intervals, and plots."""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from deid.evaluation.reid import Estimate

NAN = float("nan")


@dataclass(frozen=True)
class Cell:
    """One figure with its 95 % interval; NaN where it could not be measured, and `text` then says why."""

    value: float
    low: float = NAN
    high: float = NAN
    met: bool | None = None  # against the column's limit; None: nothing is asked
    measured: int | None = None  # how many of the `of` faces, pairs or people the figure is over
    of: int | None = None
    text: str = ""  # shown instead of a number that is not there, or after one that is

    @property
    def short(self) -> str:
        """For a sentence: the value with two digits, or why there is none."""
        return f"{self.value:.2f}" if math.isfinite(self.value) else self.text


@dataclass(frozen=True)
class Column:
    id: str  # of the figure in the JSON: rank1, auc, ...
    title: str
    better: Literal["higher", "lower", ""] = ""
    limit: float | None = None  # threshold asked for; at least where higher is better, at most where lower is
    digits: int = 3

    def met(self, value: float) -> bool | None:
        """Whether a value keeps the limit; None where nothing is asked, or nothing was measured."""
        if self.limit is None or not self.better or math.isnan(value):
            return None
        return value >= self.limit if self.better == "higher" else value <= self.limit


@dataclass
class Table:
    """Rows are treatments, groups or settings; `problems` says why the table must not be believed."""

    id: str  # unique in the evaluation: privacy.forward.dlib.all
    title: str
    columns: list[Column]
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)  # row's name: column's id: cell
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)  # what it is of: recognizer, setting, impostors, ...
    row_title: str = "treatment"

    @property
    def valid(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Plot:
    id: str  # also its file's name: <id>.png
    title: str
    alt: str  # what it shows and says, in words, for those who do not see it
    png: bytes


@dataclass
class Section:
    id: str  # privacy, utility, fairness, ...
    title: str
    intro: list[str] = field(default_factory=list)  # paragraphs, plain text
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)  # further numbers for the JSON: curves, settings


def cell(
    estimate: Estimate, column: Column, measured: int | None = None, of: int | None = None, text: str = ""
) -> Cell:
    """The cell of an estimate, held against the column's limit."""
    met = column.met(estimate.value)
    return Cell(float(estimate.value), float(estimate.low), float(estimate.high), met, measured, of, text)


def slug(name: str) -> str:
    """A name that may stand in an id and a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def as_dict(section: Section) -> dict[str, Any]:
    """A section for JSON: every number with its interval, NaN as None; of plots, the files' names."""
    return {
        "id": section.id,
        "title": section.title,
        "intro": section.intro,
        "tables": {table.id: _table(table) for table in section.tables},
        "plots": [{"file": f"{plot.id}.png", "title": plot.title, "alt": plot.alt} for plot in section.plots],
        "data": section.data,
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "about": table.about,
        "valid": table.valid,
        "problems": table.problems,
        "columns": {c.id: {"title": c.title, "better": c.better, "limit": c.limit} for c in table.columns},
        "rows": {name: {key: _cell(found) for key, found in row.items()} for name, row in table.rows.items()},
        "notes": table.notes,
    }


def _cell(found: Cell) -> dict[str, Any]:
    numbers = {name: number(getattr(found, name)) for name in ("value", "low", "high")}
    rest = {"measured": found.measured, "of": found.of, "met": found.met, "text": found.text}
    return numbers | {name: value for name, value in rest.items() if value not in (None, "")}


def number(value: float) -> float | None:
    """A number for JSON, six digits; None for one that is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
