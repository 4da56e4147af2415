"""One evaluation: look at every picture, attack, measure what is kept, write the report."""

import datetime
import hashlib
import importlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import ray.exceptions

import deid
from deid import log as logs
from deid.evaluation import corpus, look, options, report, sheets, tradeoff
from deid.evaluation.faces import Faces
from deid.evaluation.sections import Section
from deid.evaluation.settings import Evaluation, place
from deid.evaluation.verdict import Verdict
from deid.pipeline import cluster
from deid.pipeline.foreseen import foreseen
from deid.pipeline.shield import shielded

log = logs.logger(__name__)

# Module and function of each part, in the order of the report; those that take longest are begun first.
PARTS = {
    "privacy": "attacks:privacy",
    "inversion": "inversion:inversion",
    "utility": "keeping:utility",
    "downstream": "downstream:downstream",
    "naturalness": "naturalness:naturalness",
    "composite": "composite_score:composite",
    "fairness": "fairness:fairness",
    "explain": "explain:explain",
}
METHOD = Path(__file__).parent / "data" / "method.png"
SHOWN = 6  # pairs on a sheet
LONGEST = ("downstream", "inversion", "privacy", "fairness", "explain")


@dataclass(frozen=True)
class Evaluated:
    output: str  # URI of the folder
    sections: list[Section]
    verdict: Verdict
    seconds: float


@shielded("evaluate")
def run(evaluation: Evaluation) -> Evaluated:
    """Measure what the evaluation names, and write report.html, evaluation.json and the plots.

    Raises:
        DeidError: each kind with its own exit code; see `deid.errors`.
    """
    try:
        return _run(evaluation)
    except ray.exceptions.RayError as error:
        raise foreseen(error) from None


def _run(evaluation: Evaluation) -> Evaluated:
    begun = time.perf_counter()
    look.check(evaluation)
    with cluster.session(evaluation.cluster):
        cluster.configure(evaluation.cluster)
        sources = corpus.read(evaluation)
        looked = look.look(evaluation, sources)
        faces, notes = looked.faces, looked.notes
        seconds = sum(looked.seconds.values())
        log.info("looked at %d faces in %d treatments: %d s", len(faces), len(faces.treated), seconds)
        sections = _sections(faces, evaluation, notes)
    sections.append(tradeoff.tradeoff(sections, faces, evaluation, notes))
    pictures: dict[str, Any] = {"sheets": _sheets(evaluation, sources, notes)}
    if (
        options.of(evaluation.favourite, evaluation, notes) is not None
    ):  # else another tool's pictures are judged
        pictures["method_png"] = METHOD.read_bytes()
    seconds = time.perf_counter() - begun
    about = _about(faces, evaluation, notes) | pictures | {"seconds": round(seconds)}
    hidden = {*sources.sources, *faces.persons.tolist()}
    verdict = report.write(sections, evaluation, about, place(evaluation.output), hidden)
    return Evaluated(place(evaluation.output), sections, verdict, seconds)


def _sheets(
    evaluation: Evaluation, sources: corpus.Corpus, notes: dict[str, dict[str, Any]]
) -> list[tuple[str, bytes]]:
    """Before and after: of sources that may be shown, where the chosen treatment's pictures are at hand; else of
    fictional people."""
    name = evaluation.favourite
    there = sources.results.get(name, {})
    keys = sorted(sources.shown(evaluation.show) & set(there))
    if keys:
        chosen = [keys[n] for n in np.linspace(0, len(keys) - 1, min(SHOWN, len(keys))).round().astype(int)]
        decoded = [[corpus.decoded(side[key].read()) for side in (sources.sources, there)] for key in chosen]
        pairs = [(a.pixels, b.pixels) for a, b in decoded if a and b and a.pixels.shape == b.pixels.shape]
        if pairs:
            return [
                (f"Sources, as the configuration allows them to be shown, and {name}.", sheets.sheet(pairs))
            ]
    if not {"settings", "changes"} & set(notes[name]):
        return []
    settings = notes[name].get("changes", notes[name].get("settings"))
    made = sheets.synthetic_sheet(evaluation.models, settings, evaluation.seed)
    return [
        (
            f"Fictional people, treated with the settings of {name}; each has a surrogate of his own here.",
            made,
        )
    ]


def _sections(faces: Faces, evaluation: Evaluation, notes: dict[str, dict[str, Any]]) -> list[Section]:
    """Every part, as a Ray task each."""
    task: Any = ray.remote(num_cpus=1)(_part)
    shared = [ray.put(given) for given in (faces, evaluation, notes)]
    order = sorted(PARTS, key=lambda name: (*LONGEST, name).index(name))
    flying = {name: task.remote(name, *shared) for name in order}
    return [ray.get(flying[name]) for name in PARTS]


@shielded("evaluate")
def _part(name: str, faces: Faces, evaluation: Evaluation, notes: dict[str, dict[str, Any]]) -> Section:
    module, _, function = PARTS[name].partition(":")
    measure = getattr(importlib.import_module(f"deid.evaluation.{module}"), function)
    begun, rng = time.perf_counter(), np.random.default_rng(evaluation.seed)
    given: dict[str, tuple[Any, ...]] = {
        "privacy": (faces, evaluation, notes, rng),
        "explain": (evaluation, rng),
    }
    section: Section = measure(*given.get(name, (faces, evaluation, rng)))
    section.data["seconds"] = round(time.perf_counter() - begun, 1)
    return section


def _about(faces: Faces, evaluation: Evaluation, notes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was measured, in numbers and settings that name nothing of the source."""
    settings = evaluation.model_dump(mode="json")
    return {
        "title": evaluation.title,
        "made": datetime.date.today().isoformat(),
        "deid": deid.__version__,
        "source": {
            "pictures": len({s.picture for s in faces.subjects}),
            "faces": len(faces),
            "people": len(set(faces.persons.tolist())),
            "labelled": evaluation.source.labels is not None,
        },
        "chosen": evaluation.favourite,
        "treatments": {name: notes.get(name, {}) for name in faces.treated},
        "recognizers": [{"name": a.name, "own": a.own, "metric": a.metric} for a in faces.attackers],
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "unpaired": {name: n["sources"] - n["paired"] for name, n in notes.items() if "paired" in n},
        "thresholds": evaluation.thresholds.model_dump(mode="json"),
        "digest": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
    }
