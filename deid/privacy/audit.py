"""The public audit: one row a face, joined to the output by random ids only, released with k-anonymity.

Writers make `rows` of each unit, which stay in the encrypted state. At the end of the run `release` turns all of
them into the public table, and `summary` into public counts.

k-anonymity (Samarati and Sweeney 1998): whatever values somebody knows of a face, none or at least k rows agree with
them in every column but the two that lead to the output (`output_id`, `shard`). It counts rows, not people: how many
people stand behind a surrogate is `k_class`. Methods: generalisation to bands, then local suppression (Sweeney 2002,
"Achieving k-anonymity privacy protection using generalization and suppression").
"""

import collections
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deid import records
from deid.config import Assignment
from deid.evaluation import expression as measures
from deid.interfaces import Face
from deid.privacy import keys

Pictures = Iterable[tuple[int, Sequence[Face]]]  # position in the unit, and faces

ALL = "*"  # a value that was taken out
OTHER = "other"
UNKNOWN = "unknown"
# Columns of which a combination must not be rare, in the order in which they are given up.
ORDER = ("expression", "face_size", "age_band", "sex", "k_class", "anonymizer", "status")
_OF_A_PERSON = ("sex", "age_band", "expression", "face_size")
_OF_THE_JOB = ("anonymizer", "reason", "gate", "k_class")
_SEX = {1: "male", 0: "female"}
_PART_ROWS = 1_000_000


def rows(
    secret: bytes, unit: int, shard: str, pictures: Pictures, dropped: Iterable[int], options: Assignment
) -> pa.Table:
    """Raw audit rows (`records.AUDIT_RAW`) of one unit: for the encrypted state, never for the output.

    Args:
        shard: name of the output shard.
        pictures: those that go out; one row a face.
        dropped: positions of those that the job could not make safe; one row each, whatever faces they have.
    """
    values = [
        {**_place(secret, unit, position, number), "shard": shard, **_values(face, options)}
        for position, faces in pictures
        for number, face in enumerate(faces)
    ]
    nothing = dict.fromkeys((*ORDER, "reason", "gate"), ALL) | {"surrogate_id": -1}
    values += [
        {**nothing, **_place(secret, unit, position, -1), "shard": "", "status": "dropped"}
        for position in dropped
    ]
    values.sort(key=lambda value: str(value["output_id"]))
    return pa.Table.from_pylist(values, schema=records.AUDIT_RAW)


def _place(secret: bytes, unit: int, position: int, number: int) -> dict[str, object]:
    return {
        "output_id": keys.output_id(secret, unit, position),
        "position": position,
        "number": number,
    }


def _values(face: Face, options: Assignment) -> dict[str, object]:
    return {
        "status": face.status,
        "anonymizer": face.anonymizer,
        "k_class": k_class(0, options.k),  # until they are counted
        "sex": _SEX.get(face.sex, UNKNOWN),
        "age_band": age_band(face.age, options.age_bands),
        "expression": face.expression or UNKNOWN,
        "face_size": records.face_height_band(face.height),
        "reason": face.failure,
        "gate": face.gate,
        "surrogate_id": face.surrogate_id if face.status == "replaced" else -1,
    }


def classed(raw: pa.Table, people: Mapping[int, int], k: int) -> pa.Table:
    """Raw rows with their `k_class`, by the number of people behind each surrogate."""
    classes = [k_class(people.get(surrogate, 0), k) for surrogate in raw["surrogate_id"].to_pylist()]
    known = [
        ALL if status == "dropped" else name
        for status, name in zip(raw["status"].to_pylist(), classes, strict=True)
    ]
    column = raw.schema.get_field_index("k_class")
    return raw.set_column(column, raw.schema.field(column), pa.array(known, pa.string()))


def expression(mesh: NDArray[np.floating] | None) -> str:
    """ "smiling" or "neutral", of a mesh [468, 3] that was found on the source; "unknown" without one."""
    if mesh is None:
        return UNKNOWN
    smile = float(measures.smile(mesh))
    if not math.isfinite(smile):
        return UNKNOWN
    return "smiling" if smile > measures.SMILING else "neutral"


