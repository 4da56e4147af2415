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
    for position, image, sidecars, reason in webdataset.read(wanted):
        fields = policy.keep(sidecars.get("json"), sidecars.get("cls"), options)
        row = Row(unit, position, numbers[position], image, extensions[position], json.dumps(fields))
        if reason:
            row.fail(reason)
        items[position] = row
    return rows.to_table([row for row in items if row is not None])
