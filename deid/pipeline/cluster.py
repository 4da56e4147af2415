"""Ray: joined where an address says so, started on this machine otherwise; and the settings of Ray Data."""

import collections
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from deid.config import Cluster
from deid.errors import StorageError
from deid.pipeline.shield import shielded

Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Ray's accelerator variables and usage reports have no place in a job that must not call out.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@contextlib.contextmanager
def session(cluster: Cluster) -> Iterator[None]:
    """A connection to Ray for the time of a run; one that was there before is used and left open."""
    if ray.is_initialized():
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, logging_level=logging.WARNING)
        else:
            ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StorageError(
            f"cluster.address {address}: Ray does not answer ({type(error).__name__}); is the head up, and, since Ray "
            "asks for a token, are RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or the token file) set here?"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def configure(cluster: Cluster) -> None:
    """Settings of Ray Data for this process's datasets: one block a unit, no block dropped."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = None  # a unit is one block from the reader to the writer
    context.max_errored_blocks = 0
    context.wait_for_min_actors_s = int(cluster.wait_for_actors_s)
    context.execution_no_progress_timeout_s = cluster.stalled_s
    context.enable_rich_progress_bars = True
    context.use_ray_tqdm = False
    context.print_on_execution_start = False


def spread(function: Callable[[Argument], Result], arguments: Iterable[Argument]) -> Iterator[Result]:
    """`map` as Ray tasks, results in order, few more at work than the cluster has CPUs."""
    task = ray.remote(shielded("gather")(function))
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    flying: collections.deque[Any] = collections.deque()
    for argument in arguments:
        if len(flying) == most:
            yield ray.get(flying.popleft())
        flying.append(task.remote(argument))
    while flying:
        yield ray.get(flying.popleft())
