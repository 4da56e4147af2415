"""Label maps (segmentation masks) that came with a picture: what may pass of one, and how it is written.

A map has one number a pixel, in the place and size of the upright picture. Every shape can be drawn in a few values,
a posterized photograph too, so a map must also be smooth: most neighbours in it are equal.
"""

import io
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deid.shards import pictures

_MODES = {"1", "L", "P", "I;16"}
_BUSIEST = (
    0.1  # of neighbouring pixels, the share that may differ: photographs in 8 values have .15, in 64 over .5
)
_PNG = re.compile(rb"\x89PNG\r\n\x1a\n\0\0\0\rIHDR.{8}([\x08\x10])\0\0\0\0", re.DOTALL)  # grey, 8 or 16 bit


def keep(data: bytes, size: tuple[int, int], most: int) -> bytes | None:
    """A PNG of one channel with the values of a label map and nothing else; None where it is none.

    Args:
        data: PNG of one channel or with a palette, of which the indices count.
        size: width and height of the upright picture; the map must have the same.
        most: values that a map may have.
    """
    values = _values(data, size)
    if values is None or not plain(values, most):
        return None
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    return sink.getvalue()


def plain(values: NDArray[np.unsignedinteger], most: int) -> bool:
    """Whether an array [H, W] is a label map: few values, in areas."""
    if len(np.unique(values)) > most:
        return False
    pairs = ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1]))
    return all(not one.size or float(np.mean(one != other)) <= _BUSIEST for one, other in pairs)


def faults(data: bytes, size: tuple[int, int] | None, most: int) -> Iterator[str]:
    """What is wrong with a map in the output beside what a PNG can hold (`verify_shards.picture`).

    Args:
        size: of its picture; None: not known.
    """
    own = pictures.size_of(data)
    if own is None or not _PNG.match(data) or keep(data, size or own, most) is None:
        yield "is no label map of its picture, as metadata.masks lets pass"


def _values(data: bytes, size: tuple[int, int]) -> NDArray[np.unsignedinteger] | None:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != size or image.mode not in _MODES or getattr(image, "n_frames", 1) > 1:
                return None
            image.load()
            values = np.asarray(image)
    except pictures.DAMAGE:
        return None
    kind: type[np.unsignedinteger] = np.uint16 if image.mode == "I;16" else np.uint8
    return values.astype(kind)
