"""Fictional people, and photographs of each: generator draws that are not in the gallery, cut out of their background."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.config import Models
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
POSE_STRENGTH = 0.8  # of the way; the last part changes hair and glasses too often
SIDE = 512  # px, of a cut-out
CANDIDATES = 40  # on which the silhouettes are fitted
MOST_CANDIDATES = 12  # times as many as people wanted: then something is wrong
SHOULDER = 0.62  # of the side: above it, nobody reaches the left or right border of his picture
CROWN = 0.42  # of the side: no more than this of the hair may meet the upper border
HEAD_RADIUS = 0.27  # of the side: of the arc in which such hair ends
WIDER = 0.3  # of the side: margin of a cut-out above and at either side

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
    cutout: NDArray[np.float32] = field(
        repr=False
    )  # [512 + margin, 512 + 2 * margin, 4] colour, opacity; 0..1

    @property
    def margin(self) -> int:
        """Pixels of the cut-out above and at either side of the picture."""
        return (self.cutout.shape[1] - self.picture.shape[1]) // 2


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


def cast(studio: Studio, seed: int, count: int, takes: int) -> list[Person]:
    """`count` people with two to `takes` usable photographs each; the same people for the same seed.

    Raises:
        ModelError: too few of the drawn people could be cut out.
    """
    rng = np.random.default_rng((seed, 1))
    names = name_list(rng, count)
    first = [look for style in studio.draw(rng, CANDIDATES) if (look := studio.photograph(style))]
    silhouette = Silhouette.fit([look.features for look in first], [look.mesh / SIDE for look in first], seed)
    people: list[Person] = []
    for look in itertools.islice(itertools.chain(first, _more(studio, rng)), MOST_CANDIDATES * count):
        if (take := cut_out(look, silhouette)) is None:
            continue
        found = [take]
        for style in [studio.pose(take.style, rng) for _ in range(takes - 1)]:
            posed = studio.photograph(style)
            if posed and (take := cut_out(posed, silhouette)):
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


def cut_out(look: Look, silhouette: Silhouette) -> Take | None:
    """The person of a photograph; None when the cut is not usable."""
    alpha = matte(look.picture, silhouette.score(look.features), look.mesh[1, :2] / SIDE)
    if not usable(alpha, look.mesh):
        return None
    return Take(look.style, look.mesh, look.picture, continued(look.picture, alpha))


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


def continued(picture: Picture, alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour and opacity [S + margin, S + 2 * margin, 4] of a person, continued past the picture's borders.

    Where a shoulder meets a side, it goes on as a quarter of an ellipse down to the lower border; where hair meets the
    upper border, it ends in an arc. Colours there are those of the picture's mirror image, under soft edges those
    of the person alone.
    """
    side = len(picture)
    margin = int(WIDER * side)
    around = (margin, 0, margin, margin)
    colours = _without_background(picture.astype(np.float32) / 255, alpha)
    wide = cv2.copyMakeBorder(colours, *around, cv2.BORDER_REFLECT_101)
    opacity = cv2.copyMakeBorder(alpha, *around, cv2.BORDER_CONSTANT, value=0)
    _continue_hair(opacity, alpha, margin)
    outward = np.arange(margin)
    for border, columns in ((0, margin - 1 - outward), (side - 1, margin + side + outward)):
        solid = np.flatnonzero(alpha[:, border] > 0.5)
        if len(solid) > 2:
            opacity[margin:, columns] = _shoulder(side, float(side - solid[0]), margin)
    return np.dstack([wide, opacity]).astype(np.float32)


def _shoulder(side: int, drop: float, margin: int) -> NDArray[np.float32]:
    """Opacity [side, margin], outward from the border that a shoulder meets `drop` pixels above the lower border."""
    reach = np.arange(margin, dtype=np.float32)[None]
    width = min(0.95 * margin, max(0.06 * side, drop))
    line = side - drop * np.sqrt(np.clip(1 - (reach / width) ** 2, 0, 1))
    rows = np.arange(side, dtype=np.float32)[:, None]
    return np.asarray(np.clip(rows - line + 0.5, 0, 1) * (reach < width), np.float32)


def _continue_hair(opacity: NDArray[np.float32], alpha: NDArray[np.float32], margin: int) -> None:
    """Draw the arc over the hair that the upper border cuts into `opacity`."""
    crown = np.flatnonzero(alpha[0] > 0.5)
    if not len(crown):
        return
    half = (np.ptp(crown) + 1) / 2
    radius = max(HEAD_RADIUS * len(alpha), 1.02 * half)
    x = np.arange(opacity.shape[1]) - margin - (crown[0] + crown[-1]) / 2
    height = np.sqrt(np.clip(radius**2 - x**2, 0, None)) - np.sqrt(radius**2 - half**2)
    rows = np.arange(margin, dtype=np.float32)[:, None]
    opacity[:margin] = np.clip(rows - (margin - height) + 0.5, 0, 1) * (np.abs(x) <= half)
    opacity[:margin] = cv2.GaussianBlur(opacity[: margin + 1], (0, 0), 1)[:margin]


def _without_background(colours: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours [S, S, 3] where every pixel that is not wholly the person's takes those of his nearest."""
    solid = cv2.erode(alpha, np.ones((3, 3), np.uint8)) > 0.95
    _, labels = cv2.distanceTransformWithLabels(
        (~solid).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((int(labels.max()) + 1, 3), np.float32)
    table[labels[solid]] = colours[solid]
    filled = cv2.blur(table[labels], (5, 5))
    share = np.where(solid, 1, np.clip(alpha * 1.2 - 0.2, 0, 1) ** 3)[..., None]
    return np.asarray(filled + (colours - filled) * share, np.float32)


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
