"""The audit of a run by the job's own tasks, run one after the other, from raw tables in memory."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deid import records
from deid.privacy import audit, audit_release, suppress
from deid.privacy.suppress import Counts


class Scratch(dict[str, bytes]):
    """A scratch store in memory."""

    def put(self, name: str, data: bytes, overwrite: bool = False) -> None:
        assert overwrite or name not in self
        self[name] = data

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self if name.startswith(prefix))

    def get(self, name: str) -> bytes:  # type: ignore[override]
        return self[name]

    def delete(self, name: str) -> None:
        del self[name]


def files(raw: Sequence[pa.Table], k: int, part_rows: int = audit_release.PART_ROWS) -> dict[str, bytes]:
    """The parts, by name; `raw`: rows of one unit each, which keep the class that they have."""
    scratch = Scratch()
    names = sorted({name for table in raw for name in table["k_class"].to_pylist()})
    classes = pa.table(
        {"surrogate_id": pa.array(range(len(names)), pa.int64()), "k_class": pa.array(names, pa.string())}
    )
    column = records.AUDIT_RAW.get_field_index("surrogate_id")
    units = [
        table.set_column(
            column,
            records.AUDIT_RAW.field(column),
            pc.index_in(table["k_class"], classes["k_class"]).cast(pa.int64()),
        )
        for table in raw
    ]
    with tempfile.TemporaryDirectory() as folder:
        entries, _, _ = audit_release.release(
            scratch,
            units.__getitem__,
            range(len(units)),
            [len(t) for t in units],
            classes,
            k,
            folder,
            part_rows=part_rows,
        )
        assert not scratch, "nothing is left in the scratch store"
        return {entry["name"]: (Path(folder) / entry["name"]).read_bytes() for entry in entries}


def table(parts: Mapping[str, bytes]) -> pa.Table:
    return pa.concat_tables([pq.read_table(io.BytesIO(parts[name])) for name in sorted(parts)])


def release(raw: Sequence[pa.Table], k: int) -> pa.Table:
    return table(files(raw, k))


def summary(raw: Sequence[pa.Table], k: int, sums: Mapping[str, int]) -> pa.Table:
    counts = Counts()
    for rows in raw:
        counts.add(rows)
    return suppress.summary(counts, suppress.rule(counts, k), k, sums)


def parts(released: pa.Table) -> dict[str, bytes]:
    """A released table that was tampered with, as the file of one part."""
    return {"audit/part-00000.parquet": audit.to_bytes(released)}
