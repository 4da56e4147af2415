"""The run that is open in a state folder: what a killed run leaves, and the same command goes on with.

`open.json` names it, and says with which configuration and code it was begun; what else it knows lies encrypted in its
own folder of the state, with its secret. Whoever calls these holds the lease of the state.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deid import log as logs
from deid.config import Config
from deid.errors import ConfigError, InputError
from deid.gallery import store as gallery_store
from deid.pipeline import ledger, parts, progress
from deid.privacy import manifest, shred, vault
from deid.privacy.vault import Vault
from deid.shards import storage

NAME, CLOSING = "open.json", "closing.json"
_FREE = ("stages", "cluster", "signing")  # sections that may differ when a run goes on

log = logs.logger(__name__)


@dataclass(frozen=True)
class Opened:
    run: str  # random id, hex
    output: str  # URI of its folder
    state: Vault
    secret: bytes = field(repr=False)


def close(config: Config) -> None:
    """The open run is over: nothing of it is left to go on with.

    `open.json` goes first: were it there alone, it would stand for a run of which only remains are to be deleted.
    """
    for name in (NAME, CLOSING):
        storage.delete(storage.join(config.state, name))


def digest(config: Config) -> str:
    """Of all settings that the result depends on, SHA-256 in hex."""
    values = config.model_dump(mode="json", exclude=set(_FREE))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _code(config: Config) -> str:
    """SHA-256 (hex) of what works on the pictures and is no setting: code, libraries, gallery, parts by class path."""
    found = {
        "deid": manifest.code_sha256(),
        "gallery": gallery_store.digest(config.gallery, config.generator.name),
    }
    found |= manifest.versions() | parts.foreign(config)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def find(config: Config) -> dict[str, Any] | None:
    """What `open.json` says; None: no run is open.

    Raises:
        InputError: it is damaged.
    """
    place = storage.join(config.state, NAME)
    if not storage.exists(place):
        return None
    try:
        entry: dict[str, Any] = json.loads(storage.read_bytes(place))
        return {name: str(entry[name]) for name in ("run", "output", "config", "code", "key")}
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{place} is damaged; delete it, and the run's own folder beside it and below output.uri"
        ) from None


def latest(config: Config) -> str:
    """Id of the open run, or of the one that was seen last.

    Raises:
        InputError: there is none.
    """
    entry = find(config)
    if entry is not None:
        return entry["run"]
    seen = progress.runs(config.state)
    if not seen:
        raise InputError(f"{config.state}: no run was begun there")
    return max(seen, key=lambda found: found.updated).run


def begin(config: Config, secret: bytes) -> Opened:
    """A new run, which is open from now on. The state is its own before anything names it."""
    run = secrets.token_hex(8)
    output = storage.join(config.output.uri, run)
    entry = {"run": run, "output": output, "config": digest(config), "code": _code(config)}
    entry["key"] = "memory" if config.state_key is None else "kept"
    storage.write_bytes(storage.join(config.state, NAME), json.dumps(entry).encode())
    state = vault.create(storage.join(config.state, run), config.state_key)
    if config.state_key is not None:
        state.put("secret", secret)
    return Opened(run, output, state, secret)


def resume(config: Config) -> Opened | None:
    """The open run; None where there is none, or what one left is of no use and was deleted.

    Raises:
        ConfigError: it was begun with other settings, or by other code, or `state_key` is another.
    """
    entry = find(config)
    if entry is None:
        return None
    state = storage.join(config.state, entry["run"])
    if entry["key"] == "memory":
        log.warning(
            "a run that had no state_key was killed here: what it left is deleted, and all is done anew"
        )
        _drop(config, entry)
        return None
    if config.state_key is not None and not storage.exists(storage.join(state, vault.KEY_OBJECT)):
        _drop(config, entry)  # killed while it began
        return None
    check(config, entry)
    if entry["code"] != _code(config):
        raise ConfigError(
            f"state: run {entry['run']} is open there and was begun by another version of deid or of a library, or "
            "with another gallery or part under the same name; end it with those, or drop it: deid abandon"
        )
    opened = vault.open(state, config.state_key)
    if not opened.has("secret"):
        _drop(config, entry)
        return None
    return Opened(entry["run"], entry["output"], opened, opened.get("secret"))


def check(config: Config, entry: Mapping[str, Any]) -> None:
    """Raises ConfigError where the open run, of which `entry` has id and `digest`, was begun with other settings."""
    if entry["config"] != digest(config):
        raise ConfigError(
            f"state: run {entry['run']} is open there and was begun with other settings; run it with those to its end, "
            "or drop it: deid abandon"
        )


def abandon(config: Config) -> str | None:
    """Delete what the open run left in state and output; its id, None where none is open.

    Raises:
        InputError: it has written its whole release, and may be in the catalogue.
    """
    entry = find(config)
    if storage.exists(storage.join(config.state, CLOSING)):
        raise InputError(f"{config.state}: the run has written its release; the same command ends it")
    if entry is not None:
        _drop(config, entry)
    return None if entry is None else entry["run"]


def _drop(config: Config, entry: dict[str, Any]) -> None:
    ledger.forget(config.state, entry["run"])  # if it was killed at its end
    shred.everything(storage.join(config.state, entry["run"]), vault.KEY_OBJECT)
    shred.everything(entry["output"])
    close(config)
