"""The recipe of a gallery: draw, render, look at each face, drop what cannot be used. Pure; the job runs it on Ray.

A candidate is a number: its latents come from the seed and that number alone, so any part of the work can be done
anywhere, in any order, again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.faces.align import MEASURES, measures
from deid.faces.appearance import LOOKS, hidden, looks
from deid.faces.attributes import DIM, AttributeHeads
from deid.faces.mesh import as_detection
from deid.faces.segment import HAIR, head_chip
from deid.faces.segmenter import HeadSegmenter
from deid.gallery import worn
from deid.interfaces import Detections, Detector, Embedder, Face, Gallery, Generator, Mesher, Picture
from deid.surrogates.generator import MobileStyleGANGenerator

RECIPE_VERSION = "1"
# Options of the built-in parts: faces of half the size do, and a generated face is large and its picture's only one.
# The image heads came later, and would give other pixels.
OPTIONS: dict[str, dict[str, Any]] = {
    "mobilestylegan": {"size": 512, "heads": False},
    "centerface": {"threshold": 0.3, "enlarge": 1.0},
}

# Why a candidate is dropped, in the order of the checks.
DROPPED = {
    "faces": "the detector sees no face, or more than one",
    "mesh": "the mesh is unsure that there is a face",
    "pose": "the head is turned or tilted too far",
    "eyes": "dark around the eyes: sunglasses, or eyes in shadow",
    "headgear": "a hat, a cap, a scarf or the like",
    "glasses": "glasses",
    "hidden": "a hand, a microphone or the like before the face",
    "duplicate": "too near to an identity before it",
}
CHEEKS = ((50, 101, 118, 117, 123, 187, 205, 36), (280, 330, 347, 346, 352, 411, 425, 266))
ORBITS = (  # the skin around the eyes, as far as glasses reach
    (226, 31, 228, 229, 230, 231, 232, 233, 244, 190, 56, 28, 27, 29, 30, 247),
    (446, 261, 448, 449, 450, 451, 452, 453, 464, 414, 286, 258, 257, 259, 260, 467),
)
MEASURED = (*MEASURES, "eye_darkness")
# `cut`: part of the upper border that is hair; such a head ends there. `hidden`: part of the face that something else
# covers. `annotate` adds sex and age.
ATTRIBUTES = (*MEASURED, *worn.KINDS, *LOOKS, "cut", "hidden")

Batch = dict[str, NDArray[Any]]  # columns of candidates, each [N, ...]


@dataclass(frozen=True)
class Recipe:
    """What makes a gallery, beside the models. Angles in degrees; distances between embeddings are Euclidean."""

    seed: int = 1
    truncation: float = 0.8  # styles are drawn towards their mean by this factor: natural, yet diverse
    centre_draws: int = 4096  # of the mean style
    mesh_score: float = 0.9  # least
    yaw: float = 30.0  # greatest
    pitch: float = 25.0  # greatest
    roll: float = 20.0  # greatest
    eye_darkness: float = 0.38  # greatest
    headgear: float = -0.5  # greatest score; about 1 when worn, -1 when not
    glasses: float = -0.4  # the same
    hidden: float = 0.04  # greatest share of the face that something else covers
    distance: float = 0.35  # least, between two identities


def mean_style(generator: Generator, recipe: Recipe) -> NDArray[np.float32]:
    """The truncation centre [style_dim]."""
    rng = np.random.default_rng(recipe.seed)
    latents = rng.standard_normal((recipe.centre_draws, generator.latent_dim), np.float32)
    return np.asarray(generator.map(latents).mean(0), np.float32)


def draw_styles(
    generator: Generator, recipe: Recipe, numbers: NDArray[np.int64], centre: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Truncated styles [N, style_dim] of candidates, rounded to float16 as the gallery stores them."""
    styles = np.empty((len(numbers), generator.style_dim), np.float32)
    for row, number in enumerate(numbers):  # one at a time, so that the batch has no part in the rounding
        rng = np.random.default_rng((recipe.seed, int(number)))
        style = generator.map(rng.standard_normal((1, generator.latent_dim), np.float32))[0]
        styles[row] = centre + recipe.truncation * (style - centre)
    return styles.astype(np.float16).astype(np.float32)


