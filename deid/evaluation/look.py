"""From an evaluation to its faces: trials are run, then every source and its results are looked at, in Ray."""

import collections
import pickle
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy

from deid.errors import InputError
from deid.evaluation import expression, labels, looker, skin, trials
from deid.evaluation.baselines import configured
from deid.evaluation.corpus import Corpus
from deid.evaluation.faces import Attacker, Faces, Subject
from deid.evaluation.labels import Label
from deid.evaluation.looker import Job, Looker, Seen
from deid.evaluation.observe import Observation
from deid.evaluation.recognizers import OnnxRecognizer
from deid.evaluation.settings import BASELINES, Evaluation, place
from deid.models.store import Store
from deid.pipeline import cluster, parts
from deid.pipeline.run import secret_of
from deid.pipeline.shield import shielded

MEASURING = ("blazeface", "fer_expression", "iris", "mtcnn")  # models beside the pipeline's
BLOCKS = 1000  # of pictures that are handed out at most
LEAST_SMILES = 5  # smiling and neutral faces from which the smile's threshold is of the corpus itself


@dataclass
class Looked:
    """What looking gave.

    notes: by treatment, for the report: `settings` of baselines, trials and runs, `people` behind a surrogate and
        `counts` from a run's manifest, how many pictures were paired, `anonymizers` that baselines ended with, and
        `faults`; under "sources" the same of the sources. No key and no person is among them.
    seconds: by what was done.
    """

    faces: Faces
    notes: dict[str, dict[str, Any]]
    seconds: dict[str, float]


def attackers(evaluation: Evaluation) -> list[Attacker]:
    """The pipeline's own recognizer, then those of the evaluation.

    Raises:
        ConfigError: one of them cannot be read, or two have one name.
    """
    config = configured({}, evaluation.models)
    made = [Attacker(config.embedder.name, "euclidean", True)]
    return made + [Attacker(one.name, one.metric, False) for one in looker.recognizers(evaluation, config)]


def check(evaluation: Evaluation) -> None:
    """Everything but the pictures is right: settings of trials, recognizers (which are loaded once), licences.

    Raises:
        ConfigError, ModelError: with the setting to change.
    """
    for one in looker.recognizers(evaluation, configured({}, evaluation.models)):
        OnnxRecognizer(one)
    for name in evaluation.chosen_baselines:
        parts.check(configured(BASELINES[name], evaluation.models))
    for trial in evaluation.trials:
        parts.check(trials.configured(evaluation, trial, Path("trial")))
    Store(evaluation.models).check_accepted(list(MEASURING))


@shielded("evaluate")
def look(evaluation: Evaluation, corpus: Corpus) -> Looked:
    """Run the trials, look at all pictures; results of trials and templates are in no file when it ends.

    Raises:
        DeidError: settings, models or storage are wrong, or there is no face in any source.
    """
    check(evaluation)
    begun = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="deid-trials-") as folder,
        cluster.session(evaluation.cluster),
    ):
        cluster.configure(evaluation.cluster)
        corpus = trials.run_all(evaluation, corpus, Path(folder))
        between = time.perf_counter()
        seen = _all(evaluation, corpus)
    if not any(o.score for one in seen for o in one.clear):
        raise InputError("source: no face was found in any picture")
    seconds = {"trials": between - begun, "looking": time.perf_counter() - between}
    return Looked(assembled(evaluation, corpus, seen), _notes(evaluation, corpus, seen), seconds)


def jobs(corpus: Corpus) -> list[Job]:
    """A job for each source picture, in the order of their keys."""
    return [
        Job(
            number,
            key,
            where,
            None if corpus.labels is None else corpus.labels[key],
            {name: places.get(key) for name, places in corpus.results.items()},
        )
        for number, (key, where) in enumerate(sorted(corpus.sources.items()))
    ]


