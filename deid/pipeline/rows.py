"""Between Arrow tables of `records.PICTURE` and the objects that stages work on."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deid import records
from deid.faces import segment
from deid.faces.segment import Segments
from deid.interfaces import Face, Picture


@dataclass
class Row:
    """One picture on its way; see `records.PICTURE` for the fields."""

    unit: int
    position: int
    planned: int
    image: bytes
    extension: str
    sample: int = 0
    name: str = ""
    sidecar: str = "{}"
    dropped: str = "{}"
    masks: dict[str, bytes] = field(default_factory=dict)
    subject: bytes = b""
    reason: str = ""
    width: int = 0
    height: int = 0
    faces: list[Face] = field(default_factory=list)
    result: bytes = b""
    result_extension: str = ""

    def fail(self, reason: str) -> None:
        """Quarantine the picture: nothing of it goes any further."""
        if reason not in records.QUARANTINE:
            raise ValueError(f"{reason!r} is no quarantine code")
        self.reason, self.image, self.result, self.masks, self.faces = reason, b"", b"", {}, []


def from_table(table: pa.Table) -> list[Row]:
    rows = []
    for values in table.to_pylist():
        faces = [_face(value) for value in values.pop("faces") or []]
        rows.append(Row(**values | {"masks": dict(values["masks"])}, faces=faces))
    return rows


def by_unit(table: pa.Table) -> list[tuple[int, list[Row]]]:
    """The rows of each unit, which must all be there, each once.

    Raises:
        RuntimeError: some are not.
    """
    found: dict[int, list[Row]] = {}
    for row in from_table(table):
        found.setdefault(row.unit, []).append(row)
    for unit, rows in found.items():
        if sorted(row.position for row in rows) != list(range(rows[0].planned)):
            raise RuntimeError(f"unit {unit}: {len(rows)} pictures arrived, {rows[0].planned} were planned")
    return sorted(found.items())


def to_table(rows: list[Row]) -> pa.Table:
    values = [
        vars(row) | {"masks": list(row.masks.items()), "faces": [_value(face) for face in row.faces]}
        for row in rows
    ]
    return pa.Table.from_pylist(values, schema=records.PICTURE)


def _bytes(array: NDArray[np.float32] | None) -> bytes:
    return b"" if array is None else np.ascontiguousarray(array, dtype="<f4").tobytes()


def _square(data: bytes, size: int) -> Picture | None:
    return np.frombuffer(data, np.uint8).reshape(size, size, 3) if size else None


def _array(data: bytes, *shape: int) -> NDArray[np.float32] | None:
    return np.frombuffer(data, dtype="<f4").reshape(shape).copy() if data else None


def _parts(data: bytes) -> Segments | None:
    shape = (segment.SIDE, segment.SIDE, len(segment.PARTS))
    return np.frombuffer(data, np.uint8).reshape(shape) if data else None


def _value(face: Face) -> dict[str, Any]:
    return {
        "box": _bytes(face.box),
        "score": face.score,
        "points": _bytes(face.points),
        "mesh": _bytes(face.mesh),
        "mesh_score": face.mesh_score,
        "embedding": _bytes(face.embedding),
        "segments": b"" if face.segments is None else face.segments.tobytes(),
        "looks": _bytes(face.looks),
        "anonymizer": face.anonymizer,
        "failure": face.failure,
        "surrogate": b"" if face.surrogate is None else face.surrogate.tobytes(),
        "surrogate_size": 0 if face.surrogate is None else face.surrogate.shape[0],
        "surrogate_mesh": _bytes(face.surrogate_mesh),
        "surrogate_segments": b"" if face.surrogate_segments is None else face.surrogate_segments.tobytes(),
        "spare": b"" if face.spare is None else face.spare.tobytes(),
        "spare_size": 0 if face.spare is None else face.spare.shape[0],
        "spare_mesh": _bytes(face.spare_mesh),
        "k": face.k,
        "wanted": _bytes(face.wanted),
        "identities": b"" if face.identities is None else face.identities.astype("<i4").tobytes(),
        "surrogate_id": face.surrogate_id,
        "sex": face.sex,
        "age": face.age,
        "expression": face.expression,
        "gate": face.gate,
        "status": face.status,
    }


def _face(value: dict[str, Any]) -> Face:
    return Face(
        box=np.frombuffer(value["box"], dtype="<f4").copy(),
        score=value["score"],
        points=np.frombuffer(value["points"], dtype="<f4").reshape(5, 2).copy(),
        mesh=_array(value["mesh"], -1, 3),
        mesh_score=value["mesh_score"],
        embedding=_array(value["embedding"], -1),
        segments=_parts(value["segments"]),
        looks=_array(value["looks"], -1),
        anonymizer=value["anonymizer"],
        failure=value["failure"],
        surrogate=_square(value["surrogate"], value["surrogate_size"]),
        surrogate_mesh=_array(value["surrogate_mesh"], -1, 3),
        surrogate_segments=_parts(value["surrogate_segments"]),
        spare=_square(value["spare"], value["spare_size"]),
        spare_mesh=_array(value["spare_mesh"], -1, 3),
        k=value["k"],
        wanted=_array(value["wanted"], -1),
        identities=np.frombuffer(value["identities"], "<i4").copy() if value["identities"] else None,
        surrogate_id=value["surrogate_id"],
        sex=value["sex"],
        age=value["age"],
        expression=value["expression"],
        gate=value["gate"],
        status=value["status"],
    )
