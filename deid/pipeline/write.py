"""Write one unit: its shard to the output, its audit and the record that commits both to the state."""

import collections
import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from deid import config, records
from deid.pipeline import rows
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.privacy import audit, keys
from deid.privacy.vault import Vault
from deid.shards import storage, tables, webdataset

COMMITTED = records.COMMIT.append(
    pa.field("audit", pa.binary())
)  # as it lies in the state: with the unit's audit


def commit_name(unit: int) -> str:
    return f"commits/{unit:08d}"


def _counted(counts: Mapping[str, int], value: str) -> list[dict[str, Any]]:
    return [{"name": name, value: number} for name, number in sorted(counts.items())]


def _by_name(names: Iterable[str]) -> list[dict[str, Any]]:
    return _counted(collections.Counter(names), "faces")


class WriteUnit:
    """Takes all pictures of one unit at once; an object counts only when the unit's commit names it.

    Shards are named by unit and content under the run secret, and a commit is written once: of two attempts at a unit
    the first to commit counts, and what the other left in the output is swept when the run ends.

    Args:
        folder: URI of the run's output.
        total: pictures in the plan.
        unit_size: pictures in every unit but the last.
        again: commits stand already, and are to be replaced.
    """

    def __init__(
        self,
        folder: str,
        vault: Vault,
        secret: bytes,
        total: int,
        unit_size: int,
        options: config.Assignment,
        again: bool = False,
    ) -> None:
        self.folder, self.vault, self.secret = folder, vault, secret
        self.total, self.unit_size, self.options, self.again = total, unit_size, options, again

    @shielded("write")
    def __call__(self, table: pa.Table) -> pa.Table:
        items = rows.from_table(table)
        unit = items[0].unit
        expected = min(self.unit_size, self.total - unit * self.unit_size)
        if {(row.unit, row.position) for row in items} != {(unit, n) for n in range(expected)}:
            raise RuntimeError(
                f"unit {unit}: {len(items)} pictures reached the writer, {expected} were planned"
            )
        commit = tables.to_bytes(pa.Table.from_pylist([self.write(unit, items)], schema=COMMITTED))
        try:
            self.vault.put(commit_name(unit), commit, overwrite=self.again)
        except storage.AlreadyThere:  # an earlier attempt committed
            commit = self.vault.get(commit_name(unit))
        return tables.from_bytes(commit).select(records.COMMIT.names)

    def write(self, unit: int, items: list[Row]) -> dict[str, Any]:
        out = [row for row in items if not row.reason]
        done = [
            face.status and face.anonymizer in records.ANONYMIZERS and face.gate in records.GATE
            for row in out
            for face in row.faces
        ]
        if not all(row.result for row in out) or not all(done):
            raise RuntimeError(f"unit {unit}: a picture reached the writer without a result")
        data = webdataset.write_shard(sorted(self.sample(row) for row in out))
        digest = hashlib.sha256(data)
        shard = f"shards/{keys.shard_name(self.secret, unit, digest.digest())}.tar"
        with contextlib.suppress(storage.AlreadyThere):  # the same content: it is in the name
            storage.write_bytes(storage.join(self.folder, shard), data)
        dropped = [row for row in items if row.reason in records.DROPPED]
        statuses = [face.status for row in out for face in row.faces]
        fields: collections.Counter[str] = collections.Counter()
        for row in items:
            fields.update(json.loads(row.dropped))
        return {
            "unit": unit,
            "shard": shard,
            "shard_bytes": len(data),
            "shard_sha256": digest.hexdigest(),
            "pictures_in": len(items),
            "pictures_out": len(out),
            "pictures_quarantined": len(items) - len(out) - len(dropped),
            "pictures_dropped": len(dropped),
            "faces": len(statuses),
            "replaced": statuses.count("replaced"),
            "covered": statuses.count("covered"),
            "anonymizers": _by_name(face.anonymizer for row in out for face in row.faces),
            "gate": _by_name(face.gate for row in out for face in row.faces),
            "fields": _counted(fields, "dropped"),
            "quarantine": [{"record": row.record, "reason": row.reason} for row in items if row.reason],
            "audit": audit.to_bytes(self.audit(unit, shard, out, dropped)),
        }

    def audit(self, unit: int, shard: str, out: list[Row], dropped: list[Row]) -> pa.Table:
        faces = [(row.position, row.faces) for row in out]
        return audit.rows(self.secret, unit, shard, faces, [row.position for row in dropped], self.options)

    def sample(self, row: Row) -> tuple[str, dict[str, bytes]]:
        """Key and members of one output sample: the picture, and the sidecar fields that passed."""
        members = {row.result_extension: row.result}
        fields = json.loads(row.sidecar)
        if "cls" in fields:
            members["cls"] = str(fields.pop("cls")).encode()
        if fields:
            members["json"] = json.dumps(fields, sort_keys=True).encode()
        return keys.output_id(self.secret, row.unit, row.position), members