def _all(evaluation: Evaluation, corpus: Corpus) -> list[Seen]:
    """Of every source picture, in their order."""
    rows = [{"number": job.number, "job": pickle.dumps(job)} for job in jobs(corpus)]
    actors = min(evaluation.actors or max(1, int(ray.cluster_resources().get("CPU", 1))), len(rows))
    secret = secret_of(configured({"seed": evaluation.seed}, evaluation.models))
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS)).map_batches(
        Looker,
        fn_constructor_args=(evaluation, secret),
        compute=ActorPoolStrategy(size=actors),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
    )
    seen = [pickle.loads(row["seen"]) for row in dataset.iter_rows()]
    return sorted(seen, key=lambda one: int(one.number))


def assembled(evaluation: Evaluation, corpus: Corpus, seen: list[Seen]) -> Faces:
    """The faces of all pictures in one order, and who of them is enrolled."""
    keys = sorted(corpus.sources)
    clear = [o for one in seen for o in one.clear]
    owners = [(keys[one.number], label) for one in seen for label in one.labels]
    sizes = np.array([np.nan_to_num(np.prod(o.face_box[2:] - o.face_box[:2])) for o in clear])
    roles = labels.roles([label for _, label in owners], sizes)
    subjects = [
        _subject(key, label, o, number, *role)
        for number, ((key, label), o, role) in enumerate(zip(owners, clear, roles, strict=True))
    ]
    names = evaluation.treatments
    return Faces(
        subjects,
        clear,
        [o for one in seen for o in one.grey],
        {name: [o for one in seen for o in one.treated.get(name, [])] for name in names},
        {name: [s for one in seen for s in one.seams.get(name, [])] for name in names},
        attackers(evaluation),
        smile_threshold(subjects, clear),
    )


def _subject(
    key: str, label: Label | None, seen: Observation, number: int, enrolled: bool, probe: bool
) -> Subject:
    """What the label says, and where it says nothing, what the heads of the attributes say of the clear face."""
    said = "unknown" if not np.isfinite(seen.sex) else ("male" if seen.sex >= 0.5 else "female")
    known = label or Label(key, f"face {number}")
    return Subject(
        key,
        known.person,
        enrolled,
        probe,
        said if known.sex == "unknown" else known.sex,
        float(known.age if np.isfinite(known.age) else seen.age),
        float(skin.ita(seen.lab)),
        known.expression,
    )


def smile_threshold(subjects: list[Subject], clear: list[Observation]) -> float:
    """The threshold of `expression.smile` that tells the smiling from the neutral clear faces best; the published one
    where there are fewer than 5 of either."""
    told = [n for n, s in enumerate(subjects) if s.expression in labels.EXPRESSIONS]
    chosen = [n for n in told if np.isfinite(clear[n].mesh).all()]
    smiling = np.array([subjects[n].expression == "smiling" for n in chosen], np.bool_)
    if min(smiling.sum(), (~smiling).sum()) < LEAST_SMILES:
        return expression.SMILING
    return expression.threshold(expression.smile(np.array([clear[n].mesh for n in chosen])), smiling)[0]


def _notes(evaluation: Evaluation, corpus: Corpus, seen: list[Seen]) -> dict[str, dict[str, Any]]:
    sums: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for one in seen:
        for name, counts in one.counts.items():
            sums[name].update(counts)
    notes = {name: dict(corpus.notes.get(name, {})) for name in evaluation.treatments}
    for result in evaluation.results:
        manifest = trials.manifest_of(place(result.uri))
        notes[result.name] |= {} if manifest is None else trials.about(manifest)
    for name in evaluation.chosen_baselines:
        notes[name]["settings"] = BASELINES[name]
    for trial in evaluation.trials:
        notes[trial.name]["changes"] = trial.settings
    sources = {"pictures": len(corpus.sources), "without a label": corpus.unlabelled}
    notes["sources"] = sources | {"faces": sum(len(one.clear) for one in seen)}
    for name, counts in sums.items():
        for title, faulty in (("faults", True), ("anonymizers", False)):
            some = {what: n for what, n in sorted(counts.items()) if n and (what in looker.FAULTS) == faulty}
            notes[name or "sources"] |= {title: some} if some else {}
    return notes
