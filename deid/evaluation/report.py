"""The report of an evaluation: one page that needs nothing beside it, every number as JSON, the plots as PNG."""

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from deid.evaluation import embed, overview, payload, wording
from deid.evaluation.sections import Cell, Column, Plot, Section, Table, as_dict, slug
from deid.evaluation.settings import Evaluation
from deid.evaluation.verdict import Verdict, verdict
from deid.shards import storage

__all__ = ["Verdict", "write"]

TEMPLATES = Path(__file__).parent / "templates"
MOST_COLUMNS = 8  # of a table on a page; one with more goes on below itself
OPEN_ROWS, OPEN_TABLES = 8, 6  # with more, all tables of a section but the first are folded up
METHOD = "The method in one picture: how a face of a fictional person becomes a surrogate."


@dataclass(frozen=True)
class Shown:
    """A table as the page shows it."""

    table: Table
    anchor: str
    reading: str
    parts: list[list[Column]]  # columns that stand side by side
    folded: bool
    summary: str


def write(
    sections: Sequence[Section],
    evaluation: Evaluation,
    about: Mapping[str, Any],
    output: str,
    hidden: Collection[str] = (),
) -> Verdict:
    """Write report.html, evaluation.json and plots/<id>.png, over what was there; the page last.

    Args:
        about: title, made (date), deid (version), source (counts: pictures, faces, people), treatments (settings by
            name), recognizers (names, or mappings with name), machine, seconds, thresholds, digest (of the
            configuration), unpaired (faces by treatment). Anything else is left out, and so is every path in a
            setting. Not for the JSON: method_png (bytes), method_alt, sheets ([(caption, JPEG or PNG)]).
        output: a folder or s3:// prefix.
        hidden: keys of source pictures and names of people, that must not be in any of it.

    Raises:
        PromiseError: a text would name a path of the configuration or one of `hidden`, or the page is too large.
        StorageError: the storage does not answer.
    """
    sections = _with_files(wording.ordered(sections))
    sections = [overview.with_overview(section, evaluation.favourite) for section in sections]
    plots = [plot for section in sections for plot in section.plots]
    described = payload.described(about, evaluation)
    people = (described["source"] or {}).get("people")
    first = verdict(sections, evaluation, people if isinstance(people, int) else None)
    not_shown = wording.not_shown(first, evaluation, described)
    found = payload.strict(
        {
            "about": described,
            "verdict": first.as_dict() | {"not_shown": not_shown},
            "sections": {section.id: as_dict(section) for section in sections},
        }
    )
    method, sheets = about.get("method_png"), list(about.get("sheets") or ())
    alt = str(about.get("method_alt", METHOD))
    payload.check([found, alt, [caption for caption, _ in sheets]], evaluation, hidden)
    extra = [Plot("method", "How it works", alt, method)] if method else []

    def page(pictures: embed.Pictures) -> bytes:
        return render(sections, first, not_shown, described, pictures).encode()

    html = embed.fit(page, [*plots, *extra], sheets)
    for plot in [*plots, *extra]:
        storage.write_bytes(
            storage.join(output, "plots", f"{plot.id}.png"), embed.bare(plot.png), overwrite=True
        )
    text = json.dumps(found, allow_nan=False, ensure_ascii=False, indent=1)
    storage.write_bytes(storage.join(output, "evaluation.json"), text.encode(), overwrite=True)
    storage.write_bytes(storage.join(output, "report.html"), html, overwrite=True)
    return first


def render(
    sections: Sequence[Section],
    first: Verdict,
    not_shown: Sequence[str],
    about: Mapping[str, Any],
    pictures: embed.Pictures,
) -> str:
    """The page. Its policy allows no source but the pictures inside of it and its own style, by hash."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        number=wording.number, interval=wording.interval, limit=wording.limit, anchor=_anchor
    )
    return environment.get_template("report.html.j2").render(
        about=about,
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        verdict=first,
        gap=wording.gap(first.gap),
        not_shown=not_shown,
        risks=wording.RISKS,
        controls=wording.CONTROLS,
        settings=_settings(about),
        sections=[(section, _tables(section, first.treatment)) for section in sections],
        pictures=pictures,
        nothing=Cell(float("nan")),
    )


def _tables(section: Section, chosen: str) -> list[Shown]:
    return [
        Shown(
            table,
            _anchor("table", section.id, str(number)),
            wording.how_to_read(section, table),
            _parts(table.columns),
            number > 0 and (len(table.rows) > OPEN_ROWS or len(section.tables) > OPEN_TABLES),
            wording.summary(table, chosen),
        )
        for number, table in enumerate(section.tables)
    ]


def _parts(columns: list[Column]) -> list[list[Column]]:
    """The columns in parts of about one size, each narrow enough for a page."""
    count = max(1, -(-len(columns) // MOST_COLUMNS))
    size = -(-len(columns) // count) or 1
    return [columns[start : start + size] for start in range(0, len(columns), size)] or [[]]


def _settings(about: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Of each treatment its settings, flat, as names and texts."""
    treatments = about.get("treatments") or {}
    if not isinstance(treatments, Mapping):
        return {str(name): [] for name in treatments}
    return {name: list(_flat("", settings)) for name, settings in treatments.items()}


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flat(f"{name}.{key}".lstrip("."), inner)]
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    if isinstance(value, bool):  # 0 and 1 are numbers, and equal to these
        value = "yes" if value else "no"
    return [(name, "none" if value is None else str(value))]


def _with_files(sections: Sequence[Section]) -> list[Section]:
    """The sections with plots whose ids are names of files on any system, each once."""
    taken = {"method"}

    def named(plot: Plot) -> Plot:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", plot.id).strip("-.") or "plot"
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        id = plain if plain not in taken else next(name for name in numbered if name not in taken)
        taken.add(id)
        return replace(plot, id=id)

    return [replace(section, plots=[named(plot) for plot in section.plots]) for section in sections]


def _anchor(*names: str) -> str:
    return "-".join(slug(name) for name in names)
