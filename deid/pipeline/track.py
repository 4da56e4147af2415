"""Between the passes over video: the faces of a file become tracks, and the index says so.

Pass 1 leaves what it saw of a unit in `seen/…`, and that stays as it is. A task a file links its faces, fills in those
that were not seen, smooths their places, and writes of each unit what `deid.pipeline.index` writes of pictures: there
all faces of a track have one embedding. `film/…` tells the writer about a unit, `tracked/…` that a file is done.
"""

import functools
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deid import records
from deid.config import Config
from deid.errors import PictureError
from deid.faces.appearance import LOOKS
from deid.interfaces import Face
from deid.pipeline import rows
from deid.pipeline.guard import attempt
from deid.pipeline.index import WriteIndex, gallery_of
from deid.pipeline.plan import Plan
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.privacy import people
from deid.privacy.vault import Vault
from deid.shards import pictures, storage, tables
from deid.video import encode, frames, settle, tracks
from deid.video.container import Video
from deid.video.encode import Shape

SEEN, DONE = "seen/", "tracked/"
_RATE = 25  # frames a second, of a file that cannot be opened any more
_FASTEST = 240  # frames a second that count for tracking: the times of a file may claim any rate
_HELD = 4  # units whose faces are held at once; `settle.margin` seldom reaches further
_SIGNATURE = (tracks.SIGNATURE[1], tracks.SIGNATURE[0], 3)

Signature = NDArray[np.uint8]


def seen_name(unit: int) -> str:
    return f"{SEEN}{unit:08d}"


@dataclass(frozen=True)
class Film:
    """What the writer needs to know of a unit of frames.

    first: the first unit of the file.
    shape: of the file's video; None: none can be made.
    times: of the unit's frames, in units of the shape's time base.
    reason: why none can be made: the file is no more what was planned, or its frames fit no MP4.
    """

    first: int
    shape: Shape | None
    times: tuple[int, ...]
    reason: str = "record_changed"

    def save(self, vault: Vault, unit: int) -> None:
        vault.put(f"film/{unit:08d}", pickle.dumps(self), overwrite=True)

    @staticmethod
    def load(vault: Vault, unit: int) -> "Film":
        film: Film = pickle.loads(vault.get(f"film/{unit:08d}"))
        return film


class WriteSeen:
    """Takes all frames of some units at once, as `Analyse` leaves them, and returns rows of `records.INDEXED`."""

    def __init__(self, config: Config, vault: Vault) -> None:
        self.config, self.vault = config, vault

    @shielded("index")
    def __call__(self, table: pa.Table) -> pa.Table:
        seen = [self.keep(unit, items) for unit, items in rows.by_unit(table)]
        return pa.Table.from_pylist(seen, schema=records.INDEXED)

    def keep(self, unit: int, items: list[Row]) -> dict[str, int]:
        items = sorted(items, key=lambda row: row.position)
        signatures = pa.array([self.signature(row) for row in items], pa.binary())
        for row in items:
            row.image = b""
        table = rows.to_table(items).append_column("signature", signatures)
        self.vault.put(seen_name(unit), tables.to_bytes(table), overwrite=True)
        faces = [face for row in items for face in row.faces]
        return {
            "unit": unit,
            "pictures": len(items),
            "sound": sum(not row.reason for row in items),
            "faces": len(faces),
            "embedded": sum(face.embedding is not None for face in faces),
        }

    def signature(self, row: Row) -> bytes:
        """Of the frame (`tracks.signature`); empty where it has no picture."""
        if row.reason:
            return b""
        decoded = attempt("decode", lambda: pictures.decode(row.image, self.config.limits.max_pixels))
        return b"" if decoded is None else tracks.signature(decoded.pixels).tobytes()


@shielded("track")
def track(units: range, config: Config, plan: Plan) -> None:
    """Task: the tracks of a file, whose units these are. Done again, it writes the same."""
    wanted = [plan.unit(unit) for unit in units]
    video = _video(pa.concat_tables(wanted))
    _File(units, [len(table) for table in wanted], video, config, plan.vault).write()
    given = [[int(key.split()[0]) for key in table["key"].to_pylist()] for table in wanted]
    for unit, film in zip(units, _films(units[0], given, video), strict=True):
        film.save(plan.vault, unit)
    plan.vault.put(f"{DONE}{units[0]:08d}", b"", overwrite=True)


def _video(wanted: pa.Table) -> Video | None:
    try:
        return frames.video_of(wanted)[1]
    except (PictureError, storage.ObjectChanged):  # its frames will fail one by one
        return None


def _films(first: int, given: Sequence[Sequence[int]], video: Video | None) -> list[Film]:
    """Of each unit of a file, with the times of its frames as the file has them."""
    if video is None:
        return [Film(first, None, tuple(times)) for times in given]
    shape = Shape.of(video)
    films = [
        Film(first, shape, tuple(shape.time(time, video.time_base) for time in times)) for times in given
    ]
    try:
        encode.check(shape, [time for film in films for time in film.times])
    except PictureError as error:
        return [replace(film, shape=None, reason=error.reason) for film in films]
    return films


