"""Write one unit: its shard, its audit, and the row that commits both."""

import collections
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from deid import records
from deid.pipeline import rows
from deid.pipeline.rows import Row
from deid.privacy import audit, keys
from deid.shards import storage, webdataset


def _by_name(names: Iterable[str]) -> list[dict[str, Any]]:
    return [{"name": name, "faces": faces} for name, faces in sorted(collections.Counter(names).items())]


class WriteUnit:
    """Takes all pictures of one unit at once; an object counts only when the commit row names it.

    Args:
        folder: URI of the run's output.
        total: pictures in the plan.
        unit_size: pictures in every unit but the last.
    """

    def __init__(self, folder: str, secret: bytes, total: int, unit_size: int) -> None:
        self.folder, self.secret, self.total, self.unit_size = folder, secret, total, unit_size

    def __call__(self, table: pa.Table) -> pa.Table:
        items = rows.from_table(table)
        unit = items[0].unit
        expected = min(self.unit_size, self.total - unit * self.unit_size)
        if {(row.unit, row.position) for row in items} != {(unit, n) for n in range(expected)}:
            raise RuntimeError(
                f"unit {unit}: {len(items)} pictures reached the writer, {expected} were planned"
            )
        return pa.Table.from_pylist([self.write(unit, items)], schema=records.COMMIT)

    def write(self, unit: int, items: list[Row]) -> dict[str, Any]:
        out = [row for row in items if not row.reason]
        done = [
            face.status and face.anonymizer in records.ANONYMIZERS and face.gate in records.GATE
            for row in out
            for face in row.faces
        ]
        if not all(row.result for row in out) or not all(done):
            raise RuntimeError(f"unit {unit}: a picture reached the writer without a result")
        name = keys.shard_name(self.secret, unit)
        shard, table = f"shards/{name}.tar", f"audit/{name}.parquet"
        data = webdataset.write_shard(sorted(self.sample(row) for row in out))
        rows_out = audit.to_bytes(
            audit.table(self.secret, unit, shard, [(row.position, row.faces) for row in out])
        )
        storage.write_bytes(storage.join(self.folder, shard), data, overwrite=True)
        storage.write_bytes(storage.join(self.folder, table), rows_out, overwrite=True)
        statuses = [face.status for row in out for face in row.faces]
        return {
            "unit": unit,
            "shard": shard,
            "shard_bytes": len(data),
            "shard_sha256": hashlib.sha256(data).hexdigest(),
            "audit": table,
            "audit_bytes": len(rows_out),
            "audit_sha256": hashlib.sha256(rows_out).hexdigest(),
            "pictures_in": len(items),
            "pictures_out": len(out),
            "pictures_quarantined": len(items) - len(out),
            "faces": len(statuses),
            "replaced": statuses.count("replaced"),
            "covered": statuses.count("covered"),
            "anonymizers": _by_name(face.anonymizer for row in out for face in row.faces),
            "gate": _by_name(face.gate for row in out for face in row.faces),
            "quarantine": [{"record": row.record, "reason": row.reason} for row in items if row.reason],
        }

    def sample(self, row: Row) -> tuple[str, dict[str, bytes]]:
        """Key and members of one output sample: the picture, and the sidecar fields that passed."""
        members = {row.result_extension: row.result}
        fields = json.loads(row.sidecar)
        if "cls" in fields:
            members["cls"] = str(fields.pop("cls")).encode()
        if fields:
            members["json"] = json.dumps(fields, sort_keys=True).encode()
        return keys.output_id(self.secret, row.unit, row.position), members
