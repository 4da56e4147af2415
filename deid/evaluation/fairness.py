"""Whether the chosen treatment does as well for women as for men, for old as for young, for dark skin as for light."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deid.evaluation import gaps, groups, plots, skin, surrogates
from deid.evaluation.faces import Attacker, Faces
from deid.evaluation.gaps import Area, Figure, Gap, Kind, OfFaces
from deid.evaluation.observe import Observation
from deid.evaluation.reid import Comparison, compare, rank_probabilities
from deid.evaluation.sections import NAN, Cell, Column, Plot, Section, Table, cell, number
from deid.evaluation.settings import Evaluation

KINDS = {  # in the order of `groups.Group`, with the groups of each in theirs
    "sex": ("female", "male"),
    "age band": tuple(groups.age_band(years) for years in (0, 20, 30, 40, 50)),
    "skin-tone band": tuple(name for _, name in skin.BANDS),
}
EVERYONE = "everyone"
SHUFFLES = 500
FEW = "few"
LONGEST = 20  # letters of a recognizer's name in the plot
SHOWN = {"found_again": "found again", "smile_mesh": "smiling as before"}  # utility figures in the plot
INTRO = (
    "Each figure of the chosen treatment by sex, age band and skin-tone band. Privacy is rank-1 and AUC of "
    "de-identified probes against everybody enrolled in clear, so a group that is easier to find has a higher figure. "
    "Beside it is the rank-1 of the group's clear probes: where it is low, the recognizer is weak for this group, and "
    f"finds it less whatever was done. Of groups of fewer than {gaps.LEAST} people only the count is shown.",
    "Brackets are 95 % intervals, bootstrap over the people of a group. The largest of many gaps is large by chance "
    "alone: beside each gap is the one that remains, on average, when the groups are dealt out among the people at "
    f"random ({SHUFFLES} times), and how often it is as large (p).",
)


def fairness(faces: Faces, evaluation: Evaluation, rng: np.random.Generator) -> Section:
    """Figures by group of the chosen treatment, and in `data["largest_gap"]` the largest gap of all shares."""
    section, name = Section("fairness", "Fairness", list(INTRO)), evaluation.favourite
    people, who = np.unique(faces.persons, return_inverse=True)
    if name not in faces.treated or not len(people):
        section.intro.append(f"Nothing was measured: there are no pictures of {name}.")
        return section
    kinds = [
        Kind.by(name, [faces.group_of[p][place] for p in people.tolist()], order)
        for place, (name, order) in enumerate(KINDS.items())
    ]
    everyone = Kind(EVERYONE, [EVERYONE], np.zeros(len(people), np.intp))
    draws = [kind.drawn(rng, evaluation.resamples) for kind in (everyone, *kinds)]
    attacks = [f for attacker in faces.attackers for f in _attacks(faces, attacker, name)]
    kept = _kept(faces, name, who, len(people))
    tables = (
        _table(
            "privacy", f"Re-identification of {name} by group", _columns(faces, attacks, evaluation), attacks
        ),
        _table("utility", f"What {name} keeps, by group", _asked(kept), kept),
    )
    for table, figures in zip(tables, (attacks, kept), strict=True):
        for kind, drawn in zip((everyone, *kinds), draws, strict=True):
            table.rows |= _rows(kind, drawn, table.columns, figures)
    judged = [figure for figure in (*attacks, *kept) if not figure.id.startswith("clear.")]
    found = []
    for kind, drawn in zip(kinds, draws[1:], strict=True):
        shuffled = kind.shuffled(rng, SHUFFLES)
        found += [g for figure in judged if (g := gaps.gap(figure, kind, drawn, shuffled))]
    section.tables += [*tables, _gaps(name, judged, found)]
    section.data["largest_gap"] = _largest(found)
    section.data["gaps"] = [_as_dict(g) for g in found]
    section.data["groups"] = {k.name: {n: int(k.members(n).sum()) for n in k.names} for k in kinds}
    section.intro.append(_words(section.data["largest_gap"], kinds))
    section.plots.append(_plot(name, faces, tables, section.intro[-1]))
    return section


def _attacks(faces: Faces, attacker: Attacker, name: str) -> list[Figure]:
    """Forward rank-1 and AUC of a recognizer, and the rank-1 of clear probes; nothing where nothing compares."""
    treated = _forward(faces, attacker, faces.treated[name])
    clear = _forward(faces, attacker, faces.clear)
    if treated is None or clear is None:
        return []
    people = np.unique(faces.persons)
    enrolled = faces.templates(attacker, faces.clear, faces.enrolled)
    column = np.searchsorted(people, np.unique(enrolled.subjects[enrolled.acquired]))
    row, n = column[treated.mate], attacker.name
    hits, known = (rank_probabilities(c)[:, 0] for c in (treated, clear))
    hits = np.where(treated.acquired, hits, np.nan)  # of a picture that is not there, nothing is said
    return [
        OfFaces(f"rank1.{n}", f"rank-1, {n}", "share", hits, row, len(people)),
        Area(f"auc.{n}", f"AUC, {n}", treated, row, column, len(people)),
        OfFaces(f"clear.{n}", f"rank-1 of clear probes, {n}", "share", known, row, len(people)),
    ]


def _forward(faces: Faces, attacker: Attacker, seen: list[Observation]) -> Comparison | None:
    enrolled = faces.templates(attacker, faces.clear, faces.enrolled)
    probes = faces.templates(attacker, seen, faces.probes)
    known = np.unique(enrolled.subjects[enrolled.acquired])
    if len(known) < 2 or not np.isin(probes.subjects, known).any():
        return None
    return compare(enrolled, probes, attacker.metric)


def _kept(faces: Faces, name: str, who: Any, people: int) -> list[Figure]:
    """Every utility figure, of all faces."""
    values = surrogates.compare(faces.clear, faces.treated[name], faces.seams[name], faces.smile_threshold)
    metrics = {key: surrogates.METRICS[key] for key in values}
    return [OfFaces(k, m.title, m.statistic, values[k], who, people) for k, m in metrics.items()]


def _columns(faces: Faces, figures: Sequence[Figure], evaluation: Evaluation) -> list[Column]:
    limits = {f"rank1.{a.name}": evaluation.thresholds.rank1 for a in faces.attackers}
    return [
        Column(f.id, f.title, "" if f.id.startswith("clear.") else "lower", limits.get(f.id)) for f in figures
    ]


def _asked(figures: Sequence[Figure]) -> list[Column]:
    metrics = [surrogates.METRICS[figure.id] for figure in figures]
    return [
        Column(f.id, m.title, ("higher" if m.at_least else "lower") if m.limit is not None else "", m.limit)
        for f, m in zip(figures, metrics, strict=True)
    ]


def _table(id: str, title: str, columns: list[Column], figures: Sequence[Figure]) -> Table:
    counted = [Column("people", "people", digits=0), *columns]
    table = Table(f"fairness.{id}", title, counted, row_title="group", about={"kind": "by group"})
    if not figures:
        table.problems.append("not measurable: fewer than two people are enrolled, or nobody is probed")
    return table


def _rows(
    kind: Kind, draws: gaps.Floats, columns: list[Column], figures: Sequence[Figure]
) -> dict[str, dict[str, Cell]]:
    """A row for each group of a kind."""
    rows = {}
    for name in kind.names:
        members = kind.members(name)
        row = {"people": Cell(float(members.sum()))}
        for column, figure in zip(columns[1:], figures, strict=True):
            count = int((members & figure.measured()).sum())
            if count < gaps.LEAST:
                row[column.id] = Cell(NAN, measured=count, of=int(members.sum()), text=FEW)
            else:
                made = gaps.estimate(figure, members, draws)
                row[column.id] = cell(made, column, count, int(members.sum()))
        rows[name if kind.name == EVERYONE else f"{kind.name}: {name}"] = row
    return rows


def _gaps(name: str, figures: Sequence[Figure], found: Sequence[Gap]) -> Table:
    table = Table(
        "fairness.gaps",
        f"Largest gap between two groups of a kind, {name}",
        [Column(kind, f"by {kind}", "lower") for kind in KINDS],
        row_title="figure",
        about={"kind": "gaps"},
    )
    for figure in figures:
        mine = {g.kind.name: g for g in found if g.figure is figure}
        table.rows[figure.title] = {
            column.id: cell(mine[column.id].estimate, column, text=_beside(mine[column.id]))
            if column.id in mine
            else Cell(NAN, text=f"{FEW} people")
            for column in table.columns
        }
    return table


def _beside(g: Gap) -> str:
    if not g.estimate.value:
        return "none"
    return f"{g.groups[0]} over {g.groups[1]}; by chance {g.by_chance:.3f}, p = {g.p:.3f}"


def _as_dict(g: Gap) -> dict[str, Any]:
    values = {"value": g.estimate.value, "low": g.estimate.low, "high": g.estimate.high}
    values |= {"by_chance": g.by_chance, "p": g.p}
    said = {"what": g.figure.title, "figure": g.figure.id, "kind": g.kind.name, "groups": list(g.groups)}
    return said | {key: number(value) for key, value in values.items()}


def _largest(found: Sequence[Gap]) -> dict[str, Any] | None:
    """The largest gap of all figures that lie in 0..1; by chance: of the largest likewise, over all of them."""
    shares = [g for g in found if g.figure.share]
    if not shares:
        return None
    worst = max(shares, key=lambda g: g.estimate.value)
    chance = np.max([g.chance for g in shares], axis=0)
    of_all = {"by_chance": float(np.mean(chance)), "p": gaps.p_value(worst.estimate.value, chance)}
    return _as_dict(worst) | {key: number(value) for key, value in of_all.items()} | {"of": len(shares)}


def _words(largest: dict[str, Any] | None, kinds: Sequence[Kind]) -> str:
    """The finding in a sentence."""
    if largest is None:
        return (
            f"No gap could be measured: no two groups of a kind have {gaps.LEAST} people, or the sex, age and skin "
            "tone of the people are not known."
        )
    first, second = largest["groups"]
    return (
        f"The largest gap of {largest['of']} compared is in {largest['what']}, by {largest['kind']}: {first} is "
        f"{largest['value']:.3f} above {second} ({largest['low']:.3f} to {largest['high']:.3f}). With groups dealt out "
        f"at random the largest would be {largest['by_chance']:.3f} on average, and as large as this one in "
        f"{largest['p']:.1%} of the cases."
    )


def _plot(name: str, faces: Faces, tables: Sequence[Table], words: str) -> Plot:
    """Rank-1 and AUC of every recognizer, and two utility figures, with intervals by group."""
    privacy, utility = tables
    rows = {n: privacy.rows.get(n, {}) | utility.rows.get(n, {}) for n in utility.rows}
    titles = {
        f"{key}.{a.name}": f"{title}, {a.name[:LONGEST]}"
        for a in faces.attackers
        for key, title in (("rank1", "rank-1"), ("auc", "AUC"))
    } | SHOWN
    columns = [Column(c.id, titles[c.id]) for c in (*privacy.columns, *utility.columns) if c.id in titles]
    people = {n: int(row["people"].value) for n, row in rows.items()}
    table = Table("", f"{name} by group", columns, {f"{n} ({people[n]})": row for n, row in rows.items()})
    alt = f"Figures of {name} with 95 % intervals for each group; people in brackets. {words}"
    return plots.dots("fairness-groups", alt, table, columns, "share, or AUC")