class Examiner:
    """Candidates by number to a batch: number, dropped ("" or a code), style, embedding, mesh, attributes."""

    def __init__(
        self,
        generator: Generator,
        detector: Detector,
        mesher: Mesher,
        embedder: Embedder,
        recipe: Recipe,
        segmenter: HeadSegmenter | None = None,
    ) -> None:
        self.generator = generator
        self.detector = detector
        self.mesher = mesher
        self.embedder = embedder
        self.recipe = recipe
        self.segmenter = segmenter or HeadSegmenter()
        self.centre = mean_style(generator, recipe)
        self.worn = worn_scores(generator) if isinstance(generator, MobileStyleGANGenerator) else {}

    def __call__(self, numbers: NDArray[np.int64]) -> Batch:
        """Columns [N, ...]; what was not measured, since the candidate was dropped before, is NaN."""
        styles = draw_styles(self.generator, self.recipe, numbers, self.centre)
        pictures = self.generator.generate(styles)
        seen = self.detector.detect(list(pictures))
        rows = [self.examine(*given) for given in zip(styles, pictures, seen, strict=True)]
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return {"number": np.asarray(numbers, np.int64), "style": styles, **columns}

    def examine(self, style: NDArray[np.float32], picture: Picture, found: Detections) -> dict[str, Any]:
        """One candidate's columns, without number and style."""
        row: dict[str, Any] = dict.fromkeys(ATTRIBUTES, np.float32(np.nan))
        row |= {
            "mesh": np.full((468, 3), np.nan, np.float32),
            "embedding": np.full(self.embedder.dim, np.nan, np.float32),
        }
        if len(found) != 1:
            return row | {"dropped": "faces"}
        meshes, scores = self.mesher.mesh(picture, found)
        if not (scores[0] >= self.recipe.mesh_score and np.isfinite(meshes).all()):
            return row | {"dropped": "mesh"}
        face = Face(found.boxes[0], float(found.scores[0]), found.points[0], meshes[0], float(scores[0]))
        row |= measured(picture, meshes[0]) | looked(picture, meshes[0], self.segmenter)
        row |= {kind: self.worn[kind](style) if kind in self.worn else np.float32(-1) for kind in worn.KINDS}
        row["mesh"] = meshes[0] / len(picture)
        row["embedding"] = self.embedder.embed([picture], [[face]])[0][0]
        return row | {"dropped": self.reason(row)}

    def reason(self, row: Mapping[str, Any]) -> str:
        """Why a measured candidate is dropped; "" if it is kept."""
        recipe = self.recipe
        turned = (
            abs(row["yaw"]) > recipe.yaw,
            abs(row["pitch"]) > recipe.pitch,
            abs(row["roll"]) > recipe.roll,
        )
        if any(turned) or not np.isfinite(row["embedding"]).all():
            return "pose"
        limits = {"eyes": ("eye_darkness", recipe.eye_darkness)}
        limits["hidden"] = ("hidden", recipe.hidden)
        limits |= {"headgear": ("headgear", recipe.headgear), "glasses": ("glasses", recipe.glasses)}
        return next((reason for reason, (name, limit) in limits.items() if row[name] > limit), "")


def worn_scores(generator: MobileStyleGANGenerator) -> dict[str, worn.Score]:
    """The scores of `worn.KINDS` for styles of this generator."""
    labels = worn.Labels.load()
    recipe = Recipe(seed=labels.seed, truncation=labels.truncation)
    centre = mean_style(generator, recipe)

    def styles(numbers: Sequence[int]) -> NDArray[np.float32]:
        return draw_styles(generator, recipe, np.asarray(numbers), centre)

    return {
        kind: worn.Score.fit(styles(labels.worn[kind]), styles(labels.absent[kind])) for kind in worn.KINDS
    }


