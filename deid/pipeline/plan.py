"""The plan of a run: every record of every input shard, and the units that they are drawn into."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from numpy.typing import NDArray

from deid.config import Config
from deid.errors import InputError
from deid.gallery import store as gallery_store
from deid.pipeline import parts
from deid.pipeline.shield import shielded
from deid.privacy import gate, keys, vault, wrapping
from deid.shards import storage, tables, webdataset
from deid.surrogates import match


@dataclass(frozen=True)
class Plan:
    """Which record goes into which unit. The driver holds it whole: about 150 bytes a record.

    records: rows of `webdataset.INDEX`, in the order of the source.
    order: int64 [n] numbers of the records that can be processed, shuffled under the run secret.
    """

    records: pa.Table
    order: NDArray[np.int64]
    unit_size: int

    @property
    def units(self) -> int:
        return -(-len(self.order) // self.unit_size)

    @property
    def refused(self) -> NDArray[np.int64]:
        """Numbers of the records that are in quarantine already."""
        return np.setdiff1d(np.arange(len(self.records)), self.order)

    @property
    def bytes(self) -> int:
        return int(pc.sum(self.records["size"]).as_py() or 0)

    def numbers(self, unit: int) -> NDArray[np.int64]:
        """Numbers of the records of a unit, in the order of their positions."""
        return self.order[unit * self.unit_size : (unit + 1) * self.unit_size]

    def unit(self, unit: int) -> pa.Table:
        """Records of a unit with their number, in the order of their positions."""
        numbers = self.numbers(unit)
        return self.records.take(pa.array(numbers)).append_column("record", pa.array(numbers))


def check(config: Config) -> None:
    """Stop (ConfigError, ModelError) for everything that can be known to be wrong before any work is done."""
    parts.check(config)
    wrapping.kind(config.state_key)
    gallery = gallery_store.load(config.gallery)
    match.check(config.match, gallery)
    gate.margin(config.gate, gallery)


def shards(config: Config) -> list[storage.Object]:
    """The input shards.

    Raises:
        InputError: there are none.
    """
    found = storage.list_files(config.input.uri, config.input.pattern)
    if not found:
        raise InputError(f"input.uri, input.pattern: no {config.input.pattern} below {config.input.uri}")
    return found


def make(config: Config, secret: bytes) -> Plan:
    """Scan the shards (a Ray Data job of its own) and draw the units."""
    listed = shards(config)
    objects = pa.Table.from_pylist([vars(entry) for entry in listed])
    dataset = ray.data.from_arrow(objects).repartition(len(listed))
    scanned = dataset.map_batches(
        _scan, batch_size=None, batch_format="pyarrow", num_cpus=config.stages.io_cpus
    )
    return drawn(config, secret, arrow(scanned, webdataset.INDEX))


def again(config: Config, secret: bytes) -> Plan:
    """The plan of a repeatable run, made a second time and without Ray: for measurements."""
    return drawn(config, secret, _scan(pa.Table.from_pylist([vars(entry) for entry in shards(config)])))


def drawn(config: Config, secret: bytes, index: pa.Table) -> Plan:
    """Units drawn from rows of `webdataset.INDEX`."""
    records = index.sort_by([("uri", "ascending"), ("offset", "ascending")])
    usable = np.flatnonzero(np.asarray(pc.equal(records["reason"], "")))
    return Plan(records, usable[keys.permutation(secret, len(usable))], config.unit_size)


def arrow(dataset: ray.data.Dataset, schema: pa.Schema) -> pa.Table:
    """All rows of a dataset, as they come."""
    tables: Any = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])


@shielded("scan")
def _scan(objects: pa.Table) -> pa.Table:
    tables = [webdataset.scan(storage.Object(**row)) for row in objects.to_pylist()]
    return pa.concat_tables([webdataset.INDEX.empty_table(), *tables])


def quarantine(plan: Plan, commits: pa.Table) -> pa.Table:
    """What did not go out, for the operator: source shard, key and reason of each."""
    late = [entry for entries in commits["quarantine"].to_pylist() for entry in entries]
    numbers = np.concatenate([plan.refused, np.array([entry["record"] for entry in late], np.int64)])
    chosen = plan.records.take(pa.array(numbers.astype(np.int64)))
    early = plan.records.take(pa.array(plan.refused))["reason"].to_pylist()
    reasons = early + [entry["reason"] for entry in late]
    return pa.table({"shard": chosen["uri"], "key": chosen["key"], "reason": pa.array(reasons, pa.string())})


def quarantined(uri: str, state_key: str | None) -> pa.Table:
    """The list that `run` kept below `uri` under the state key: shard, key and reason of what did not go out.

    Raises:
        ConfigError: it is another key.
        InputError: there is no such list.
    """
    try:
        return tables.from_bytes(vault.open(uri, state_key).get("quarantine"))
    except vault.StateError:
        raise InputError(f"{uri}: no quarantine list is there; give the place that the run printed") from None


def anonymizer(config: Config) -> str:
    """What faces get, in words."""
    classic = config.classic
    strength = {
        "blur": f", sigma {classic.blur_sigma} face heights",
        "pixelate": f", {classic.pixelate_blocks} blocks a face height",
    }.get(config.anonymizer)
    return config.anonymizer + (f"{strength}: a baseline, people may stay recognizable" if strength else "")


def _gate(config: Config) -> str:
    if not config.gate.enabled:
        return "off: results are not checked"
    return f"margin {gate.margin(config.gate, gallery_store.load(config.gallery)):.3f}"


def _region(config: Config) -> str:
    outline = f"{config.region.scale} face outlines"
    if not parts.uses_segmenter(config):
        return outline
    match = config.match
    return f"head, of the {match.alike} most alike, corrected {match.corrections} times; else {outline}"


def _assignment(config: Config) -> str:
    if not config.two_passes:
        return "per-face, in one pass: no surrogate is shared"
    options = config.assignment
    people = f"people by {'their faces' if options.subject is None else 'subject'}, two passes"
    if options.mode == "keyed-random":
        return f"keyed-random, {people}: a pseudonym a person"
    return f"k-same, at least {options.k} people a surrogate, {options.looks} looks, {people}"


@shielded("plan")
def describe(config: Config) -> dict[str, Any]:
    """What a run would do, from a listing alone."""
    check(config)
    listed = shards(config)
    stages = config.stages
    pools = {name: getattr(stages, name) for name in ("analyse", "generate", "compose")}
    return {
        "input": f"{len(listed):,} shards, {sum(o.size for o in listed) / 1e6:,.1f} MB below {config.input.uri}",
        "output": config.output.uri,
        "state": config.state,
        "models": ", ".join([*parts.models_of(config), *parts.packaged_of(config)]),
        "detector": config.detector.name,
        "anonymizer": anonymizer(config),
        "assignment": _assignment(config),
        "match": f"{config.match.method}, the mean of {config.match.k} identities, margin {config.match.margin}",
        "region": _region(config),
        "gate": _gate(config),
        "unit": f"{config.unit_size} pictures a shard",
        **{
            f"{name} actors": f"{p.actors} to {p.max_actors or p.actors}, {p.cpus} CPUs and {p.gpus} GPUs each"
            for name, p in pools.items()
        },
    }
