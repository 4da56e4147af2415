"""What a checker looks at in the tables of a release: k-anonymity, and that rows, pictures and counts are the same.

Of each part of the audit it keeps ids and group sizes alone, about 50 bytes a row.
"""

import collections
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deid import records

SUPPRESSED = "*"
_LINKS = ("output_id", "shard")  # columns that lead to the output; all others may be known of somebody
_QUASI = [name for name in records.AUDIT.names if name not in _LINKS]
_VERSION = b"deid.audit.version"
_SHOWN = 3  # pictures that are named one by one

Faults = Iterator[tuple[str, str]]  # name of the object, fault


@dataclass
class Part:
    """One object of the audit, reduced."""

    ids: pa.Table  # output_id: string, shard: int32, its number in the manifest; -1: "", -2: no such shard
    groups: collections.Counter[tuple[bool, tuple[str, ...]]]  # rows by (is in no shard, values of _QUASI)
    faults: list[str] = field(default_factory=list)


def read(data: bytes, shards: list[str]) -> Part:
    """A part of the audit.

    Args:
        data: the Parquet file.
        shards: names of the output shards; their order gives the numbers in `Part.ids`.
    """
    empty = pa.table({"output_id": pa.array([], pa.string()), "shard": pa.array([], pa.int32())})
    part = Part(empty, collections.Counter())
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        schema, table = file.schema_arrow, file.read()
        table.validate(full=True)  # texts are UTF-8
    except (pa.ArrowException, OSError):
        part.faults.append("cannot be read as Parquet")
        return part
    metadata = file.metadata.metadata or {}
    if metadata.get(_VERSION) != records.AUDIT_VERSION.encode():
        part.faults.append(f"is no audit of version {records.AUDIT_VERSION}")
    if metadata.keys() - {_VERSION, b"ARROW:schema"}:
        part.faults.append("holds metadata beside its version")
    if not schema.equals(records.AUDIT):
        part.faults.append("has other columns than the audit's")
        return part
    ids = table["output_id"]
    if len(ids) > 1 and not pc.all(pc.less_equal(ids[:-1], ids[1:])).as_py():
        part.faults.append("is not sorted by output_id")
    part.ids, part.groups = _ids(table, shards), _groups(table)
    return part


def _ids(table: pa.Table, shards: list[str]) -> pa.Table:
    found = pc.index_in(table["shard"], value_set=pa.array(shards, pa.string()))
    nowhere = pc.if_else(pc.equal(table["shard"], ""), -1, -2)
    return pa.table({"output_id": table["output_id"], "shard": pc.coalesce(found, nowhere).cast(pa.int32())})


def _groups(table: pa.Table) -> collections.Counter[tuple[bool, tuple[str, ...]]]:
    flagged = table.select(_QUASI).append_column("nowhere", pc.equal(table["shard"], ""))
    counted = flagged.group_by([*_QUASI, "nowhere"]).aggregate([([], "count_all")])
    return collections.Counter(
        {
            (row["nowhere"], tuple(row[name] for name in _QUASI)): row["count_all"]
            for row in counted.to_pylist()
        }
    )


