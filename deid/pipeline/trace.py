"""From source pictures to output pictures of a repeatable run (`seed` set), for measurements and contact sheets.

Of a run with a fresh secret this cannot be worked out: the secret is gone when the run ends.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from deid.config import Config
from deid.errors import ConfigError
from deid.interfaces import Picture
from deid.pipeline import plan as planning
from deid.pipeline.run import RunResult, secret_of
from deid.privacy import keys
from deid.shards import pictures, storage
from deid.shards.readers import FORMATS


@dataclass(frozen=True)
class Pair:
    """One source picture and what became of it."""

    shard: str  # base name of the source shard
    key: str  # of the source sample
    before: bytes  # encoded source
    after: bytes  # encoded result; empty when the picture is in quarantine
    output: str = ""  # key of the output sample; empty likewise

    def source(self) -> Picture:
        return pictures.decode(self.before, 1 << 40).pixels

    def result(self) -> Picture:
        return pictures.decode(self.after, 1 << 40).pixels


def pairs(config: Config, result: RunResult) -> Iterator[Pair]:
    """Pairs of all pictures that were planned, in the order of the source.

    Raises:
        ConfigError: the run was not repeatable, or its input was video: frames of its output lie in order already.
    """
    if config.seed is None:
        raise ConfigError("seed: only a repeatable run can be traced, and only a measurement should be one")
    if config.video:
        raise ConfigError(
            "input.format: pairs are of pictures; the frames of a video stand in order in its output"
        )
    secret = secret_of(config)
    units = list(planning.again(config, secret))
    records = pa.concat_tables([table for _, table in units])
    names = [
        keys.output_id(secret, unit, sample)
        for unit, table in units
        for sample in table["unit_sample"].to_pylist()
    ]
    outputs = _outputs(result)
    rows, read = records.to_pylist(), FORMATS[config.input.format].read
    for position, before, _, _ in read(records, planning.layout(config)):
        row = rows[position]
        after = outputs.get((names[position], row["name"]), b"")
        yield Pair(
            PurePosixPath(row["uri"]).name, row["key"], before, after, names[position] if after else ""
        )


def _outputs(result: RunResult) -> dict[tuple[str, str], bytes]:
    """Pictures of every output shard, by key and name in the sample."""
    found = {}
    for entry in result.manifest["objects"]:
        if entry["name"].endswith(".tar"):
            data = storage.read_bytes(storage.join(result.output, entry["name"]))
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for info in archive:
                    key, _, rest = info.name.partition(".")
                    name, _, extension = rest.rpartition(".")
                    stream = archive.extractfile(info)
                    if stream is not None and extension in ("jpg", "png", "webp"):
                        found[key, name] = stream.read()
    return found
