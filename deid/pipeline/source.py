"""Units as a Ray Data source: one read task a unit, each fetching its own random draw of records.

In the second of two passes the task also recalls what the first saw of them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from deid import records
from deid.config import Metadata
from deid.pipeline import rows
from deid.pipeline.plan import Plan
from deid.pipeline.read import Subject, read_unit

if TYPE_CHECKING:
    from deid.pipeline.appoint import Recall


class UnitSource(Datasource):
    def __init__(
        self,
        plan: Plan,
        metadata: Metadata,
        subject: Subject | None = None,
        recall: "Recall | None" = None,
        units: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.plan, self.metadata, self.subject, self.recall = plan, metadata, subject, recall
        self.units = range(plan.units) if units is None else units

    def estimate_inmemory_data_size(self) -> int:
        return self.plan.bytes

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task a unit, whatever parallelism is asked for."""
        return [self._task(unit) for unit in self.units]

    def _task(self, unit: int) -> ReadTask:
        wanted = self.plan.unit(unit)
        size = sum(wanted["size"].to_pylist())
        metadata = BlockMetadata(len(wanted), size, None, None)
        read = _reader(wanted, unit, self.metadata, self.subject, self.recall)
        return ReadTask(read, metadata, schema=records.PICTURE)


def _reader(
    wanted: pa.Table, unit: int, metadata: Metadata, subject: Subject | None, recall: "Recall | None"
) -> Callable[[], Iterable[pa.Table]]:
    def read() -> Iterable[pa.Table]:
        table = read_unit(wanted, unit, metadata, subject)
        if recall is not None:
            items = rows.from_table(table)
            recall(unit, items)
            table = rows.to_table(items)
        yield table

    return read
