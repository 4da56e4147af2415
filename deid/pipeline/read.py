"""Read one unit: its records' bytes, and what the metadata policy lets pass beside them."""

import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from deid.config import Metadata
from deid.pipeline import rows
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.privacy import metadata as policy
from deid.shards import webdataset

UNREAD = "unread"  # in `dropped`: sidecar members that were not read, since nothing of them could pass
Subject = Callable[[bytes | None], bytes]


@shielded("read")
def read_unit(wanted: pa.Table, unit: int, options: Metadata, subject: Subject | None = None) -> pa.Table:
    """Rows of `records.PICTURE`, in the order of `wanted` (rows of `Plan.unit`).

    Args:
        subject: gets a sample's .json (None: it has none) and gives `Row.subject`, the keyed hash of the person's
            name, or b"" where there is none; see `metadata.subject` and `keys.subject`. None: persons have no names.
    """
    items: list[Row | None] = [None] * len(wanted)
    numbers, extensions = wanted["record"].to_pylist(), wanted["extension"].to_pylist()
    unread = [0] * len(wanted)
    for member, useless in (
        ("json", not options.sidecar_fields and subject is None),
        ("cls", "cls" not in options.members),
    ):
        if useless:
            there = pc.greater_equal(wanted[f"{member}_size"], 0).to_pylist()
            unread = [count + found for count, found in zip(unread, there, strict=True)]
            wanted = _without(wanted, member)
    for position, image, sidecars, reason in webdataset.read(wanted):
        kept, dropped = policy.keep(sidecars.get("json"), sidecars.get("cls"), options)
        if unread[position]:
            dropped[UNREAD] = dropped.get(UNREAD, 0) + unread[position]
        row = Row(unit, position, numbers[position], image, extensions[position])
        row.sidecar, row.dropped = json.dumps(kept), json.dumps(dropped)
        row.subject = subject(sidecars.get("json")) if subject is not None else b""
        if reason:
            row.fail(reason)
        items[position] = row
    return rows.to_table([row for row in items if row is not None])


def _without(wanted: pa.Table, member: str) -> pa.Table:
    """The records without this sidecar member: it is not even read."""
    column = wanted.schema.get_field_index(f"{member}_size")
    return wanted.set_column(column, f"{member}_size", pa.array([-1] * len(wanted), pa.int64()))