def settings_of(config: Config, rate: float) -> tracks.Settings:
    """Of a file with so many frames a second."""
    options, given, rate = config.tracking, config.assignment, min(rate, _FASTEST)
    same = given.same or people.calibrated(
        gallery_of(config.gallery, config.generator.name), given.false_match_rate
    )
    gap, extend = max(1, round(options.gap_s * rate)), round(options.extend_s * rate)
    return tracks.Settings(same, gap, extend, options.smooth)


class _File:
    """The faces of a file.

    Args:
        counts: frames of each unit.
    """

    def __init__(
        self, units: range, counts: Sequence[int], video: Video | None, config: Config, vault: Vault
    ) -> None:
        self.units, self.config, self.vault = units, config, vault
        self.bounds = np.concatenate([[0], np.cumsum(counts)]).tolist()
        self.settings = settings_of(config, _RATE if video is None else float(video.rate))
        self.index = WriteIndex(config, vault)
        self.rows = functools.lru_cache(maxsize=_HELD)(self._rows)

    def write(self) -> None:
        """The index of all units."""
        self._link()
        for n in range(len(self.units)):
            self._write(n)

    def _table(self, n: int) -> pa.Table:
        return tables.from_bytes(self.vault.get(seen_name(self.units[n])))

    def _rows(self, n: int) -> list[Row]:
        """Of the n-th unit, as pass 1 saw them."""
        return rows.from_table(self._table(n).select(records.PICTURE.names))

    def _link(self) -> None:
        """Which track each face belongs to, and what is known of each track."""
        at: list[int] = []
        found: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], bool]] = []
        signatures: list[bytes] = []
        self.starts, self.size = [0], (1, 1)
        dim = gallery_of(self.config.gallery, self.config.generator.name).embeddings.shape[1]
        for n in range(len(self.units)):
            signatures += self._table(n)["signature"].to_pylist()
            for row in self.rows(n):
                self.size = (row.width, row.height) if row.width else self.size
                at += [self.bounds[n] + row.position] * len(row.faces)
                found += [self._known(face, dim) for face in row.faces]
            self.starts.append(len(found))
        boxes, vectors, looks = (
            np.array([entry[n] for entry in found], np.float32).reshape(len(found), size)
            for n, size in enumerate((4, dim, len(LOOKS)))
        )
        good = np.array([entry[3] for entry in found], np.bool_)
        self.breaks = tracks.cuts(_filled(signatures))
        self.tracks = tracks.link(np.array(at, np.int64), boxes, vectors, self.breaks, self.settings)
        count = int(self.tracks.max(initial=-1)) + 1
        weights = good.astype(np.float32)
        self.vectors = tracks.pooled(self.tracks, vectors, weights, count)
        self.looks = tracks.pooled(self.tracks, looks, weights, count)
        self.counts = np.zeros(count, np.bool_)
        self.counts[self.tracks[good]] = True

    def _known(
        self, face: Face, dim: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], bool]:
        """Box, embedding, looks (NaN where there are none), and whether it tells people apart."""
        vector = np.full(dim, np.nan, np.float32) if face.embedding is None else face.embedding
        looks = np.full(len(LOOKS), np.nan, np.float32) if face.looks is None else face.looks
        return face.box, vector, looks, face.embedding is not None and self.index.counts(face)

    def _write(self, n: int) -> None:
        start, stop = self.bounds[n], self.bounds[n + 1]
        settled = settle.settle(
            self._near(start, stop),
            start,
            stop,
            self.breaks,
            self.size,
            self.settings,
            self.vectors,
            self.looks,
        )
        items, certain = self._rows(n), set[int]()
        for row in items:
            own = [] if row.reason else settled[start + row.position]
            row.faces = [face for _, face in own]
            certain |= {id(face) for number, face in own if self.counts[number]}
        self.index.index(self.units[n], items, lambda face: id(face) in certain)

    def _near(self, start: int, stop: int) -> dict[int, list[tuple[int, Face]]]:
        """Faces of these frames and of those around that `settle` needs, with their tracks."""
        margin = settle.margin(self.settings)
        found: dict[int, list[tuple[int, Face]]] = {}
        first = int(np.searchsorted(self.bounds, max(0, start - margin), "right")) - 1
        for n in range(first, len(self.units)):
            if self.bounds[n] >= stop + margin:
                break
            numbers = iter(self.tracks[self.starts[n] : self.starts[n + 1]].tolist())
            for row in self.rows(n):
                pairs = [(next(numbers), face) for face in row.faces]
                frame = self.bounds[n] + row.position
                if start - margin <= frame < stop + margin:
                    found[frame] = pairs
        return found


def _filled(signatures: Sequence[bytes]) -> Signature:
    """[F, 9, 16, 3]; a frame without a picture has the one before, so that no scene begins with it."""
    last = next(filter(None, signatures), bytes(int(np.prod(_SIGNATURE))))
    filled = [last := own or last for own in signatures]
    return np.frombuffer(b"".join(filled), np.uint8).reshape(-1, *_SIGNATURE)
