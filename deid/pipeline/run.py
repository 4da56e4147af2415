"""One run: plan, passes, counts balanced, audit released, state destroyed, manifest signed and written last.

What is done lies in the state, under a key of the run's own. Where `state_key` keeps that key, a run that was killed
goes on with the same command; else what it left is deleted and all is done anew.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from deid import log as logs
from deid import records
from deid.config import Config
from deid.errors import ConfigError, DeidError, NothingNew, PromiseError
from deid.gallery import store as gallery_store
from deid.models.store import Store
from deid.pipeline import catalogue, cluster, film, lease, ledger, opened, parts, publish
from deid.pipeline import plan as planning
from deid.pipeline import progress as progresses
from deid.pipeline.foreseen import FAILURES, foreseen
from deid.pipeline.opened import Opened
from deid.pipeline.passes import Passes, Repair
from deid.pipeline.plan import Plan
from deid.pipeline.publish import Commits, Done
from deid.pipeline.shield import shielded
from deid.pipeline.watch import Watch
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
    """Run the job that the configuration describes, or go on with the run that is open in its state.

    Raises:
        DeidError: each kind with its own exit code; see `deid.errors`. `NothingNew` is one of them.
    """
    planning.check(config)
    try:
        storage.check_writable(config.output.uri)
    except DeidError as error:
        raise type(error)(f"output.uri: {config.output.uri} cannot be written: {error}") from None
    private = seal.new_key() if config.signing.key is None else seal.load_private(config.signing.key)
    if config.seed is not None:
        log.warning("seed is set: ids and draws can be worked out again, so this is not for release")
    with terminable(), lease.hold(config.state, secrets.token_hex(8)) as held:
        closed = _closing(config)
        if closed is not None:
            return _close(config, closed, private, held)
        open_run = opened.resume(config)
        taken = None if open_run is not None else new_shards(config)
        if open_run is None:
            open_run = opened.begin(config, secret_of(config))
        else:
            log.warning("run %s goes on where it ended", open_run.run)
        return _run(config, open_run, taken, private, held)


def _run(
    config: Config, ours: Opened, taken: pa.Table | None, private: Ed25519PrivateKey, held: lease.Held
) -> RunResult:
    kept, written = None, False
    progress = progresses.Writer(config.state, ours.run)
    try:
        with cluster.session(config.cluster), terminable():  # Ray has put a handler of its own in place
            cluster.configure(config.cluster)
            plan = _plan(config, ours, taken, progress)
            watch = Watch(config, plan, held, progress)
            begun = time.perf_counter()
            passes = Passes(config, plan, ours.state, ours.secret, ours.output, ours.run, watch, watch.begin)
            try:
                watch.check(0, 0)
                done = _passes(passes)
            except PromiseError:
                kept = _keep(config, ours.run, passes.lost())
                raise
            seconds = time.perf_counter() - begun
            held.check()
            sums = manifests.counts(done.commits, plan.pictures, plan.refused)
            quarantine = _quarantine(plan, done)
            kept = _keep(config, ours.run, quarantine)
            reasons = _reasons(plan, done)
            progress.publish(plan.units, sums, reasons)
            _check_limits(config, sums, reasons, kept)
            held.check()
            if config.video:
                commits = film.joined(done.commits, config, plan, ours.secret, ours.output, done.read)
                done = dataclasses.replace(done, commits=commits)
            objects, people = publish.publish(config, ours.output, done, sums, cluster.spread)
        built = manifests.build(
            config,
            ours.run,
            done.commits,
            objects,
            sums,
            reasons,
            model_hashes(config),
            people,
            publish.fields_dropped(done.commits),
        )
        closed = {"manifest": built, "output": ours.output, "quarantine": kept, "seconds": seconds}
        closed["config"] = opened.digest(config)
        held.check()
        _note(config, ours, plan, quarantine)
        storage.write_bytes(_place(config), json.dumps(closed).encode(), overwrite=True)
        written = True
        result = _close(config, closed, private, held)
    except BaseException as error:  # noqa: BLE001 - whatever it is, nothing stays behind that cannot be gone on with
        cause = foreseen(error) if isinstance(error, FAILURES) else error
        if written:
            progress.finish("open")
            log.error(
                "run %s has written its release, but is not at its end: the same command ends it", ours.run
            )
        elif config.state_key is None or (isinstance(cause, PromiseError) and held.valid):
            progress.finish("failed")
            _clean(config, ours, held)
        else:
            progress.finish("open")
            log.error("run %s is open: the same command goes on with it, deid abandon drops it", ours.run)
        if kept:
            log.error(
                "a list of what did not go out is kept below state, in the folder that ends in -quarantine"
            )
        raise cause from None
    progress.finish("done")
    sources = quarantine.to_pylist() if logs.debugging() else []
    return dataclasses.replace(result, sources=sources)


def new_shards(config: Config) -> pa.Table:
    """What the run is to take: rows of `storage.LISTED`; without a `state_key`, which the ledger needs, all.

    Raises:
        InputError: nothing is there.
        NothingNew: all of it was taken by runs before.
    """
    listed = planning.shards(config)
    if config.state_key is None:
        return listed
    found = ledger.open(config.state, config.state_key).compare(listed)
    log.info(
        "%d known, %d new, %d changed, %d gone", found.known, len(found.new), len(found.changed), found.gone
    )
    chosen = found.new["uri"]
    if config.input.changed == "take":
        chosen = pa.chunked_array([*chosen.chunks, *found.changed["uri"].chunks], pa.large_string())
    elif len(found.changed):
        log.warning(
            "%d shards have changed since a run took them, and are left out: input.changed: take would take them anew",
            len(found.changed),
        )
    if not len(chosen):
        raise NothingNew(
            f"nothing new: all {len(listed)} shards were taken by runs before; no release is made"
        )
    return listed.filter(pc.is_in(listed["uri"], value_set=chosen.cast(pa.string()).combine_chunks()))


def _plan(config: Config, ours: Opened, taken: pa.Table | None, progress: progresses.Writer) -> Plan:
    """The plan, made now or by the run that was killed.

    Raises:
        PromiseError: too many shards are damaged.
    """
    progress.phase("plan", 0)
    plan = planning.load(ours.state) if config.state_key is not None else None
    if plan is None:
        taken = new_shards(config) if taken is None else taken
        plan = planning.make(config, ours.secret, ours.state, taken)
    return plan


def _note(config: Config, ours: Opened, plan: Plan, quarantine: pa.Table) -> None:
    """In the ledger: what this run has taken, but for what was no more what was listed."""
    if config.state_key is None:
        return
    gone = quarantine.filter(pc.equal(quarantine["reason"], "shard_changed"))["shard"].combine_chunks()
    taken = plan.taken()
    taken = taken.filter(pc.invert(pc.is_in(taken["uri"], value_set=gone)))
    ledger.open(config.state, config.state_key).record(ours.run, taken)


def _place(config: Config) -> str:
    return storage.join(config.state, opened.CLOSING)


def _closing(config: Config) -> dict[str, Any] | None:
    """What a run left that was killed when all of it was written, and its state about to be destroyed.

    Raises:
        ConfigError: it was another configuration's.
    """
    if not storage.exists(_place(config)):
        return None
    closed: dict[str, Any] = json.loads(storage.read_bytes(_place(config)))
    opened.check(config, {"run": closed["manifest"]["run"], "config": closed["config"]})
    return closed


def _close(config: Config, closed: dict[str, Any], private: Ed25519PrivateKey, held: lease.Held) -> RunResult:
    """Destroy the state, sign, and enter the release into the catalogue; can be done again at any point, and changes
    nothing that is done."""
    held.check()
    name, place = closed["manifest"]["run"], storage.join(closed["output"], "manifest.json")
    if "destruction" not in closed:
        destruction = vault.destroy(storage.join(config.state, name), config.state_key)
        closed = closed | {"destruction": destruction}
        held.check()
        storage.write_bytes(_place(config), json.dumps(closed).encode(), overwrite=True)
    manifest = closed["manifest"] | {"destruction": closed["destruction"]}
    signed = _signed(place, manifest, None if config.signing.key is None else private.public_key())
    if signed is None:
        signed = seal.sign(manifest, private)
        held.check()
        storage.write_bytes(place, manifests.to_bytes(signed), overwrite=True)
    catalogue.add(config.output.uri, catalogue.release(storage.read_bytes(place)))
    held.check()  # else it may be another run that is open now
    opened.close(config)
    public = signed["signature"]["public_key"]
    return RunResult(name, closed["output"], closed["quarantine"], signed, public, closed["seconds"], [])


def _signed(place: str, manifest: dict[str, Any], public: Ed25519PublicKey | None) -> dict[str, Any] | None:
    """This manifest as it was signed before, by `public` or a key of the run alone; None: what is there is another."""
    try:
        found = json.loads(storage.read_bytes(place)) if storage.exists(place) else {}
        content = {name: value for name, value in found.items() if name != "signature"}
        key = public or seal.load_public(found["signature"]["public_key"])
        return found if content == manifest and seal.signed_by(found, key) else None
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError):
        return None


def _clean(config: Config, ours: Opened, held: lease.Held) -> None:
    """After a run that cannot go on: nothing of it stays, its state first. What ended it is what the user is told;
    what stays, too."""
    try:
        if config.state_key is not None:
            ledger.forget(config.state, ours.run)  # if it was killed at its end before
        ours.state.destroy()
    except Exception:  # noqa: BLE001 - what ended the run is what the user is told
        log.error("the run failed, and its state could not be deleted: delete its folder by hand")
        if config.state_key is not None:
            return  # the next run may open it, and is not to find commits of objects that are gone
    try:
        shred.everything(ours.output)
        if held.valid:  # else it may be another run that is open now
            opened.close(config)
    except DeidError:
        log.error("the run failed, and its output could not be deleted: delete its folder by hand")


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, as of a scheduler that takes the machine away, ends the block like an interruption: in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    came: list[int] = []

    def end(number: int, _: Any) -> None:
        came.append(number)
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException:
        if came:  # where Ray waits, it makes another exit of it
            raise SystemExit(143) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _passes(passes: Passes) -> Done:
    """All passes, until every surrogate that went out is shared by k people.

    Raises:
        PromiseError: fewer than k people, or a surrogate could not be taken back.
    """
    config, read = passes.config, Commits(passes.vault)
    if not passes.plan.units:
        none = Count(config.assignment.k, {}) if config.assignment.mode == "k-same" else None
        return Done(records.COMMIT.empty_table(), read, count=none)
    if not (config.two_passes or config.video):
        return Done(passes.replace(), read)
    passes.index()
    if config.video:
        passes.track()
    if not config.two_passes:
        return Done(passes.replace(), read)
    surrogates, persons = passes.assign()
    commits = passes.replace(surrogates)
    if config.assignment.mode != "k-same":
        return Done(commits, read, persons=persons)
    repairs = list(passes.repairs())
    for turn in range(1, REPAIRS + 2):
        if turn > len(repairs):  # else it was settled before the run was killed
            count = publish.recount(config, read, commits, cluster.spread)
            if not count.short:
                withheld = repairs[-1].withheld if repairs else ()
                return Done(commits, read, surrogates, count, persons, len(withheld))
            if turn > REPAIRS:
                break
            log.warning("%d surrogates are taken back", len(count.short))
            wearing = publish.wearing(read, commits, count.short, cluster.spread)
            before = repairs[-1].withheld if repairs else frozenset()
            repairs.append(Repair(turn, tuple(wearing), before | count.short))
            passes.settle(repairs[-1])
        commits = publish.renewed(commits, passes.replace(surrogates, repairs[turn - 1]))
        read = Commits(passes.vault, {**read.turns, **dict.fromkeys(repairs[turn - 1].units, turn)})
    raise PromiseError(
        f"assignment.k: {len(count.short)} surrogates are still shared by fewer than {count.k} people; nothing is "
        "released. Run again"
    )


def _reasons(plan: Plan, done: Done) -> dict[str, int]:
    """Pictures that did not go out, by code."""
    found = collections.Counter(plan.reasons())
    found.update(planning.by_name(done.commits["reasons"], "pictures"))
    return dict(sorted(found.items()))


def _quarantine(plan: Plan, done: Done) -> pa.Table:
    """Source shard, key and reason of what did not go out."""
    counts = pc.list_value_length(done.commits["reasons"])
    return planning.quarantine(
        plan, done.commits.filter(pc.greater(counts, 0))["unit"].to_pylist(), done.read
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
    shred.everything(uri, vault.KEY_OBJECT)  # of this run, before it was killed
    vault.create(uri, config.state_key).put("quarantine", tables.to_bytes(quarantine))
    return uri


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
    return hashes | {"gallery": gallery_store.digest(config.gallery, config.generator.name)}
