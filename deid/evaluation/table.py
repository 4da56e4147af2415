"""A table of attacks with its controls; one whose control fails is marked invalid, whatever its rows say."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deid.evaluation.reid import Estimate, Metric, Result, Templates, compare, permuted, reidentify

CLEAR = "clear"
RANDOM_PAIRS = "random pairs"
RANDOM_REPEATS = 20  # of all probes
LEAST_CLEAR_RANK1 = 0.9
LEAST_ABOVE_CHANCE = 0.5  # of the way from a guess to all hits
MOST_RANDOM_AUC_OFF = 0.1  # random pairs further than this, and surely, from an AUC of one half


@dataclass(frozen=True)
class Table:
    """Rows of one recognizer: the two controls, then each treatment. `problems` is empty when it is valid."""

    recognizer: str
    rows: dict[str, Result]
    problems: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        return not self.problems

    def markdown(self) -> str:
        """The table as Markdown, with its validity and the counts beneath."""
        clear = self.rows[CLEAR]
        lines = [
            "| probes | rank-1 | AUC | EER | TAR at FAR 1 % | at 0.1 % | least alike of all | no face found |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, r in self.rows.items():
            cells = [
                name,
                *map(_cell, (r.rank1, r.auc, r.eer, *r.tar.values(), r.furthest)),
                f"{r.failures_to_acquire}/{r.probes}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        state = "valid: both controls hold" if self.valid else f"INVALID: {'; '.join(self.problems)}"
        lines += [
            "",
            f"{self.recognizer}: {state}. {clear.subjects} people enrolled, {clear.probes} probes; chance "
            f"{clear.chance:.3f}, chance of one who knows the attributes {clear.chance_attributes:.3f}. "
            "95 % intervals: bootstrap over people. A probe without a face is a miss in rank-1, and no part "
            "of the other columns.",
        ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; curves left out, NaN as None."""
        rows = {name: _result_dict(result) for name, result in self.rows.items()}
        return {"recognizer": self.recognizer, "valid": self.valid, "problems": self.problems, "rows": rows}


def build(
    recognizer: str,
    metric: Metric,
    enrolled: Templates,
    clear: Templates,
    treated: dict[str, Templates],
    rng: np.random.Generator,
    groups: dict[Any, Any] | None = None,
    within: bool = False,
    resamples: int = 1000,
) -> Table:
    """Attack the clear probes, random pairs of them, and each treatment's probes, against one enrolment."""
    probes = {CLEAR: clear, RANDOM_PAIRS: permuted(clear, rng, RANDOM_REPEATS), **treated}
    rows = {
        name: reidentify(compare(enrolled, templates, metric, groups, within), rng, resamples)
        for name, templates in probes.items()
    }
    found = problems(rows)
    sizes = {(r.probes, r.subjects) for name, r in rows.items() if name != RANDOM_PAIRS}
    if len(sizes) > 1:
        found.append("the treatments were probed with different numbers of pictures")
    return Table(recognizer, rows, found)


def problems(rows: dict[str, Result]) -> list[str]:
    """What the controls among the rows say against the attack itself; nothing where both hold."""
    clear, random = rows[CLEAR], rows[RANDOM_PAIRS]
    area = random.auc
    found = []
    if not clear.rank1.value >= LEAST_CLEAR_RANK1:
        found.append(
            f"rank-1 of the clear probes is {clear.rank1.value:.2f}, below {LEAST_CLEAR_RANK1}: the labels do not fit "
            "the pictures, or the recognizer is too weak"
        )
    elif clear.rank1.value - clear.chance < LEAST_ABOVE_CHANCE * (1 - clear.chance):
        found.append(
            f"rank-1 of the clear probes is {clear.rank1.value:.2f}, hardly above that of a guess among so few, "
            f"{clear.chance:.2f}: the labels do not fit the pictures, or the recognizer is too weak"
        )
    if not random.impostors:
        found.append("there is nobody to compare with")
    elif not (abs(area.value - 0.5) <= MOST_RANDOM_AUC_OFF or area.low <= 0.5 <= area.high):
        found.append(
            f"AUC of random pairs is {area.value:.2f}, not one half: the attack sees more than faces"
        )
    if clear.unenrolled_subjects:
        found.append(f"no face was found in the enrolment of {clear.unenrolled_subjects} people")
    return found


def _cell(e: Estimate) -> str:
    return "n/a" if np.isnan(e.value) else f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})"


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _estimate_dict(e: Estimate) -> dict[str, float | None]:
    return {"value": _number(e.value), "low": _number(e.low), "high": _number(e.high)}


def _result_dict(r: Result) -> dict[str, Any]:
    return {
        "rank1": _estimate_dict(r.rank1),
        "auc": _estimate_dict(r.auc),
        "eer": _estimate_dict(r.eer),
        **{f"tar_at_far_{far:g}": _estimate_dict(e) for far, e in r.tar.items()},
        "furthest": _estimate_dict(r.furthest),
        "rank5": _number(r.cmc[min(4, len(r.cmc) - 1)]),
        "chance": _number(r.chance),
        "chance_attributes": _number(r.chance_attributes),
        "subjects": r.subjects,
        "probes": r.probes,
        "genuine_pairs": r.genuine,
        "impostor_pairs": r.impostors,
        "failures_to_acquire": r.failures_to_acquire,
        "unenrolled_subjects": r.unenrolled_subjects,
        "unenrolled_probes": r.unenrolled_probes,
    }
