"""The one place where an exception of a replaceable part becomes a failed item instead of a failed run."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from deid import log as logs
from deid.pipeline.shield import place

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logs.logger(__name__)


def attempt(stage: str, call: Callable[[], Result]) -> Result | None:
    """What `call` returns, or None when it raised. Only the kind of the exception and the lines of our own code are
    logged: its text may name the source."""
    with logs.context(stage=stage):
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - fail closed: whatever a part raises, the item fails and the run goes on
            log.warning("%s at %s%s", type(error).__name__, place(error), logs.detail(error))
            return None


def attempt_batch(
    stage: str, call: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]
) -> list[Result | None]:
    """Results of `call` on all items; when the batch raises, each item is tried alone, and None stands for
    those that raise."""
    if not items:
        return []
    results = attempt(stage, lambda: list(call(items)))
    if results is not None and len(results) == len(items):
        return list(results)
    if len(items) == 1:
        return [None]
    return [result for item in items for result in attempt_batch(stage, call, [item])]
