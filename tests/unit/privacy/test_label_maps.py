"""A label map passes as its numbers alone; whatever else a mask may be, or hold, does not."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from skimage import data

from deid.privacy import label_maps, verify_shards
from deid.shards import pictures

SIZE = (40, 30)


def areas(kind: type = np.uint8) -> NDArray[np.unsignedinteger]:
    values = np.zeros((30, 40), kind)
    values[10:25, 5:20] = 7
    values[12:20, 25:35] = 255
    return values


def png(image: Image.Image, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG", **options)
    return sink.getvalue()


def values_of(data: bytes) -> NDArray[np.unsignedinteger]:
    return np.asarray(Image.open(io.BytesIO(data)))


def palette() -> Image.Image:
    image = Image.fromarray(areas() // 100).convert("P")
    image.putpalette([n for colour in range(256) for n in (colour, 9, 200)])
    return image


def test_the_numbers_pass_whatever_way_they_are_stored() -> None:
    for image, expected in (
        (Image.fromarray(areas()), areas()),
        (Image.fromarray(areas(np.uint16) * 256), areas(np.uint16) * 256),
        (palette(), np.asarray(palette())),
        (Image.fromarray(areas() > 0), areas() > 0),
    ):
        kept = label_maps.keep(png(image), SIZE, 64)
        assert kept is not None
        assert np.array_equal(values_of(kept), expected)
        assert list(verify_shards.picture(kept, "png")) == list(label_maps.faults(kept, SIZE, 64)) == []
        assert label_maps.keep(kept, SIZE, 64) == kept


def test_nothing_beside_the_numbers_passes() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Anna")
    given = png(Image.fromarray(areas()), pnginfo=info, exif=Image.Exif().tobytes(), dpi=(99, 99))
    assert b"Anna" in given
    assert label_maps.keep(given + b"Anna", SIZE, 64) == label_maps.keep(
        png(Image.fromarray(areas())), SIZE, 64
    )


def posterized(levels: int) -> Image.Image:
    grey = np.asarray(Image.fromarray(data.astronaut()).convert("L").resize(SIZE))
    return Image.fromarray((grey.astype(int) * levels // 256).astype(np.uint8))


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"no picture",
        png(Image.fromarray(areas()))[:60],
        png(Image.fromarray(areas()[:-1])),
        png(Image.fromarray(areas().T)),
        png(Image.fromarray(areas()).convert("RGB")),
        png(Image.fromarray(areas()).convert("LA")),
        png(Image.fromarray(areas()), save_all=True, append_images=[Image.fromarray(areas() // 2)]),
        png(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) // 10)),
        png(posterized(256)),
        png(posterized(60)),
        pictures.encode(np.stack([areas()] * 3, 2).astype(np.uint8), "jpg", 90, grey=True),
    ],
)
def test_what_is_no_label_map_of_the_picture_is_dropped(given: bytes) -> None:
    assert label_maps.keep(given, SIZE, 64) is None


def test_as_many_values_as_the_limit_pass() -> None:
    stripes = np.repeat(np.arange(40, dtype=np.uint8), 30).reshape(30, 40, order="F")
    wide = np.repeat(stripes, 10, axis=1)
    assert label_maps.keep(png(Image.fromarray(wide)), (400, 30), 40) is not None
    assert label_maps.keep(png(Image.fromarray(wide)), (400, 30), 39) is None


@pytest.mark.parametrize(
    "given",
    [
        png(palette()),
        png(Image.fromarray(areas()).convert("RGB")),
        png(posterized(60)),
        png(Image.fromarray(areas()[:-1])),
        b"no picture",
    ],
)
def test_a_checker_finds_what_the_job_would_not_write(given: bytes) -> None:
    assert len(list(label_maps.faults(given, SIZE, 64))) == 1
