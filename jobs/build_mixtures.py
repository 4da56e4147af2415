"""Build the gallery of mixtures of `generator.name: ksame_mesh` from photographs of consented people.

    python jobs/build_mixtures.py PHOTOGRAPHS --out mixtures.parquet --sheet sheet.png

PHOTOGRAPHS is a folder with labels.csv (file, subject, expression: neutral or smiling, gender, age, ethnicity): one
upright face a picture, before a plain background, both expressions of each person. The same pictures and seed give the
same mixtures. A mixture is dropped when its rendering comes nearer to the embedding of any photograph than strangers'
do in all but one of a thousand pairs, or when its hair is a ghost. Half a second a candidate on one core.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.config import Models
from deid.errors import DeidError, ModelError
from deid.faces import align, segment
from deid.faces.appearance import LOOKS, looks
from deid.faces.detect import CenterFaceDetector
from deid.faces.embed import DlibEmbedder
from deid.faces.mesh import FaceMesher, as_detection
from deid.faces.segment import BACKGROUND, FACE, HAIR, NECK, head_chip
from deid.gallery import mixtures, people, store
from deid.gallery.people import Person
from deid.interfaces import Detections, Embedder, Face, Gallery, Mesher, Picture
from deid.models.store import Store
from deid.privacy.gate import STRANGERS
from deid.surrogates import masks
from deid.surrogates.ksame_mesh import MODEL, TEXTURES, KSameMesh, encode, pack
from deid.surrogates.shapefree import Frame
from deid.surrogates.shapes import Shapes

SIDE = 512  # px of a texture
QUALITY = 88  # of its WebP
FAR = 0.001  # share of strangers' pairs that may be nearer than any mixture is to a photograph
SHARES = (0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.5, 1.0)  # of strangers' pairs, that the gallery tells
SPARE = 1.02  # what a mixture's distance must be over that threshold: embeddings differ from rendering to rendering
GHOST = 7.0  # px of unsure edge
FRINGE = 12.0  # grey levels of detail on a forehead: a fringe, which becomes strands on a mixture's bare one
HAIR_APART = 16.0  # in Lab from the skin: farther is hair
SHEET_SIDE, SHEET_COLUMNS = 128, 20
KINDS = ("neutral", "smiling")


@dataclass(frozen=True)
class Parts:
    mesher: Mesher
    embedder: Embedder
    detector: Any

    @classmethod
    def of(cls, store: Store) -> "Parts":
        return cls(
            FaceMesher(store.files("facemesh")),
            DlibEmbedder(store.files("dlib_resnet")),
            CenterFaceDetector(store.files("centerface")),
        )

    def embed(self, picture: Picture, mesh: NDArray[np.float32]) -> NDArray[np.float32]:
        seen = as_detection(mesh)
        face = Face(seen.boxes[0], 1.0, seen.points[0], mesh, 1.0)
        return np.asarray(self.embedder.embed([picture], [[face]])[0][0], np.float32)


def photographs(folder: Path, leave_out: Sequence[str]) -> dict[str, dict[str, dict[str, str]]]:
    """Rows of labels.csv by subject and expression, of those who have both pictures."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["subject"] not in leave_out and (folder / row["file"]).exists():
                found.setdefault(row["subject"], {})[row["expression"]] = row
    return {subject: rows for subject, rows in sorted(found.items()) if set(KINDS) <= set(rows)}


def load(folder: Path, leave_out: Sequence[str], parts: Parts) -> tuple[Frame, list[Person]]:
    """The people of a folder, and the frame of their meshes."""
    chosen = photographs(folder, leave_out)
    seen = {
        subject: [_seen(folder / rows[kind]["file"], parts) for kind in KINDS]
        for subject, rows in chosen.items()
    }
    frame = Frame.fit(np.stack([mesh for pair in seen.values() for _, mesh in pair]))
    found = []
    for subject, pair in seen.items():
        row = chosen[subject]["neutral"]
        age = float(row["age"]) if row["age"].replace(".", "").isdigit() else float("nan")
        found.append(
            Person(
                subject,
                row["gender"] == "male",
                age,
                row["ethnicity"],
                np.stack([mesh for _, mesh in pair]),
                np.stack([parts.embed(*one) for one in pair]),
                np.stack([people.texture(frame, *one, SIDE).astype(np.float32) for one in pair]),
            )
        )
    return frame, found


