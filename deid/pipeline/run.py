"""One run: plan, passes, counts balanced, audit released, state destroyed, manifest signed and written last."""

import collections
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray.exceptions
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deid import log as logs
from deid import records
from deid.config import Config
from deid.errors import ConfigError, DeidError, PromiseError, StorageError
from deid.gallery import store as gallery_store
from deid.models.store import Store
from deid.pipeline import cluster, parts, publish
from deid.pipeline import plan as planning
from deid.pipeline.passes import Passes
from deid.pipeline.publish import Done
from deid.pipeline.shield import shielded
from deid.privacy import manifest as manifests
from deid.privacy import seal, shred, vault
from deid.privacy.check import Count
from deid.shards import storage, tables

log = logs.logger(__name__)

REPAIRS = 3  # rounds in which surrogates that too few people share are taken back


@dataclass(frozen=True)
class RunResult:
    run: str  # random id, hex
    output: str  # URI of the run's folder
    quarantine: (
        str | None
    )  # URI of the list of what did not go out, for the operator alone; None: no key to keep it under
    manifest: dict[str, Any]
    public_key: str  # hex, of the manifest's signature
    seconds: float  # of the passes alone, without planning and Ray's start
    sources: list[
        dict[str, str]
    ]  # shard, key and reason of what did not go out; empty unless the run was a local debug run


def secret_of(config: Config) -> bytes:
    """A fresh run secret (32 bytes), or one that `seed` repeats."""
    if config.seed is None:
        return secrets.token_bytes(32)
    return hashlib.sha256(f"deid repeatable run {config.seed}".encode()).digest()


@shielded("run")
def run(config: Config) -> RunResult:
    """Run the job that the configuration describes.

    Raises:
        DeidError: each kind with its own exit code; see `deid.errors`.
    """
    planning.check(config)
    private = seal.new_key() if config.signing.key is None else seal.load_private(config.signing.key)
    secret, name = secret_of(config), secrets.token_hex(8)
    output = storage.join(config.output.uri, name)
    state = vault.create(storage.join(config.state, name), config.state_key)
    kept = None
    if config.seed is not None:
        log.warning("seed is set: ids and draws can be worked out again, so this is not for release")
    try:
        with cluster.session(config.cluster):
            cluster.configure(config.cluster)
            plan = planning.make(config, secret)
            begun = time.perf_counter()
            done = _passes(Passes(config, plan, state, secret, output, name))
            seconds = time.perf_counter() - begun
        quarantine = planning.quarantine(plan, done.commits)
        kept = _keep(config, name, quarantine)
        sums = manifests.counts(done.commits, len(plan.order), len(plan.refused))
        reasons = dict(sorted(collections.Counter(quarantine["reason"].to_pylist()).items()))
        _check_limits(config, sums, reasons, kept)
        objects, people = publish.publish(config, output, state, done, sums)
        signed = _sealed(config, name, state, private, done, objects, sums, reasons, people)
        storage.write_bytes(storage.join(output, "manifest.json"), manifests.to_bytes(signed))
    except BaseException as error:  # noqa: BLE001 - whatever it is, nothing stays behind
        _clean(output, state)
        if kept:
            log.error(
                "a list of what did not go out is kept below state, in the folder that ends in -quarantine"
            )
        raise _foreseen(error) if isinstance(error, ray.exceptions.RayError) else error from None
    sources = quarantine.to_pylist() if logs.debugging() else []
    return RunResult(name, output, kept, signed, seal.public_hex(private.public_key()), seconds, sources)


def _clean(output: str, state: vault.Vault) -> None:
    """After a run that failed: nothing of it stays, its state first. What ended it is what the user is told; what
    stays, too."""
    try:
        state.destroy()
    except Exception:  # noqa: BLE001 - the output is to be deleted whatever happened to the state
        log.error("the run failed, and its state could not be deleted: delete its folder by hand")
    finally:
        try:
            shred.everything(output)
        except DeidError:
            log.error("the run failed, and its output could not be deleted: delete its folder by hand")


def _sealed(
    config: Config,
    name: str,
    state: vault.Vault,
    private: Ed25519PrivateKey,
    done: Done,
    objects: list[dict[str, Any]],
    sums: dict[str, int],
    reasons: dict[str, int],
    people: dict[str, Any],
) -> dict[str, Any]:
    """The signed manifest; it attests that the state is destroyed."""
    models, destruction = model_hashes(config), state.destroy()
    fields = publish.fields_dropped(done.commits)
    built = manifests.build(
        config, name, done.commits, objects, sums, reasons, models, people, destruction, fields
    )
    return seal.sign(built, private)


def _passes(passes: Passes) -> Done:
    """All passes, until every surrogate that went out is shared by k people.

    Raises:
        PromiseError: fewer than k people, or a surrogate could not be taken back.
    """
    config, units = passes.config, passes.plan.units
    if not units:
        none = Count(config.assignment.k, {}) if config.assignment.mode == "k-same" else None
        return Done(records.COMMIT.empty_table(), count=none)
    if not config.two_passes:
        return Done(passes.replace())
    passes.index()
    surrogates, persons = passes.assign()
    commits = passes.replace(surrogates)
    if config.assignment.mode != "k-same":
        return Done(commits, persons=persons)
    withheld = set[int]()
    for turn in range(REPAIRS + 1):
        count = publish.recount(config, passes.vault, units)
        if not count.short:
            return Done(commits, surrogates, count, persons, len(withheld))
        if turn == REPAIRS:
            break
        withheld |= count.short
        log.warning("%d surrogates are taken back", len(count.short))
        wearing = publish.wearing(passes.vault, units, count.short)
        commits = publish.renewed(commits, passes.replace(surrogates, wearing, withheld))
    raise PromiseError(
        f"assignment.k: {len(count.short)} surrogates are still shared by fewer than {count.k} people; nothing is "
        "released. Run again"
    )


def _check_limits(config: Config, sums: dict[str, int], reasons: dict[str, int], kept: str | None) -> None:
    """Raises PromiseError when too much did not go out."""
    where = (
        f"deid quarantine {kept} --state-key ... lists them"
        if kept
        else "with a state_key, a list of them is kept"
    )
    damaged, most = reasons.get("shard_damaged", 0), config.limits.max_damaged_shards
    if most is not None and damaged > most:
        raise PromiseError(f"{damaged} shards are damaged, limits.max_damaged_shards allows {most}; {where}")
    lost = sums["pictures_quarantined"] + sums["pictures_dropped"]
    if lost / max(1, sums["pictures_in"]) > config.limits.max_quarantine_fraction:
        named = ", ".join(f"{reason} {times}" for reason, times in reasons.items())
        raise PromiseError(
            f"{lost} of {sums['pictures_in']} pictures are in quarantine or were dropped ({named}), more than "
            f"limits.max_quarantine_fraction allows; {where}"
        )


def _keep(config: Config, name: str, quarantine: pa.Table) -> str | None:
    """Where the list of what did not go out is kept for the operator, under the state key; None where there is none."""
    if config.state_key is None or not len(quarantine):
        return None
    uri = storage.join(config.state, f"{name}-quarantine")
    vault.create(uri, config.state_key).put("quarantine", tables.to_bytes(quarantine))
    return uri


def _foreseen(error: ray.exceptions.RayError) -> Exception:
    """The failure of ours that ended a task or an actor, which Ray hands over as text; else that Ray gave up."""
    kinds, found = _kinds(DeidError), re.findall(r"^deid\.[\w.]*?(\w+): (.*)$", str(error), re.MULTILINE)
    if found and found[-1][0] in kinds:
        return kinds[found[-1][0]](found[-1][1])
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
