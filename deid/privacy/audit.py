"""The public audit: one row a face, joined to the output by random ids only."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from deid import records
from deid.interfaces import Face
from deid.privacy import keys


def table(secret: bytes, unit: int, shard: str, pictures: Sequence[tuple[int, Sequence[Face]]]) -> pa.Table:
    """Audit rows (`records.AUDIT`) of one unit, in the order of their random ids.

    Args:
        shard: name of the output shard.
        pictures: position in the unit and faces, of each picture that goes out.
    """
    values = []
    for position, faces in pictures:
        for number, face in enumerate(faces):
            replaced = face.status == "replaced"
            values.append(
                {
                    "output_id": keys.output_id(secret, unit, position),
                    "face_id": keys.face_id(secret, unit, position, number),
                    "shard": shard,
                    "status": face.status,
                    "anonymizer": face.anonymizer,
                    "reason": face.failure,
                    "gate": face.gate,
                    "k": face.k if replaced else 0,
                    "face_height_band": records.face_height_band(face.height),
                }
            )
    values.sort(key=lambda value: str(value["face_id"]))
    return pa.Table.from_pylist(values, schema=records.AUDIT)


def to_bytes(audit: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(audit, sink, compression="zstd")
    return sink.getvalue()
