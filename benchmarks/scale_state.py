"""The state of a run of many faces, as pass 1, the assignment and the writers leave it, for `benchmarks/scale.py`.

Nobody is on it: faces have random embeddings, ten a person, and random values in the audit's columns, of which a few
combinations are rare. A unit has 1,000 faces, two a picture, and a picture that was dropped.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deid import records
from deid.pipeline.index import faces_name, persons_name
from deid.pipeline.write import COMMITTED, commit_name
from deid.privacy import audit, keys, people
from deid.privacy.vault import Vault
from deid.shards import tables

FACES = 1000  # a unit
PICTURES = 500  # a unit
OF_A_PERSON = 10  # faces
SHARED_BY = 8  # people, a surrogate; of these there are SURROGATES at most
SURROGATES = 20_000
DIM, LOOKS = 128, 17
SECRET = b"s" * 32
_WORDS = {
    "anonymizer": ("surrogate", "simple", "ksame-pixel", "solid"),
    "sex": ("male", "female", "unknown"),
    "age_band": ("<18", "18-29", "30-44", "45-59", ">=60", "unknown"),
    "expression": ("smiling", "neutral", "unknown"),
    "face_size": ("<20", "20-39", "40-79", "80-159", ">=160"),
    "gate": ("passed", "not_found", "lowered"),
}


def vault(folder: Path) -> Vault:
    return Vault(str(folder / "state"), b"k" * 32)


def write(folder: Path, faces: int) -> pa.Table:
    """Write the units of so many faces; what of their commits the driver holds (`records.COMMIT`)."""
    rng, state, commits = np.random.default_rng(faces), vault(folder), []
    ids, persons = surrogates(faces), max(1, faces // OF_A_PERSON)
    for unit in range(faces // FACES):
        of = rng.integers(0, persons, FACES)
        raw = _raw(rng, unit, ids[of % len(ids)])
        row: dict[str, Any] = dict.fromkeys(COMMITTED.names)
        row |= {"unit": unit, "faces": FACES, "pictures_dropped": 1, "audit": audit.to_bytes(raw)}
        commit = pa.Table.from_pylist([row], schema=COMMITTED)
        state.put(commit_name(unit), tables.to_bytes(commit), overwrite=True)
        state.put(faces_name(unit), tables.to_bytes(_seen(rng, unit, of)), overwrite=True)
        state.put(persons_name(unit), tables.to_bytes(_persons(of)), overwrite=True)
        commits.append(commit.select(records.COMMIT.names))
    return pa.concat_tables(commits)


def surrogates(faces: int) -> NDArray[np.int64]:
    """Numbers of the surrogates of so many faces."""
    number = min(max(1, faces // OF_A_PERSON // SHARED_BY), SURROGATES)
    return np.array([keys.surrogate_id(SECRET, n, ()) for n in range(number)], np.int64)


def people_behind(faces: int) -> dict[int, int]:
    """A number of people for each surrogate, from 5 to 64."""
    return {surrogate: 5 + n % 60 for n, surrogate in enumerate(surrogates(faces).tolist())}


def _raw(rng: np.random.Generator, unit: int, surrogates: NDArray[np.int64]) -> pa.Table:
    columns: dict[str, Any] = {
        "output_id": [keys.output_id(SECRET, unit, n // 2) for n in range(FACES)],
        "shard": [f"shards/{keys.shard_name(SECRET, unit, b'')}.tar"] * FACES,
        "position": np.arange(FACES, dtype=np.int32) // 2,
        "number": np.arange(FACES, dtype=np.int32) % 2,
        "surrogate_id": surrogates,
        "reason": [""] * FACES,
        "k_class": ["none"] * FACES,
        "status": ["replaced"] * FACES,
    }
    for name, values in _WORDS.items():  # the later a value stands, the rarer it is
        chosen = np.minimum(rng.geometric(0.7, FACES) - 1, len(values) - 1)
        columns[name] = np.array(values)[chosen].tolist()
    faces = pa.table({name: pa.array(columns[name]) for name in records.AUDIT_RAW.names})
    nothing = dict.fromkeys(("anonymizer", "k_class", "sex", "age_band", "expression", "face_size"), "*")
    dropped = nothing | {
        "output_id": keys.output_id(SECRET, unit, PICTURES),
        "shard": "",
        "status": "dropped",
    }
    dropped |= {"reason": "*", "gate": "*", "position": PICTURES, "number": -1, "surrogate_id": -1}
    last = pa.Table.from_pylist([dropped], schema=records.AUDIT_RAW)
    return pa.concat_tables([faces.cast(records.AUDIT_RAW), last])


def _seen(rng: np.random.Generator, unit: int, of: NDArray[np.int64]) -> pa.Table:
    centres = np.random.default_rng(7).normal(
        0, 0.06, (4096, DIM)
    )  # people of one surrogate lie about 1 apart
    vectors = centres[of % len(centres)] + rng.normal(0, 0.01, (FACES, DIM))
    columns = [
        np.full(FACES, unit, np.int32), np.arange(FACES, dtype=np.int32) // 2,
        np.arange(FACES, dtype=np.int32) % 2, np.zeros(FACES, np.int32), _lists(vectors.astype(np.float16)),
        np.full(FACES, 0.5, np.float32), np.full(FACES, 40, np.float32), rng.random(FACES) < 0.85,
        [b""] * FACES, _lists(np.zeros((FACES, LOOKS), np.float32)),
    ]  # fmt: skip
    arrays = [of if isinstance(of, pa.Array) else pa.array(of) for of in columns]
    return pa.table(arrays, schema=people.schema(DIM, LOOKS))


def _persons(of: NDArray[np.int64]) -> pa.Table:
    nothing = np.zeros(len(of), np.float32)
    values = [of, nothing.astype(np.int32), nothing, nothing, np.full(len(of), OF_A_PERSON, np.int32)]
    return pa.table([pa.array(column) for column in values], schema=people.PERSONS)


def _lists(values: NDArray[np.floating]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
