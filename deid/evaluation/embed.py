"""Pictures inside of a page: as data URIs without any metadata, made smaller until the page may weigh what it may."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from deid.errors import PromiseError
from deid.evaluation.sections import Plot

MOST_BYTES = 9_900_000  # of a page; 10 MB were promised


@dataclass(frozen=True)
class Level:
    """How pictures are made smaller."""

    sheet: int | None  # px of the longer side of a sheet, at most; None: sheets are left out
    quality: int  # JPEG, of sheets
    colours: int | None = None  # of a plot's palette; None: as it is
    plot: float = 1.0  # its scale


LEVELS = (
    Level(2000, 88),
    Level(1600, 80),
    Level(1400, 70, colours=128),
    Level(1000, 60, colours=64),
    Level(700, 55, colours=32, plot=0.75),
    Level(None, 0, colours=32, plot=0.6),
)


@dataclass(frozen=True)
class Embedded:
    """A picture as a page shows it."""

    alt: str
    uri: str  # data:
    width: int  # px
    height: int
    title: str = ""
    name: str = ""  # its file beside the page


@dataclass(frozen=True)
class Pictures:
    plots: dict[str, Embedded]  # by id
    sheets: list[Embedded]
    left_out: int  # sheets for which there was no room


def fit(
    render: Callable[[Pictures], bytes],
    plots: Sequence[Plot],
    sheets: Sequence[tuple[str, bytes]],
    most: int = MOST_BYTES,
) -> bytes:
    """The page with its pictures as large as it may have them.

    sheets: captions and encoded pictures. most: bytes of the page.
    Raises PromiseError where even small plots without any sheet are too much.
    """
    for level in LEVELS:
        page = render(_at(level, plots, sheets))
        if len(page) <= most:
            return page
    raise PromiseError(f"the report is above {most / 1e6:.0f} MB even with small plots; measure less at once")


def bare(png: bytes) -> bytes:
    """A PNG of the same pixels without any metadata: no text, no time, no EXIF."""
    with Image.open(io.BytesIO(png)) as picture:
        return _png(picture)


def _at(level: Level, plots: Sequence[Plot], sheets: Sequence[tuple[str, bytes]]) -> Pictures:
    kept = sheets if level.sheet else ()
    return Pictures(
        {plot.id: _plot(plot, level) for plot in plots},
        [_sheet(caption, data, level) for caption, data in kept],
        len(sheets) - len(kept),
    )


def _plot(plot: Plot, level: Level) -> Embedded:
    with Image.open(io.BytesIO(plot.png)) as picture:
        shown = picture.convert("RGB")
        size = (round(shown.width * level.plot), round(shown.height * level.plot))
        if size != shown.size:
            shown = shown.resize(size, Image.Resampling.LANCZOS)
        if level.colours:
            shown = shown.quantize(level.colours)
    return Embedded(
        plot.alt, _uri("png", _png(shown)), shown.width, shown.height, plot.title, f"plots/{plot.id}.png"
    )


def _sheet(caption: str, data: bytes, level: Level) -> Embedded:
    with Image.open(io.BytesIO(data)) as picture:
        shown = picture.convert("RGB")
    shown.thumbnail((level.sheet or 1, level.sheet or 1), Image.Resampling.LANCZOS)
    encoded = _encoded(shown, "JPEG", quality=level.quality, optimize=True)
    return Embedded(f"Contact sheet. {caption}", _uri("jpeg", encoded), *shown.size, title=caption)


def _png(picture: Image.Image) -> bytes:
    return _encoded(picture, "PNG")


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Without what Pillow would take over from the file that the picture came from."""
    clean = picture.copy()
    clean.info.clear()
    sink = io.BytesIO()
    clean.save(sink, kind, **options)
    return sink.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
