"""What Ray raises, as what the user is told."""

import re

import ray.exceptions
from ray.data.exceptions import ExecutionTimeoutError

from deid.errors import ConfigError, DeidError, StorageError
from deid.pipeline.careful import RESTARTS

FAILURES = (ray.exceptions.RayError, ExecutionTimeoutError)


def ours(error: Exception) -> DeidError | None:
    """The failure of ours that ended a task or an actor, which Ray hands over as text; None: it is Ray's own."""
    kinds, found = _kinds(DeidError), re.findall(r"^deid\.[\w.]*?(\w+): (.*)$", str(error), re.MULTILINE)
    if found and found[-1][0] in kinds:
        return kinds[found[-1][0]](found[-1][1])
    return None


def passing(error: Exception) -> bool:
    """It may help to try again: machines or processes are gone, nothing moves, storage does not answer."""
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return False  # no room for the actors
    if isinstance(error, ray.exceptions.ActorDiedError) and _stage(error):
        return False  # it was started again often enough
    failure = ours(error)
    return failure is None or isinstance(failure, StorageError)


def foreseen(error: Exception) -> DeidError:
    """The failure for the user."""
    failure = ours(error)
    if failure is not None:
        return failure
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return ConfigError(
            "stages, cluster.wait_for_actors_s: the cluster could not place the actors in time; "
            "lower their cpus and gpus, or let it grow"
        )
    if isinstance(error, ExecutionTimeoutError):
        return StorageError(
            "cluster.stalled_s: nothing moved for so long: is the cluster too small for all stages at once, or is a "
            "machine gone? Run the same command again"
        )
    if isinstance(error, ray.exceptions.OutOfDiskError):
        return StorageError(
            "Ray's spill directory is full; nothing is published. Give it more space (RAY_TMPDIR, "
            "object-spilling-directory) or the units fewer pictures (unit_size), and run it again"
        )
    if isinstance(error, ray.exceptions.ActorDiedError) and (stage := _stage(error)):
        return StorageError(
            f"stage {stage}: its process ended {RESTARTS} times; nothing is "
            "published. Give it more memory (fewer actors a machine, a smaller unit_size), look into Ray's logs"
        )
    return StorageError(f"the job stopped ({type(error).__name__}); nothing is published: run it again")


def _stage(error: Exception) -> str:
    """The stage whose actor died; "": it is an actor of Ray's own."""
    found = re.search(r"MapBatches\((\w+)\)", str(error))
    return found.group(1).lower() if found else ""


def _kinds(kind: type[DeidError]) -> dict[str, type[DeidError]]:
    below = {name: found for child in kind.__subclasses__() for name, found in _kinds(child).items()}
    return {kind.__name__: kind} | below
