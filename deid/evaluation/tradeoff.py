"""Strength against utility over all treatments of an evaluation, and which of them no other one is better than."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import options, plots, sections, surrogates
from deid.evaluation.faces import Faces
from deid.evaluation.sections import NAN, Cell, Column, Plot, Section, Table
from deid.evaluation.settings import Evaluation, Thresholds

Notes = Mapping[str, Mapping[str, Any]]  # by treatment
KEPT = (
    "found_again",
    "smile_mesh",
    "smile_network",
    "sex",
)  # of `surrogates.METRICS`: all of them, or not kept
RETRAINED = "parrot, retrained"
# Figure: settings of the attack, impostors and column of the privacy tables; the worst recognizer counts.
PRIVACY = {
    "rank1": (("forward",), "all", "rank1"),
    "reverse": (("reverse",), "all", "rank1"),
    "auc": (("forward",), "all", "auc"),
    "auc_alike": (("forward",), "alike", "auc"),
    "parrot": (("parrot", RETRAINED), "all", "rank1"),
}
# Figure: of `surrogates.METRICS`; the worse one counts.
UTILITY = {
    "found_again": ("found_again",),
    "expression": ("smile_mesh", "smile_network"),
    "sex": ("sex",),
    "seam": ("seam",),
}
TITLES = {
    "rank1": "rank-1, clear enrolment",
    "reverse": "rank-1, clear probes",
    "auc": "AUC, all",
    "auc_alike": "AUC, same kind",
    "parrot": "rank-1, parrot",
    "kept": "all kept",
    "found_again": "found again",
    "expression": "expression as before",
    "sex": "sex as before",
    "seam": "seam",
}
LESS_IS_BETTER = (*PRIVACY, "seam")
# Plot: the privacy figure across, and what it says. Less is stronger.
VIEWS = {
    "clear": ("auc_alike", "worst AUC among the same kind of people (0.5: chance)"),
    "parrot": ("parrot", "worst parrot rank-1, both sides de-identified"),
}
UP = "found again, expression and sex kept: share"


@dataclasses.dataclass(frozen=True)
class Point:
    """One treatment: `settings` of the job over its defaults, None for results that the job did not make."""

    name: str
    settings: Mapping[str, Any] | None
    figures: dict[str, Cell]  # by the names of `TITLES`


def tradeoff(made: Sequence[Section], faces: Faces, evaluation: Evaluation, notes: Notes) -> Section:
    """Points of strength and utility of every treatment, and the plots.

    made: the other sections; read are the tables of the section `privacy`, by their `about` (setting, impostors), but
    for those that are not valid. notes: of each treatment, see `options.of`.

    The section's `data["points"]` holds for each treatment name, settings, whether it is the chosen one, in which plots
    it is efficient, and the figures with their intervals.
    """
    rng = np.random.default_rng(evaluation.seed)
    points = [
        Point(
            name, options.of(name, evaluation, notes), figures(name, made, faces, rng, evaluation.resamples)
        )
        for name in faces.treated
    ]
    best = {view: efficient(_places(points, across)) for view, (across, _) in VIEWS.items()}
    table = _table(points, evaluation.thresholds)
    table.notes += [_efficient_note(view, names) for view, names in best.items() if names]
    return Section(
        "tradeoff",
        "Strength against utility",
        _intro(made),
        [table],
        [p for view in VIEWS if (p := _plot(view, points, best[view], evaluation, _limit(view, made)))],
        {
            "measured_on": {
                "title": evaluation.title,
                "faces": len(faces),
                "people": len(set(faces.persons.tolist())),
            },
            "points": [_point(p, evaluation.favourite, best) for p in points],
        },
    )


def figures(
    name: str, made: Sequence[Section], faces: Faces, rng: np.random.Generator, resamples: int
) -> dict[str, Cell]:
    """All figures of a treatment, by the names of `TITLES`; a Cell of NaN where nothing valid was measured.

    Where one of the attacks could not be measured, the text of the Cell names it: the worst may be worse.
    """
    privacy = [t for s in made if s.id == "privacy" for t in s.tables]
    found = {}
    for figure, (attacks, impostors, column) in PRIVACY.items():
        chosen = [t for t in privacy if _asked(t, attacks, impostors)]
        given = [(t, t.rows.get(name, {}).get(column, Cell(NAN)) if t.valid else Cell(NAN)) for t in chosen]
        cells = [c for _, c in given]
        lacking = sorted({_attack(t) for t, c in given if not np.isfinite(c.value)})
        kept = worst(map(either_way, cells) if column == "auc" else cells)
        found[figure] = dataclasses.replace(kept, text=f"not by {'; '.join(lacking)}" if lacking else "")
    found |= useful(name, faces, rng, resamples)
    return {figure: found[figure] for figure in TITLES}


def _asked(table: Table, attacks: tuple[str, ...], impostors: str) -> bool:
    return table.about.get("setting") in attacks and table.about.get("impostors", "all") == impostors


def _attack(table: Table) -> str:
    return f"{table.about.get('recognizer', table.title)}, {table.about.get('setting', '')}"


def worst(cells: Iterable[Cell], most: bool = True) -> Cell:
    """The cell with the greatest value, or with the least one; NaN where none has a value."""
    known = [c for c in cells if np.isfinite(c.value)]
    return (max if most else min)(known, key=lambda c: c.value, default=Cell(NAN))


def either_way(found: Cell) -> Cell:
    """An AUC as an attacker sees it who may believe the opposite: below one half it is a link, too (see `reid`)."""
    sides = (found.low, found.high)
    low, high = sorted(max(side, 1 - side) for side in sides)
    within = found.low <= 0.5 <= found.high
    return Cell(
        max(found.value, 1 - found.value), 0.5 if within else low, high, None, found.measured, found.of
    )


def useful(name: str, faces: Faces, rng: np.random.Generator, resamples: int) -> dict[str, Cell]:
    """The figures of `UTILITY`, and `kept`: the share of faces that an unrelated detector finds again, and that keep
    expression and sex by every estimator. What an estimator could not say of the source takes no part.
    """
    values = surrogates.compare(
        faces.clear, faces.treated[name], faces.seams[name], smile_threshold=faces.smile_threshold
    )

    def summed(column: NDArray[np.float64], statistic: str) -> Cell:
        found = surrogates.bootstrap(column, faces.persons, statistic, rng, resamples)
        return Cell(found.value, found.low, found.high, None, int(np.isfinite(column).sum()), len(faces))

    made = {
        figure: worst(
            (summed(values[metric], surrogates.METRICS[metric].statistic) for metric in metrics),
            most=figure in LESS_IS_BETTER,
        )
        for figure, metrics in UTILITY.items()
    }
    return made | {"kept": summed(all_kept(np.stack([values[metric] for metric in KEPT])), "share")}


def all_kept(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] 1 where all known values of [M, N] are 1, else 0; NaN where none is known."""
    known = np.isfinite(values)
    return np.where(known.any(axis=0), np.where(known, values == 1, True).all(axis=0), np.nan)


