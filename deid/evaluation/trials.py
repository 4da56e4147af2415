"""Runs of the job over the sources, made for an evaluation and thrown away with their folder."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import ray

from deid.config import Config, parse
from deid.errors import ConfigError, InputError
from deid.evaluation.corpus import Corpus, Places, paired, pictures
from deid.evaluation.options import merged
from deid.evaluation.settings import Evaluation, Trial, place
from deid.gallery import store as gallery_store
from deid.pipeline import trace
from deid.pipeline.run import run
from deid.shards import storage, webdataset

UNIT = 64  # pictures in a shard of the packed sources


def run_all(evaluation: Evaluation, corpus: Corpus, folder: Path) -> Corpus:
    """The corpus with the results of every trial, which lie in the folder, and with what the job said of each.

    Loose pictures are packed into shards in the folder first; the subject of a picture with one labelled person is in
    its sidecar as `subject`.

    Raises:
        ConfigError: settings of a trial are wrong, or the cluster has several machines: the folder is on this one.
        InputError: a trial gave no pictures.
    """
    if not evaluation.trials:
        return corpus
    if sum(node["Alive"] for node in ray.nodes()) > 1:
        raise ConfigError(
            "trials: they run in a folder of this machine, and the cluster has several; run the job, and give its "
            "output among results"
        )
    configs = {
        trial.name: configured(evaluation, trial, folder / str(n))
        for n, trial in enumerate(evaluation.trials)
    }
    uri, keys = place(evaluation.source.uri), {key: key for key in corpus.sources}
    if not corpus.shards:
        uri = str(folder / "sources")
        keys = pack(corpus, uri)
    made = dataclasses.replace(corpus, results=dict(corpus.results), notes=copy.deepcopy(corpus.notes))
    for name, config in configs.items():
        moved = config.model_copy(update={"input": config.input.model_copy(update={"uri": uri})})
        made.results[name], made.notes[name] = _run(name, moved, keys, corpus.sources)
    return made


def configured(evaluation: Evaluation, trial: Trial, folder: Path) -> Config:
    """The job's configuration of a trial: its settings over the defaults, the places and a seed."""
    base: dict[str, Any] = {
        "models": evaluation.models.model_dump(),
        "cluster": evaluation.cluster.model_dump(),
        "seed": evaluation.seed,
    }
    places: dict[str, Any] = {name: {"uri": str(folder / name)} for name in ("input", "output")}
    places["state"] = str(folder / "state")
    return parse(merged(merged(base, trial.settings), places), f"trials: {trial.name}")


def _run(name: str, config: Config, keys: dict[str, str], sources: Places) -> tuple[Places, dict[str, Any]]:
    """keys: of the sources, by their key in the shards."""
    result = run(config)
    of = {
        keys[pair.key]: pair.output
        for pair in trace.pairs(config, result)
        if pair.output and pair.key in keys
    }
    if not of:
        raise InputError(f"trials: {name}: the job let no picture out")
    found, _ = pictures(result.output, f"trials: {name}")
    places, notes = paired(of, found, sources, f"trials: {name}", "the run's own")
    notes |= about(result.manifest) | {"seconds": round(result.seconds, 1)}
    return places, notes


def about(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a run's manifest says that belongs in a report: people behind a surrogate, counts, settings, models."""
    names = {"people": "people", "counts": "counts", "settings": "config"}
    said = {name: manifest[key] for name, key in names.items() if key in manifest}
    models = manifest.get("models")
    used = models.get("gallery") if isinstance(models, dict) else None
    if used not in (None, gallery_store.digest(None)) and isinstance(said.get("settings"), dict):
        said["settings"] = said["settings"] | {"gallery": "another one than the package's"}
    return said


def manifest_of(uri: str) -> dict[str, Any] | None:
    """The manifest in a run's folder, or one folder below it; None where there is none, or several."""
    found = storage.list_files(uri, "manifest.json")
    if len(found) != 1:
        return None
    try:
        manifest = json.loads(storage.read_bytes(found[0].uri))
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) else None


def pack(corpus: Corpus, uri: str) -> dict[str, str]:
    """Write the sources as shards below `uri`; the key of each source by its key there, which is its number."""
    keys = {f"{number:08d}": key for number, key in enumerate(corpus.sources)}
    names = list(keys)
    for start in range(0, len(names), UNIT):
        samples = ((name, _members(corpus, keys[name])) for name in names[start : start + UNIT])
        storage.write_bytes(storage.join(uri, f"{start // UNIT:05d}.tar"), webdataset.write_shard(samples))
    return keys


def _members(corpus: Corpus, key: str) -> dict[str, bytes]:
    where = corpus.sources[key]
    people = {label.person for label in (corpus.labels or {}).get(key, [])}
    sidecar = {"json": json.dumps({"subject": people.pop()}).encode()} if len(people) == 1 else {}
    return {where.extension: where.read()} | sidecar
