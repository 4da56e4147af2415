"""Write one unit: its objects to the output, its audit and the record that commits both to the state."""

import collections
import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from deid import records
from deid.config import Config
from deid.pipeline import rows
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.privacy import audit, keys
from deid.privacy.vault import Vault
from deid.shards import storage, tables
from deid.shards.formats import Sample
from deid.shards.writers import WRITERS, Shards, output_format

# As it lies in the state.
COMMITTED = records.COMMIT.append(
    pa.field("quarantine", pa.list_(pa.struct([("position", pa.int32()), ("reason", pa.string())])))
).append(pa.field("audit", pa.binary()))
# video: the name of the unit's segment in the state
COMMITTED = COMMITTED.append(pa.field("segment", pa.string()))
_APART = 1 << 40  # added to the position of a dropped picture, for an id that is no sample's


def commit_name(unit: int, turn: int = 0) -> str:
    """Of the unit's commit in the state: the first, or that of the repair of this number."""
    return f"commits/{unit:08d}" + (f"-{turn}" if turn else "")


def _counted(counts: Mapping[str, int], value: str) -> list[dict[str, Any]]:
    return [{"name": name, value: number} for name, number in sorted(counts.items())]


def _by_name(names: Iterable[str], value: str = "faces") -> list[dict[str, Any]]:
    return _counted(collections.Counter(names), value)


class WriteUnit:
    """Takes all pictures of some units at once; an object counts only when the unit's commit names it.

    Objects are named by unit and content under the run secret, and a commit is written once: of two attempts at a
    unit the first to commit counts, and what the other left in the output is swept when the run ends.

    Args:
        folder: URI of the run's output.
        extra: most further pictures of one sample whose names are not listed.
        turn: 0, or the number of the repair.
    """

    def __init__(
        self, folder: str, vault: Vault, secret: bytes, config: Config, extra: int, turn: int = 0
    ) -> None:
        self.folder, self.vault, self.secret = folder, vault, secret
        self.config, self.extra, self.turn = config, extra, turn

    @shielded("write")
    def __call__(self, table: pa.Table) -> pa.Table:
        done = [self.commit(unit, items) for unit, items in rows.by_unit(table)]
        return pa.concat_tables(done).select(records.COMMIT.names)

    def commit(self, unit: int, items: list[Row]) -> pa.Table:
        name = commit_name(unit, self.turn)
        table = pa.Table.from_pylist([self.write(unit, items)], schema=COMMITTED)
        try:
            self.vault.put(name, tables.to_bytes(table))
        except storage.AlreadyThere:  # an earlier attempt committed
            table = tables.from_bytes(self.vault.get(name))
        return table

    def write(self, unit: int, items: list[Row]) -> dict[str, Any]:
        out = [row for row in items if not row.reason]
        done = [
            face.status and face.anonymizer in records.ANONYMIZERS and face.gate in records.GATE
            for row in out
            for face in row.faces
        ]
        if not all(row.result for row in out) or not all(done):
            raise RuntimeError(f"unit {unit}: a picture reached the writer without a result")
        objects, shards = self.objects(unit, out)
        dropped = [row for row in items if row.reason in records.DROPPED]
        statuses = [face.status for row in out for face in row.faces]
        fields: collections.Counter[str] = collections.Counter()
        for row in items:
            fields.update(json.loads(row.dropped))
        return {
            "unit": unit,
            "objects": objects,
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
            "reasons": _by_name((row.reason for row in items if row.reason), "pictures"),
            "quarantine": [{"position": row.position, "reason": row.reason} for row in items if row.reason],
            "audit": audit.to_bytes(self.audit(unit, shards, out, dropped)),
            "segment": "",
        }

    def objects(self, unit: int, out: Sequence[Row]) -> tuple[list[dict[str, Any]], Shards]:
        """Write the unit's objects; their names, bytes and SHA-256, and which of them lists each sample, by key."""
        samples = sorted(self.samples(unit, out), key=lambda sample: sample.key)
        named = functools.partial(self.name, unit)
        found = []
        objects, shards = WRITERS[output_format(self.config)](samples, named, self.config, self.extra)
        for name, data in objects:
            with contextlib.suppress(storage.AlreadyThere):  # the same content: it is in the name
                storage.write_bytes(storage.join(self.folder, name), data)
            found.append({"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        return found, shards

    def name(self, unit: int, content: bytes) -> str:
        return keys.shard_name(self.secret, unit, hashlib.sha256(content).digest())

    def audit(self, unit: int, shards: Shards, out: list[Row], dropped: list[Row]) -> pa.Table:
        shard = {row.sample: shards[keys.output_id(self.secret, unit, row.sample)] for row in out}
        faces = [((row.position, row.sample), row.faces) for row in out]
        there = {row.sample for row in out}
        lost = [
            (row.position, _APART + row.position if row.sample in there else row.sample) for row in dropped
        ]
        return audit.rows(self.secret, unit, shard, faces, lost, self.config.assignment)

    def samples(self, unit: int, out: Sequence[Row]) -> list[Sample]:
        """Pictures of one sample together, and the fields that passed beside the first of them."""
        of: dict[int, list[Row]] = {}
        for row in out:
            of.setdefault(row.sample, []).append(row)
        return [
            Sample(
                keys.output_id(self.secret, unit, sample),
                tuple((row.name, row.result_extension, row.result) for row in pictures),
                json.loads(pictures[0].sidecar),
                pictures[0].masks,
            )
            for sample, pictures in of.items()
        ]
