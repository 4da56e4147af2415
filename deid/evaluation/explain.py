"""What carries identity before and after, shown on fictional people, and what else of them is kept."""

from collections.abc import Mapping, Sequence

import numpy as np

from deid.config import Options
from deid.evaluation import contribution, expression, heatmap, inprocess, skin, surrogates, synthetic
from deid.evaluation.contribution import BEFORE, OTHERS, PARTS, PERSON, SAME, STRANGERS, Example, Shares
from deid.evaluation.inprocess import Job
from deid.evaluation.observe import Observation
from deid.evaluation.recognizers import EmbedderRecognizer, OnnxRecognizer, Recognizer, load_config
from deid.evaluation.seam import Seam
from deid.evaluation.sections import Cell, Column, Section, Table, cell, slug
from deid.evaluation.settings import BASELINES, Evaluation
from deid.faces.appearance import LOOKS
from deid.faces.attributes import AttributeHeads
from deid.interfaces import Face

COLUMNS = (
    Column(BEFORE, "before: two pictures of the person", digits=2),
    Column(PERSON, "after: result against the person", digits=2),
    Column(SAME, "after: two results of the person", digits=2),
    Column(STRANGERS, "control: pictures of two people", digits=2),
    Column(OTHERS, "control: result against other people", digits=2),
)
KEPT = {  # of `surrogates.METRICS`: what is shown of it, and digits
    "yaw": ("yaw changed, degrees", 1),
    "pitch": ("pitch changed, degrees", 1),
    "roll": ("roll changed, degrees", 1),
    "landmarks": ("eyes, nose, mouth moved, over eye distance", 3),
    "smile_mesh": ("smiling or neutral as before", 2),
    "sex": ("apparent sex as before", 2),
    "age": ("apparent age changed, years", 1),
    "skin": ("skin tone (ITA) changed, degrees", 1),
}
INTRO = (
    "Every region of the head is taken out of a picture in turn, and the figure is how far the similarity to another "
    "picture falls: 1 is the whole way from two pictures of one person to pictures of two people. Before, it shows "
    "what a recognizer goes by; after, against the person, no more should be left than in the controls.",
    "The people are fictional, drawn by the generator that also draws the surrogates. No picture of the source is "
    "shown here, and these figures explain the method: they do not measure how well it protects the source.",
)
KNOWN = "They were treated by the settings of {name}"
UNKNOWN = "How {name} was made is not known here, so they were treated by the job's default settings"
ONE_EACH = ", but with a surrogate for each person, since so few people fill no group."


def explain(evaluation: Evaluation, rng: np.random.Generator, examples: int = 4) -> Section:
    """Heat maps of what carries identity, and what the surrogate keeps, on fictional people.

    They are treated by the settings of the chosen treatment where these are known, else by the job's defaults; with one
    surrogate a person, since the examples are too few to share one.

    Args:
        examples: people, two at least: without another there are no strangers.

    Raises:
        ConfigError, ModelError: a setting is wrong, a model is missing or its licence is not accepted.
    """
    if examples < 2:
        raise ValueError("two examples at least are needed: the others are the strangers")
    recognizers = [OnnxRecognizer(load_config(path)) for path in evaluation.recognizers]
    settings, how = treatment(evaluation)
    mode = {"mode": "keyed-random", "subject": None}
    config = inprocess.configuration(evaluation.models, settings, assignment=mode)
    job = Job(config, rng.bytes(32))
    eyes = job.analyse if job.analyse.segmenter else inprocess.eyes(evaluation.models)
    people = synthetic.sitters(evaluation.models, int(rng.integers(2**31)), examples + synthetic.SPARE)
    chosen = synthetic.chosen(people, eyes, examples)
    done = contribution.examples(job, eyes, [person.photographs for person in chosen])
    own = EmbedderRecognizer(job.analyse.embedder, config.embedder.name)
    attackers: list[Recognizer] = [own, *recognizers]
    found = {attacker.name: contribution.shares(attacker, done) for attacker in attackers}
    section = Section(
        "explain",
        "What carries identity, before and after",
        [*INTRO, how + (ONE_EACH if config.two_passes else ".")],
    )
    section.tables = [_regions(name, part, rng, evaluation.resamples) for name, part in found.items()]
    section.tables += [_whole(found, rng, evaluation.resamples), _kept(done, rng, evaluation.resamples)]
    for number, example in enumerate(done):
        maps = {c.id: np.mean([part.falls[c.id][number] for part in found.values()], axis=0) for c in COLUMNS}
        section.plots.append(heatmap.plot(number + 1, example, maps))
    section.data = {"people": len(done), "gap": {name: part.gap for name, part in found.items()}}
    return section


