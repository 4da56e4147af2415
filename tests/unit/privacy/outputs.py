"""Samples of a release, as the job's own writers get them."""

import io
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from deid.config import Metadata
from deid.privacy import label_maps
from deid.shards import pictures
from deid.shards.formats import Sample

POLICY = Metadata(
    sidecar_fields={
        "label": {"type": "int", "round": 10},
        "score": "float",
        "indoor": "bool",
        "kind": {"type": "str", "values": ["cat", "dog"]},
        "boxes": "boxes",
    },
    members={"cls": "int", "txt": "free"},
    masks=["mask.png"],
)
NAMES = ("left",)
EXTRA = 1
WIDTH, HEIGHT = 32, 24


def picture(number: int, extension: str) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    return pictures.encode(pixels, extension, 90)


def mask(width: int = WIDTH) -> bytes:
    values = np.zeros((HEIGHT, width), np.uint8)
    values[4:9, 4:20] = 3
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    kept = label_maps.keep(sink.getvalue(), (width, HEIGHT), 64)
    assert kept is not None
    return kept


def commented() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Anna")
    sink = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(sink, "PNG", pnginfo=info)
    return sink.getvalue()


FULL: dict[str, Any] = {
    "label": 20, "score": 0.25, "indoor": True, "kind": "cat", "boxes": [[1.0, 2.0, 3.0, 4.0]], "cls": 7, "txt": "a dög"
}  # fmt: skip


def samples(count: int = 6) -> list[Sample]:
    """Some with everything, some with a picture alone."""
    made = []
    for number in range(count):
        kind = ("jpg", "png", "webp")[number % 3]
        given: tuple[tuple[str, str, bytes], ...] = (("", kind, picture(number, kind)),)
        key = f"{number:032x}"
        if number % 2:
            made.append(Sample(key, given))
            continue
        more = (("left", "jpg", picture(50 + number, "jpg")), ("anna", "png", picture(70 + number, "png")))
        fields = FULL | {"kind": ("cat", "dog")[number // 2 % 2]}
        made.append(Sample(key, given + more, fields, {"mask.png": mask()}))
    return made
