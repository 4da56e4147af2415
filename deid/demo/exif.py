"""Metadata as cameras and phones write it into pictures: what a de-identified release must not carry on."""

import io
import struct

import cv2
import numpy as np
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from deid.interfaces import Picture

TURNS = {
    1: 0,
    3: 2,
    6: 1,
    8: 3,
}  # EXIF orientation: quarter turns, anticlockwise, from upright to stored pixels
THUMBNAIL = 160  # px, long side
_COMPRESSION, _OFFSET, _LENGTH = 0x0103, 0x0201, 0x0202  # TIFF tags of a JPEG thumbnail
_SHORT, _LONG = 3, 4  # TIFF types


def stored(picture: Picture, orientation: int) -> Picture:
    """The pixels that a camera held in that orientation stores for an upright picture."""
    return np.ascontiguousarray(np.rot90(picture, TURNS[orientation]))


def block(picture: Picture, orientation: int, author: str, rng: np.random.Generator) -> bytes:
    """An EXIF block for an upright picture: orientation, author, time, place, and a thumbnail of the picture."""
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    exif[Base.Make], exif[Base.Model] = "Umbra", "Umbra D7"
    exif[Base.Artist], exif[Base.ImageDescription] = author.encode("ascii", "replace").decode(), "holiday"
    day, hour = rng.integers(1, 28), rng.integers(7, 20)
    exif[Base.DateTime] = f"2024:07:{day:02d} {hour:02d}:{rng.integers(60):02d}:07"
    exif.get_ifd(IFD.GPSInfo).update(
        {
            GPS.GPSLatitudeRef: "N",
            GPS.GPSLatitude: (float(rng.integers(36, 60)), float(rng.integers(60)), 12.5),
            GPS.GPSLongitudeRef: "E",
            GPS.GPSLongitude: (float(rng.integers(0, 30)), float(rng.integers(60)), 48.25),
        }
    )
    return _with_thumbnail(exif.tobytes(), stored(picture, orientation))


def _with_thumbnail(block: bytes, picture: Picture) -> bytes:
    """The block with a second image directory (TIFF 6.0, section 2) that holds a JPEG of the picture."""
    scale = THUMBNAIL / max(picture.shape)
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    sink = io.BytesIO()
    Image.fromarray(small).save(sink, "jpeg", quality=75)
    jpeg = sink.getvalue()
    head, tiff = block[:6], block[6:]
    order = "<" if tiff[:2] == b"II" else ">"
    tiff += b"\0" * (len(tiff) % 2)
    (first,) = struct.unpack_from(order + "L", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, first)
    data = len(tiff) + 2 + 3 * 12 + 4
    directory = struct.pack(order + "H", 3)
    directory += struct.pack(order + "HHLHH", _COMPRESSION, _SHORT, 1, 6, 0)
    directory += struct.pack(order + "HHLL", _OFFSET, _LONG, 1, data)
    directory += struct.pack(order + "HHLL", _LENGTH, _LONG, 1, len(jpeg))
    directory += struct.pack(order + "L", 0)
    patched = bytearray(tiff)
    struct.pack_into(order + "L", patched, first + 2 + 12 * entries, len(tiff))
    return head + bytes(patched) + directory + jpeg
