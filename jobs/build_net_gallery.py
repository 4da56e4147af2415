"""Build the gallery of `generator.name: ksame_net`: mixtures of its identities, as the network draws them.

    python jobs/build_net_gallery.py net_mixtures.parquet [--photographs FOLDER] [--recognizers FILE.yaml] [--sheet PNG]

Candidates are the network's identities (mixtures of people themselves) and mixtures of 2 to 6 of those that look alike.
Each is rendered, embedded and measured. With `--photographs`, the folder of labelled faces that the network was trained
on, a mixture that comes nearer to any of them than strangers do in all but one of a thousand pairs is dropped, by dlib
and by each of the recognizers listed; the gallery holds nothing of any photograph.
"""

import argparse
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.errors import DeidError
from deid.evaluation.recognizers import OnnxRecognizer, RecognizerConfig, load_config
from deid.faces import align, segment
from deid.faces.appearance import LOOKS, looks
from deid.faces.attributes import AttributeHeads
from deid.faces.embed import DlibEmbedder
from deid.faces.mesh import as_detection
from deid.faces.segment import BACKGROUND, FACE, HAIR, head_chip
from deid.gallery import store
from deid.interfaces import Face, Gallery, Picture
from deid.models.store import default_store
from deid.privacy.gate import STRANGERS
from deid.surrogates import masks
from deid.surrogates.ksame_net import KSameNet
from deid.training import faces

Vectors = NDArray[np.floating]

FAR = 0.001  # share of strangers' pairs that may be nearer than any mixture is to a photograph
SHARES = (
    0.0,
    0.0003,
    0.001,
    0.003,
    0.01,
    0.03,
    0.1,
    0.5,
    1.0,
)  # of strangers' pairs of one sex, for the gallery
SPARE = 1.02  # what a mixture's distance must be over that threshold by the embedder of the pipeline
GHOST = 0.1  # of a head's area that may be neither head nor background
SIZES, TRIES = (2, 3, 4, 5, 6), 3  # identities in a mixture, and mixtures of each size that begin with one
SPREAD = 4  # more than these are looked at for the others
CLEAN = Path(faces.__file__).parents[1] / "faces" / "data" / "attributes_clean.safetensors"
NEUTRAL = np.array([0.0112, 0.015, 0.35, 0.0555, 0.139])  # `align.EXPRESSION` of a plain portrait


class Drawn:
    """One mixture, drawn as a neutral portrait."""

    def __init__(self, net: KSameNet, embedder: DlibEmbedder, members: tuple[int, ...]) -> None:
        self.members, weights = members, net.mixture(members)
        pictures, meshes = net.heads(weights[None], NEUTRAL[None])
        self.shape = meshes[0]
        alone = Gallery(weights[None], np.zeros((1, 128), np.float32), meshes[:1])
        net.use(alone)
        face = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), self.shape * 256, 1.0)
        face.wanted = NEUTRAL.astype(np.float32)
        self.one = net.draw([np.array([0])], [face], 256)[0]
        self.texture, self.weights = pictures[0], weights
        drawn = net.frame.from_frame(self.texture[..., 3:], self.one.mesh, 256)
        opacity = np.asarray(drawn, np.uint8)[..., 0]
        self.segments = parts(self.one.mesh, opacity)
        self.ghost = float(np.mean((opacity > 40) & (opacity < 215)) / np.mean(opacity > 127))
        self.embedding = embed(embedder, self.one.picture, self.one.mesh)

    def attributes(self, heads: AttributeHeads) -> dict[str, float]:
        known = looks(head_chip(self.one.picture, self.one.mesh), self.segments, self.one.mesh)
        apparent = heads.predict(self.embedding[None])
        male, age = (float(apparent[name][0]) for name in ("sex", "age"))
        return (
            dict(zip(LOOKS, known.tolist(), strict=True))
            | dict(zip(align.MEASURES, align.measures(self.shape).tolist(), strict=True))
            | {"sex": float(male > 0.5), "age": age, "cut": 0.0, "people": float(len(self.members))}
        )


