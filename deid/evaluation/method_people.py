"""What the picture of the method is drawn from: five fictional people taken through the job's own stages."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deid.config import Assignment, Models
from deid.evaluation import inprocess, synthetic
from deid.evaluation.inprocess import Job, Treated
from deid.interfaces import Face, Picture
from deid.privacy import audit, keys
from deid.surrogates import head, match
from deid.surrogates.cover import COLOUR

MODELS = Models(accept=("clean", "permissive", "restricted"))
# Chosen so that one surrogate takes all five places: nothing of it is cut off, and the gate refuses none.
SEED, DRAWN, SECRET = 1, 10, bytes([3]) * 32
CAST = ((1, 1), (4, 1), (6, 1), (8, 1), (9, 0))  # person and photograph of each: they could be one group
AUDITED = ("status", "sex", "age_band", "k_class")
SIDE = 256  # px, of drawn faces


@dataclass(frozen=True)
class Run:
    """Five people, A to E, and all that lies between their photographs and the results."""

    treated: list[Treated]
    identities: tuple[int, ...]  # of the gallery, averaged into their one surrogate
    distances: NDArray[np.float64]  # [N] of each gallery identity from the nearest of the five
    apart: float  # the margin beyond which the identities were drawn
    drawn: list[Picture]  # faces of the identities
    surrogate: Picture  # their average, not steered to anybody
    emptied: list[Picture]  # photographs without their heads
    gates: list[float]  # distance of each result from its person
    margin: float  # least distance that passes
    audit: list[tuple[str, ...]]  # rows of the audit, as far as `AUDITED` names them

    @property
    def faces(self) -> list[Face]:
        return [treated.faces[0] for treated in self.treated]


def run() -> Run:
    """The job's stages on the five, with the defaults of the job: at least five people a surrogate.

    Raises:
        ModelError: models are missing.
    """
    people = synthetic.sitters(MODELS, SEED, DRAWN)
    sources = [people[person].photographs[take] for person, take in CAST]
    # Their names tell them apart, as a field of the data may: the job asks recognizers for a wider gap than these have.
    job = Job(inprocess.configuration(MODELS, {}, assignment={"subject": "name"}), SECRET)
    found = job.look(sources)
    for row, (person, _) in zip(found, CAST, strict=True):
        row.subject = keys.subject(job.secret, people[person].name)
    surrogates = job.appoint(found)
    treated = job.finish(found, sources)
    gallery, shared = job.generate.gallery, surrogates[0]
    vectors = np.array([_embedding(one.faces[0]) for one in treated])
    indices = np.array(shared.identities, np.int64)
    blended = job.generate.blended(indices)[None]
    generate = job.generate.generator.generate
    return Run(
        treated,
        shared.identities,
        match.distances(vectors.astype(np.float32), gallery).min(0),
        shared.draws[0].margin,
        list(generate(gallery.styles[indices], side=SIDE)),
        generate(blended, side=SIDE)[0],
        [emptied(one.source, one.faces[0]) for one in treated],
        _gates(job, treated, vectors),
        job.compose.gate.margin if job.compose.gate else float("nan"),
        [_audited(one.done[0], job.config.assignment, shared.people) for one in treated],
    )


def emptied(source: Picture, face: Face) -> Picture:
    """The picture with the head in grey, as it is before the surrogate's is put in."""
    region = head.locate(source, face).region
    result = source.copy()
    result[region.window][region.mask] = COLOUR
    return result


def _audited(face: Face, options: Assignment, people: int) -> tuple[str, ...]:
    sex = {1: "male", 0: "female"}.get(face.sex, "unknown")
    return face.status, sex, audit.age_band(face.age, options.age_bands), audit.k_class(people, options.k)


def _embedding(face: Face) -> NDArray[np.float64]:
    if face.embedding is None:
        raise ValueError("a face without an embedding was given a surrogate")
    return np.asarray(face.embedding, np.float64)


def _gates(job: Job, treated: list[Treated], vectors: NDArray[np.float64]) -> list[float]:
    rows = job.look([one.result for one in treated if one.result is not None])
    faces = [synthetic.largest(row.faces) for row in rows]
    return [
        float(np.linalg.norm(own - _embedding(face))) if face is not None else float("nan")
        for own, face in zip(vectors, faces, strict=True)
    ]
