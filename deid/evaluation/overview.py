"""One table of all attacks on the chosen treatment, from the tables of each."""

from dataclasses import replace

from deid.evaluation.sections import NAN, Cell, Column, Section, Table
from deid.evaluation.table import CLEAR

IMPOSTORS = {"all": "everybody", "alike": "people who look alike"}
COLUMNS = [
    Column("rank1", "rank-1", "lower"),
    Column("auc", "AUC", "lower"),
    Column("control", "control: rank-1 of clear pictures", "higher"),
]
INVALID = Cell(NAN, text="invalid, see its table")


def with_overview(section: Section, chosen: str) -> Section:
    """The privacy section with such a table first; any other as it is."""
    attacks = [
        table for table in section.tables if {"recognizer", "setting", "impostors"} <= table.about.keys()
    ]
    if section.id != "privacy" or not attacks:
        return section
    rows = {_name(table): _row(table, chosen) for table in attacks}
    notes = [
        "Asked is what the first page says; each row's own table is below, with all treatments and controls."
    ]
    title = "The chosen treatment under every attack"
    table = Table(
        "privacy.chosen", title, COLUMNS, rows, notes, row_title="attack; recognizer; compared with"
    )
    return replace(section, tables=[table, *section.tables])


def _name(table: Table) -> str:
    impostors = table.about["impostors"]
    parts = (table.about["setting"], table.about["recognizer"], IMPOSTORS.get(impostors, impostors))
    return "; ".join(parts)


def _row(table: Table, chosen: str) -> dict[str, Cell]:
    if not table.valid:
        return {column.id: INVALID for column in COLUMNS}
    mine, clear = table.rows.get(chosen, {}), table.rows.get(CLEAR, {})
    told = ("auc",) if table.about["impostors"] == "alike" else ("rank1", "auc")
    cells = {name: mine[name] for name in told if name in mine}
    return cells | ({"control": replace(clear["rank1"], met=None)} if "rank1" in clear else {})
