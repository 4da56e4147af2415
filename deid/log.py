"""Logs: one format, which says of which run, unit and stage a line is, and nothing else of what is processed.

Lines of ours hold codes, numbers and class names. What other libraries have to say may name the source (Pillow quotes
EXIF, botocore keys), so of their lines only the library and the level are written. `deid run --debug-local` alone
shows everything.
"""

import contextlib
import logging
import os
import resource
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from deid.errors import ConfigError

if TYPE_CHECKING:
    from deid.config import Config

OURS = "deid"  # root of our loggers' names
DEBUG_LOCAL = "DEID_DEBUG_LOCAL"  # environment variable, handed on to the processes that Ray starts
WITHHELD = "a message of another library is withheld; deid run --debug-local shows it"
_CONTEXT = {name: ContextVar(f"deid_{name}", default="") for name in ("run", "unit", "stage")}


def logger(name: str) -> logging.Logger:
    """The logger of a module of ours."""
    return logging.getLogger(name if name.split(".")[0] == OURS else f"{OURS}.{name}")


@contextlib.contextmanager
def context(run: str | None = None, unit: int | None = None, stage: str | None = None) -> Iterator[None]:
    """What lines are about meanwhile; None leaves it as it is.

    Args:
        run: the run's random id, as in the name of its folder.
        unit: index of the unit in the plan.
        stage: a name from the code.
    """
    given = {"run": run, "unit": unit, "stage": stage}
    tokens = [(_CONTEXT[name], _CONTEXT[name].set(str(v))) for name, v in given.items() if v is not None]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


def where() -> str:
    """The context in words; "" outside of any."""
    return " ".join(f"{name}={variable.get()}" for name, variable in _CONTEXT.items() if variable.get())


class Line(logging.Formatter):
    """`WARNING deid.pipeline.guard run=5f0c unit=3 stage=detect: ValueError`."""

    def format(self, record: logging.LogRecord) -> str:
        ours = record.name.split(".")[0] == OURS
        text = super().format(record) if debugging() else record.getMessage() if ours else WITHHELD
        return f"{' '.join(filter(None, (record.levelname, record.name, where())))}: {text}"


def setup() -> None:
    """Set up the format in this process: the command, a job, and each worker of Ray. Handlers that are there stay.

    No core dump is written of it, which would hold pictures, embeddings and the run secret.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(Line())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)


def debugging() -> bool:
    """Whether messages of other libraries are shown."""
    return os.environ.get(DEBUG_LOCAL) == "1"


def detail(error: BaseException) -> str:
    """The whole traceback with all messages, to end a line with; "" unless they are to be shown."""
    return "\n" + "".join(traceback.format_exception(error)) if debugging() else ""


def set_debug(config: "Config", debug: bool) -> None:
    """Show messages of other libraries, here and in processes that are started from now on, or do not.

    Raises:
        ConfigError: as `check_debug`.
    """
    if debug:
        check_debug(config)
        os.environ[DEBUG_LOCAL] = "1"
    else:
        os.environ.pop(DEBUG_LOCAL, None)


def check_debug(config: "Config") -> None:
    """Messages that name the source stay on this machine.

    Raises:
        ConfigError: the input or the cluster is elsewhere.
    """
    if config.input.uri.startswith("s3://"):
        raise ConfigError(
            "--debug-local: shows names of the source, so input.uri must be a folder of this machine"
        )
    address = config.cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local":
        raise ConfigError(
            "--debug-local: shows names of the source, so it does not run on a cluster that others see; "
            "unset cluster.address and RAY_ADDRESS"
        )