def parts(mesh: NDArray[np.float32], opacity: NDArray[np.uint8]) -> segment.Segments:
    """Parts [SIDE, SIDE, 5] of a drawn head's chip: the mesh is face, the rest of the head hair."""
    size = (segment.INPUT, segment.INPUT)
    head = cv2.warpAffine(opacity.astype(np.float32) / 255, segment.frame(mesh), size)
    points = mesh[:, :2] @ segment.frame(mesh)[:, :2].T + segment.frame(mesh)[:, 2]
    face = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(face, np.round(points[masks.OVAL]).astype(np.int32), 1)
    made = np.zeros((*size, len(segment.PARTS)), np.float32)
    made[..., FACE], made[..., HAIR], made[..., BACKGROUND] = head * face, head * (1 - face), 1 - head
    small = cv2.resize(made, (segment.SIDE, segment.SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray((small * 255).round(), np.uint8)


def embed(embedder: DlibEmbedder, picture: Picture, mesh: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(embedder.embed([picture], [[as_face(mesh)]])[0][0], np.float32)


def as_face(mesh: NDArray[np.float32]) -> Face:
    seen = as_detection(mesh)
    return Face(seen.boxes[0], 1.0, seen.points[0], mesh, 1.0)


def candidates(net: KSameNet, seed: int) -> list[tuple[int, ...]]:
    """The identities, and mixtures of those that look alike."""
    eye = np.eye(net.identities, dtype=np.float32)
    textures, _ = net.heads(eye, np.repeat(NEUTRAL[None], net.identities, 0), side=128)
    mask = textures[..., 3:] / 255.0
    layers = np.concatenate([textures[..., :3] * mask, 128 * mask], -1)
    small = np.stack([cv2.resize(one, (16, 16), interpolation=cv2.INTER_AREA).ravel() for one in layers])
    apart = np.linalg.norm(small[:, None] - small[None], axis=-1)
    found, rng = {(n,) for n in range(net.identities)}, np.random.default_rng(seed)
    for row, size, _ in itertools.product(apart, SIZES, range(TRIES)):
        near = np.argsort(row)
        others = rng.choice(near[1 : size + SPREAD], min(size, net.identities) - 1, replace=False)
        found.add(tuple(sorted((int(near[0]), *others.tolist()))))
    return sorted(found, key=lambda members: (len(members), members))


def build(
    net: KSameNet, photographs: Path | None, others: list[RecognizerConfig], seed: int
) -> tuple[Gallery, list[Drawn]]:
    """The gallery, and what is in it as drawn."""
    embedder, heads = DlibEmbedder(default_store().files("dlib_resnet")), AttributeHeads.load(CLEAN)
    every = [Drawn(net, embedder, members) for members in candidates(net, seed)]
    drawn = [one for one in every if one.ghost < GHOST]
    print(f"{len(every)} candidates, {len(every) - len(drawn)} dropped for hair that is half there")
    about = {"recipe.version": "1", "recipe.identities": str(net.identities), "recipe.seed": str(seed)}
    if photographs is not None:
        found = faces.read(photographs)
        seen = [found[name][e] for name in found for e in faces.EXPRESSIONS]
        vectors = np.stack([embed(embedder, *one) for one in seen])
        distances, threshold = far(vectors, np.stack([one.embedding for one in drawn]), "dlib")
        kept = distances >= threshold * SPARE
        for given in others:
            recognizer = OnnxRecognizer(given)
            people, made = (
                np.stack([unit(recognizer.embed(picture, as_face(mesh))) for picture, mesh in those])
                for those in (seen, [(one.one.picture, one.one.mesh) for one in drawn])
            )
            distances, limit = far(people, made, recognizer.name)
            kept &= distances >= limit
        for size in (1, *SIZES):
            of = np.array([len(one.members) == size for one in drawn])
            print(f"{size} identities: {of.sum()}, far enough by each recognizer: {(of & kept).sum()}")
        drawn = [one for one, fine in zip(drawn, kept, strict=True) if fine]
        male = heads.predict(vectors)["sex"] > 0.5
        quantiles = zip(SHARES, np.quantile(strangers(vectors, male), SHARES), strict=True)
        about[STRANGERS] = json.dumps([[share, round(float(each), 4)] for share, each in quantiles])
        about["recipe.threshold"] = f"{threshold:.4f}"
    rows = [one.attributes(heads) for one in drawn]
    if not rows:
        raise faces.Unusable("no mixture passes the checks")
    gallery = Gallery(
        np.stack([one.weights for one in drawn]),
        np.stack([one.embedding for one in drawn]),
        np.stack([one.shape for one in drawn]),
        {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]},
        np.zeros(net.identities, np.float32),
        about,
    )
    return gallery, drawn


def strangers(vectors: Vectors, kind: NDArray[np.bool_] | None = None) -> Vectors:
    """Distances of all pairs of photographs of two people, who follow each other in pairs; of one kind where told."""
    who = np.repeat(np.arange(len(vectors) // 2), 2)
    pairs = who[:, None] != who[None]
    if kind is not None:
        pairs &= kind[:, None] == kind[None]
    return np.asarray(np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)[np.triu(pairs)])


def far(people: Vectors, made: Vectors, name: str) -> tuple[Vectors, float]:
    """How far each mixture is from the nearest photograph, and the threshold at `FAR`; prints what that means."""
    apart = strangers(people)
    limit = float(np.quantile(apart, FAR))
    near = np.linalg.norm(made[:, None] - people[None], axis=-1).min(1)
    nearer = np.median([(apart < each).mean() for each in near])
    print(
        f"{name}: threshold at FAR {FAR} {limit:.3f}; nearest photograph at least {near.min():.3f}, median "
        f"{np.median(near):.3f}, as near as {nearer:.4f} of strangers' pairs; {(near < limit).mean():.2f} match"
    )
    return near, limit


def unit(vector: Vectors) -> Vectors:
    return vector / np.linalg.norm(vector)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output")
    parser.add_argument("--weights", type=Path, help="default: the package's")
    parser.add_argument("--photographs", type=Path)
    parser.add_argument(
        "--recognizers", type=Path, nargs="*", default=[], help="YAML files, as `deid evaluate` takes them"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    try:
        net = KSameNet({"ksame_net.safetensors": options.weights} if options.weights else None)
        others = [load_config(path) for path in options.recognizers]
        gallery, drawn = build(net, options.photographs, others, options.seed)
        store.save(gallery, options.output)
    except (DeidError, OSError, KeyError) as error:
        raise SystemExit(str(error)) from None
    if options.sheet:
        tiles = [cv2.resize(one.one.picture[10:220, 50:206], (117, 158)) for one in drawn]
        tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 16)
        rows = [np.hstack(tiles[n : n + 16]) for n in range(0, len(tiles), 16)]
        cv2.imwrite(str(options.sheet), np.vstack(rows)[..., ::-1])
    print(f"wrote {options.output}: {len(gallery)} mixtures")


if __name__ == "__main__":
    main()