def treatment(evaluation: Evaluation) -> tuple[Options, str]:
    """The settings of the chosen treatment, those of the job where they are not known; and which they are, in words."""
    name = evaluation.favourite
    known: Mapping[str, Options] = BASELINES | {trial.name: trial.settings for trial in evaluation.trials}
    said = KNOWN if name in known else UNKNOWN
    return known.get(name, {}), said.format(name=f"“{name}”")


def _regions(name: str, part: Shares, rng: np.random.Generator, resamples: int) -> Table:
    table = Table(f"explain.regions.{slug(name)}", f"Part of each region in identity: {name}", list(COLUMNS))
    table.about, table.row_title = {"recognizer": name}, "region"
    for number, region in enumerate(PARTS):
        table.rows[region] = {c.id: _cell(part.falls[c.id][:, number], c, rng, resamples) for c in COLUMNS}
    table.notes.append(
        f"Means over {len(part.levels[BEFORE])} fictional people, intervals over these people."
    )
    table.notes.append(
        "Regions overlap in what they tell and differ in size: the figures need not add up to 1. Below 0, the pictures "
        "are more alike without the region."
    )
    return table


def _whole(found: dict[str, Shares], rng: np.random.Generator, resamples: int) -> Table:
    columns = list(COLUMNS[:3])
    table = Table("explain.whole", "Similarity of whole pictures: 1 one person, 0 two people", columns)
    table.row_title = "recognizer"
    for name, part in found.items():
        table.rows[name] = {c.id: _cell(part.levels[c.id], c, rng, resamples) for c in columns}
    table.notes.append("Below 0, the result is less like its person than other people are.")
    return table


def _cell(values: contribution.Floats, column: Column, rng: np.random.Generator, resamples: int) -> Cell:
    known = int(np.isfinite(values).sum())
    estimate = surrogates.bootstrap(values, np.arange(len(values)), "mean", rng, resamples)
    return cell(estimate, column, known, len(values), "" if known else "nothing to measure")


def _single(value: float) -> Cell:
    return Cell(value, text="nothing to measure" if np.isnan(value) else "")


def _kept(done: Sequence[Example], rng: np.random.Generator, resamples: int) -> Table:
    """What the results keep of their sources, person by person, beside how far apart they are in identity."""
    before, after = (
        [_observed(s) for s in side] for side in ([e.a for e in done], [e.result_a for e in done])
    )
    none = [Seam(np.nan, np.nan)] * len(done)
    values = surrogates.compare(before, after, none, expression.SMILING)
    columns = [Column(name, title, digits=digits) for name, (title, digits) in KEPT.items()]
    shown = {name: values[name] for name in KEPT}
    shown["hair"] = np.array([_hair_apart(e.a.face, e.result_a.face) for e in done])
    shown["apart"] = np.array([_apart(e.a.face, e.result_a.face) for e in done])
    shown["apart_same"] = np.array([_apart(e.a.face, e.b.face) for e in done])
    columns += [
        Column("hair", "hair colour changed, L*a*b* distance", digits=1),
        Column("apart", "identity: distance from source to result", digits=2),
        Column("apart_same", "identity: between two photographs of the person", digits=2),
    ]
    table = Table("explain.kept", "What is kept, and what is not", columns, row_title="person")
    for number in range(len(done)):
        table.rows[f"example {number + 1}"] = {c.id: _single(float(shown[c.id][number])) for c in columns}
    table.rows["mean"] = {c.id: _cell(shown[c.id], c, rng, resamples) for c in columns}
    table.notes.append("Distances are Euclidean, between embeddings of the pipeline's own recognizer.")
    return table


def _observed(shown: contribution.Shown) -> Observation:
    """As far as `surrogates.compare` is asked for; nothing where no face was found."""
    face = shown.face
    if not shown.found or face.embedding is None:
        return Observation()
    said = AttributeHeads.load().predict(face.embedding[None])
    return Observation(
        score=face.score,
        mesh=shown.mesh,
        mesh_score=face.mesh_score,
        lab=skin.skin_lab(shown.picture, shown.mesh),
        sex=float(said["sex"][0]),
        age=float(said["age"][0]),
    )


def _hair_apart(a: Face, b: Face) -> float:
    """Distance of mean hair colours in L*a*b*; NaN where one of them has no hair, or was not taken apart."""
    if a.looks is None or b.looks is None:
        return float("nan")
    place = LOOKS.index("hair_l")
    return float(np.linalg.norm(a.looks[place : place + 3] - b.looks[place : place + 3]))


def _apart(a: Face, b: Face) -> float:
    if a.embedding is None or b.embedding is None:
        return float("nan")
    return float(np.linalg.norm(a.embedding - b.embedding))
