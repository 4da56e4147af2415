"""From source pictures to output pictures of a repeatable run (`seed` set), for measurements and contact sheets.

Of a run with a fresh secret this cannot be worked out: the secret is gone when the run ends.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from deid.config import Config
from deid.errors import ConfigError
from deid.interfaces import Picture
from deid.pipeline import plan as planning
from deid.pipeline.run import RunResult, secret_of
from deid.privacy import keys
from deid.shards import pictures, storage, webdataset


@dataclass(frozen=True)
class Pair:
    """One source picture and what became of it."""

    shard: str  # base name of the source shard
    key: str  # of the source sample
    before: bytes  # encoded source
    after: bytes  # encoded result; empty when the picture is in quarantine

    def source(self) -> Picture:
        return pictures.decode(self.before, 1 << 40).pixels

    def result(self) -> Picture:
        return pictures.decode(self.after, 1 << 40).pixels


def pairs(config: Config, result: RunResult) -> Iterator[Pair]:
    """Pairs of all pictures that were planned, in the order of the source.

    Raises:
        ConfigError: the run was not repeatable.
    """
    if config.seed is None:
        raise ConfigError("seed: only a repeatable run can be traced, and only a measurement should be one")
    secret = secret_of(config)
    plan = planning.again(config, secret)
    table = plan.records
    names = {
        int(number): keys.output_id(secret, unit, position)
        for unit in range(plan.units)
        for position, number in enumerate(plan.numbers(unit))
    }
    outputs = _outputs(result)
    chosen = table.take(np.sort(plan.order))
    order = np.sort(plan.order)
    rows = chosen.to_pylist()
    for position, before, _, _ in webdataset.read(chosen):
        row = rows[position]
        after = outputs.get(names[int(order[position])], b"")
        yield Pair(PurePosixPath(row["uri"]).name, row["key"], before, after)


def _outputs(result: RunResult) -> dict[str, bytes]:
    """Pictures of every output shard, by key."""
    found = {}
    for entry in result.manifest["objects"]:
        if entry["name"].endswith(".tar"):
            data = storage.read_bytes(storage.join(result.output, entry["name"]))
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for info in archive:
                    key, _, extension = info.name.partition(".")
                    stream = archive.extractfile(info)
                    if stream is not None and extension in ("jpg", "png", "webp"):
                        found[key] = stream.read()
    return found
