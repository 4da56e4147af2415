"""Units of frames become segments, which stay in the state, and the segments of a file one video in the output."""

import functools
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deid import log as logs
from deid import records
from deid.config import Config
from deid.errors import PictureError
from deid.interfaces import Picture
from deid.pipeline import cluster
from deid.pipeline.guard import attempt
from deid.pipeline.plan import Plan
from deid.pipeline.publish import Commits
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.pipeline.track import Film
from deid.pipeline.write import WriteUnit
from deid.privacy import audit, keys
from deid.shards import pictures, storage
from deid.shards.writers import Shards
from deid.video import encode, frames
from deid.video.encode import Shape

GREY = 128  # of frames that do not go out

log = logs.logger(__name__)


def video_name(video: str) -> str:
    """Of a video's object, by its id."""
    return f"videos/{video}.mp4"


class WriteVideo(WriteUnit):
    """As `WriteUnit`, but a unit becomes a segment in the state, and its commit names that and no object.

    A frame that does not go out is grey in it, so that all others keep their places.
    """

    def write(self, unit: int, items: list[Row]) -> dict[str, Any]:
        data = self.segment(Film.load(self.vault, unit), sorted(items, key=lambda row: row.position))
        name = f"segments/{unit:08d}-{secrets.token_hex(8)}"
        self.vault.put(name, data)
        return super().write(unit, items) | {"segment": name}

    def segment(self, film: Film, items: Sequence[Row]) -> bytes:
        """The frames, encoded; those that cannot be are quarantined."""
        if film.shape is None:
            _fail(items, film.reason)
            return encode.EMPTY
        try:
            return encode.segment(_frames(film, film.shape, items), film.shape, self.config.output.crf)
        except PictureError as error:
            _fail(items, error.reason)
            return encode.EMPTY

    def objects(self, unit: int, out: Sequence[Row]) -> tuple[list[dict[str, Any]], Shards]:
        return [], {}

    def audit(self, unit: int, shards: Shards, out: list[Row], dropped: list[Row]) -> pa.Table:
        video = keys.video_id(self.secret, Film.load(self.vault, unit).first)
        faces = [((row.position, row.sample), row.faces) for row in out]
        lost = [(row.position, row.sample) for row in dropped]
        return audit.rows(self.secret, unit, video_name(video), faces, lost, self.config.assignment, video)


def _fail(items: Sequence[Row], reason: str) -> None:
    for row in items:
        if not row.reason:
            row.fail(reason)


def _frames(film: Film, shape: Shape, items: Sequence[Row]) -> Iterator[tuple[int, Picture]]:
    """Time and pixels of each frame."""
    grey = np.full((shape.height, shape.width, 3), GREY, np.uint8)
    for time, row in zip(film.times, items, strict=True):
        pixels = None if row.reason else attempt("decode", functools.partial(_pixels, row, grey.shape))
        if pixels is None and not row.reason:
            row.fail("encode_failed")
        yield time, grey if pixels is None else pixels


def _pixels(row: Row, shape: tuple[int, ...]) -> Picture:
    pixels = pictures.decode(row.result, 1 << 40).pixels
    if pixels.shape != shape:
        raise PictureError("encode_failed")
    return pixels


def joined(
    commits: pa.Table, config: Config, plan: Plan, secret: bytes, output: str, read: Commits
) -> pa.Table:
    """Write the videos, in tasks; the rows of `records.COMMIT`, each video among the objects of its first unit.

    Done again, it writes the same.
    """
    call = functools.partial(join, config=config, plan=plan, secret=secret, output=output, read=read)
    made = {
        units[0]: entry for units, entry in zip(plan.files(), cluster.spread(call, plan.files()), strict=True)
    }
    objects = [[entry] if (entry := made.get(unit)) else [] for unit in commits["unit"].to_pylist()]
    field = records.COMMIT.field("objects")
    column = pa.array(objects, field.type)
    return commits.set_column(commits.schema.get_field_index(field.name), field, column)


@shielded("join")
def join(
    units: range, config: Config, plan: Plan, secret: bytes, output: str, read: Commits
) -> dict[str, Any] | None:
    """Task: write the video of a file, whose units these are: its name, bytes and SHA-256; None where no frame of it
    goes out."""
    shape, names = None, []
    for unit in units:
        commit = read(unit)
        names.append(commit["segment"][0].as_py())
        if commit["pictures_out"][0].as_py():
            shape = Film.load(plan.vault, unit).shape
    if shape is None:
        return None
    data = _with_sound(units, names, shape, config, plan)
    name = video_name(keys.video_id(secret, units[0]))
    storage.write_bytes(storage.join(output, name), data, overwrite=True)
    return {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _with_sound(units: range, names: Sequence[str], shape: Shape, config: Config, plan: Plan) -> bytes:
    """The segments joined, with the source's sound where that is to be copied and can be."""
    origin = Film.load(plan.vault, units[0]).times[0]

    def made(sound: storage.Object | None) -> bytes:
        return encode.join(map(plan.vault.get, names), shape, origin, sound)

    if config.output.audio == "drop":
        return made(None)
    try:
        file, video = frames.video_of(plan.unit(units[0]))
        return made(file if video.audio else None)
    except (PictureError, storage.ObjectChanged) as error:
        log.warning("the sound of a video cannot be copied (%s); it is dropped", type(error).__name__)
        return made(None)
