"""The one place where an exception of a replaceable part becomes a failed item instead of a failed run."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


def attempt(stage: str, call: Callable[[], Result]) -> Result | None:
    """What `call` returns, or None when it raised. Only the kind of the exception is logged: its text may name
    the source."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - fail closed: whatever a part raises, the item fails and the run goes on
        log.warning("stage %s: %s", stage, type(error).__name__)
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
