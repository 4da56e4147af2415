"""Arrow tables as Parquet in memory: a whole object, or none."""

import io

import pyarrow as pa
import pyarrow.parquet as pq


def to_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def from_bytes(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))
