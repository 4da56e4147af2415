"""Photographs of fictional people for a report that may not show its sources; made by the demo's studio, from a seed.

No person is behind any of them, and none stands in the gallery. They come from the generator that also draws the
surrogates, so they show how the method works, not how well it works on photographs of real people.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deid.config import Models
from deid.demo import scene
from deid.demo.backgrounds import KINDS
from deid.demo.people import Person, Studio, cast
from deid.errors import ModelError
from deid.evaluation.inprocess import looked
from deid.faces.attributes import AttributeHeads
from deid.interfaces import Face, Picture
from deid.models.store import Store
from deid.pipeline.stages import Analyse

SIZE = (480, 600)  # px, width and height of a photograph
CANDIDATES = 12  # draws at least, on which the silhouettes are fitted
SPARE = 3  # people more than wanted are drawn: the young ones, and those who look unlike, are left out
ADULT = 18.0  # years of apparent age


@dataclass(frozen=True)
class Sitter:
    """A fictional person: photographs [H, W, 3], each in front of another background."""

    name: str
    photographs: list[Picture]


def sitters(models: Models, seed: int, count: int, takes: int = 2) -> list[Sitter]:
    """`count` people with two to `takes` photographs; the same ones for the same seed, on the same machine.

    Raises:
        ModelError: models are missing or their licence is not accepted, or too few of the drawn people can be used.
    """
    Store(models).check_accepted(["mobilestylegan"])
    drawn = cast(Studio(threads=1), seed, count, takes, max(CANDIDATES, count))
    return [_sat(person, seed) for person in drawn]


def _sat(person: Person, seed: int) -> Sitter:
    made = []
    for number, take in enumerate(person.takes):
        rng = np.random.default_rng((seed, person.subject, number))
        kind = (3 * person.subject + 5 * number) % len(KINDS)
        made.append(scene.compose(rng, [take], "alone", kind, SIZE)[0])
    return Sitter(person.name, made)


def chosen(people: Sequence[Sitter], stage: Analyse, count: int, takes: int = 2) -> list[Sitter]:
    """The first `count` of whom a face with a trusted mesh is found in the first `takes` photographs, those of adult
    apparent age before all others.

    Raises:
        ModelError: they are too few.
    """
    heads = AttributeHeads.load()
    order: list[tuple[bool, int, Sitter]] = []
    for person in people:
        rows = looked(stage, person.photographs[:takes])
        faces = [face for row in rows if (face := largest(row.faces)) is not None]
        if len(faces) < takes or any(face.mesh is None or face.embedding is None for face in faces):
            continue
        vectors = np.array([face.embedding for face in faces], np.float32)
        order.append((not heads.predict(vectors)["age"].mean() >= ADULT, len(order), person))
    if len(order) < count:
        raise ModelError("too few of the generated people can be used; take another seed")
    return [person for _, _, person in sorted(order, key=lambda entry: entry[:2])[:count]]


def largest(faces: Sequence[Face]) -> Face | None:
    """The face that a made picture was made for; None without any."""
    return max(faces, key=lambda face: face.height, default=None)
