"""Fictional people, and photographs of each: generator draws that are not in the gallery, cut out of their background."""

from collections.abc import Sequence
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
CANDIDATES = 16  # drawn at a time
MOST_CANDIDATES = 20  # times as many as people wanted: then something is wrong
SHOULDER = 0.62  # of the side: above it, nobody reaches the left or right border of his picture
WIDER = 0.3  # of the side: shoulders are continued by this much on either side

Mesh = NDArray[np.float32]  # [468, 3]


@dataclass
class Take:
    """One photograph of one person: the whole picture, and the person cut out with shoulders continued."""

    style: NDArray[np.float32]  # [512]
    mesh: Mesh  # pixels of `picture`
    picture: Picture  # [512, 512, 3]
    cutout: NDArray[np.float32] = field(repr=False)  # [512, 512 + 2 * margin, 4] colour and opacity, 0..1

    @property
    def margin(self) -> int:
        """Pixels by which the cut-out is wider than the picture, on either side."""
        return (self.cutout.shape[1] - self.picture.shape[1]) // 2


@dataclass
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

    def photograph(self, style: NDArray[np.float32], side: int = SIDE) -> tuple[Picture, Mesh] | None:
        """Picture [side, side, 3] and mesh in its pixels; None where the mesh finds no face."""
        picture = self.generator.generate(style[None])[0]
        if side != len(picture):
            picture = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA))
        points = (self.points * side).astype(np.float32)
        middle, reach = points.mean(0), 0.27 * side
        box = np.concatenate([middle - reach, middle + reach]).astype(np.float32)
        meshes, scores = self.mesher.mesh(picture, Detections(box[None], np.ones(1, np.float32), points[None]))
        return (picture, meshes[0]) if scores[0] > 0.9 else None

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
    people: list[Person] = []
    silhouette: Silhouette | None = None
    names = name_list(rng, count)
    for _ in range(MOST_CANDIDATES * count // CANDIDATES + 2):
        styles = studio.draw(rng, CANDIDATES * (1 if silhouette else 3))
        if silhouette is None:
            silhouette = _silhouette(studio, styles, seed)
        for style in styles:
            if len(people) == count:
                return people
            found = _takes(studio, silhouette, style, rng, takes)
            if len(found) >= 2:
                people.append(Person(len(people), names[len(people)], found))
    raise ModelError("too few of the generated people can be used; take another seed")


def _silhouette(studio: Studio, styles: NDArray[np.float32], seed: int) -> Silhouette:
    seen = [(style, look[1] / SIDE) for style in styles if (look := studio.photograph(style)) is not None]
    return Silhouette.fit([studio.features(style) for style, _ in seen], [mesh for _, mesh in seen], seed)


def _takes(
    studio: Studio, silhouette: Silhouette, style: NDArray[np.float32], rng: np.random.Generator, count: int
) -> list[Take]:
    """Usable photographs of one person, the first as drawn; none when that is not usable."""
    found: list[Take] = []
    posed = [studio.pose(style, rng) for _ in range(count - 1)]
    for now in [style, *posed]:
        take = _take(studio, silhouette, now)
        if take is not None:
            found.append(take)
        elif not found:
            break
    return found


def _take(studio: Studio, silhouette: Silhouette, style: NDArray[np.float32]) -> Take | None:
    look = studio.photograph(style)
    if look is None:
        return None
    picture, mesh = look
    scores = silhouette.score(studio.features(style))
    alpha = matte(picture, scores, mesh[1, :2] / SIDE)
    return Take(style, mesh, picture, continued(picture, alpha)) if usable(alpha, mesh) else None


def usable(alpha: NDArray[np.float32], mesh: Mesh) -> bool:
    """Whether nothing of the head is cut off and the cut is plausible: hair below the upper border, nothing but
    shoulders at the sides, a body at the lower border, the whole face inside."""
    side = len(alpha)
    edge = max(2, side // 100)
    flanks = np.concatenate([alpha[: int(SHOULDER * side), :edge], alpha[: int(SHOULDER * side), -edge:]])
    oval = align.outline(mesh)
    face = np.zeros(alpha.shape, np.uint8)
    cv2.fillPoly(face, [np.round(oval).astype(np.int32)], 1)
    crown = float(oval[:, 1].min()) - 0.1 * float(np.ptp(oval[:, 1]))
    head = np.flatnonzero((alpha > 0.5).any(1))
    return bool(
        alpha[:edge].mean() < 0.01
        and flanks.mean() < 0.005
        and (alpha[-edge:] > 0.5).mean() > 0.45
        and (alpha[face > 0] > 0.9).mean() > 0.99
        and len(head)
        and head[0] < crown
    )


def continued(picture: Picture, alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour and opacity [S, S + 2 * margin, 4] of a person, the shoulders continued past the picture's sides.

    Where a shoulder meets the border, it goes on as a quarter of an ellipse down to the lower border, in the colours of
    the picture's mirror image. Colours under soft edges are those of the person alone.
    """
    side = len(picture)
    margin = int(WIDER * side)
    colours = _without_background(picture.astype(np.float32) / 255, alpha)
    wide = cv2.copyMakeBorder(colours, 0, 0, margin, margin, cv2.BORDER_REFLECT_101)
    opacity = cv2.copyMakeBorder(alpha, 0, 0, margin, margin, cv2.BORDER_CONSTANT, value=0)
    reach = np.arange(margin, dtype=np.float32)
    rows = np.arange(side, dtype=np.float32)[:, None]
    for border, columns in ((0, margin - 1 - np.arange(margin)), (side - 1, margin + side + np.arange(margin))):
        solid = np.flatnonzero(alpha[:, border] > 0.5)
        if len(solid) < 3:
            continue
        drop = side - solid[0]
        width = min(0.95 * margin, max(0.06 * side, 1.0 * drop))
        line = side - drop * np.sqrt(np.clip(1 - (reach / width) ** 2, 0, 1))
        opacity[:, columns] = np.clip(rows - line[None] + 0.5, 0, 1) * (reach < width)
    return np.dstack([wide, opacity]).astype(np.float32)


def _without_background(colours: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours [S, S, 3] where every pixel that is not wholly the person's takes those of his nearby."""
    solid = (cv2.erode(alpha, np.ones((3, 3), np.uint8)) > 0.95).astype(np.float32)
    result, known = colours * solid[..., None], solid
    filled = result.copy()
    for sigma in (2, 6, 20, 60):
        weight = cv2.GaussianBlur(known, (0, 0), sigma)
        near = cv2.GaussianBlur(result, (0, 0), sigma) / np.maximum(weight, 1e-6)[..., None]
        take = (filled.sum(-1) == 0) & (weight > 0.02)
        filled[take] = near[take]
    share = np.clip(alpha * 1.2 - 0.2, 0, 1)[..., None]
    return filled + (colours - filled) * np.where(solid > 0, 1, share**3)[..., :1]


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


def largest_face(people: Sequence[Take]) -> float:
    """Height in pixels of the largest face of some takes."""
    return max(float(np.ptp(align.outline(take.mesh)[:, 1])) for take in people)