def _seen(path: Path, parts: Parts) -> tuple[Picture, NDArray[np.float32]]:
    read = cv2.imread(str(path))
    if read is None:
        raise ModelError(f"{path.name}: not a picture")
    picture = np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.uint8)
    found: Detections = parts.detector.detect([picture])[0]
    if not len(found):
        raise ModelError(f"{path.name}: no face")
    meshes, _ = parts.mesher.mesh(picture, found)
    return picture, meshes[0]


def strangers_apart(given: Sequence[Person], one_sex: bool = False) -> NDArray[np.float64]:
    """Distances of all pairs of pictures of two people, or of two of one sex."""
    vectors = np.concatenate([person.embeddings for person in given]).astype(np.float64)
    who, male = np.repeat(np.arange(len(given)), 2), np.repeat([person.male for person in given], 2)
    pairs = who[:, None] != who[None]
    if one_sex:
        pairs &= male[:, None] == male[None]
    rows, columns = np.nonzero(np.triu(pairs))
    return np.asarray(np.linalg.norm(vectors[rows] - vectors[columns], axis=1))


def build(frame: Frame, given: Sequence[Person], parts: Parts, count: int, seed: int) -> Gallery:
    """Up to `count` mixtures that pass the checks; prints what was dropped and how near the rest come."""
    shapes = Shapes.fit(
        frame.mean.astype(np.float64),
        np.stack([person.meshes[0] for person in given]),
        np.stack([person.meshes[1] for person in given]),
    )
    openings = align.expression(np.stack([person.meshes[1] for person in given]))[:, 1]
    model = pack(
        {
            "frame": frame.mean,
            "mean": shapes.mean.astype(np.float32),
            "expressions": shapes.expressions.astype(np.float32),
            "people": shapes.people.astype(np.float32),
            "mouth": _bytes(mixtures.mouth(frame, given, openings)),
        }
    )
    strangers = strangers_apart(given)
    limit = float(np.quantile(strangers, FAR))
    vectors = np.concatenate([person.embeddings for person in given])
    apart = mixtures.Looks.of(frame, given).apart()
    male = np.array([person.male for person in given])
    heads = np.array([[people.head_outline(frame, one[..., 3]) for one in p.textures] for p in given])
    sets = mixtures.draw(apart, male, count, np.random.default_rng(seed))
    fringed = {n for n, p in enumerate(given) if mixtures.streaks(frame, p.textures[0]) > FRINGE}
    rows, dropped = [], {"near": 0, "ghost": 0, "fringe": 0}
    for members in sets:
        if fringed.intersection(members):
            dropped["fringe"] += 1
            continue
        row = _mixture(frame, shapes, model, [given[n] for n in members], heads[list(members)], parts)
        near = float(np.linalg.norm(vectors - row["embedding"], axis=1).min())
        if row["attributes"]["ghost"] > GHOST:
            dropped["ghost"] += 1
        elif near < limit * SPARE:
            dropped["near"] += 1
        else:
            rows.append(row | {"members": members, "near": near})
    _report(limit, strangers, rows, dropped)
    alike = np.quantile(strangers_apart(given, one_sex=True), SHARES)
    about = {
        MODEL: model,
        STRANGERS: json.dumps(
            [[share, round(float(each), 4)] for share, each in zip(SHARES, alike, strict=True)]
        ),
        "recipe.seed": str(seed),
        "recipe.threshold": f"{limit:.4f}",
        "recipe.people": str(len(given)),
        "recipe.version": "1",
    }
    return _gallery(rows, len(given), about)


