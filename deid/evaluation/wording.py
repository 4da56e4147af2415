"""What the report says in words: how a table is read, which risk it speaks of, and what all of it does not show."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deid.evaluation.sections import Cell, Column, Section, Table
from deid.evaluation.settings import Evaluation, Thresholds
from deid.evaluation.verdict import Verdict

ORDER = (
    "privacy", "inversion", "utility", "downstream", "naturalness", "composite", "fairness", "explain", "tradeoff",
)  # fmt: skip

CONTROLS = ("clear", "grey head", "random pairs")

# Article 29 Working Party, Opinion 05/2014 on Anonymisation Techniques (WP 216), section 2.2.
RISKS = (
    (
        "Singling out",
        "finding one person's pictures among all",
        "rank-1 from clear photographs; people a surrogate",
    ),
    ("Linkability", "telling that two pictures are of one person", "AUC, and rank-1 of the parrot"),
    (
        "Inference",
        "learning something about a person from the picture",
        "inversion; and see what is kept on purpose",
    ),
)

_SETTINGS = {
    "forward": "The attacker holds clear photographs with names and looks for the person on each de-identified one.",
    "reverse": "The attacker holds de-identified photographs with names and looks for the person on each clear one.",
    "parrot": "The attacker holds de-identified photographs with names and looks for the person on other "
    "de-identified ones; where k people share a surrogate, one in k is what is promised.",
    "parrot, retrained": "As the parrot, after the recognizer's last layer was trained anew on de-identified faces.",
}
_ALIKE = "Compared are only people of one sex, age band and skin-tone band, since surrogates keep those on purpose."
_SECTIONS = {
    "inversion": "A network learned to undo the treatment on half of the people and was tried on the others: a gain "
    "over the constant guess means that something of the source can be inferred.",
    "utility": "Each figure compares source and result by one and the same estimator.",
    "downstream": "A model trained on de-identified pictures and one trained on the source are tested on the same "
    "clear pictures; the difference is the price.",
    "naturalness": "How far the results are from photographs, as detectors and a fixed feature extractor see it.",
    "composite": "One number from privacy, utility and naturalness, weighed by three profiles; no substitute for any "
    "of them.",
    "fairness": "A row is a group of people; overlapping intervals mean that the difference may be chance.",
    "explain": "How much each region of the head contributes to what the recognizer sees.",
    "tradeoff": "A row is one setting; none is best at everything, so choose by what your use needs.",
}
_TABLES = {  # by the start of their ids
    "privacy.k": "k-anonymity asks that nobody can be told from fewer than k people: fewer people behind one "
    "surrogate, or a better guess, is worse.",
    "privacy.chosen": "A row is one attack: what the attacker holds and does, by which recognizer, and among whom he "
    "looks. The control says whether the attack works at all.",
}
_ANY = "A row is one {row}; in brackets is the 95 % interval."


def how_to_read(section: Section, table: Table) -> str:
    """The sentence under a table's heading."""
    setting = table.about.get("setting", "")
    if setting in _SETTINGS:
        alike = f" {_ALIKE}" if table.about.get("impostors") == "alike" else ""
        return _SETTINGS[setting] + alike
    said = next((text for id, text in _TABLES.items() if table.id.startswith(id)), None)
    return said or _SECTIONS.get(section.id, _ANY.format(row=table.row_title))


def number(value: float, digits: int) -> str:
    """As it is printed: never -0, a real minus; "" for what is not finite."""
    if not math.isfinite(value):
        return ""
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def interval(cell: Cell, digits: int) -> str:
    """ "0.000 to 0.083"; "" without one."""
    low, high = number(cell.low, digits), number(cell.high, digits)
    return f"{low} to {high}" if low and high else ""


def limit(column: Column) -> str:
    """What a column's head says beside its title."""
    if not column.better:
        return ""
    said = f"{column.better} is better"
    if column.limit is None:
        return said
    least = "at least" if column.better == "higher" else "at most"
    return f"{said}; asked: {least} {column.limit:.3g}"


def summary(table: Table, chosen: str) -> str:
    """What stands on the handle of a table that is folded up: the chosen treatment's figures, three at most."""
    row = table.rows.get(chosen, {}) if table.valid else {}
    measured = [c for c in table.columns if c.digits and c.id in row and math.isfinite(row[c.id].value)]
    first = sorted(measured, key=lambda column: column.limit is None)[:3]
    parts = [f"{c.title} {_with_interval(row[c.id], c.digits)}" for c in first]
    count = f"{len(table.rows)} rows"
    if not table.valid:
        return f"{count}, invalid"
    return f"{count}. The chosen treatment: {', '.join(parts)}" if parts else count


