"""How much each region of a head contributes to its identity for a recognizer, before and after.

Of each example there are two photographs of one person, a and b, and the job's results of both, A and B, which share
one surrogate. A region's part is how far the similarity of two pictures falls when the region is taken out of one of
them (occlusion; Zeiler and Fergus 2014, section 4.2), as a share of the way, on that recognizer's scale, from two
pictures of one person to pictures of two:

- before: a with b. What the recognizer goes by.
- after_person: A with b. What of it still leads from the result to its person.
- after_same: A with B. The surrogate is a face as well, and has to be one to a recognizer.
- strangers, after_others: a, or A, with b of the other examples. Controls: what taking a region away does to pictures
  that share nobody.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deid.errors import FaceError
from deid.evaluation import occlude
from deid.evaluation.inprocess import Job, looked
from deid.evaluation.occlude import Mask
from deid.evaluation.recognizers import Recognizer
from deid.evaluation.reid import Metric, similarity
from deid.evaluation.synthetic import largest
from deid.interfaces import Face, Picture
from deid.pipeline.rows import Row
from deid.pipeline.stages import Analyse

Floats = NDArray[np.float64]

PARTS = (*occlude.REGIONS, occlude.CONTROL)
BEFORE, PERSON, SAME = "before", "after_person", "after_same"
STRANGERS, OTHERS = "strangers", "after_others"


@dataclass(frozen=True)
class Shown:
    """A picture [H, W, 3], and the face that is looked at in it, with its mesh."""

    picture: Picture
    face: Face
    found: bool = True  # False: no face was found in it, this is where the source's was

    @property
    def mesh(self) -> NDArray[np.float32]:
        if self.face.mesh is None:
            raise FaceError("mesh_failed")
        return self.face.mesh

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """Masks [H, W] by part; without the control where there is not enough background."""
        found = occlude.regions(self.mesh, self.picture.shape)
        area = round(float(np.mean([mask.sum() for mask in found.values()])))
        control = occlude.background(self.face, self.mesh, self.picture.shape, area)
        return found if control is None else found | {occlude.CONTROL: control}

    @cached_property
    def without(self) -> dict[str, Picture]:
        """By part, the picture without it."""
        return occlude.without_each(self.picture, self.masks, float(np.ptp(self.mesh[:, 1])))


@dataclass(frozen=True)
class Example:
    """Two photographs of one fictional person, and the results of both."""

    a: Shown
    b: Shown
    result_a: Shown
    result_b: Shown


@dataclass(frozen=True)
class Shares:
    """What one recognizer says of E examples; 1 is the way from one person to two."""

    falls: dict[str, Floats] = field(repr=False)  # by pair: [E, parts], NaN where a part was not there
    levels: dict[str, Floats] = field(
        repr=False
    )  # by pair: [E] similarity of whole pictures, 0 is two people
    gap: float  # the way, in the recognizer's own unit


def examples(job: Job, eyes: Analyse, photographs: Sequence[Sequence[Picture]]) -> list[Example]:
    """People with two photographs each, treated by the job, and looked at. A result in which no face is found is
    looked at where the source's was.

    Raises:
        FaceError: a source has no usable face, or a result was quarantined.
    """
    sources = [picture for pair in photographs for picture in pair[:2]]
    results = []
    for treated in job.run(sources):
        if treated.result is None:
            raise FaceError("composite_failed")
        results.append(treated.result)
    before = [_shown(eyes, *pair) for pair in zip(looked(eyes, sources), sources, strict=True)]
    seen = zip(looked(eyes, results), results, [shown.face for shown in before], strict=True)
    after = [_shown(eyes, *found) for found in seen]
    return [Example(before[n], before[n + 1], after[n], after[n + 1]) for n in range(0, len(before), 2)]


def _shown(eyes: Analyse, row: Row, picture: Picture, place: Face | None = None) -> Shown:
    """The face of a picture; at the place of another face where none is found."""
    face = largest(row.faces)
    if face is not None and face.mesh is not None:
        return Shown(picture, face)
    if place is None or place.mesh is None:
        raise FaceError("mesh_failed")
    face = dataclasses.replace(place, looks=None, segments=None)
    face.embedding = eyes.embedder.embed([picture], [[face]])[0][0]
    return Shown(picture, face, found=False)


def shares(recognizer: Recognizer, found: Sequence[Example]) -> Shares:
    """The parts of each region by one recognizer, on two examples at least. Faces are aligned as they were before
    anything was taken away."""
    a, result_a = (_vectors(recognizer, [getattr(e, name) for e in found]) for name in ("a", "result_a"))
    b, result_b = (
        np.stack([recognizer.embed(s.picture, s.face) for s in side])
        for side in ([e.b for e in found], [e.result_b for e in found])
    )
    metric = recognizer.metric
    own = np.eye(len(found), dtype=np.bool_)
    clear, after, same = (_similar(*pair, metric) for pair in ((a, b), (result_a, b), (result_a, result_b)))
    strangers = float(clear[:, 0][~own].mean())
    gap = float(clear[:, 0][own].mean()) - strangers
    falls = {
        name: (pairs[:, :1] - pairs[:, 1:]) / gap
        for name, pairs in ((BEFORE, clear), (PERSON, after), (SAME, same))
    }
    parts = {name: np.stack([fall[n, :, n] for n in range(len(found))]) for name, fall in falls.items()}
    for name, pair in ((STRANGERS, BEFORE), (OTHERS, PERSON)):
        parts[name] = np.stack([falls[pair][n][:, ~own[n]].mean(1) for n in range(len(found))])
    levels = {
        name: (pairs[:, 0][own] - strangers) / gap
        for name, pairs in ((BEFORE, clear), (PERSON, after), (SAME, same))
    }
    return Shares(parts, levels, gap)


def _vectors(recognizer: Recognizer, shown: Sequence[Shown]) -> NDArray[np.float32]:
    """[E, 1 + parts, D] of pictures as they are, then without each part; NaN for a part that is not there."""
    made = []
    for one in shown:
        whole = recognizer.embed(one.picture, one.face)
        nothing = np.full_like(whole, np.nan)
        changed = [
            recognizer.embed(one.without[part], one.face) if part in one.without else nothing
            for part in PARTS
        ]
        made.append(np.stack([whole, *changed]))
    return np.stack(made)


def _similar(a: NDArray[np.float32], b: NDArray[np.float32], metric: Metric) -> Floats:
    """[E, 1 + parts, E] similarities of vectors [E, 1 + parts, D] and [E, D]."""
    return np.stack([similarity(vectors, b, metric) for vectors in a])