def efficient(places: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the Pareto-efficient points, by their first coordinate.

    places: first coordinate, of which less is better, and second one, of which more is; not finite: no part. A point is
    left out where another one is as good in both and better in one.
    """
    known = {name: place for name, place in places.items() if np.isfinite(place).all()}

    def beaten(x: float, y: float) -> bool:
        return any(a <= x and b >= y and (a, b) != (x, y) for a, b in known.values())

    return sorted((name for name, place in known.items() if not beaten(*place)), key=lambda n: known[n])


def _places(points: Sequence[Point], across: str) -> dict[str, tuple[float, float]]:
    return {p.name: (p.figures[across].value, p.figures["kept"].value) for p in points}


def _table(points: Sequence[Point], asked: Thresholds) -> Table:
    limits = {
        "rank1": asked.rank1,
        "auc_alike": asked.auc_alike,
        "parrot": asked.parrot,
        "found_again": asked.found_again,
        "expression": asked.expression,
    }
    columns = [
        Column(id, title, "lower" if id in LESS_IS_BETTER else "higher", limits.get(id))
        for id, title in TITLES.items()
    ]
    rows = {
        p.name: {c.id: dataclasses.replace(p.figures[c.id], met=_met(c, p.figures[c.id])) for c in columns}
        for p in points
    }
    return Table("tradeoff", "Strength against utility", columns, rows, about={"setting": "worst of all"})


def _met(column: Column, found: Cell) -> bool | None:
    """A limit that is missed is missed whatever else was measured; one is kept only if every attack was."""
    met = column.met(found.value)
    return None if met and found.text else met


def _efficient_note(view: str, names: Sequence[str]) -> str:
    return f"No other treatment is both stronger and more useful ({VIEWS[view][0]}): {'; '.join(names)}."


def _intro(made: Sequence[Section]) -> list[str]:
    lines = [
        "Every treatment by what its attacks find (rank-1 in three settings, AUC with clear enrolments; each the worst "
        "recognizer's) and by what it keeps. An AUC is taken either way round: an "
        "attacker may bet on the person who looks least alike. All kept: the share of faces that an unrelated "
        "detector finds again and whose expression and apparent sex every estimator gives as before. How natural a "
        "picture looks is in neither; see the seam.",
        "Joined by a line are the treatments that no other one is better than in both. Points whose intervals overlap "
        "may change places on other people; where many were tried, the best of them looks better than it is.",
    ]
    left = [t.title for s in made if s.id == "privacy" for t in s.tables if not t.valid]
    return lines + ([f"Left out, because a control failed: {'; '.join(left)}."] if left else [])


def _limit(view: str, made: Sequence[Section]) -> float | None:
    """What the tables of the attack ask of the figure across."""
    settings, impostors, column = PRIVACY[VIEWS[view][0]]
    tables = [t for s in made if s.id == "privacy" for t in s.tables if _asked(t, settings, impostors)]
    return next((c.limit for t in tables for c in t.columns if c.id == column and c.limit is not None), None)


def _plot(
    view: str,
    points: Sequence[Point],
    joined: Sequence[str],
    evaluation: Evaluation,
    limit: float | None,
) -> Plot | None:
    """The plot of a view; None where nothing was measured for it."""
    across, label = VIEWS[view]
    cells = {p.name: (p.figures[across], p.figures["kept"]) for p in points}
    shown = {n: pair for n, pair in cells.items() if all(np.isfinite(c.value) for c in pair)}
    if not shown:
        return None
    said = "; ".join(f"{n}: {x.value:.3f} and {y.value:.3f}" for n, (x, y) in shown.items())
    return plots.scatter(
        f"tradeoff_{view}",
        f"Strength against utility: {TITLES[across]}",
        f"Scatter plot. Across: {label}; less is stronger. Up: {UP}. {said}. Efficient: {'; '.join(joined)}.",
        shown,
        label,
        UP,
        evaluation.favourite if evaluation.favourite in shown else None,
        joined,
        (limit, None),
    )


def _point(point: Point, favourite: str, best: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    def numbers(names: Iterable[str]) -> dict[str, Any]:
        cells = {name: point.figures[name] for name in names}
        sides = ("value", "low", "high")
        given = {n: {side: sections.number(getattr(c, side)) for side in sides} for n, c in cells.items()}
        return {
            n: found | ({"lacking": cells[n].text} if cells[n].text else {}) for n, found in given.items()
        }

    return {
        "name": point.name,
        "settings": None if point.settings is None else dict(point.settings),
        "chosen": point.name == favourite,
        "efficient": [view for view, names in best.items() if point.name in names],
        "privacy": numbers(PRIVACY),
        "utility": numbers(name for name in TITLES if name not in PRIVACY),
    }