def _mixture(
    frame: Frame,
    shapes: Shapes,
    model: str,
    given: Sequence[Person],
    heads: NDArray[np.float64],
    parts: Parts,
) -> dict[str, Any]:
    layers, shape = mixtures.mixed(frame, given, heads), mixtures.shape(given, shapes)
    ghost = mixtures.ghosts(layers[0])
    layers[..., 3] = mixtures.firm(layers[..., 3])
    row: dict[str, Any] = {name: encode(one, QUALITY) for name, one in zip(TEXTURES, layers, strict=True)}
    mesh = shape.astype(np.float32)
    alone = Gallery(
        np.ones((1, 1), np.float32),
        np.zeros((1, 1), np.float32),
        mesh[None],
        metadata={MODEL: model},
        textures={name: [row[name]] for name in TEXTURES},
    )
    renderer = KSameMesh({})
    renderer.use(alone)
    face = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), mesh * SIDE, 1.0)
    drawn = renderer.draw([np.array([0])], [face], SIDE)[0]
    opacity = np.asarray(frame.from_frame(layers[0][..., 3:], drawn.mesh, SIDE), np.float32)[..., 0]
    known = looks(
        head_chip(drawn.picture, drawn.mesh), segments(drawn.picture, drawn.mesh, opacity), drawn.mesh
    )
    ages = np.array([person.age for person in given])
    return row | {
        "mesh": mesh,
        "embedding": parts.embed(drawn.picture, drawn.mesh),
        "attributes": dict(zip(LOOKS, known.tolist(), strict=True))
        | dict(zip(align.MEASURES, align.measures(mesh).tolist(), strict=True))
        | {
            "sex": float(given[0].male),
            "age": float(np.nanmean(ages)),
            "cut": 0.0,
            "people": float(len(given)),
            "ghost": ghost,
        },
    }


