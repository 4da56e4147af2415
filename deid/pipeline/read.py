"""Read units: their records' bytes, and what the metadata policy lets pass beside them."""

import json
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from deid.config import Config
from deid.pipeline import plan as planning
from deid.pipeline import rows
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.privacy import metadata as policy
from deid.shards.readers import FORMATS

# In `dropped`: what lies beside a picture and was not read, since nothing of it could pass, or it is too large.
UNREAD = "unread"
Subject = Callable[[bytes | None], bytes]


@shielded("read")
def read_units(
    wanted: Sequence[pa.Table], units: Sequence[int], config: Config, subject: Subject | None = None
) -> pa.Table:
    """Rows of `records.PICTURE` of units that are read at once, in the order of `wanted`.

    Args:
        wanted: rows of `plan.RECORDS` of each unit.
        subject: gets a sample's .json (None: it has none) and gives `Row.subject`, the keyed hash of the person's
            name, or b"" where there is none; see `metadata.subject` and `keys.subject`. None: persons have no names.
    """
    items = [row for unit, table in zip(units, wanted, strict=True) for row in _rows(unit, table)]
    whole = pa.concat_tables(wanted)
    whole, unread = _useful(whole, config, subject is not None)
    for number, image, beside, reason in FORMATS[config.input.format].read(whole, planning.layout(config)):
        row = items[number]
        kept, dropped = policy.keep(beside, config.metadata)
        if unread[number]:
            dropped[UNREAD] = dropped.get(UNREAD, 0) + unread[number]
        row.image, row.sidecar, row.dropped = image, json.dumps(kept), json.dumps(dropped)
        row.masks = {name: beside[name] for name in config.metadata.masks if name in beside}
        row.subject = subject(beside.get("json")) if subject is not None else b""
        if not reason and not config.video and len(image) > config.limits.max_bytes:
            reason = "too_large"  # Parquet: its size was an estimate
        if reason:
            row.fail(reason)
    return rows.to_table(items)


def _rows(unit: int, records: pa.Table) -> Iterator[Row]:
    columns = (records[name].to_pylist() for name in ("extension", "unit_sample", "name"))
    for position, (extension, sample, name) in enumerate(zip(*columns, strict=True)):
        yield Row(unit, position, len(records), b"", extension, sample, name)


def _useful(records: pa.Table, config: Config, named: bool) -> tuple[pa.Table, list[int]]:
    """The records without what need not or must not be read beside them, and how much that is for each."""
    options = config.metadata
    useful = {*options.members, *options.masks} | ({"json"} if options.sidecar_fields or named else set())
    beside = records["sidecars"].to_pylist()
    most = config.limits.max_bytes
    kept = [
        [entry for entry in entries if entry["name"] in useful and entry["size"] <= most]
        for entries in beside
    ]
    column = records.schema.get_field_index("sidecars")
    chosen = pa.array(kept, records.schema.field(column).type)
    unread = [len(all_) - len(some) for all_, some in zip(beside, kept, strict=True)]
    return records.set_column(column, "sidecars", chosen), unread