@dataclass(frozen=True)
class Audit:
    """The whole audit of a release: its parts by name, and the shards' keys by name."""

    parts: Mapping[str, Part]
    keys: Mapping[str, list[str]]
    shards: list[str]  # as in `read`

    @property
    def rows(self) -> int:
        return sum(len(part.ids) for part in self.parts.values())

    @property
    def groups(self) -> collections.Counter[tuple[bool, tuple[str, ...]]]:
        return sum((part.groups for part in self.parts.values()), collections.Counter())

    def order(self) -> Faults:
        """Parts that do not go on where the one before them ends."""
        last = ""
        for name, part in sorted(self.parts.items()):
            if len(part.ids):
                if part.ids["output_id"][0].as_py() < last:
                    yield name, "is not sorted by output_id over the whole audit"
                last = part.ids["output_id"][-1].as_py()

    def anonymity(self, k: int) -> Faults:
        """Combinations of values with fewer than k rows."""
        sizes: collections.Counter[tuple[str, ...]] = collections.Counter()
        for (_, values), rows in self.groups.items():
            sizes[values] += rows
        small = [rows for rows in sizes.values() if rows < k]
        if small:
            yield (
                "audit",
                f"{len(small)} combinations of values have fewer than {k} rows, one has {min(small)}",
            )

    def links(self) -> Faults:
        """Rows and pictures that do not belong together."""
        if not self.parts:
            return
        ids = pa.concat_tables(part.ids for part in self.parts.values())
        numbers = {name: number for number, name in enumerate(self.shards)}
        pictures = pa.table(
            {
                "output_id": pa.array([key for keys in self.keys.values() for key in keys], pa.string()),
                "shard": pa.array([numbers[n] for n, keys in self.keys.items() for _ in keys], pa.int32()),
            }
        )
        faces, dropped = ids.filter(pc.not_equal(ids["shard"], -1)), ids.filter(pc.equal(ids["shard"], -1))
        yield from _named(
            faces.join(pictures, ["output_id", "shard"], join_type="left anti"),
            "is of no picture in the shard that it names",
        )
        yield from _named(
            dropped.join(pictures, "output_id", join_type="left semi"),
            "names no shard, but its picture is in one",
        )

    def counts(self, manifest: Mapping[str, Any], k: int) -> Faults:
        """Numbers that are not the manifest's. An audit of fewer than k rows is not released: it is empty."""
        wanted, groups = manifest["counts"], self.groups
        status = _QUASI.index("status")
        seen: collections.Counter[str] = collections.Counter()
        for (nowhere, values), rows in groups.items():
            seen["" if nowhere else values[status]] += rows
            if (values[status] == "dropped") != nowhere and values[status] != SUPPRESSED:
                yield "audit", f"{rows} rows of status {values[status]} name {'no' if nowhere else 'a'} shard"
        faces = sum(rows for name, rows in seen.items() if name)
        if not self.rows and wanted["faces"] + wanted["pictures_dropped"] < k:
            return
        if faces != wanted["faces"]:
            yield "audit", f"has {faces} faces, the manifest counts {wanted['faces']}"
        if seen[""] != wanted["pictures_dropped"]:  # in no shard, be their status taken out or not
            yield (
                "audit",
                f"has {seen['']} pictures dropped, the manifest counts {wanted['pictures_dropped']}",
            )
        if not self.rows:
            return
        for name in ("replaced", "covered"):
            if not seen[name] <= wanted[name] <= seen[name] + seen[SUPPRESSED]:
                yield "audit", f"has {seen[name]} faces {name}, the manifest counts {wanted[name]}"


def _named(rows: pa.Table, fault: str) -> Faults:
    pictures = sorted(rows["output_id"].unique().to_pylist())
    for picture in pictures[:_SHOWN]:
        yield "audit", f"a row of {picture} {fault}"
    if len(pictures) > _SHOWN:
        yield "audit", f"{len(pictures) - _SHOWN} more such pictures: a row {fault}"


def read_summary(data: bytes) -> dict[tuple[str, str], int] | None:
    """Counts by (name, value) of `records.SUMMARY`; None when it is not that."""
    try:
        table = pq.read_table(io.BytesIO(data))
        table.validate(full=True)
    except (pa.ArrowException, OSError):
        return None
    if not table.schema.equals(records.SUMMARY):
        return None
    return {(row["name"], row["value"]): row["faces"] for row in table.to_pylist()}


def summary(found: Mapping[tuple[str, str], int], manifest: Mapping[str, Any], rows: int) -> Faults:
    """Counts of the summary that are not those of the manifest, or not the rows of the audit."""
    wanted = {("rows", "released"): rows}
    for name in ("replaced", "covered"):
        wanted["status", name] = manifest["counts"][name]
    for column, section in (("anonymizer", "anonymizers"), ("gate", "gate")):
        values = {value for name, value in found if name == column} | manifest[section].keys()
        wanted |= {(column, value): manifest[section].get(value, 0) for value in values}
    for name, value in found:
        if name == "counts":
            wanted[name, value] = manifest["counts"].get(value, 0)
    for (name, value), number in sorted(wanted.items()):
        if found.get((name, value), 0) != number:
            where = "the audit has" if name == "rows" else "the manifest counts"
            yield "summary.parquet", f"{name} {value}: {found.get((name, value), 0)}, {where} {number}"
