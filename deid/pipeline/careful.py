"""Stages that outlive a picture which ends their process: a segfault, an abort, the kernel's kill for memory.

Ray starts the actor again and repeats its calls, so such a picture would end one process after the other. From its
second life on, an actor takes pictures one by one and writes a journal into the state before each: a picture that was
being tried in `TRIES` earlier lives is quarantined as "crashed", and all others of its unit are kept. A process that
ends for another reason costs nobody a picture.
"""

import json
import warnings
from typing import Any, ClassVar

import pyarrow as pa
import ray

from deid import log as logs
from deid.pipeline import rows
from deid.pipeline.shield import shielded
from deid.privacy.vault import Vault

TRIES = 2  # lives that a picture may end while it is tried alone; the one before, in a batch, is not counted
CALM = 8  # calls without an end of the process, until pictures go in batches again
RESTARTS = 30  # of one actor, then the run ends; a picture that ends processes costs three

log = logs.logger(__name__)


def journal_name(stage: str, unit: int) -> str:
    return f"journal/{stage}/{unit:08d}"


def careful(stage: type) -> type:
    """`stage` (a class of tables of `records.PICTURE`, called with and giving back the same rows) made careful; built
    with a vault and then what `stage` takes."""
    return type(stage.__name__, (Careful,), {"stage": stage})


class Careful:
    """Costs nothing as long as the process lives; see `careful`."""

    stage: ClassVar[type]

    @shielded("careful")
    def __init__(self, vault: Vault, *arguments: Any) -> None:
        self.vault, self.call = vault, self.stage(*arguments)
        self.run = getattr(self.call, "run", "")
        self.watched = CALM if _restarted() else 0  # calls that are to be made picture by picture
        if self.watched:
            log.warning("%s: the process ended and was started again", type(self).__name__)

    @shielded("careful")
    def __call__(self, table: pa.Table) -> pa.Table:
        if not self.watched:
            return self.call(table)
        units = table["unit"].to_pylist()
        starts = [n for n, unit in enumerate(units) if n == 0 or unit != units[n - 1]]
        ends = [*starts[1:], len(units)]
        done = [
            self._one_by_one(units[start], table.slice(start, end - start))
            for start, end in zip(starts, ends, strict=True)
        ]
        self.watched -= 1
        return pa.concat_tables([table.schema.empty_table(), *done])

    def _one_by_one(self, unit: int, table: pa.Table) -> pa.Table:
        name = journal_name(self.stage.__name__.lower(), unit)
        tries, done = _journal(self.vault, name), []
        for number, (position, reason) in enumerate(
            zip(table["position"].to_pylist(), table["reason"].to_pylist(), strict=True)
        ):
            picture, key = table.slice(number, 1), str(position)
            if reason:
                pass
            elif tries.get(key, 0) >= TRIES:
                picture = _crashed(picture)
            else:
                tries[key] = tries.get(key, 0) + 1
                self._note(name, tries)
                picture = self.call(picture)
                del tries[key]
            done.append(picture)
        self._note(name, tries)
        return pa.concat_tables(done)

    def _note(self, name: str, tries: dict[str, int]) -> None:
        self.vault.put(name, json.dumps(tries).encode(), overwrite=True)


def _journal(vault: Vault, name: str) -> dict[str, int]:
    """Position of a picture: lives in which trying it did not end. Nothing when there is no journal yet."""
    if not vault.has(name):
        return {}
    tries: dict[str, int] = json.loads(vault.get(name))
    return tries


def _crashed(picture: pa.Table) -> pa.Table:
    (row,) = rows.from_table(picture)
    row.fail("crashed")
    log.warning("a picture ended the process %d times and is in quarantine", TRIES)
    return rows.to_table([row])


def _restarted() -> bool:
    """This process is not the first of its actor."""
    if not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return False
    with warnings.catch_warnings():  # it asks a deprecated attribute of its own (ray 2.60)
        warnings.simplefilter("ignore")
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)