def age_band(years: float, bounds: Sequence[int]) -> str:
    """Band of an age: "<18", "18-29", ..., ">=60" for bounds 18, 30, ..., 60; "unknown" for NaN."""
    if not math.isfinite(years):
        return UNKNOWN
    limits = sorted(set(bounds)) or [0]
    if years < limits[0]:
        return f"<{limits[0]}"
    below = [low for low in limits if low <= years]
    if len(below) == len(limits):
        return f">={limits[-1]}"
    return f"{below[-1]}-{limits[len(below)] - 1}"


def k_class(people: int, k: int) -> str:
    """Band of the number of people behind a surrogate: k to 2k - 1, to 4k - 1, to 10k - 1, and from 10k on.

    For k = 5: "5-9", "10-19", "20-49", "50+". "none": 0, a draw of its own or no surrogate. "<5": what no k-same run
    releases.
    """
    if not people:
        return "none"
    if people < k:
        return f"<{k}"
    low = k
    for high in (2 * k, 4 * k, 10 * k):
        if people < high:
            return f"{low}-{high - 1}"
        low = high
    return f"{low}+"


@dataclass(frozen=True)
class _Groups:
    """Rows by their combination of the columns of `ORDER`."""

    table: pa.Table
    number: NDArray[np.int64]  # [rows] of the combination
    sizes: NDArray[np.int64]  # [combinations] rows
    values: list[list[str]]  # [combinations][columns]
    kept: list[list[str]]  # [combinations][columns] what is released of them; empty: nothing is

    @property
    def released(self) -> bool:
        return bool(self.kept)

    def lost(self, column: int) -> int:
        """Cells of a column that were taken out."""
        pairs = zip(self.values, self.kept, self.sizes.tolist(), strict=True)
        return sum(size for value, kept, size in pairs if kept[column] != value[column])


def release(raw: Iterable[pa.Table], k: int) -> pa.Table:
    """The public table (`records.AUDIT`, sorted by output_id), in which every combination has at least k rows.

    Groups that are too small lose the columns of `ORDER` one by one until they are large enough; larger groups lose
    nothing. Where fewer than k rows have lost everything, the smallest group loses everything with them. Fewer than k
    rows altogether are not released: the table is empty. It depends on the set of rows alone, not on their order.
    That a picture was dropped can be read from its empty `shard` even where `status` is taken out: it says nothing
    of a person.

    Args:
        raw: tables of `records.AUDIT_RAW`. All of it is held in memory, about 700 bytes a row at the peak.

    Raises:
        ValueError: k is less than 1.
    """
    groups = _anonymous(raw, k)
    if not groups.released:
        return records.AUDIT.empty_table()
    columns = {name: groups.table[name] for name in ("output_id", "shard")}
    for column, name in enumerate(ORDER):
        values = pa.array([kept[column] for kept in groups.kept], pa.string())
        columns[name] = values.take(pa.array(groups.number))
    table = pa.table([columns[name] for name in records.AUDIT.names], schema=records.AUDIT)
    return table.sort_by([(name, "ascending") for name in table.column_names])


def _anonymous(raw: Iterable[pa.Table], k: int) -> _Groups:
    if k < 1:
        raise ValueError("k is at least 1")
    table = pa.concat_tables([records.AUDIT_RAW.empty_table(), *raw])
    frame = table.select(ORDER).to_pandas(strings_to_categorical=True)
    grouped = frame.groupby(list(ORDER), observed=True, sort=False)
    number = grouped.ngroup().to_numpy(np.int64)
    sizes = np.bincount(number)
    values = [list(map(str, combination)) for combination in frame[~frame.duplicated()].to_numpy()]
    kept = _suppressed(values, sizes.tolist(), k) if len(table) >= k else []
    return _Groups(table, number, sizes, values, kept)


