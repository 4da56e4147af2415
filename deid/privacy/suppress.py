"""What of the audit may be released, decided from counts of rows alone.

k-anonymity (Samarati and Sweeney 1998): whatever values somebody knows of a face, none or at least k rows agree with
them in every column but the two that lead to the output (`output_id`, `shard`). It counts rows, not people: how many
people stand behind a surrogate is `k_class`. Methods: generalisation to bands, then local suppression (Sweeney 2002,
"Achieving k-anonymity privacy protection using generalization and suppression").

Counts merge, so tasks make them of some units each. There are no more combinations than the columns have values
together, however many rows there are.
"""

import collections
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from deid import records

ALL = "*"  # a value that was taken out
OTHER = "other"
# Columns of which a combination must not be rare, in the order in which they are given up.
ORDER = ("expression", "face_size", "age_band", "sex", "k_class", "anonymizer", "status")
_OF_A_PERSON = ("sex", "age_band", "expression", "face_size")
_OF_THE_JOB = ("anonymizer", "reason", "gate", "k_class")
_BETWEEN = "\x1f"  # values of a combination; no value holds it

Combination = tuple[str, ...]  # values of the columns of ORDER


@dataclass
class Counts:
    """Rows of `records.AUDIT_RAW`, counted; merges.

    combinations: all rows.
    reason, gate: rows of faces, that is without those of dropped pictures.
    """

    combinations: collections.Counter[Combination] = field(default_factory=collections.Counter)
    reason: collections.Counter[str] = field(default_factory=collections.Counter)
    gate: collections.Counter[str] = field(default_factory=collections.Counter)

    def add(self, raw: pa.Table) -> "Counts":
        """Count the rows, which have their `k_class`."""
        for value, number in _counted(_joined(raw)).items():
            self.combinations[tuple(value.split(_BETWEEN))] += number
        faces = raw.filter(pc.not_equal(raw["status"], "dropped"))
        self.reason.update(_counted(faces["reason"]))
        self.gate.update(_counted(faces["gate"]))
        return self

    def merge(self, other: "Counts") -> "Counts":
        """Count what the other has counted as well."""
        self.combinations.update(other.combinations)
        self.reason.update(other.reason)
        self.gate.update(other.gate)
        return self

    @property
    def rows(self) -> int:
        return self.combinations.total()

    def of(self, name: str, dropped: bool = False) -> collections.Counter[str]:
        """Rows by the value of a column; those of dropped pictures only where asked for."""
        if name in ("reason", "gate"):
            return self.reason if name == "reason" else self.gate
        found: collections.Counter[str] = collections.Counter()
        status, column = ORDER.index("status"), ORDER.index(name)
        for values, rows in self.combinations.items():
            if dropped or values[status] != "dropped":
                found[values[column]] += rows
        return found


@dataclass(frozen=True)
class Rule:
    """What is released of each combination; empty: nothing is."""

    kept: Mapping[Combination, Combination]

    def to_table(self) -> pa.Table:
        """One row a combination: `before`, and the columns of ORDER as they are released."""
        pairs = sorted(self.kept.items())
        columns = {"before": [_BETWEEN.join(before) for before, _ in pairs]}
        columns |= {name: [after[n] for _, after in pairs] for n, name in enumerate(ORDER)}
        return pa.table({name: pa.array(column, pa.string()) for name, column in columns.items()})

    def lost(self, counts: Counts, name: str) -> int:
        """Cells of a column that are taken out."""
        column = ORDER.index(name)
        return sum(
            counts.combinations[before]
            for before, after in self.kept.items()
            if before[column] != after[column]
        )


def numbers(raw: pa.Table, rule: pa.Table) -> pa.ChunkedArray:
    """The row of `Rule.to_table` that says what is released of each raw row, int32.

    Raises:
        RuntimeError: a row's combination was not counted when the rule was made.
    """
    found = pc.index_in(_joined(raw), value_set=rule["before"])
    if found.null_count:
        raise RuntimeError("an audit row is of a combination that was not counted")
    return found


def rule(counts: Counts, k: int) -> Rule:
    """The rule under which every combination that is released has at least k rows.

    Combinations that are too rare lose the columns of `ORDER` one by one until they are not; others lose nothing.
    Where fewer than k rows have lost everything, the smallest combination loses everything with them. Fewer than k
    rows altogether are not released. That a picture was dropped can be read from its empty `shard` even where `status`
    is taken out: it says nothing of a person.

    Raises:
        ValueError: k is less than 1.
    """
    if k < 1:
        raise ValueError("k is at least 1")
    if counts.rows < k:
        return Rule({})
    pairs = sorted(counts.combinations.items())
    kept = _suppressed([list(values) for values, _ in pairs], [rows for _, rows in pairs], k)
    return Rule({before: tuple(after) for (before, _), after in zip(pairs, kept, strict=True)})


def _suppressed(values: list[list[str]], sizes: list[int], k: int) -> list[list[str]]:
    """Combinations [groups][columns] as they may be released, of groups with so many rows, k at least in all."""

    def merged() -> collections.Counter[Combination]:
        counts: collections.Counter[Combination] = collections.Counter()
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


def summary(counts: Counts, released: Rule, k: int, sums: Mapping[str, int]) -> pa.Table:
    """The public counts of a run (`records.SUMMARY`).

    `name` is a column of the raw rows and `value` one of its values ("none": the reason of a face at the first
    rung); or "rows", with what became of the rows of the audit; or "suppressed", with the cells that the released
    audit lost by column, out of `rows`; or "counts", with `sums` as given.

    What the job did (status, anonymizer, reason, gate, k class) is counted as it is: a small count there warns the
    operator of a fault, and no one is described by it. What describes a person (sex, age, expression, size) is folded
    into "other" as long as a value has fewer than k faces, and with the next smallest value as long as "other" has;
    otherwise a count of 1 would single somebody out. Fewer than k faces in all are not described.

    Args:
        released: `rule` of these counts and this k.
        sums: pictures of the run, as in the manifest.
    """
    found = [("counts", name, number) for name, number in sums.items()]
    found += [("rows", "released", counts.rows if released.kept else 0)]
    found += [("rows", "withheld", 0 if released.kept else counts.rows)]
    if released.kept:
        found += [("suppressed", name, released.lost(counts, name)) for name in ORDER]
    found += [("status", value, rows) for value, rows in counts.of("status", dropped=True).items()]
    for name in _OF_THE_JOB:
        found += [(name, value or "none", faces) for value, faces in counts.of(name).items()]
    for name in _OF_A_PERSON:
        found += [(name, value, faces) for value, faces in _folded(counts.of(name), k).items()]
    columns = zip(*sorted(found), strict=True)
    return pa.table(
        [pa.array(c, t) for c, t in zip(columns, records.SUMMARY.types, strict=True)], schema=records.SUMMARY
    )


def _folded(counts: Mapping[str, int], k: int) -> dict[str, int]:
    """Counts of values, those below k under "other", which has at least k itself or is not there."""
    other, kept = 0, dict(counts)
    for number, value in sorted((number, value) for value, number in counts.items()):
        if number >= k and not 0 < other < k:
            break
        other += kept.pop(value)
    return kept | ({OTHER: other} if other >= k else {})


def _joined(raw: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(*(raw[name] for name in ORDER), _BETWEEN)


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(entry["values"]): int(entry["counts"]) for entry in column.value_counts().to_pylist()}
