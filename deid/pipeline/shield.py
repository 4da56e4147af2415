"""The border of everything that runs in Ray: what other libraries raise leaves as our own exception.

Ray writes an exception with its message into logs of the driver, the worker and the session, and messages may name
the source: `FileNotFoundError: .../alice.tar`. What passes the border says the stage, the class of the exception and
the lines of our own code, and no more.
"""

import functools
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import deid
from deid import log as logs
from deid.errors import DeidError

P = ParamSpec("P")
T = TypeVar("T")

log = logs.logger(__name__)
FRAMES = 3  # of our own code, innermost last
_PACKAGE = Path(deid.__file__).resolve().parent
_BORDER = {str(_PACKAGE / "pipeline" / name) for name in ("shield.py", "guard.py")}


class StageFailure(DeidError):
    """A stage failed as nobody foresaw: a bug, or a machine that is broken."""


def place(error: BaseException) -> str:
    """Where in our own code it was raised: file, line and function of the innermost frames, without any value."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in _BORDER]
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)][-FRAMES:]
    lines = [f"{Path(f.filename).relative_to(_PACKAGE)}:{f.lineno} ({f.name})" for f in own]
    return " > ".join(lines) or "outside deid"


def shielded(stage: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorator of functions and methods that run in Ray, and of what calls Ray.

    Logs of the call, and its failure, say the stage; the unit, from the argument `unit` or the column of that name of
    the argument `table`; and the run, from the attribute `run` of the object.

    Raises (the decorated function):
        DeidError: as the function raises it; these name nothing of the source.
        StageFailure: in the place of every other exception.
    """

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        if inspect.isgeneratorfunction(call):
            raise TypeError("a generator runs after the call, outside of the border; shield what it calls")
        signature = inspect.signature(call)

        @functools.wraps(call)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            logs.setup()
            with logs.context(stage=stage, **_about(signature, args, kwargs)):
                try:
                    return call(*args, **kwargs)
                except DeidError as error:
                    failure = error if _plain(error) else _failure(error)
                except Exception as error:  # noqa: BLE001 - whatever it is, its message stays here
                    failure = _failure(error)
            raise failure from None  # outside of `except`, so that it holds no reference to the other

        return guarded

    return decorate


def _plain(error: DeidError) -> bool:
    """It is one of our exceptions itself, and not one that Ray made of ours and a traceback."""
    return type(error).__module__.split(".")[0] == logs.OURS


def _failure(error: Exception) -> DeidError:
    kind, at = type(error).__name__, place(error)
    log.error("%s at %s%s", kind, at, logs.detail(error))
    hidden = "its message may name the source, deid run --debug-local shows it"
    return StageFailure(f"{logs.where()}: {kind} at {at}: {error if logs.debugging() else hidden}")


def _about(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    """Run and unit of a call, where it has them."""
    given = signature.bind(*args, **kwargs).arguments
    table, unit = given.get("table"), given.get("unit")
    if unit is None and table is not None and len(table) and "unit" in table.column_names:
        unit = table["unit"][0].as_py()
    return {"unit": unit, "run": getattr(given.get("self"), "run", None)}
