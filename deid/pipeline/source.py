"""Units as a Ray Data source: one read task a unit, or for units that are read at once one for them together.

In the second of two passes the task also recalls what the first saw of them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray import ObjectRef
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from deid import records
from deid.config import Config
from deid.pipeline import rows
from deid.pipeline.plan import Plan
from deid.pipeline.read import Subject, read_units
from deid.privacy.vault import Vault
from deid.shards import tables

if TYPE_CHECKING:
    from deid.pipeline.appoint import Recall


class UnitSource(Datasource):
    """Pictures of some units of the plan.

    Args:
        units: their numbers.
    """

    def __init__(
        self,
        plan: Plan,
        config: Config,
        units: Sequence[int],
        subject: Subject | None = None,
        recall: "ObjectRef[Recall] | None" = None,
    ) -> None:
        super().__init__()
        self.groups = plan.groups(units)
        self.plan, self.config, self.subject, self.recall = plan, config, subject, recall

    def estimate_inmemory_data_size(self) -> int:
        share = sum(map(len, self.groups)) / max(1, self.plan.units)
        return int(self.plan.bytes * share)

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task a group, whatever parallelism is asked for."""
        return [self._task(group) for group in self.groups]

    def _task(self, units: list[int]) -> ReadTask:
        names = [self.plan.name(unit) for unit in units]
        read = _reader(self.plan.vault, names, units, self.config, self.subject, self.recall)
        size = self.plan.bytes * len(units) // max(1, self.plan.units)
        return ReadTask(read, BlockMetadata(None, size, None, None), schema=records.PICTURE)


def _reader(
    vault: Vault,
    names: list[str],
    units: list[int],
    config: Config,
    subject: Subject | None,
    recall: "ObjectRef[Recall] | None",
) -> Callable[[], Iterable[pa.Table]]:
    def read() -> Iterable[pa.Table]:
        wanted = [tables.from_bytes(vault.get(name)) for name in names]
        table = read_units(wanted, units, config, subject)
        if recall is not None:
            items, recalled = rows.from_table(table), ray.get(recall)
            for unit in units:
                recalled(unit, [row for row in items if row.unit == unit])
            table = rows.to_table(items)
        yield table

    return read