def gap(found: Mapping[str, Any] | None) -> str:
    """One sentence about the largest difference between groups."""
    if not found:
        return "Not measured: there is no figure by group."
    groups = [str(group) for group in found.get("groups", ())]
    between = f", {groups[0]} against {groups[-1]}" if len(groups) > 1 else ""
    digits = 1 if abs(found["value"]) >= 10 else 3
    cell = Cell(found["value"], _end(found.get("low")), _end(found.get("high")))
    kind = f" by {found['kind']}" if found.get("kind") else ""
    said = f"{found['what']}{kind}{between}: {_with_interval(cell, digits)}."
    return f"{said[:1].upper()}{said[1:]} {_chance(found.get('by_chance'), found.get('p'))}".strip()


def not_shown(verdict: Verdict, evaluation: Evaluation, about: Mapping[str, Any]) -> list[str]:
    """What the figures leave open; the report's first page says it beside them."""
    source = about.get("source") or {}
    people, faces = source.get("people"), source.get("faces")
    tried = ", ".join(_names(about.get("recognizers") or ())) or "none"
    said = [
        f"Recognizers that were not tried. Tried were: {tried}. A stronger one, one trained on such surrogates, or "
        "somebody who knows the person may find more.",
        f"More people or other days. The figures are over {_count(people, 'people')} and {_count(faces, 'faces')}; "
        "where their photographs are of one session, other days and cameras were not measured.",
        "Whether k holds across releases. It is counted within one; whoever holds two of one source can intersect "
        "them.",
        "What is outside of the face or head: hair below the chin, body, clothes, tattoos, text and places stay as "
        "they are. Whoever holds the source can match the background.",
        "That nothing can be inferred. Pose and expression, and apparent sex, age and skin tone where the method "
        "keeps them, can be read from the result on purpose.",
        "Faces that the detector did not find in the source. They are in no figure, and may go out as they are.",
        f"That the thresholds are the right ones. {_chosen_by(evaluation)} No law or standard names them.",
    ]
    if evaluation.source.labels is None:
        said.append(
            "Recognition on another photograph: without labels every face is a person of its own, "
            "enrolled and probed with the same picture."
        )
    if verdict.treatment in {trial.name for trial in evaluation.trials}:
        said.append(
            "A release that you hold: the chosen treatment is a trial that was run for this evaluation."
        )
    unpaired = {name: count for name, count in (about.get("unpaired") or {}).items() if count}
    if unpaired:
        listed = ", ".join(f"{name} {count}" for name, count in unpaired.items())
        said.append(f"Faces whose result could not be paired or is missing: {listed}.")
    if verdict.problems:
        said.append(
            f"What {_count(len(verdict.problems), 'invalid tables')} should have shown; each says why."
        )
    return said


def _with_interval(cell: Cell, digits: int) -> str:
    spread = interval(cell, digits)
    return f"{number(cell.value, digits)} ({spread})" if spread else number(cell.value, digits)


def _names(recognizers: Any) -> list[str]:
    return [str(each.get("name", each) if isinstance(each, Mapping) else each) for each in recognizers]


def _count(value: Any, noun: str) -> str:
    if value is None:
        return f"an unknown number of {noun}"
    return f"{value:,} {noun if value != 1 else {'people': 'person'}.get(noun, noun.rstrip('s'))}"


def _chosen_by(evaluation: Evaluation) -> str:
    given = "this tool's defaults" if evaluation.thresholds == Thresholds() else "set in the configuration"
    return f"They are {given}."


def _chance(value: Any, share: Any) -> str:
    """About groups dealt out at random: the largest gap on average, and how often it is as large as this one."""
    if isinstance(value, bool):
        return (
            "As large a gap comes about by chance."
            if value
            else "So large a gap hardly comes about by chance."
        )
    if not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    often = f", and as large as this in {share:.1%} of the cases" if isinstance(share, int | float) else ""
    return f"With groups dealt out at random it would be {number(float(value), 3)} on average{often}."


def _end(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def ordered(sections: Sequence[Section]) -> list[Section]:
    """In the report's order; those that it does not know last, as they came."""
    places = {id: place for place, id in enumerate(ORDER)}
    return sorted(sections, key=lambda section: places.get(section.id, len(ORDER)))
