"""The face index, between the two passes: what pass 1 saw of a unit, encrypted in the state.

Two objects a unit: `index/…` holds its pictures' rows without the pictures, `faces/…` what is needed to tell people
apart (`deid.privacy.people.schema`).
"""

import functools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deid import records
from deid.config import Config
from deid.faces.align import pose
from deid.faces.appearance import LOOKS
from deid.gallery import store as gallery_store
from deid.interfaces import Face, Gallery
from deid.pipeline import parts, rows
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.privacy import people
from deid.privacy.vault import Vault
from deid.shards import tables
from deid.surrogates import masks, match


def index_name(unit: int) -> str:
    return f"index/{unit:08d}"


def faces_name(unit: int) -> str:
    return f"faces/{unit:08d}"


def persons_name(unit: int) -> str:
    return f"person/{faces_name(unit)}"


gallery_of = functools.lru_cache(maxsize=1)(gallery_store.load)  # once a process


class WriteIndex:
    """Takes all pictures of some units at once, as `Analyse` leaves them, and returns rows of `records.INDEXED`."""

    def __init__(self, config: Config, vault: Vault) -> None:
        self.config, self.vault = config, vault

    @shielded("index")
    def __call__(self, table: pa.Table) -> pa.Table:
        seen = [self.index(unit, items) for unit, items in rows.by_unit(table)]
        return pa.Table.from_pylist(seen, schema=records.INDEXED)

    def index(
        self, unit: int, items: list[Row], counts: Callable[[Face], bool] | None = None
    ) -> dict[str, int]:
        """Args:
        counts: whether a face tells people apart; None: as the method of this name says.
        """
        for row in items:
            row.image, row.masks = b"", {}
        faces = [(row, n, face) for row in items for n, face in enumerate(row.faces) if self.shares(face)]
        self.vault.put(faces_name(unit), tables.to_bytes(self.faces(faces, counts)), overwrite=True)
        self.vault.put(index_name(unit), tables.to_bytes(rows.to_table(items)), overwrite=True)
        out = sum(not row.reason for row in items)
        found = sum(len(row.faces) for row in items)
        return {"unit": unit, "pictures": len(items), "sound": out, "faces": found, "embedded": len(faces)}

    def shares(self, face: Face) -> bool:
        """It will have a surrogate that is shared: it has an embedding, and is not covered for its size."""
        return face.embedding is not None and face.height >= self.config.ladder.smallest

    def faces(
        self, found: list[tuple[Row, int, Face]], counts: Callable[[Face], bool] | None = None
    ) -> pa.Table:
        """Rows of `people.schema`."""
        counts = self.counts if counts is None else counts
        gallery = gallery_of(self.config.gallery, self.config.generator.name)
        vectors = np.array([face.embedding for _, _, face in found], np.float32)
        vectors = vectors.reshape(-1, gallery.embeddings.shape[1])
        male = age = np.full(len(found), np.nan, np.float32)
        heads = parts.attributes(self.config)
        if heads is not None and len(found):
            likely = heads.predict(vectors)
            age = likely["age"]
            male = likely["sex"] if self.config.match.same_sex else male
        unknown = np.full(len(LOOKS), np.nan, np.float32)
        looks = [unknown if face.looks is None else face.looks for _, _, face in found]
        columns = [
            pa.array([row.unit for row, _, _ in found], pa.int32()),
            pa.array([row.position for row, _, _ in found], pa.int32()),
            pa.array([n for _, n, _ in found], pa.int32()),
            pa.array(nearest_cells(vectors, gallery)),
            _lists(vectors.astype(np.float16)),
            pa.array(np.asarray(male, np.float32)),
            pa.array(np.asarray(age, np.float32)),
            pa.array([counts(face) for _, _, face in found], pa.bool_()),
            pa.array([row.subject if face is largest(row) else b"" for row, _, face in found], pa.binary()),
            _lists(np.array(looks, np.float32).reshape(-1, len(LOOKS))),
        ]
        return pa.table(columns, schema=people.schema(vectors.shape[1], len(LOOKS)))

    def counts(self, face: Face) -> bool:
        """Its embedding tells people apart: it is large enough, not turned far, and its landmarks can be trusted."""
        if face.height < self.config.assignment.smallest or face.mesh is None or not masks.agrees(face):
            return False
        yaw, pitch, _ = pose(face.mesh)
        return bool(max(abs(yaw), abs(pitch)) <= self.config.ladder.turned)


def largest(row: Row) -> Face:
    """The face that a picture's subject is taken to be."""
    return max(row.faces, key=lambda face: face.height)


def nearest_cells(vectors: NDArray[np.float32], gallery: Gallery) -> NDArray[np.int32]:
    """The nearest gallery identity, int32 [N], of embeddings [N, dim]."""
    if not len(vectors):
        return np.zeros(0, np.int32)
    return match.distances(vectors, gallery).argmin(1).astype(np.int32)


def _lists(values: NDArray[np.floating]) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
