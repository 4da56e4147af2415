"""Read one unit: its records' bytes, and what the metadata policy lets pass beside them."""

import json

import pyarrow as pa

from deid.config import Metadata
from deid.pipeline import rows
from deid.pipeline.rows import Row
from deid.privacy import metadata as policy
from deid.shards import webdataset


def read_unit(wanted: pa.Table, unit: int, options: Metadata) -> pa.Table:
    """Rows of `records.PICTURE`, in the order of `wanted` (rows of `Plan.unit`)."""
    items: list[Row | None] = [None] * len(wanted)
    numbers, extensions = wanted["record"].to_pylist(), wanted["extension"].to_pylist()
    wanted = _without(wanted, "json", not options.sidecar_fields)
    wanted = _without(wanted, "cls", "cls" not in options.members)
    for position, image, sidecars, reason in webdataset.read(wanted):
        fields = policy.keep(sidecars.get("json"), sidecars.get("cls"), options)
        row = Row(unit, position, numbers[position], image, extensions[position], json.dumps(fields))
        if reason:
            row.fail(reason)
        items[position] = row
    return rows.to_table([row for row in items if row is not None])


def _without(wanted: pa.Table, member: str, drop: bool) -> pa.Table:
    """The records without a sidecar member that nothing of could pass: it is not even read."""
    if not drop:
        return wanted
    column = wanted.schema.get_field_index(f"{member}_size")
    return wanted.set_column(column, f"{member}_size", pa.array([-1] * len(wanted), pa.int64()))
