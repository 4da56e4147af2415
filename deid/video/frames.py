"""Video files as shards: a record is one frame.

Between stages a frame travels as BMP. Lossless and 1080p, encoding and decoding take 2 and 7 ms for 6.2 MB; the
fastest PNG takes 78 and 57 ms for 3.1 MB, the fastest WebP 150 and 76 ms for 1.8 MB, on one core.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import pyarrow as pa

from deid.errors import PictureError
from deid.interfaces import Picture
from deid.shards import storage
from deid.shards.formats import INDEX, Layout, Read, refused
from deid.video import container
from deid.video.container import Video

MAX_PIXELS = 64_000_000  # of a frame; 8K has 33
EXTENSION = "bmp"
PATTERN = "|".join(
    "*." + "".join(f"[{letter}{letter.upper()}]" for letter in extension)
    for extension in sorted(container.EXTENSIONS)
)
RANGED = True
SEQUENCE = True


def scan(file: storage.Object, layout: Layout | None = None, max_pixels: int = MAX_PIXELS) -> pa.Table:
    """Rows of INDEX of one file, a frame each, in the order in which they are shown.

    `sample` and `offset` are the number of the frame, `key` holds its time, that of the keyframe before, and the
    file's bytes; a layout has nothing to say here.

    A file that cannot be used at all gives one row with the reason (see `container.probe`); one that is cut short or
    damaged gives its frames, and a row "shard_damaged" behind them.

    Raises:
        ObjectChanged: the file is not the one that was listed.
    """
    try:
        video = container.probe(file, max_pixels)
    except PictureError as error:
        return pa.Table.from_pylist([refused(file, error.reason)], schema=INDEX)
    count = video.frames
    numbers = np.arange(count)
    columns = {
        "uri": [file.uri] * count,
        "version": [file.version] * count,
        "sample": numbers,
        "key": [
            f"{time} {key} {file.size}"
            for time, key in zip(video.pts.tolist(), video.keys.tolist(), strict=True)
        ],
        "name": [""] * count,
        "extension": [EXTENSION] * count,
        "offset": numbers,
        "size": video.sizes,
        "crc32": pa.nulls(count, pa.uint32()),
        "group": np.zeros(count, np.int32),
        "sidecars": [[]] * count,
        "reason": [""] * count,
    }
    table = pa.table([columns[name] for name in INDEX.names], schema=INDEX)
    if not video.damaged:
        return table
    damage = pa.Table.from_pylist([refused(file, "shard_damaged", sample=count, offset=count)], schema=INDEX)
    return pa.concat_tables([table, damage])


def read(records: pa.Table, layout: Layout | None = None) -> Iterator[Read]:
    """The frames that rows of INDEX name, by file and in order; rows that have a reason already are left out.

    The reason is "record_changed" where the file is another by now, "truncated_image" where a frame cannot be decoded.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(records.select(["uri", "version", "reason"]).to_pylist()):
        if not row["reason"]:
            places.setdefault((row["uri"], row["version"]), []).append(place)
    for found in places.values():
        yield from _read(records.take(found).append_column("place", pa.array(found)).sort_by("offset"))


def video_of(records: pa.Table) -> tuple[storage.Object, Video]:
    """The file and its description, with the frames of these rows of INDEX, all of one file and without a reason.

    Raises:
        PictureError, ObjectChanged: as `container.probe`.
    """
    pts, keys, size = np.array([key.split() for key in records["key"].to_pylist()], np.int64).T
    file = storage.Object(records["uri"][0].as_py(), int(size[0]), records["version"][0].as_py())
    return file, container.probe(file, known=(pts, keys))


def encoded(pixels: Picture) -> bytes:
    """A frame [H, W, 3] RGB as BMP."""
    return cv2.imencode(".bmp", pixels[..., ::-1])[1].tobytes()


def _read(rows: pa.Table) -> Iterator[Read]:
    """Frames of one file."""
    left = dict(enumerate(rows["place"].to_pylist()))
    reason = "truncated_image"
    try:
        file, video = video_of(rows)
        for number, pixels in container.decode(file, video):
            yield left.pop(number), encoded(pixels), {}, ""
    except storage.ObjectChanged:
        reason = "record_changed"
    except PictureError:  # it could be opened when it was listed
        pass
    yield from ((place, b"", {}, reason) for place in left.values())
