"""Before and after, side by side, as one JPEG: of the source's own pictures, or of fictional people."""

from collections.abc import Sequence

import numpy as np

from deid.config import Models, Options
from deid.demo.sheet import Cell, contact_sheet
from deid.evaluation import inprocess, synthetic
from deid.evaluation.inprocess import Job, Treated
from deid.interfaces import Picture
from deid.shards.pictures import encode

MOST_BYTES = 600_000
QUALITIES = (88, 80, 70, 60, 50)
SHRINK = 0.8  # of the height, where the least quality is still too much
COLUMNS = 3  # pairs a row
TITLE = "Before and after"
FICTIONAL = "Before and after: fictional people"


def sheet(pairs: Sequence[tuple[Picture, Picture]], height: int = 260, title: str = TITLE) -> bytes:
    """A JPEG of at most `MOST_BYTES` with sources [H, W, 3] and their results, each at most `height` px high and wide.

    Raises:
        ValueError: there are no pairs, or a pair is not of one shape.
    """
    if any(before.shape != after.shape for before, after in pairs):
        raise ValueError("a picture and its result must have one shape")
    cells = [Cell(before, after) for before, after in pairs]
    while True:
        made = contact_sheet(cells, title, min(COLUMNS, max(1, len(cells))), height)
        for quality in QUALITIES:
            data = encode(made, "jpg", quality)
            if len(data) <= MOST_BYTES:
                return data
        height = int(height * SHRINK)


def synthetic_sheet(
    models: Models, settings: Options | None, seed: int, count: int = 6, height: int = 260
) -> bytes:
    """A JPEG with fictional people, for reports whose sources may not be shown.

    They are treated by these settings of the job; None: by its defaults. Where people share a surrogate, here each has
    one of his own, since so few fill no group.

    Raises:
        ConfigError, ModelError: a setting is wrong, a model is missing or its licence is not accepted.
    """
    mode = {"mode": "keyed-random", "subject": None}
    job = Job(
        inprocess.configuration(models, settings or {}, assignment=mode),
        np.random.default_rng(seed).bytes(32),
    )
    people = synthetic.chosen(
        synthetic.sitters(models, seed, count + synthetic.SPARE), job.analyse, count, takes=1
    )
    done = job.run([person.photographs[0] for person in people])
    return sheet([_pair(one) for one in done if one.result is not None], height, FICTIONAL)


def _pair(treated: Treated) -> tuple[Picture, Picture]:
    if treated.result is None:
        raise ValueError("a picture that did not come out has no pair")
    return treated.source, treated.result
