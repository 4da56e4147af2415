"""The figures of a study: what people took for real, whom they knew again, what they saw, how far they agree."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deid.errors import InputError
from deid.evaluation.reid import Estimate
from deid.evaluation.sections import Cell, Column, Section, Table, cell
from deid.evaluation.study import agreement, answers, rates
from deid.evaluation.study import questions as q
from deid.evaluation.study.answers import Answers

NAMES = {
    "real": "real or generated?",
    "same": "same person?",
    "expression": "which expression?",
    "sex": "apparent sex?",
    "age": "apparent age band?",
}
LEVELS: dict[str, tuple[agreement.Level, ...]] = dict.fromkeys(NAMES, ("nominal",)) | {
    "age": ("nominal", "ordinal")
}
SOME = 10  # participants below which a note says that figures are a trial
INTERVAL = (
    "Intervals are 95 %: participants and tasks both resampled (bootstrap); for a single participant, and for shares "
    "of 0 and 1, Wilson's. They speak of other participants and other pictures like these, not of other data."
)


def score(
    key: str | Path, files: Sequence[str | Path], rng: np.random.Generator, resamples: int = 1000
) -> Section:
    """The section of a study.

    Args:
        key: the study-key.json of the page.
        files: the CSVs that participants saved.
        rng: of the bootstrap.

    Raises:
        InputError: a file is wrong, or no participant passed the attention checks; see `answers.load`.
    """
    found = answers.load(answers.load_key(key), files)
    if not found.given:
        raise InputError(f"no participant of {len(found.dropped)} passed the attention checks")
    sampler = rates.Resampler(len(found.given), rng, resamples)
    tables = [_real(found, sampler), _same(found, sampler), _attributes(found, sampler)]
    tables.append(_agreement(found, rng, resamples))
    return Section("study", "Human study", _intro(found), [t for t in tables if t.rows], data=_data(found))


def _people(number: int) -> str:
    return f"{number} participant{'' if number == 1 else 's'}"


def _intro(found: Answers) -> list[str]:
    everyone, checks = len(found.given) + len(found.dropped), sum(t.check for t in found.key.tasks.values())
    text = (
        f"{_people(len(found.given))} answered {len(found.key.tasks) - checks} tasks. {len(found.dropped)} "
        f"of {everyone} were left out: more than {q.WRONG_CHECKS} of their {checks} attention checks were wrong or "
        "missing."
    )
    few = f"With fewer than {SOME} participants this is a trial, not a result."
    return [text, INTERVAL, *([few] if len(found.given) < SOME else [])]


def _data(found: Answers) -> dict[str, Any]:
    languages = [given.language for row in found.given.values() for given in row.values()]
    kinds = [task.kind for task in found.key.tasks.values() if not task.check]
    return {
        "page": found.key.page,
        "participants": len(found.given),
        "dropped": len(found.dropped),
        "tasks": {kind: kinds.count(kind) for kind in q.ASKED},
        "answers": {language: languages.count(language) for language in sorted(set(languages))},
    }


def _hits(found: Answers, tasks: Sequence[str], right: Sequence[str] | str) -> rates.Floats:
    """[P, T] 1 where the answer is the right one (one for all, or one a task), NaN where there is none."""
    given = found.matrix(tasks)
    return np.where(given == "", np.nan, (given == np.asarray(right)).astype(np.float64))


def _cells(table: Table, row: str, values: dict[str, Estimate], hits: rates.Floats) -> None:
    """A row of figures over the answers in hits [P, T]."""
    columns = {column.id: column for column in table.columns}
    answered, asked = int(np.isfinite(hits).sum()), hits.size
    table.rows[row] = {name: cell(value, columns[name], answered, asked) for name, value in values.items()}


def _real(found: Answers, sampler: rates.Resampler) -> Table:
    columns = [
        Column("right", "answered rightly"),
        Column("generated", 'called "generated"'),
        Column("d_prime", "d'", digits=2),
    ]
    table = Table("study.real", "Real or generated?", columns, row_title="pictures")
    sides = {name: found.key.chosen("real", truth=name) for name in ("real", "generated")}
    called = {name: _hits(found, tasks, "generated") for name, tasks in sides.items()}
    for name, title in (("real", "source pictures"), ("generated", "de-identified pictures")):
        if sides[name]:
            right = called[name] if name == "generated" else 1 - called[name]
            figures = {"right": sampler.share(right), "generated": sampler.share(called[name])}
            _cells(table, title, figures, right)
    if all(sides.values()):
        right = np.hstack([1 - called["real"], called["generated"]])
        sensitivity = sampler.d_prime(called["generated"], called["real"])
        _cells(table, "all", {"right": sampler.share(right), "d_prime": sensitivity}, right)
    table.notes.append("Guessing: half are answered rightly, and d' is 0. Natural pictures: d' near 0.")
    return table


def _same(found: Answers, sampler: rates.Resampler) -> Table:
    columns = [Column("same", 'called "same person"'), Column("d_prime", "d'", digits=2)]
    table = Table("study.same", "Same person?", columns, row_title="pair")
    tasks = {name: found.key.chosen("same", condition=name) for name in q.CONDITIONS}
    called = {name: _hits(found, chosen, "same") for name, chosen in tasks.items() if chosen}
    for name, hits in called.items():
        figures = {"same": sampler.share(hits)}
        other = {q.CONTROL: q.DIFFERENT, q.HIDDEN: q.STRANGER}.get(name, "")
        if other in called:
            figures["d_prime"] = sampler.d_prime(hits, called[other])
        _cells(table, q.CONDITIONS[name], figures, hits)
    pairs = [found.key.tasks[name] for name in tasks[q.DIFFERENT] + tasks[q.STRANGER]]
    alike = sum(task.alike for task in pairs)
    table.notes.append(
        "Two pictures of one person are two photographs. d' is against different people in the same treatment: 0 means "
        "that a de-identified picture is no more like its person than like somebody else; the control must lie well "
        f"above 0, or the task tells nothing. {alike} of {len(pairs)} pairs of different people share sex and age "
        "band; the others can be told apart by these, which alone may raise d'."
    )
    control = table.rows.get(q.CONDITIONS[q.CONTROL], {}).get("d_prime")
    if control is not None and not control.low > 0:
        table.problems.append("people were not known again in clear pictures: nothing follows from the rest")
    return table


def _attributes(found: Answers, sampler: rates.Resampler) -> Table:
    columns = [Column("same", "as the source's label", "higher"), Column("near", "at most one band off")]
    table = Table("study.attributes", "Seen in de-identified faces", columns, row_title="question")
    for kind in q.ABOUT_FACES:
        asked = found.key.chosen(kind)
        known = [name for name in asked if found.key.tasks[name].truth]
        if known:
            truth = [found.key.tasks[name].truth for name in known]
            hits = _hits(found, known, truth)
            figures = {"same": sampler.share(hits)}
            if kind == "age":
                figures["near"] = sampler.share(_near(found, known, truth))
            _cells(table, NAMES[kind], figures, hits)
        elif asked:
            table.rows[NAMES[kind]] = {"same": Cell(float("nan"), text="no labels")}
    table.notes.append("Sources are not shown here: what people see in the result is held against the label.")
    return table


def _near(found: Answers, tasks: Sequence[str], truth: Sequence[str]) -> rates.Floats:
    """[P, T] 1 where the answer is the true age band or one next to it."""
    given = agreement.table(found.matrix(tasks).tolist(), q.ASKED["age"].options)
    right = agreement.table([list(truth)], q.ASKED["age"].options)
    return np.where(given < 0, np.nan, (abs(given - right) <= 1).astype(np.float64))


def _agreement(found: Answers, rng: np.random.Generator, resamples: int) -> Table:
    columns = [
        Column("nominal", "alpha, nominal", "higher"),
        Column("ordinal", "alpha, ordinal", "higher"),
        Column("seconds", "seconds an answer (median)", digits=1),
    ]
    table = Table("study.agreement", "Agreement of participants", columns, row_title="question")
    for kind, title in NAMES.items():
        tasks, options = found.key.chosen(kind), q.ASKED[kind].options
        if not tasks:
            continue
        places = agreement.table(found.matrix(tasks).tolist(), options)
        given, row = agreement.counts(places, len(options)), dict[str, Cell]()
        for level in LEVELS[kind]:
            column = next(c for c in columns if c.id == level)
            row[level] = cell(agreement.estimate(given, level, rng, resamples), column, int(given.sum()))
        row["seconds"] = Cell(found.seconds(tasks), measured=int(given.sum()))
        table.rows[title] = row
    table.notes.append(
        "Krippendorff's alpha (2011): 1 all agree, 0 as by chance; its interval is over tasks. Where nothing can be "
        "seen, alpha near 0 is what to expect: it is no fault of the participants."
    )
    return table
