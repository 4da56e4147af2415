"""The price of training on de-identified pictures: a small detector and an expression classifier, tested on clear ones.

Each network is trained once on the source's pictures of one half of the people and once on each treatment's of the
same people, and is tested on the clear pictures of the other half; then the halves change sides.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import expression, learning, plots, small_classifier, small_detector
from deid.evaluation.faces import Faces
from deid.evaluation.observe import Observation
from deid.evaluation.sections import NAN, Cell, Column, Plot, Section, Table, cell
from deid.evaluation.settings import Evaluation

Floats = NDArray[np.float64]
CLEAR = "clear"
COMPARED = (
    "solid",
    "blur, strong",
    "k-Same nearest, face (published)",
)  # baselines, beside the chosen treatment
LEAST_RECALL, LEAST_BALANCED = 0.5, 0.7  # of the networks trained on clear pictures
FEWEST_FACES = 4  # of each kind, in the half that is learned from
KINDS = {"smiling": 1.0, "neutral": 0.0}

T = TypeVar("T")
Measure = Callable[[Floats], float]  # a figure over N faces that weigh so much [N]


@dataclass
class Outcome:
    """A network's figures on clear pictures of other people, and how many pictures it was trained on."""

    measures: dict[str, Measure] = field(default_factory=dict)
    pictures: int = 0  # of both halves


@dataclass(frozen=True)
class _Task:
    id: str
    title: str
    figures: dict[str, str]  # id: title
    least: tuple[str, float]  # figure, and what the network trained on clear pictures must reach
    intro: str


DETECTOR = _Task(
    "downstream.detector",
    "Face detector, tested on clear pictures",
    {"recall": "recall, IoU .5", "precision": "mean precision"},
    ("recall", LEAST_RECALL),
    "Detector: a fully convolutional network of 47 thousand weights, on scenes of 96 px with one face of 16 to 48 px; "
    "the boxes it learns are the source's. Recall: the best box of a scene overlaps the face by IoU .5; mean "
    "precision: average precision, mean over IoU .5 to .95 (COCO's).",
)
CLASSIFIER = _Task(
    "downstream.expression",
    "Smile classifier, tested on clear pictures",
    {"balanced": "balanced accuracy"},
    ("balanced", LEAST_BALANCED),
    "Classifier: smiling or neutral, a convolutional network of 44 thousand weights, on faces of 40 px.",
)


def downstream(
    faces: Faces, evaluation: Evaluation, rng: np.random.Generator, effort: float = 1.0
) -> Section:
    """Train on each of some treatments and on the source, test on clear pictures of people not trained on.

    Compared are the chosen treatment and `COMPARED`. effort: of the steps of training, this share; for trials.
    """
    wanted = dict.fromkeys((evaluation.favourite, *COMPARED))
    seen = {CLEAR: faces.clear} | {name: faces.treated[name] for name in wanted if name in faces.treated}
    side, people = learning.halves(faces.persons, rng), len(np.unique(faces.persons))
    smiling, guessed = _smiling(faces)
    seeds = rng.integers(2**31, size=2).tolist()
    detected = _detectors(faces, seen, side, seeds, effort)
    classified = _classifiers(faces, seen, side, smiling, seeds, effort)
    draws = _draws(faces, rng, evaluation.resamples)
    tables = [
        _table(task, found, draws, people) for task, found in ((DETECTOR, detected), (CLASSIFIER, classified))
    ]
    for table in tables:
        if people < learning.FEWEST:
            table.problems.append(f"{people} people are too few to train on half of them")
        table.about = {"people": str(people), "folds": "2, over people"}
    if guessed:
        tables[1].notes.append(
            f"{guessed} of {len(faces)} faces had no label: smiling or neutral is what the measuring expression "
            "network says of the clear face."
        )
    return Section("downstream", "Downstream: training on it", _intro(people), tables, _plots(tables))


def _intro(people: int) -> list[str]:
    return [
        f"Networks start from nothing and learn from one half of {people} people at a time, on the source's pictures "
        "and on each treatment's; all are tested on the clear pictures of the other half. The price is what the same "
        "network loses by learning from the treatment, with a 95 % interval over people (bootstrap, paired). Missing "
        "pictures (quarantined) are missing in training, and part of the price.",
        f"{DETECTOR.intro} {CLASSIFIER.intro} They are small, and few people are behind them: a price that is not "
        "seen here may be seen by a larger network, or with more pictures. Each was trained once: the intervals do not "
        "hold the luck of training.",
    ]


