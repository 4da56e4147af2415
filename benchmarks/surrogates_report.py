"""The table of `benchmarks.surrogates` as JSON and Markdown, and its contact sheets."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.observing import decode
from deid.evaluation.groups import chance_upper
from deid.evaluation.surrogates import METRICS, Figure
from deid.evaluation.table import Table

WITHIN = " (impostors of the same sex, age band and skin tone)"
RANK1, AUC_ALL, AUC_WITHIN = 0.10, 0.70, 0.60  # at most
ROWS = 6  # people on a page of a contact sheet: neutral and smiling, source and result


def report(
    clear: Any, kept: dict[str, dict[str, Figure]], tables: dict[str, Table], notes: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """All figures for JSON."""
    sizes = group_sizes(clear.groups())
    return {
        "machine": common.machine(),
        "photographs": len(clear.photographs),
        "smile_threshold": round(clear.smile_threshold, 5),
        "smile_threshold_balanced_accuracy": round(clear.smile_accuracy, 3),
        "groups": {
            "count": len(set(clear.groups().values())),
            "people_alone": int((sizes == 1).sum()),
            "chance": round(float((1 / sizes).mean()), 4),
            "chance_upper": round(chance_upper(sizes), 4),
        },
        "treatments": {
            name: {"notes": notes.get(name, {}), "figures": {n: as_dict(f) for n, f in figures.items()}}
            for name, figures in kept.items()
        },
        "tables": {name: table.as_dict() for name, table in tables.items()},
    }


def group_sizes(by_subject: dict[str, Any]) -> Any:
    """People in each subject's group, [S]."""
    members = list(by_subject.values())
    return np.array([members.count(group) for group in members])


def as_dict(figure: Figure) -> dict[str, Any]:
    e = figure.estimate
    numbers = {name: number(getattr(e, name)) for name in ("value", "low", "high")}
    return {**numbers, "measured": figure.measured, "of": figure.of, "met": figure.met}


def number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def markdown(made: dict[str, Any]) -> str:
    """The table: a metric a row, a treatment a column."""
    names = list(made["treatments"])
    controls = [name for name in next(iter(made["tables"].values()))["rows"] if name not in names]
    lines = [
        f"| metric | target | {' | '.join([*controls, *names])} |",
        "|---" * (2 + len(controls + names)) + "|",
    ]
    lines += [
        privacy(made, title, controls + names, *row) for title in made["tables"] for row in asked(made, title)
    ]
    for metric, about in METRICS.items():
        rows = [made["treatments"][name]["figures"].get(metric) for name in names]
        if any(rows):
            sign = "" if about.limit is None else f"{'>=' if about.at_least else '<='} {about.limit:g}"
            cells = [*("" for _ in controls), *(cell(row) if row else "" for row in rows)]
            lines.append(
                f"| {about.title}{', median' * (about.statistic == 'median')} | {sign} | {' | '.join(cells)} |"
            )
    speeds = [made["treatments"][name]["notes"].get("seconds_a_face", "") for name in names]
    if any(speeds):
        lines.append(
            f"| seconds a face, whole job | | {' | '.join([*('' for _ in controls), *map(str, speeds)])} |"
        )
    g = made["groups"]
    lines += [
        "",
        f"{g['count']} groups of sex, age band and skin-tone band, {g['people_alone']} of {made['photographs'] // 2} "
        f"people alone in theirs; chance of one who knows the attributes {g['chance']:.3f}, at most "
        f"{g['chance_upper']:.3f} in 97.5 % of draws. Smile threshold {made['smile_threshold']}, right for "
        f"{made['smile_threshold_balanced_accuracy']:.0%} of the clear pictures (balanced).",
    ]
    problems = {name: table["problems"] for name, table in made["tables"].items() if table["problems"]}
    return "\n".join(lines + [f"INVALID: {name}: {'; '.join(why)}" for name, why in problems.items()])


def asked(made: dict[str, Any], title: str) -> list[tuple[str, float | None]]:
    """Columns of a table of attacks that are asked for, and the most that each may be."""
    if title.endswith(WITHIN):
        return [("auc", AUC_WITHIN)]
    return [("rank1", min(RANK1, made["groups"]["chance_upper"])), ("auc", AUC_ALL), ("furthest", None)]


def privacy(made: dict[str, Any], title: str, names: list[str], column: str, limit: float | None) -> str:
    rows = made["tables"][title]["rows"]
    label = {"rank1": "rank-1", "auc": "AUC", "furthest": "least alike of all"}[column]
    cells = []
    for name in names:
        entry = dict(rows[name][column])
        value = entry["value"]
        entry["met"] = None if limit is None or value is None else value <= limit
        cells.append(cell(entry))
    target = "" if limit is None else f"<= {limit:.3g}"
    return f"| {label}, {title} | {target} | {' | '.join(cells)} |"


def cell(entry: dict[str, Any]) -> str:
    """Value, interval, and the mark of a target that is missed; how many were measured where not all were."""
    if entry["value"] is None:
        return "n/a"
    text = f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"
    if entry.get("measured", 0) != entry.get("of", 0):
        text += f", {entry['measured']} of {entry['of']}"
    return f"{text} **missed**" if entry["met"] is False else text


def sheets(
    folder: Path, name: str, clear: dict[str, bytes], output: dict[str, bytes], height: int = 500
) -> None:
    """Pages of source beside result, two pictures of a person in a row, as JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = sorted(key for key in output if key in clear)
    rows = [keys[at : at + 2] for at in range(0, len(keys), 2)]
    for page, at in enumerate(range(0, len(rows), ROWS)):
        made = [
            [decode(data[key]) for key in row for data in (clear, output)] for row in rows[at : at + ROWS]
        ]
        common.contact_sheet(folder / f"{name.replace('/', '_')}-{page:02d}.jpg", made, height)