def segments(picture: Picture, mesh: NDArray[np.float32], opacity: NDArray[np.float32]) -> segment.Segments:
    """Parts [SIDE, SIDE, 5] of a mixture's chip, by its outline and the colour of its skin."""
    matrix = segment.frame(mesh)
    size = (segment.INPUT, segment.INPUT)
    head = cv2.warpAffine(opacity, matrix, size)
    lab = cv2.cvtColor(head_chip(picture, mesh).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    points = mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    x, y = points[mixtures.CHEEKS].round().astype(int).T
    skin = np.median(lab[y, x], axis=0)
    face = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(face, np.round(points[masks.OVAL]).astype(np.int32), 1)
    low = np.arange(segment.INPUT)[:, None] > points[152, 1]
    bare = (np.linalg.norm(cv2.GaussianBlur(lab, (0, 0), 2) - skin, axis=2) < HAIR_APART) | (face > 0)
    parts = np.zeros((*size, len(segment.PARTS)), np.float32)
    parts[..., FACE] = head * (bare & ~low | (face > 0))
    parts[..., NECK] = head * (bare & low & (face == 0))
    parts[..., HAIR] = head - parts[..., FACE] - parts[..., NECK]
    parts[..., BACKGROUND] = 1 - head
    small = cv2.resize(parts, (segment.SIDE, segment.SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray((small * 255).round(), np.uint8)


def _bytes(layers: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.dstack([layers[..., :3], layers[..., 3] * 255]).round().clip(0, 255).astype(np.uint8)


def _report(
    limit: float, strangers: NDArray[np.float64], rows: Sequence[dict[str, Any]], dropped: dict[str, int]
) -> None:
    shares = (0.001, 0.01, 0.05, 0.5)
    print(f"threshold at FAR {FAR}: {limit:.3f}; dropped: {dropped}; kept: {len(rows)}")
    print(
        "strangers' distances at",
        ", ".join(f"{s}: {np.quantile(strangers, s):.3f}" for s in shares),
    )
    if rows:
        near = np.array([row["near"] for row in rows])
        marks = ", ".join(f"{q}: {np.quantile(near, q):.3f}" for q in (0, 0.1, 0.5, 0.9))
        shares_nearer = [(strangers < each).mean() for each in near]
        print(f"mixtures' distance to the nearest photograph at {marks}")
        print(f"share of strangers' pairs nearer than that: median {np.median(shares_nearer):.4f}")
        sizes = np.bincount([len(row["members"]) for row in rows])
        unsure = np.quantile([row["attributes"]["ghost"] for row in rows], (0.1, 0.5, 0.9, 1))
        print("px of unsure edge at .1, .5, .9, 1:", unsure.round(1).tolist())
        print("people of a mixture:", {n: int(c) for n, c in enumerate(sizes) if c})


def _gallery(rows: Sequence[dict[str, Any]], of: int, about: dict[str, str]) -> Gallery:
    if not rows:
        raise ModelError("no mixture passes the checks")
    weights = np.zeros((len(rows), of), np.float32)
    for weight, row in zip(weights, rows, strict=True):
        weight[list(row["members"])] = 1 / len(row["members"])
    names = rows[0]["attributes"]
    return Gallery(
        weights,
        np.stack([row["embedding"] for row in rows]),
        np.stack([row["mesh"] for row in rows]),
        {name: np.array([row["attributes"][name] for row in rows], np.float32) for name in names},
        np.zeros(of, np.float32),
        about,
        {name: [row[name] for row in rows] for name in TEXTURES},
    )


def sheet(gallery: Gallery) -> NDArray[np.uint8]:
    """All mixtures, neutral above smiling, as they are drawn."""
    renderer = KSameMesh({})
    renderer.use(gallery)
    tiles = []
    for index, mesh in enumerate(gallery.meshes):
        pair = []
        for wanted in ([0.0112, 0.015, 0.35, 0.0555, 0.139], [0.0352, 0.045, 0.43, 0.05, 0.139]):
            face = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), mesh * 256, 1.0)
            face.wanted = np.array(wanted, np.float32)
            drawn = renderer.draw([np.array([index])], [face], 256)[0].picture
            pair.append(cv2.resize(drawn[10:250, 30:226], (SHEET_SIDE, SHEET_SIDE * 240 // 196)))
        tiles.append(np.vstack(pair))
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % SHEET_COLUMNS)
    rows = [np.hstack(tiles[n : n + SHEET_COLUMNS]) for n in range(0, len(tiles), SHEET_COLUMNS)]
    return np.asarray(np.vstack(rows), np.uint8)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", required=True, help="gallery to write")
    parser.add_argument("--count", type=int, default=300, help="candidates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--leave-out", nargs="*", default=(), help="subjects that take no part")
    parser.add_argument("--drop", type=int, nargs="*", default=(), help="mixtures that look wrong, by number")
    parser.add_argument("--sheet", type=Path, help="picture of all mixtures to write")
    options = parser.parse_args()
    try:
        parts = Parts.of(Store(Models()))
        frame, given = load(options.photographs, options.leave_out, parts)
        gallery = without(build(frame, given, parts, options.count, options.seed), options.drop)
        store.save(gallery, options.out)
        if options.sheet:
            cv2.imwrite(str(options.sheet), sheet(gallery)[..., ::-1])
    except (DeidError, OSError, KeyError) as error:
        print(f"build_mixtures: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.out}: {len(gallery)} mixtures of {len(given)} people")
    return 0


def without(gallery: Gallery, drop: Sequence[int]) -> Gallery:
    """The gallery without some of its entries."""
    kept = np.setdiff1d(np.arange(len(gallery)), drop)
    return Gallery(
        gallery.styles[kept],
        gallery.embeddings[kept],
        gallery.meshes[kept],
        {name: values[kept] for name, values in gallery.attributes.items()},
        gallery.mean_style,
        gallery.metadata,
        {name: [values[n] for n in kept] for name, values in gallery.textures.items()},
    )


if __name__ == "__main__":
    sys.exit(main())
