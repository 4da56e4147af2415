"""The public audit: one row a face, joined to the output by random ids only, released with k-anonymity.

Writers make `rows` of each unit, which stay in the encrypted state. At the end of the run `deid.privacy.audit_release`
turns all of them into the public table, under the rule of `deid.privacy.suppress`.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deid import records
from deid.config import Assignment
from deid.evaluation import expression as measures
from deid.interfaces import Face
from deid.privacy import keys
from deid.privacy.suppress import ALL, ORDER

Place = tuple[int, int]  # of a picture in its unit: position, and number of its sample
Pictures = Iterable[tuple[Place, Sequence[Face]]]

UNKNOWN = "unknown"
_SEX = {1: "male", 0: "female"}


def rows(
    secret: bytes,
    unit: int,
    shard: str | Mapping[int, str],
    pictures: Pictures,
    dropped: Iterable[Place],
    options: Assignment,
    video: str = "",
) -> pa.Table:
    """Raw audit rows (`records.AUDIT_RAW`) of one unit: for the encrypted state, never for the output.

    Args:
        shard: name of the output shard, of all samples or by a sample's number.
        pictures: those that go out; one row a face.
        dropped: places of those that the job could not make safe; one row each, whatever faces they have.
        video: id that the faces of all pictures have, which are its frames; "": each sample has its own.
    """
    values = [
        {**_place(secret, unit, place, number, video), "shard": _of(shard, place), **_values(face, options)}
        for place, faces in pictures
        for number, face in enumerate(faces)
    ]
    nothing = dict.fromkeys((*ORDER, "reason", "gate"), ALL) | {"surrogate_id": -1}
    values += [
        {**nothing, **_place(secret, unit, place, -1), "shard": "", "status": "dropped"} for place in dropped
    ]
    values.sort(key=lambda value: str(value["output_id"]))
    return pa.Table.from_pylist(values, schema=records.AUDIT_RAW)


def _of(shard: str | Mapping[int, str], place: Place) -> str:
    return shard if isinstance(shard, str) else shard[place[1]]


def _place(secret: bytes, unit: int, place: Place, number: int, video: str = "") -> dict[str, object]:
    position, sample = place
    return {
        "output_id": video or keys.output_id(secret, unit, sample),
        "position": position,
        "number": number,
    }


def _values(face: Face, options: Assignment) -> dict[str, object]:
    return {
        "status": face.status,
        "anonymizer": face.anonymizer,
        "k_class": k_class(0, options.k),  # until they are counted
        "sex": _SEX.get(face.sex, UNKNOWN),
        "age_band": age_band(face.age, options.age_bands),
        "expression": face.expression or UNKNOWN,
        "face_size": records.face_height_band(face.height),
        "reason": face.failure,
        "gate": face.gate,
        "surrogate_id": face.surrogate_id if face.status == "replaced" else -1,
    }


def classes(people: Mapping[int, int], k: int) -> pa.Table:
    """`surrogate_id` and `k_class` of each surrogate, by the number of people behind it."""
    surrogates = sorted(people)
    names = [k_class(people[surrogate], k) for surrogate in surrogates]
    return pa.table(
        {"surrogate_id": pa.array(surrogates, pa.int64()), "k_class": pa.array(names, pa.string())}
    )


def classed(raw: pa.Table, known: pa.Table) -> pa.Table:
    """Raw rows with their `k_class`; `known`: of `classes`."""
    place = pc.index_in(raw["surrogate_id"], value_set=known["surrogate_id"])
    names = pc.coalesce(known["k_class"].take(place), k_class(0, 1))
    names = pc.if_else(pc.equal(raw["status"], "dropped"), ALL, names)
    column = raw.schema.get_field_index("k_class")
    return raw.set_column(column, raw.schema.field(column), names)


def expression(mesh: NDArray[np.floating] | None) -> str:
    """ "smiling" or "neutral", of a mesh [468, 3] that was found on the source; "unknown" without one."""
    if mesh is None:
        return UNKNOWN
    smile = float(measures.smile(mesh))
    if not math.isfinite(smile):
        return UNKNOWN
    return "smiling" if smile > measures.SMILING else "neutral"


def age_band(years: float, bounds: Sequence[int]) -> str:
    """Band of an age: "<18", "18-29", ..., ">=60" for bounds 18, 30, ..., 60; "unknown" for NaN."""
    if not math.isfinite(years):
        return UNKNOWN
    limits = sorted(set(bounds)) or [0]
    if years < limits[0]:
        return f"<{limits[0]}"
    below = [low for low in limits if low <= years]
    if len(below) == len(limits):
        return f">={limits[-1]}"
    return f"{below[-1]}-{limits[len(below)] - 1}"


def k_class(people: int, k: int) -> str:
    """Band of the number of people behind a surrogate: k to 2k - 1, to 4k - 1, to 10k - 1, and from 10k on.

    For k = 5: "5-9", "10-19", "20-49", "50+". "none": 0, a draw of its own or no surrogate. "<5": what no k-same run
    releases.
    """
    if not people:
        return "none"
    if people < k:
        return f"<{k}"
    low = k
    for high in (2 * k, 4 * k, 10 * k):
        if people < high:
            return f"{low}-{high - 1}"
        low = high
    return f"{low}+"


def to_bytes(table: pa.Table) -> bytes:
    """Parquet, the same bytes for the same table: of the writer it names the library's version, and nothing else."""
    metadata = {
        name: value for name, value in (table.schema.metadata or {}).items() if name.startswith(b"deid.")
    }
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    return sink.getvalue()