def _suppressed(values: list[list[str]], sizes: list[int], k: int) -> list[list[str]]:
    """Combinations [groups][columns] as they may be released, of groups with so many rows, k at least in all."""

    def merged() -> collections.Counter[tuple[str, ...]]:
        counts: collections.Counter[tuple[str, ...]] = collections.Counter()
        for combination, size in zip(kept, sizes, strict=True):
            counts[tuple(combination)] += size
        return counts

    kept = [list(combination) for combination in values]
    for column in range(len(ORDER)):
        counts = merged()
        for combination in [c for c in kept if counts[tuple(c)] < k]:
            combination[column] = ALL
    counts, nothing = merged(), (ALL,) * len(ORDER)
    while 0 < counts[nothing] < k:
        smallest = min((size, group) for group, size in counts.items() if group != nothing)[1]
        for combination in [c for c in kept if tuple(c) == smallest]:
            combination[:] = nothing
        counts = merged()
    return kept


def summary(raw: Iterable[pa.Table], k: int, counts: Mapping[str, int]) -> pa.Table:
    """The public counts of a run (`records.SUMMARY`).

    `name` is a column of the raw rows and `value` one of its values ("none": the reason of a face at the first
    rung); or "rows", with what became of the rows of the audit; or "suppressed", with the cells that the released
    audit lost by column, out of `rows`; or "counts", with `counts` as given.

    What the job did (status, anonymizer, reason, gate, k class) is counted as it is: a small count there warns the
    operator of a fault, and no one is described by it. What describes a person (sex, age, expression, size) is folded
    into "other" as long as a value has fewer than k faces, and with the next smallest value as long as "other" has;
    otherwise a count of 1 would single somebody out. Fewer than k faces in all are not described.

    Args:
        raw: as in `release`.
        counts: pictures of the run, as in the manifest.
    """
    groups = _anonymous(raw, k)
    found = [("counts", name, number) for name, number in counts.items()]
    total = len(groups.table)
    found += [("rows", "released", total if groups.released else 0)]
    found += [("rows", "withheld", 0 if groups.released else total)]
    if groups.released:
        found += [("suppressed", name, groups.lost(column)) for column, name in enumerate(ORDER)]
    found += [("status", value, faces) for value, faces in _counted(groups.table, "status").items()]
    faces = groups.table.filter(pc.not_equal(groups.table["status"], "dropped"))
    for name in _OF_THE_JOB:
        found += [(name, value or "none", number) for value, number in _counted(faces, name).items()]
    for name in _OF_A_PERSON:
        found += [(name, value, number) for value, number in _folded(_counted(faces, name), k).items()]
    columns = zip(*sorted(found), strict=True)
    return pa.table(
        [pa.array(c, t) for c, t in zip(columns, records.SUMMARY.types, strict=True)], schema=records.SUMMARY
    )


def _counted(table: pa.Table, name: str) -> dict[str, int]:
    return {str(entry["values"]): int(entry["counts"]) for entry in table[name].value_counts().to_pylist()}


def _folded(counts: dict[str, int], k: int) -> dict[str, int]:
    """Counts of values, those below k under "other", which has at least k itself or is not there."""
    other, kept = 0, dict(counts)
    for number, value in sorted((number, value) for value, number in counts.items()):
        if number >= k and not 0 < other < k:
            break
        other += kept.pop(value)
    return kept | ({OTHER: other} if other >= k else {})


def to_bytes(table: pa.Table) -> bytes:
    """Parquet, the same bytes for the same table: of the writer it names the library's version, and nothing else."""
    metadata = {
        name: value for name, value in (table.schema.metadata or {}).items() if name.startswith(b"deid.")
    }
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    return sink.getvalue()


def parts(table: pa.Table, rows: int = _PART_ROWS) -> Iterator[tuple[str, bytes]]:
    """Names below the output and Parquet files of a released table, of at most so many rows; at least one file."""
    if rows < 1:
        raise ValueError("a part has at least 1 row")
    for number, start in enumerate(range(0, max(1, len(table)), rows)):
        yield f"audit/part-{number:05}.parquet", to_bytes(table.slice(start, rows))
