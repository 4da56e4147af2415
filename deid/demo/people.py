"""Fictional people and photographs of each: draws that are not in the gallery, cut out of their background."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.config import Models
from deid.demo import torso
from deid.demo.silhouette import Features, Silhouette, matte
from deid.errors import ModelError
from deid.faces import align
from deid.faces.mesh import FaceMesher
from deid.gallery import store as gallery_store
from deid.interfaces import Detections, Picture
from deid.models.store import Store
from deid.surrogates.control import Control
from deid.surrogates.generator import MobileStyleGANGenerator

LICENCES: Models = Models(accept=("clean", "permissive", "restricted"))
TRUNCATION = 0.72  # styles are drawn towards the mean style by this factor
POSE_STRENGTH = 0.7  # of the way; the last part changes hair and glasses too often
SIDE = 512  # px, of a cut-out
MOST_CANDIDATES = 12  # times as many as people wanted: then something is wrong
SHOULDER = 0.62  # of the side: above it, nobody reaches the left or right border of his picture
CROWN = 0.42  # of the side: no more than this of the hair may meet the upper border

Mesh = NDArray[np.float32]  # [468, 3]


@dataclass(frozen=True)
class Look:
    """A generated picture."""

    style: NDArray[np.float32]  # [512]
    picture: Picture  # [S, S, 3]
    mesh: Mesh  # its pixels
    features: NDArray[np.float16]  # [4096, 512] of `silhouette.Features`


@dataclass(frozen=True)
class Take:
    """One photograph of one person: the whole picture, and the person cut out of it."""

    style: NDArray[np.float32]  # [512]
    mesh: Mesh  # pixels of `picture`
    picture: Picture  # [512, 512, 3]
    cutout: NDArray[np.uint8] = field(
        repr=False
    )  # [h, w, 4] colour and opacity, larger by `torso.margins(512)`


@dataclass(frozen=True)
class Person:
    subject: int
    name: str
    takes: list[Take]


class Studio:
    """What photographs fictional people: generator, mesh, control and silhouettes."""

    def __init__(self, threads: int = 2) -> None:
        store = Store(LICENCES)
        files = store.files("mobilestylegan")
        self.generator = MobileStyleGANGenerator(files, threads=threads)
        self.features = Features(files)
        self.mesher = FaceMesher(store.files("facemesh"))
        gallery = gallery_store.load(None)
        if gallery.mean_style is None:
            raise ModelError("the default gallery has no mean style; install deid again")
        self.mean_style = gallery.mean_style
        self.gallery_styles, self.gallery_meshes = gallery.styles, gallery.meshes
        self.points = align.five_points(np.median(gallery.meshes, axis=0))  # where faces are, in sides
        self.control = Control.fit(gallery.styles, gallery.meshes, gallery.embeddings)

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Styles [count, 512] of new people.

        Raises:
            ModelError: one of them is an identity of the gallery.
        """
        latents = rng.standard_normal((count, self.generator.latent_dim), np.float32)
        styles = self.mean_style + TRUNCATION * (self.generator.map(latents) - self.mean_style)
        for style in styles:
            if np.linalg.norm(self.gallery_styles - style, axis=1).min() < 1:
                raise ModelError("a person of the corpus stands in the gallery; take another seed")
        return np.asarray(styles, np.float32)

    def photograph(self, style: NDArray[np.float32], side: int = SIDE) -> Look | None:
        """The picture [side, side, 3] of a style [512]; None where the mesh finds no face."""
        picture = self.generator.generate(style[None])[0]
        if side != len(picture):
            picture = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA))
        points = (self.points * side).astype(np.float32)
        middle, reach = points.mean(0), 0.27 * side
        box = np.concatenate([middle - reach, middle + reach]).astype(np.float32)
        meshes, scores = self.mesher.mesh(
            picture, Detections(box[None], np.ones(1, np.float32), points[None])
        )
        return Look(style, picture, meshes[0], self.features(style)) if scores[0] > 0.9 else None

    def pose(self, style: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """The same person with the pose and expression of a random face of the gallery, nearly."""
        mesh = self.gallery_meshes[rng.integers(len(self.gallery_meshes))]
        return self.control.follow(style, mesh, POSE_STRENGTH)


def cast(studio: Studio, seed: int, count: int, takes: int, candidates: int) -> list[Person]:
    """`count` people with two to `takes` usable photographs each; the same people for the same seed.

    The silhouettes are fitted on the first `candidates` draws; the more, the better.

    Raises:
        ModelError: too few of the drawn people could be cut out.
    """
    rng = np.random.default_rng((seed, 1))
    names = name_list(rng, count)
    first = [look for style in studio.draw(rng, candidates) if (look := studio.photograph(style))]
    silhouette = Silhouette.fit(
        [look.features for look in first], [look.mesh / np.float32(SIDE) for look in first], seed
    )
    people: list[Person] = []
    for look in itertools.islice(itertools.chain(first, _more(studio, rng)), MOST_CANDIDATES * count):
        if (take := cut_out(look, silhouette, rng)) is None:
            continue
        found = [take]
        for style in [studio.pose(take.style, rng) for _ in range(takes - 1)]:
            posed = studio.photograph(style)
            if posed and (take := cut_out(posed, silhouette, rng)):
                found.append(take)
        if len(found) >= 2:
            people.append(Person(len(people), names[len(people)], found))
        if len(people) == count:
            return people
    raise ModelError("too few of the generated people can be used; take another seed")


def _more(studio: Studio, rng: np.random.Generator) -> Iterator[Look]:
    while True:
        if look := studio.photograph(studio.draw(rng, 1)[0]):
            yield look


def cut_out(look: Look, silhouette: Silhouette, rng: np.random.Generator) -> Take | None:
    """The person of a photograph; None when the cut is not usable."""
    alpha = matte(look.picture, silhouette.score(look.features), look.mesh[1, :2] / SIDE)
    if not usable(alpha, look.mesh):
        return None
    return Take(look.style, look.mesh, look.picture, torso.continued(look.picture, alpha, rng))


def usable(alpha: NDArray[np.float32], mesh: Mesh) -> bool:
    """Whether the cut is plausible: hardly anything of the hair cut off by the upper border, nothing but shoulders at
    the sides, a body at the lower border, the whole face and some hair inside."""
    side = len(alpha)
    edge = max(2, side // 100)
    solid = alpha > 0.5
    crown = np.flatnonzero(solid[0])
    flanks = np.concatenate([alpha[: int(SHOULDER * side), :edge], alpha[: int(SHOULDER * side), -edge:]])
    oval = align.outline(mesh)
    face = np.zeros(alpha.shape, np.uint8)
    cv2.fillPoly(face, [np.round(oval).astype(np.int32)], 1)
    hair = float(oval[:, 1].min()) - 0.1 * float(np.ptp(oval[:, 1]))
    return bool(
        (not len(crown) or np.ptp(crown) < min(CROWN * side, 1.1 * len(crown)))
        and flanks.mean() < 0.005
        and solid[-edge:].mean() > 0.45
        and (alpha[face > 0] > 0.9).mean() > 0.99
        and solid[: max(1, int(hair))].any()
    )


FIRST = (
    *("Alma", "Bruno", "Celia", "Dario", "Edda", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kaya", "Lior"),
    *("Mara", "Nils", "Odile", "Pavel", "Quinn", "Rosa", "Sami", "Tilda", "Umar", "Vera", "Wanda", "Yusuf"),
)
LAST = (
    *("Abernethy", "Brandvold", "Castellan", "Dunmore", "Ekström", "Falkenrath", "Grishko", "Holloway"),
    *("Iversen", "Jankovic", "Kestrel", "Lindqvist", "Moreau", "Nakagawa", "Okonjo", "Petrossian"),
)


def name_list(rng: np.random.Generator, count: int) -> list[str]:
    """Made-up names, all different."""
    pairs = rng.permutation(len(FIRST) * len(LAST))[:count]
    return [f"{FIRST[pair % len(FIRST)]} {LAST[pair // len(FIRST)]}" for pair in pairs]
