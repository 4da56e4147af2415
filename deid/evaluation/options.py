"""Settings of a treatment over the job's defaults, from an evaluation or a run's manifest."""

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

from deid.config import Config, Options, parse
from deid.errors import ConfigError
from deid.evaluation.settings import BASELINES, Evaluation

# Of a configuration that nothing is run with.
PLACES: dict[str, Any] = {"input": {"uri": "data/raw"}, "output": {"uri": "data/deid"}, "state": "data/state"}
# Not of a treatment: places, keys, acceptance of licences, the machine, and the seed, which no release may have.
NOT_OURS = ("input", "output", "state", "state_key", "signing", "models", "stages", "cluster", "seed")
NO_OPTIONS = hashlib.sha256(b"{}").hexdigest()  # of a part, in a manifest


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested settings with changes in it."""
    made = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = merged(made[key], value) if both else value
    return made


def of(name: str, evaluation: Evaluation, notes: Mapping[str, Mapping[str, Any]]) -> Options | None:
    """What of a treatment's settings differs from the job's defaults; None where the job did not make it, as far as
    anybody knows, or where it was made with a file (a gallery, a model) that only this machine has.

    notes: by treatment; `settings` are those in the manifest of a run.
    """
    trials = {trial.name: trial.settings for trial in evaluation.trials}
    if name in trials:
        made = differing(trials[name])
        return None if _names_files(made) else made
    if name in evaluation.chosen_baselines:
        alone = {"mode": "per-face"}  # see `baselines.configured`
        return differing(BASELINES[name] | {"assignment": alone | BASELINES[name].get("assignment", {})})
    return of_run(notes.get(name, {}).get("settings"))


def of_run(config: Any) -> Options | None:
    """The same of `config` in a run's manifest; None where it is none, or does not tell what a part's options were."""
    if not isinstance(config, Mapping) or config.get("gallery"):
        return None
    parts = [value for value in config.values() if isinstance(value, Mapping)]
    if any(part.get("options_sha256", NO_OPTIONS) != NO_OPTIONS for part in parts):
        return None
    known = {key: _known(key, value) for key, value in config.items() if key in Config.model_fields}
    try:
        return differing(known) if known else None
    except ConfigError:  # of another version, or of another tool that writes a manifest.json, too
        return None


def _names_files(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_names_files, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_names_files, value))
    return isinstance(value, str) and ("/" in value or "\\" in value)


def _known(section: str, value: Any) -> Any:
    """Without what a manifest adds to a section."""
    fields = getattr(Config.model_fields[section].annotation, "model_fields", None)
    if fields is None or not isinstance(value, Mapping):
        return value
    return {key: inner for key, inner in value.items() if key in fields}


def differing(settings: Mapping[str, Any]) -> Options:
    """Of a treatment's settings those that differ from the job's defaults.

    Raises:
        ConfigError: one is no setting of this version.
    """
    own = {name: value for name, value in settings.items() if name not in NOT_OURS}
    made = parse(PLACES | own, "settings of a treatment").model_dump(mode="json")
    found: Options = _difference(made, parse(PLACES).model_dump(mode="json"))
    return found


def _difference(made: Any, default: Any) -> Any:
    if not (isinstance(made, dict) and isinstance(default, dict)):
        return made
    return {n: _difference(v, default.get(n)) for n, v in made.items() if v != default.get(n)}


def configured(settings: Mapping[str, Any]) -> Config:
    """The job's configuration with these settings, and placeholders for its places."""
    return parse(PLACES | dict(settings))


def people(settings: Mapping[str, Any]) -> int:
    """People promised behind a surrogate; 1 where nothing is promised."""
    config = configured(settings)
    return config.assignment.k if config.two_passes and config.assignment.mode == "k-same" else 1
