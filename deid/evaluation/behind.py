"""How many people stand behind a surrogate, as somebody counts who has the de-identified pictures and a recognizer.

Faces that the recognizer takes for one person's are a cluster (average linkage). Its threshold is the one at which the
clear faces have their equal error rate, so that on faces that nobody changed each person is a cluster.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering

from deid.evaluation.faces import Attacker, Faces
from deid.evaluation.observe import Observation
from deid.evaluation.reid import Estimate, Metric, Templates, similarity
from deid.evaluation.sections import NAN, Cell, Column, Table, cell, slug
from deid.evaluation.settings import Evaluation
from deid.evaluation.surrogates import bootstrap
from deid.evaluation.table import CLEAR

MOST_FACES = 4000  # that are compared with each other
LEAST_CLEAR_ALONE = 0.8  # share of people who must be alone in a cluster as they are
COLUMNS = [
    Column("clusters", "surrogates told apart", digits=0),
    Column("least", "people behind one, least", "higher", digits=0),
    Column("median", "median", "higher", digits=1),
    Column("alone", "people alone behind one", "lower"),
    Column("guess", "best guess, knowing who is behind it", "lower"),
    Column("most", "the same, naming who is there most often", "lower"),
    Column("said_least", "least, as the run says", digits=0),
    Column("said_median", "median, as the run says", digits=1),
]


def table(
    faces: Faces,
    evaluation: Evaluation,
    attacker: Attacker,
    notes: dict[str, dict[str, Any]],
    rng: np.random.Generator,
) -> Table:
    """People behind each surrogate, of the clear faces (a control) and of every treatment."""
    made = Table(
        f"privacy.k.{slug(attacker.name)}",
        f"People behind a surrogate, as {attacker.name} tells surrogates apart",
        COLUMNS,
        about={"recognizer": attacker.name, "setting": "k in practice"},
    )
    chosen = _chosen(faces, rng)
    clear = faces.templates(attacker, faces.clear, chosen)
    threshold = equal_error_threshold(clear, attacker.metric)
    if np.isnan(threshold):
        made.problems.append("not measurable: no person has two pictures, or there is one person only")
        return made
    shown: dict[str, list[Observation]] = {CLEAR: faces.clear, **faces.treated}
    for name, seen in shown.items():
        templates = faces.templates(attacker, seen, chosen)
        made.rows[name] = _row(templates, attacker.metric, threshold, rng, evaluation.resamples)
        made.rows[name] |= _said(notes.get(name, {}))
    alone = made.rows[CLEAR]["alone"].value
    if not alone >= LEAST_CLEAR_ALONE:
        made.problems.append(
            f"of the clear faces, {alone:.2f} of the people are told apart, below {LEAST_CLEAR_ALONE}: the labels do "
            "not fit the pictures, or the recognizer is too weak"
        )
    made.notes.append(
        "Best guess: who knows which people are behind a surrogate names one of them, mean of 1/people over the faces. "
        "Where every face has a surrogate of its own that is 1, and says no more than that nobody shares it. The count "
        "is the recognizer's: it may take one surrogate for two, or two that look alike for one."
    )
    return made


def _chosen(faces: Faces, rng: np.random.Generator) -> NDArray[np.intp]:
    """Every face, or those of as many people drawn at random as can be compared."""
    if len(faces) <= MOST_FACES:
        return np.arange(len(faces))
    people, index = np.unique(faces.persons, return_inverse=True)
    place = rng.permutation(len(people))[index]
    order = np.argsort(place, kind="stable")[:MOST_FACES]
    return np.sort(order[place[order] < place[order[-1]]])


def equal_error_threshold(templates: Templates, metric: Metric) -> float:
    """The score at which as many pairs of one person fall short of it as pairs of two people reach it; NaN: no pairs.

    Where a whole range of scores does, its middle.
    """
    known = templates.acquired
    scores = similarity(templates.vectors[known], templates.vectors[known], metric)
    subjects = templates.subjects[known]
    above = np.triu(np.ones(scores.shape, np.bool_), 1)
    same = (subjects[:, None] == subjects[None]) & above
    own, other = np.sort(scores[same]), np.sort(scores[above & ~same])
    if not len(own) or not len(other):
        return NAN
    levels = np.unique(np.concatenate([own, other]))
    missed = np.searchsorted(own, levels) / len(own)
    accepted = 1 - np.searchsorted(other, levels) / len(other)
    last = int(np.argmax(missed >= accepted))
    return float((levels[max(0, last - 1)] + levels[last]) / 2)


def clusters(templates: Templates, metric: Metric, threshold: float) -> NDArray[np.intp]:
    """[N] number of the cluster of each template; -1 without a face. threshold: least score within one."""
    found = np.full(len(templates.subjects), -1)
    known = np.flatnonzero(templates.acquired)
    if len(known) < 2:
        found[known] = 0
        return found
    vectors = templates.vectors[known]
    apart = np.maximum(1 - similarity(vectors, vectors, metric), 0)  # 1 + distance, or 1 - cosine
    model = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1 - threshold
    )
    found[known] = model.fit_predict(apart)
    return found


def _row(
    templates: Templates, metric: Metric, threshold: float, rng: np.random.Generator, resamples: int
) -> dict[str, Cell]:
    cluster = clusters(templates, metric, threshold)
    known = cluster >= 0
    if not known.any():
        return {column.id: Cell(NAN, text="no pictures to compare") for column in COLUMNS[:6]}
    subjects, number = templates.subjects[known], cluster[known]
    people, person = np.unique(subjects, return_inverse=True)
    counts = np.zeros((number.max() + 1, len(people)))
    np.add.at(counts, (number, person), 1)
    crowd = (counts > 0).sum(axis=1)
    modal = counts.max(axis=1)
    ties = (counts == modal[:, None]).sum(axis=1)
    alone = ((counts > 0) & (crowd == 1)[:, None]).any(axis=0).astype(float)
    most = (counts[number, person] == modal[number]) / ties[number]

    def interval(values: NDArray[Any], whose: NDArray[Any], statistic: str) -> Estimate:
        return bootstrap(values.astype(float), whose, statistic, rng, resamples)

    estimates = {
        "clusters": Estimate(float(len(crowd)), NAN, NAN),
        "least": Estimate(float(crowd.min()), NAN, NAN),
        "median": interval(crowd, np.arange(len(crowd)), "median"),
        "alone": interval(alone, people, "share"),
        "guess": interval(1 / crowd[number], subjects, "share"),
        "most": interval(most, subjects, "share"),
    }
    return {c.id: cell(estimates[c.id], c, int(known.sum()), len(known)) for c in COLUMNS[:6]}


def _said(note: dict[str, Any]) -> dict[str, Cell]:
    """What the run counted itself: `min` and `median` of its manifest's `people`."""
    people = note.get("people") if isinstance(note.get("people"), dict) else note
    found = {}
    for column, key in (("said_least", "min"), ("said_median", "median")):
        value = (people or {}).get(key)
        found[column] = Cell(float(value)) if isinstance(value, int | float) else Cell(NAN, text="not said")
    return found
