"""Units as a Ray Data source: one read task a unit, each fetching its own random draw of records."""

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from deid import records
from deid.config import Metadata
from deid.pipeline.plan import Plan
from deid.pipeline.read import read_unit


class UnitSource(Datasource):
    def __init__(self, plan: Plan, metadata: Metadata) -> None:
        super().__init__()
        self.plan, self.metadata = plan, metadata

    def estimate_inmemory_data_size(self) -> int:
        return self.plan.bytes

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task a unit, whatever parallelism is asked for."""
        return [self._task(unit) for unit in range(self.plan.units)]

    def _task(self, unit: int) -> ReadTask:
        wanted = self.plan.unit(unit)
        size = sum(wanted["size"].to_pylist())
        metadata = BlockMetadata(len(wanted), size, None, None)
        return ReadTask(_reader(wanted, unit, self.metadata), metadata, schema=records.PICTURE)


def _reader(wanted: pa.Table, unit: int, metadata: Metadata) -> Callable[[], Iterable[pa.Table]]:
    def read() -> Iterable[pa.Table]:
        yield read_unit(wanted, unit, metadata)

    return read
