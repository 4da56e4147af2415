"""A run's progress for the time of a block."""

import contextlib
from collections.abc import Iterator

from deid.pipeline import progress


@contextlib.contextmanager
def writing(state: str, run: str, interval_s: float = progress.INTERVAL_S) -> Iterator[progress.Writer]:
    """A writer that ends as done, or as failed when the block raises."""
    writer = progress.Writer(state, run, interval_s)
    try:
        yield writer
    except BaseException:
        writer.finish("failed")
        raise
    writer.finish("done")