def _smiling(faces: Faces) -> tuple[Floats, int]:
    """[N] 1 smiling, 0 neutral, NaN neither; and for how many the expression network had to say it."""
    labels = np.array([KINDS.get(s.expression, NAN) for s in faces.subjects])
    happier = expression.happier(np.array([o.expression for o in faces.clear]))
    guess = np.array([not s.expression for s in faces.subjects]) & np.isfinite(happier)
    labels[guess] = happier[guess] > 0
    return labels, int(guess.sum())


def _detectors(
    faces: Faces,
    seen: dict[str, list[Observation]],
    side: NDArray[np.intp],
    seeds: Sequence[int],
    effort: float,
) -> dict[str, Outcome]:
    tested = np.flatnonzero([o.scene.size > 0 and np.isfinite(o.scene_box).all() for o in faces.clear])
    boxes = np.array([o.scene_box for o in faces.clear], np.float64)

    def learn(name: str, half: int) -> tuple[Floats, Floats] | None:
        used = [n for n in tested if side[n] != half and seen[name][n].scene.size]
        if len(used) < FEWEST_FACES or not (side[tested] == half).any():
            return None
        scenes = np.stack([seen[name][n].scene for n in used])
        steps = max(1, round(effort * small_detector.STEPS))
        network = small_detector.train(scenes, boxes[used], seeds[half], steps)
        return small_detector.detect(network, _stack(faces.clear, tested[side[tested] == half], "scene"))

    where = _where(tested, side)

    def judge(halves: tuple[tuple[Floats, Floats], tuple[Floats, Floats]]) -> dict[str, Measure]:
        hits = small_detector.hits(boxes[where], np.concatenate([h[0] for h in halves]))
        scores = np.concatenate([h[1] for h in halves])
        return {
            "recall": functools.partial(_share, hits[0, :, 0].astype(np.float64), where),
            "precision": functools.partial(_precision, hits, scores, where),
        }

    return _outcomes(seen, tested, "scene", learn, judge)


def _classifiers(
    faces: Faces,
    seen: dict[str, list[Observation]],
    side: NDArray[np.intp],
    smiling: Floats,
    seeds: Sequence[int],
    effort: float,
) -> dict[str, Outcome]:
    known = np.isfinite(smiling) & np.array([o.chip.size > 0 for o in faces.clear])
    tested, smiles = np.flatnonzero(known), smiling == 1

    def learn(name: str, half: int) -> Floats | None:
        used = [n for n in tested if side[n] != half and seen[name][n].chip.size]
        kinds = smiles[used].sum(), (~smiles[used]).sum()
        if min(kinds) < FEWEST_FACES or not (side[tested] == half).any():
            return None
        chips = np.stack([seen[name][n].chip for n in used])
        steps = max(1, round(effort * small_classifier.STEPS))
        network = small_classifier.train(chips, smiles[used], seeds[half], steps)
        return small_classifier.odds(network, _stack(faces.clear, tested[side[tested] == half], "chip"))

    where = _where(tested, side)

    def judge(halves: tuple[Floats, Floats]) -> dict[str, Measure]:
        right = (np.concatenate(halves) > 0) == smiles[where]
        return {"balanced": functools.partial(_balanced, right, smiles[where], where)}

    return _outcomes(seen, tested, "chip", learn, judge)


def _where(tested: NDArray[np.intp], side: NDArray[np.intp]) -> NDArray[np.intp]:
    """The faces that are tested, in the order in which the halves' networks see them."""
    return np.concatenate([tested[side[tested] == half] for half in (0, 1)])


