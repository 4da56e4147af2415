"""One run: plan, the stages on Ray Data, commits gathered, counts balanced, manifest written last."""

import collections
import hashlib
import logging
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, Dataset

from deid import records
from deid.config import Config, Stage
from deid.errors import ConfigError, DeidError, PromiseError, StorageError
from deid.gallery import store as gallery_store
from deid.models.store import Store
from deid.pipeline import cluster, parts
from deid.pipeline import plan as planning
from deid.pipeline.compose import Compose
from deid.pipeline.plan import Plan
from deid.pipeline.source import UnitSource
from deid.pipeline.stages import Analyse, Generate
from deid.pipeline.write import WriteUnit
from deid.privacy import manifest as manifests
from deid.shards import storage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    run: str  # random id, hex
    output: str  # URI of the run's folder
    state: str  # URI of the run's state, for the operator alone
    manifest: dict[str, Any]
    seconds: float  # of the stages alone, without planning and Ray's start


def secret_of(config: Config) -> bytes:
    """A fresh run secret (32 bytes), or one that `seed` repeats."""
    if config.seed is None:
        return secrets.token_bytes(32)
    return hashlib.sha256(f"deid repeatable run {config.seed}".encode()).digest()


def run(config: Config) -> RunResult:
    """Run the job that the configuration describes.

    Raises:
        DeidError: each kind with its own exit code; see `deid.errors`.
    """
    planning.check(config)
    secret, name = secret_of(config), secrets.token_hex(8)
    output, state = storage.join(config.output.uri, name), storage.join(config.state, name)
    with cluster.session(config.cluster):
        cluster.configure(config.cluster)
        try:
            plan = planning.make(config, secret)
            storage.write_bytes(storage.join(state, "plan.parquet"), planning.to_bytes(plan.records))
            begun = time.perf_counter()
            commits = records.COMMIT.empty_table()
            if plan.units:
                commits = planning.arrow(stages(config, plan, secret, output), records.COMMIT)
            seconds = time.perf_counter() - begun
        except ray.exceptions.RayError as error:
            raise _foreseen(error) from None
    quarantine = planning.quarantine(plan, commits)
    storage.write_bytes(storage.join(state, "quarantine.parquet"), planning.to_bytes(quarantine))
    sums = manifests.counts(commits, len(plan.order), len(plan.refused))
    reasons = dict(sorted(collections.Counter(quarantine["reason"].to_pylist()).items()))
    fraction = sums["pictures_quarantined"] / max(1, sums["pictures_in"])
    damaged, most = reasons.get("shard_damaged", 0), config.limits.max_damaged_shards
    if most is not None and damaged > most:
        raise PromiseError(
            f"{damaged} shards are damaged, limits.max_damaged_shards allows {most}; which, and from where on, "
            f"is in quarantine.parquet below {state}"
        )
    if fraction > config.limits.max_quarantine_fraction:
        raise PromiseError(
            f"{sums['pictures_quarantined']} of {sums['pictures_in']} pictures are in quarantine, more than "
            f"limits.max_quarantine_fraction allows; the reasons are in quarantine.parquet below {state}"
        )
    manifest = manifests.build(config, name, commits, sums, reasons, model_hashes(config))
    storage.write_bytes(storage.join(output, "manifest.json"), manifests.to_bytes(manifest))
    return RunResult(name, output, state, manifest, seconds)


def stages(config: Config, plan: Plan, secret: bytes, output: str) -> Dataset:
    """The lazy dataset whose rows are the commits (`records.COMMIT`)."""
    source = UnitSource(plan, config.metadata)
    dataset = ray.data.read_datasource(
        source, override_num_blocks=plan.units, ray_remote_args={"num_cpus": config.stages.io_cpus}
    )
    dataset = _actors(dataset, Analyse, config.stages.analyse, config)
    dataset = _actors(dataset, Generate, config.stages.generate, config, secret)
    dataset = _actors(dataset, Compose, config.stages.compose, config)
    writer = WriteUnit(output, secret, len(plan.order), config.unit_size)
    return dataset.map_batches(
        writer.__call__, batch_size=None, batch_format="pyarrow", num_cpus=config.stages.io_cpus
    )


def _actors(dataset: Dataset, stage: type, options: Stage, *arguments: Any) -> Dataset:
    pool = ActorPoolStrategy(min_size=options.actors, max_size=options.max_actors or options.actors)
    return dataset.map_batches(
        stage,
        fn_constructor_args=arguments,
        compute=pool,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=options.cpus,
        num_gpus=options.gpus or None,
    )


def _foreseen(error: ray.exceptions.RayError) -> Exception:
    """The failure of ours that ended a task or an actor, which Ray hands over as text; else that Ray gave up."""
    kinds, found = _kinds(DeidError), re.findall(r"^deid\.[\w.]*?(\w+): (.*)$", str(error), re.MULTILINE)
    if found and found[-1][0] in kinds:
        return kinds[found[-1][0]](found[-1][1])
    if "UserCodeException" in type(error).__name__:
        return error  # a bug: with its traceback, exit code 1
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return ConfigError(
            "stages, cluster.wait_for_actors_s: the cluster could not place the actors in time; "
            "lower their cpus and gpus, or let it grow"
        )
    return StorageError(f"the job stopped ({type(error).__name__}); nothing is published: run it again")


def _kinds(kind: type[DeidError]) -> dict[str, type[DeidError]]:
    below = {name: found for child in kind.__subclasses__() for name, found in _kinds(child).items()}
    return {kind.__name__: kind} | below


def model_hashes(config: Config) -> dict[str, Any]:
    """SHA-256 of every file of every model of the run, fetched or packaged, and of the gallery, by name."""
    registry = Store(config.models).registry
    hashes: dict[str, Any] = {
        name: {member.name: member.sha256 for member in registry.model(name).members}
        for name in parts.models_of(config)
    }
    hashes |= {
        name: {registry.packaged[name].file: registry.packaged[name].sha256}
        for name in parts.packaged_of(config)
    }
    return hashes | {"gallery": gallery_store.digest(config.gallery)}
