"""Who is on the source pictures: the labels file of an evaluation, and who of them is enrolled."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deid.errors import DeidError, InputError
from deid.shards import storage

Value = TypeVar("Value")
BOX = ("x0", "y0", "x1", "y1")
SEXES = {"female": "female", "f": "female", "male": "male", "m": "male"}
EXPRESSIONS = ("smiling", "neutral")
ROLES = ("enrol", "probe", "")
SHOW = {"yes": True, "no": False, "": False}
UNKNOWN = ("", "na", "n/a", "nan", "none", "unknown")


@dataclass(frozen=True)
class Label:
    """One labelled face."""

    key: str  # of the picture
    person: str
    box: tuple[float, ...] | None = None  # x0, y0, x1, y1 in pixels of the upright picture
    sex: str = "unknown"  # female, male
    age: float = float("nan")  # years
    expression: str = ""  # smiling, neutral, other; "": unknown
    role: str | None = None  # enrol, probe, "": neither; None: the file has no roles
    show: bool = False  # the picture may be shown


def read(uri: str) -> list[Label]:
    """The labels in a CSV file, in its order.

    Columns: key, or file (a file name, of which the ending goes); subject; and where known x0, y0, x1, y1, sex or
    gender, age, expression, role, show. Others are passed over. Empty and "NA" are unknown; any
    other expression than smiling and neutral is "other".

    Raises:
        InputError: the file cannot be read, lacks a column, or has a line that is wrong; the line's number is given.
    """
    rows = table(uri, "source.labels", (("key", "file"), ("subject",)))
    if len(set(BOX) & set(rows[0])) not in (0, len(BOX)):
        raise InputError("source.labels: a box needs all of the columns x0, y0, x1, y1")
    made = [_label(row, f"source.labels: line {number}") for number, row in enumerate(rows, 2)]
    pictures = set[str]()
    for number, label in enumerate(made, 2):
        if label.box is None and label.key in pictures:
            raise InputError(
                f"source.labels: line {number}: a picture with several people needs a box (x0, y0, x1, y1) for each"
            )
        pictures.add(label.key)
    return made


def table(uri: str, what: str, needed: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header; of each group in `needed`, one column must be there.

    Raises:
        InputError: it cannot be read, lacks a column, or has no rows.
    """
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except (DeidError, OSError, UnicodeDecodeError):
        raise InputError(f"{what}: {uri} cannot be read as text; give a CSV file") from None
    reader = csv.DictReader(io.StringIO(text, newline=None))
    columns = [name.strip().lower() for name in _header(reader, what)]
    reader.fieldnames = columns
    for group in needed:
        if not set(group) & set(columns):
            found = ", ".join(columns) or "none"
            raise InputError(
                f"{what}: needs a column {' or '.join(group)}, with commas between; it has {found}"
            )
    if len(set(columns)) < len(columns):
        raise InputError(f"{what}: two columns have one name")
    rows = []
    for number, row in enumerate(_rows(reader, what), 2):
        if None in row or None in row.values():
            raise InputError(f"{what}: line {number}: has not the {len(columns)} columns of the header")
        rows.append({name: value.strip() for name, value in row.items()})
    if not rows:
        raise InputError(f"{what}: has no lines below its header")
    return rows


def _header(reader: "csv.DictReader[str]", what: str) -> list[str]:
    try:
        return list(reader.fieldnames or [])
    except csv.Error:
        raise InputError(f"{what}: is no CSV") from None


def _rows(reader: "csv.DictReader[str]", what: str) -> Iterator[dict[str, str]]:
    try:
        yield from reader
    except csv.Error:
        raise InputError(f"{what}: line {reader.line_num}: is no CSV") from None


def _label(row: Mapping[str, str], where: str) -> Label:
    key = row.get("key") or PurePosixPath(row.get("file", "")).stem
    if not key or not row["subject"]:
        raise InputError(f"{where}: {'subject' if key else 'key'} is missing")
    box = None
    if BOX[0] in row and any(row[name] for name in BOX):
        box = tuple(_number(row[name], f"{where}: {name}") for name in BOX)
        if not (box[2] > box[0] and box[3] > box[1]):
            raise InputError(f"{where}: the box has no size; x0, y0 is its upper left corner, in pixels")
    sex, expression = (row.get("sex") or row.get("gender", "")).lower(), row.get("expression", "").lower()
    known, age = "" if expression in UNKNOWN else "other", row.get("age", "")
    return Label(
        key,
        row["subject"],
        box,
        SEXES.get(sex, "unknown"),
        float("nan") if age.lower() in UNKNOWN else _number(age, f"{where}: age"),
        expression if expression in EXPRESSIONS else known,
        _one_of(row["role"].lower(), ROLES, f"{where}: role") if "role" in row else None,
        SHOW[_one_of(row.get("show", "").lower(), SHOW, f"{where}: show")],
    )


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where} is no number")
    return value


def _one_of(value: Value, allowed: Sequence[Value] | Mapping[Value, Any], where: str) -> Value:
    if value not in allowed:
        raise InputError(f"{where} is one of {', '.join(str(one) for one in allowed if one != '')}, or empty")
    return value


def roles(labels: Sequence[Label | None], sizes: NDArray[np.floating]) -> list[tuple[bool, bool]]:
    """Whether each face [N] is enrolled, and whether it is a probe.

    By the labels' roles where there are any. Else one face of each person is enrolled: of those that were found, a
    neutral one, and the largest of these; the person's other faces are probes. A face without a label is a person of
    its own, enrolled and probe.

    Args:
        labels: of each face; None where there are none.
        sizes: [N] areas of the faces, 0 where no face was found.
    """
    given = any(label is not None and label.role is not None for label in labels)
    rank: Callable[[int], Any] = lambda n: (sizes[n] > 0, labels[n].expression == "neutral", sizes[n])  # type: ignore[union-attr]  # noqa: E731
    best: dict[str, int] = {}
    for n, label in enumerate(labels):
        if label is not None and (label.person not in best or rank(n) > rank(best[label.person])):
            best[label.person] = n
    made = []
    for n, label in enumerate(labels):
        if label is None:
            made.append((True, True))
        elif given:
            made.append((label.role == "enrol", label.role == "probe"))
        else:
            made.append((best[label.person] == n, best[label.person] != n))
    return made