def _outcomes(
    seen: dict[str, list[Observation]],
    tested: NDArray[np.intp],
    what: str,
    learn: Callable[[str, int], T | None],
    judge: Callable[[tuple[T, T]], dict[str, Measure]],
) -> dict[str, Outcome]:
    """What was learned of this (`scene` or `chip`) for each treatment on each half, judged; without figures where one
    of the halves has too few pictures."""
    jobs = [functools.partial(learn, name, half) for name in seen for half in (0, 1)]
    found = learning.side_by_side(jobs)
    made = {}
    for name, a, b in zip(seen, found[::2], found[1::2], strict=True):
        measures = {} if a is None or b is None else judge((a, b))
        made[name] = Outcome(measures, sum(getattr(seen[name][n], what).size > 0 for n in tested))
    return made


def _stack(seen: list[Observation], chosen: NDArray[np.intp], what: str) -> NDArray[np.uint8]:
    return np.stack([getattr(seen[n], what) for n in chosen])


def _share(hit: Floats, where: NDArray[np.intp], weight: Floats) -> float:
    total = weight[where].sum()
    return float((hit * weight[where]).sum() / total) if total else NAN


def _precision(hits: NDArray[np.bool_], scores: Floats, where: NDArray[np.intp], weight: Floats) -> float:
    return small_detector.precision(hits, scores, weight[where])


def _balanced(
    right: NDArray[np.bool_], smiles: NDArray[np.bool_], where: NDArray[np.intp], weight: Floats
) -> float:
    return small_classifier.balanced(right, smiles, weight[where])


def _draws(faces: Faces, rng: np.random.Generator, resamples: int) -> Floats:
    """[R, N] weights of the faces in each resample of the people."""
    people, index = np.unique(faces.persons, return_inverse=True)
    return learning.weights(len(people), rng, resamples)[:, index]


def _table(task: _Task, found: dict[str, Outcome], draws: Floats, people: int) -> Table:
    """Every figure and its price against the network that was trained on clear pictures."""
    columns = [Column(id, title, "higher") for id, title in task.figures.items()]
    prices = [
        Column(f"{id}_price", f"price: {title.partition(',')[0]}", "lower")
        for id, title in task.figures.items()
    ]
    table = Table(task.id, task.title, [*columns, *prices], row_title="trained on")
    samples = {name: _sampled(outcome, draws) for name, outcome in found.items()}
    for name, outcome in found.items():
        table.rows[name] = {}
        for column, price in zip(columns, prices, strict=True):
            value, several = samples[name].get(column.id, (NAN, np.zeros(0)))
            reference, many = samples[CLEAR].get(column.id, (NAN, np.zeros(0)))
            count = outcome.pictures, found[CLEAR].pictures
            few = "" if outcome.measures else "too few pictures to learn from"
            table.rows[name][column.id] = cell(learning.interval(value, several, people), column, *count, few)
            if name == CLEAR or not outcome.measures or not found[CLEAR].measures:
                table.rows[name][price.id] = Cell(NAN, text="reference" if name == CLEAR else few)
            else:
                table.rows[name][price.id] = cell(
                    learning.interval(reference - value, many - several, people), price, *count
                )
    table.problems += _problems(task, table)
    table.notes.append("Counts are of pictures that were trained on, both halves together.")
    return table


def _sampled(outcome: Outcome, draws: Floats) -> dict[str, tuple[float, Floats]]:
    """Each figure, and the same in every resample."""
    whole = np.ones(draws.shape[1])
    return {
        id: (measure(whole), np.array([measure(weight) for weight in draws]))
        for id, measure in outcome.measures.items()
    }


def _problems(task: _Task, table: Table) -> list[str]:
    figure, least = task.least
    value = table.rows[CLEAR][figure].value
    if value >= least:
        return []
    reached = "nothing, there are too few pictures" if np.isnan(value) else f"{value:.2f}, below {least:.2f}"
    return [
        f"trained on clear pictures it reaches {reached} ({task.figures[figure]}): the network was not trained"
    ]


def _plots(tables: Sequence[Table]) -> list[Plot]:
    made = []
    for table in tables:
        columns = [column for column in table.columns if not column.id.endswith("_price")]
        said = "; ".join(
            f"{name}: " + ", ".join(f"{row[c.id].value:.2f}" for c in columns)
            for name, row in table.rows.items()
        )
        alt = f"Bars of {' and '.join(c.title for c in columns)}, by what was trained on: {said}."
        made.append(plots.bars(table.id, alt, table, columns, "on clear pictures of other people"))
    return made
