"""One picture that explains the method, drawn from fictional people and what the job itself makes of them.

    python -m deid.evaluation.method OUT

makes it anew. A rendition is in the package, for reports that are made where there is no time for it.
"""

import argparse
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from deid.errors import ModelError
from deid.evaluation import method_people, plots
from deid.evaluation.method_canvas import HEIGHT, WIDTH, Canvas
from deid.evaluation.method_panels import PANELS

DPI = 100
COLOURS = 256  # of the palette
MOST_BYTES = 600_000  # of the PNG in full colour
_PACKAGED = "data/method.png"


def method_picture() -> bytes:
    """The picture as PNG, WIDTH x HEIGHT px; the same one on the same machine.

    Raises:
        ModelError: models are missing.
    """
    return drawn(method_people.run())


def packaged() -> bytes:
    """The rendition in the package.

    Raises:
        ModelError: it is not there.
    """
    try:
        return (resources.files(__package__) / _PACKAGED).read_bytes()
    except OSError:
        raise ModelError("picture of the method: it is not in the package; install deid again") from None


def drawn(run: method_people.Run) -> bytes:
    """The picture of a run as PNG."""
    figure = Figure((WIDTH / DPI, HEIGHT / DPI), DPI)
    canvas = Canvas(figure)
    canvas.heading(f"How a face is replaced by one that {len(run.treated)} people share")
    for number, panel in enumerate(PANELS):
        panel(canvas.panel(number), run)
    return _reduced(plots.png(figure))


def _reduced(png: bytes) -> bytes:
    """The same without alpha; with a palette where it is too large for a report."""
    with Image.open(io.BytesIO(png)) as image:
        full = image.convert("RGB")
    few = full.quantize(COLOURS, Image.Quantize.MEDIANCUT)
    for chosen in (full, full.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)):
        sink = io.BytesIO()
        chosen.save(sink, "png", optimize=True)
        if sink.tell() <= MOST_BYTES:
            break
    return sink.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="PNG file, written over what is there")
    parser.parse_args(arguments).out.write_bytes(method_picture())


if __name__ == "__main__":
    main()