def measured(picture: Picture, mesh: NDArray[np.float32]) -> dict[str, np.float32]:
    """The mesh's measures, and how dark it is around the eyes.

    `eye_darkness` is the share of the cheeks' median lightness that the brighter fifth of the eyes' surroundings, eyes
    and all, lacks: below 0.3 but for sunglasses and deep shadow.
    """
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)

    def inside(*polygons: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        mask = np.zeros(picture.shape[:2], np.uint8)
        for polygon in polygons:
            cv2.fillPoly(mask, [np.round(mesh[np.asarray(polygon), :2]).astype(np.int32)], 1)
        return mask.astype(np.bool_)

    bright = np.percentile(lab[inside(*ORBITS), 0], 80)
    darkness = 1 - bright / max(np.median(lab[inside(*CHEEKS), 0]), 1)
    values = [*measures(mesh[None])[0], darkness]
    return {name: np.float32(value) for name, value in zip(MEASURED, values, strict=True)}


def looked(picture: Picture, mesh: NDArray[np.float32], segmenter: HeadSegmenter) -> dict[str, np.float32]:
    """The looks of a generated face, how far its picture's upper border cuts the hair, and how far it is covered."""
    chip = head_chip(picture, mesh)
    parts, whole = segmenter.parts([chip, np.asarray(cv2.resize(picture, chip.shape[1::-1]), np.uint8)])
    values = dict(zip(LOOKS, looks(chip, parts, mesh), strict=True))
    cut, covered = whole[:2, :, HAIR].mean() / 255, hidden(parts, mesh)
    return values | {"cut": np.float32(cut), "hidden": np.float32(covered)}


def collect(
    batches: Iterable[Batch],
    size: int,
    centre: NDArray[np.float32],
    recipe: Recipe,
    metadata: Mapping[str, str],
) -> tuple[Gallery, Counter[str]]:
    """The first `size` usable candidates by number, whatever the order of the batches, and what was dropped of the
    candidates up to the last one taken. The gallery is smaller where they do not suffice.
    """
    parts = list(batches)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kept: list[int] = []
    dropped: Counter[str] = Counter()
    for row in np.argsort(columns["number"]):
        if len(kept) == size:
            break
        reason = str(columns["dropped"][row])
        distances = np.linalg.norm(columns["embedding"][kept] - columns["embedding"][row], axis=1)
        if not reason and (distances < recipe.distance).any():
            reason = "duplicate"
        if reason:
            dropped[reason] += 1
        else:
            kept.append(int(row))
    arrays = {name: columns[name][kept] for name in columns}
    noted = {f"recipe.{name}": str(value) for name, value in asdict(recipe).items()}
    noted |= {
        "recipe.version": RECIPE_VERSION,
        "dropped": ", ".join(f"{n} {c}" for n, c in sorted(dropped.items())),
    }
    gallery = Gallery(
        styles=arrays["style"],
        embeddings=arrays["embedding"],
        meshes=arrays["mesh"],
        attributes={name: arrays[name] for name in ATTRIBUTES},
        mean_style=centre,
        metadata={**metadata, **noted},
    )
    return gallery, dropped


def annotate_looks(
    gallery: Gallery, generator: Generator, mesher: Mesher, segmenter: HeadSegmenter, side: int = 256
) -> Gallery:
    """The gallery with the looks of its identities and `cut`, each rendered again at `side` px."""
    found = []
    for style, mesh in zip(gallery.styles, gallery.meshes, strict=True):
        picture = generator.generate(style[None], side=side)[0]
        meshes, _ = mesher.mesh(picture, as_detection(mesh * np.float32(side)))
        found.append(looked(picture, meshes[0], segmenter))
    columns = {name: np.array([row[name] for row in found], np.float32) for name in found[0]}
    return replace(gallery, attributes={**gallery.attributes, **columns})


def uncovered(gallery: Gallery, recipe: Recipe) -> Gallery:
    """The gallery without identities whose face something else covers."""
    kept = np.asarray(gallery.attributes["hidden"]) <= recipe.hidden
    attributes = {name: np.asarray(values)[kept] for name, values in gallery.attributes.items()}
    noted = gallery.metadata | {"uncovered": f"{int((~kept).sum())} of {len(kept)} dropped"}
    arrays = (gallery.styles[kept], gallery.embeddings[kept], gallery.meshes[kept])
    return Gallery(*arrays, attributes, gallery.mean_style, noted)


def annotate(gallery: Gallery, heads: AttributeHeads | None = None) -> Gallery:
    """The gallery with apparent `sex` (probability of male) and `age` (years) from its embeddings, nothing rendered.

    The heads know dlib's embeddings; a gallery of another embedder stays as it is.
    """
    if gallery.embeddings.shape[1] != DIM:
        return gallery
    heads = heads or AttributeHeads.load()
    return replace(gallery, attributes={**gallery.attributes, **heads.predict(gallery.embeddings)})
