"""`deid study`: a page that asks people, and the figures of their answers. Heavy imports wait for a verb."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deid.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table as Shown

    from deid.evaluation.sections import Cell, Table
    from deid.evaluation.settings import Result, Source
    from deid.evaluation.study.make import Made

app = typer.Typer(no_args_is_help=True, help="Ask people: make the page of a human study, score the answers.")


@app.command("make")
def make_page(
    out: Annotated[Path, typer.Option(help="Folder for study.html and study-key.json.")],
    source: Annotated[
        str | None, typer.Option(help="Folder or s3:// prefix: pictures or WebDataset shards.")
    ] = None,
    result: Annotated[str | None, typer.Option(help="The same pictures, de-identified.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="CSV: key or file, subject; where known sex, age, expression, x0 to y1."),
    ] = None,
    pairing: Annotated[str, typer.Option(help="key, background, or a CSV of key and result.")] = "key",
    evaluation: Annotated[
        Path | None, typer.Option(help="An evaluation's YAML instead: its source and one of its results.")
    ] = None,
    treatment: Annotated[
        str | None, typer.Option(help="Which of the evaluation's results; default: the first.")
    ] = None,
    tasks: Annotated[int, typer.Option(help="Tasks a participant, beside six attention checks.")] = 60,
    seed: Annotated[
        int | None, typer.Option(help="For tests: whoever knows it can tell the answers. Default: a secret.")
    ] = None,
    language: Annotated[str, typer.Option(help="en or ja; the page can switch.")] = "en",
    contact: Annotated[str, typer.Option(help="Who runs the study, as participants read it.")] = "",
    synthetic_only: Annotated[
        bool, typer.Option("--synthetic-only", help="Leave out every task that shows faces of the source.")
    ] = False,
) -> None:
    """Write study.html, which works from a file and holds no answers, and study-key.json, which holds them all."""
    from deid.evaluation.study import make

    sides = _sides(source, result, labels, pairing, evaluation, treatment)
    options = make.Options(out, tasks, seed, language, synthetic_only, contact)
    _report(make.make(*sides, options))


def _sides(
    source: str | None,
    result: str | None,
    labels: str | None,
    pairing: str,
    evaluation: Path | None,
    treatment: str | None,
) -> "tuple[Source, Result]":
    from deid.evaluation import settings

    if evaluation is None:
        if not (source and result):
            raise ConfigError("give --source and --result, or --evaluation")
        return settings.Source(uri=source, labels=labels), settings.Result(
            name="result", uri=result, pairing=pairing
        )
    if source or result or labels:
        raise ConfigError("--evaluation names source, result and labels; leave the other options out")
    read = settings.load(evaluation)
    named = [one for one in read.results if treatment in (None, one.name)]
    if not named:
        raise ConfigError(
            f"{evaluation}: no result {treatment or 'at all'}; a study needs pictures that are there"
        )
    return read.source, named[0]


def _report(made: "Made") -> None:
    from deid.evaluation.study.make import KEY, PAGE

    counts = ", ".join(f"{number} {kind}" for kind, number in made.tasks.items())
    typer.echo(
        f"{made.folder / PAGE}: page {made.page}, {made.size / 1e6:.1f} MB, {made.people} people: {counts}"
    )
    for line in _shortcomings(made):
        typer.echo(line)
    if "same" not in made.tasks and made.source_faces:
        typer.echo('no "same person?" tasks: they need labels with two pictures of a person')
    typer.echo(f"{made.folder / KEY}: the answers; keep it, and hand out {PAGE} alone")
    if made.source_faces:
        typer.echo(
            f"WARNING  the page shows {made.source_faces} faces of the source as they are: only people who may see the "
            "source may have it, and they delete it afterwards; --synthetic-only leaves these tasks out"
        )


def _shortcomings(made: "Made") -> list[str]:
    """What the study lacks: faces, tasks, right answers, pairs of people who are alike."""
    from deid.evaluation.study.heads import REASONS

    lines = [f"faces left out: {n}, {REASONS[name]}" for name, n in vars(made.missed).items() if n]
    number = sum(made.tasks.values()) - made.tasks.get("check", 0)
    if number < made.asked:
        lines.append(f"{number} tasks instead of {made.asked}: there are too few people or pictures for more")
    for kind, n in made.unknown.items():
        lines.append(
            f"{kind}: {n} of {made.tasks[kind]} tasks are of people whose label has no {kind}: they will only have "
            "agreement (alpha), no right answers"
        )
    if made.unmatched:
        lines.append(
            f"different people: {made.unmatched} of {made.strangers} pairs are not matched in sex and age band "
            f"({made.unlabelled} since labels lack sex or age, {made.unmatched - made.unlabelled} since nobody else "
            "fits): they can be told apart by these, and d' may be above 0 by that alone"
        )
    return lines


@app.command("score")
def score_answers(
    key: Annotated[Path, typer.Argument(help="study-key.json of the page.")],
    answers: Annotated[list[Path], typer.Argument(help="CSVs that participants saved.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every figure with its interval there, too.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Rates and agreement with 95 % intervals, of the participants who passed the attention checks."""
    import json

    import numpy as np
    from rich.console import Console

    from deid.evaluation import sections
    from deid.evaluation.study.score import score

    section = score(key, answers, np.random.default_rng(seed))
    console = Console()
    for paragraph in section.intro:
        console.print(paragraph, markup=False)
    for table in section.tables:
        console.print(_shown(table))
        for line in [*(f"NOT VALID: {problem}" for problem in table.problems), *table.notes]:
            console.print(line, markup=False)
    if json_file:
        json_file.write_text(json.dumps(sections.as_dict(section), indent=1), encoding="utf-8")


def _shown(table: "Table") -> "Shown":
    from rich.table import Table as Shown

    shown = Shown(table.row_title, *(c.title for c in table.columns), "answers", title=table.title)
    shown.title_justify = "left"
    for name, row in table.rows.items():
        cells = [_text(row[c.id], c.digits) if c.id in row else "" for c in table.columns]
        answered = next((str(c.measured) for c in row.values() if c.measured is not None), "0")
        shown.add_row(name, *cells, answered)
    return shown


def _text(cell: "Cell", digits: int) -> str:
    import math

    if math.isnan(cell.value):
        return cell.text or "-"
    interval = "" if math.isnan(cell.low) else f" ({cell.low:.{digits}f} to {cell.high:.{digits}f})"
    return f"{cell.value:.{digits}f}{interval}{' ' if cell.text else ''}{cell.text}"
