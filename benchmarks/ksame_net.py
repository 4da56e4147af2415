"""The clean generator `ksame_net`, measured: sharpness, expression, nearness to the people it learned, speed.

    python -m benchmarks.ksame_net --data FOLDER --people PEOPLE.npz [--sheet SHEET.png]

FOLDER holds london/ and recognizers/; PEOPLE.npz is what `jobs/train_ksame_net.py prepare FOLDER/london` wrote. Figures
go to `results/ksame_net.json` and to the screen; the sheet shows mixtures only.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.london import mobilefacenet
from deid.evaluation.expression import CLASSES, ExpressionNetwork, happier
from deid.evaluation.recognizers import EmbedderRecognizer, OnnxRecognizer, Recognizer
from deid.faces import align
from deid.faces.embed import DlibEmbedder
from deid.faces.mesh import FaceMesher, as_detection
from deid.gallery import store
from deid.interfaces import Face, Gallery, Picture
from deid.models.store import default_store
from deid.surrogates.ksame_net import KSameNet
from deid.training import faces
from deid.training.mixtures import Bank, People, Recipe, contrast

NEUTRAL = np.array(
    [0.0112, 0.015, 0.35, 0.0555, 0.139], np.float32
)  # `align.EXPRESSION`, means of the people
SMILE = np.array([0.0352, 0.045, 0.43, 0.05, 0.139], np.float32)
FAR = 0.001
STEPS = 9  # of the sheet from neutral to smiling
INSIDE = (slice(14, 22), slice(12, 20))  # blocks of 8 px that lie within every face of the frame


class Mixtures:
    """The gallery's mixtures as the pipeline draws them."""

    def __init__(self, net: KSameNet, gallery: Gallery) -> None:
        self.net, self.gallery = net, gallery
        net.use(gallery)
        self.mesher = FaceMesher(default_store().files("facemesh"))

    def drawn(self, index: int, wanted: NDArray[np.float32]) -> tuple[Picture, Face]:
        """A picture of 256 px, and the face that the mesher finds in it."""
        mesh = (self.gallery.meshes[index] * 256).astype(np.float32)
        given = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), mesh, 1.0, wanted=wanted)
        made = self.net.draw([np.array([index])], [given], 256)[0]
        return made.picture, self.found(made.picture, made.mesh)

    def found(self, picture: Picture, mesh: NDArray[np.float32]) -> Face:
        seen = as_detection(mesh)
        meshes, scores = self.mesher.mesh(picture, seen)
        again = as_detection(meshes[0])
        return Face(again.boxes[0], 1.0, again.points[0], meshes[0], float(scores[0]))


def expression(mixtures: Mixtures) -> dict[str, Any]:
    """Share of neutral and smiling pictures that an estimator which had no part in this calls so."""
    network = ExpressionNetwork(default_store().files("fer_expression"))
    right: dict[str, list[float]] = {"neutral": [], "smiling": []}
    top = []
    for index in range(len(mixtures.gallery)):
        for name, wanted in (("neutral", NEUTRAL), ("smiling", SMILE)):
            picture, face = mixtures.drawn(index, wanted)
            found = network.probabilities(picture, np.asarray(face.mesh))
            right[name].append(float((happier(found) > 0) == (name == "smiling")))
            top.append(CLASSES[int(found.argmax())] == ("happy" if name == "smiling" else "neutral"))
    shares = {name: float(np.mean(values)) for name, values in right.items()}
    return shares | {"both": float(np.mean(list(shares.values()))), "first of seven": float(np.mean(top))}


def nearness(mixtures: Mixtures, data: Path) -> dict[str, Any]:
    """How near mixtures come to a training photograph, against strangers, by recognizer."""
    photographs = [one for pair in faces.read(data / "london").values() for one in pair.values()]
    who = np.repeat(np.arange(len(photographs) // 2), 2)
    seen = [(picture, mixtures.found(picture, mesh)) for picture, mesh in photographs]
    drawn = [mixtures.drawn(n, NEUTRAL) for n in range(len(mixtures.gallery))]
    recognizers: list[Recognizer] = [
        EmbedderRecognizer(DlibEmbedder(default_store().files("dlib_resnet")), "dlib"),
        OnnxRecognizer(mobilefacenet(data)),
    ]
    found = {}
    for recognizer in recognizers:
        people, made = (np.stack([unit(recognizer, *one) for one in those]) for those in (seen, drawn))
        apart = np.linalg.norm(people[:, None] - people[None], axis=-1)
        strangers = apart[np.triu(who[:, None] != who[None])]
        near = np.linalg.norm(made[:, None] - people[None], axis=-1).min(1)
        limit = float(np.quantile(strangers, FAR))
        found[recognizer.name] = {
            "threshold at FAR .001": limit,
            "nearest of all mixtures": float(near.min()),
            "median": float(np.median(near)),
            "mixtures that match": int((near < limit).sum()),
            "of": len(near),
            "one person, two photographs": float(np.median(apart[::2, 1::2].diagonal())),
        }
    return found


def unit(recognizer: Recognizer, picture: Picture, face: Face) -> NDArray[np.float32]:
    vector = np.asarray(recognizer.embed(picture, face), np.float32)
    return vector / np.linalg.norm(vector) if recognizer.metric == "cosine" else vector


def sharpness(net: KSameNet, single: People) -> dict[str, Any]:
    """Contrast inside the face, finest band first, over that of single people: of mixtures of k identities."""
    groups = faces.groups(single, 3, 0)
    if len(groups) != net.identities:
        return {}
    merged = {restore: faces.merged(single, groups, restore) for restore in (False, True)}
    bank = {restore: Bank(merged[restore], 256, restore) for restore in (False, True)}
    people = Bank(single, 256, False)
    own = people.contrast[0].view(-1, 3, 32, 32).mean(0)[:, *INSIDE].mean((1, 2))
    rng, found = np.random.default_rng(0), {}
    for k in (1, 2, 3, 5):
        weights = np.stack([net.mixture(rng.choice(net.identities, k, False).tolist()) for _ in range(16)])
        recipe = Recipe.plain(weights)
        rows = {name: bank[on].target(recipe)[0] for name, on in (("average", False), ("restored", True))}
        measures = neutral_of(merged[True], weights)
        pictures, _ = net.heads(weights, measures)
        rows["network"] = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        found[f"k = {k}"] = {
            name: [round(float(v), 3) for v in contrast(x[:, :3]).mean(0)[:, *INSIDE].mean((1, 2)) / own]
            for name, x in rows.items()
        }
        mask = rows["restored"][:, 3:]
        apart = (rows["network"] - rows["restored"])[:, :3].abs() * mask
        found[f"k = {k}"]["levels apart from restored"] = round(float(apart.sum() / mask.sum() / 3 * 255), 2)
    return found


def neutral_of(people: People, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    return align.expression(np.tensordot(weights, people.meshes[:, 0], 1))


def speed(net: KSameNet, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    mixtures = np.repeat(net.mixture([0, 1])[None], 8, 0)
    net.heads(mixtures)
    times, cpu = [], []
    for _ in range(10):
        start, used = time.perf_counter(), time.process_time()
        net.heads(mixtures)
        times.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return {
        "threads": threads,
        "ms a face, median": round(float(np.median(times)) / 8 * 1000, 1),
        "ms a face, least": round(min(times) / 8 * 1000, 1),
        "CPU ms a face, median": round(float(np.median(cpu)) / 8 * 1000, 1),
    }


def sheet(mixtures: Mixtures, path: Path, rows: int = 6) -> None:
    """Mixtures from neutral to beyond the smile of the training people."""
    chosen = np.linspace(0, len(mixtures.gallery) - 1, rows).astype(int)
    shares = np.linspace(-0.25, 1.25, STEPS)[:, None]
    ramp = (NEUTRAL + shares * (SMILE - NEUTRAL)).astype(np.float32)
    tiles = [[mixtures.drawn(index, one)[0][10:226, 40:216] for one in ramp] for index in chosen]
    cv2.imwrite(str(path), np.vstack([np.hstack(row) for row in tiles])[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    common.add_data_argument(parser, required=True)
    parser.add_argument("--people", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="default: the package's")
    parser.add_argument("--gallery", help="default: the package's")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--results", type=Path, default=common.REPOSITORY / "benchmarks" / "results")
    given = parser.parse_args()
    net = KSameNet({"ksame_net.safetensors": given.weights} if given.weights else None)
    mixtures = Mixtures(net, store.load(given.gallery, "ksame_net"))
    machine, single = common.machine(), People.load(given.people)[0]
    figures: dict[str, Any] = {"machine": machine, "mixtures": len(mixtures.gallery)}
    if given.sheet:
        sheet(mixtures, given.sheet)
    figures["expression as asked"] = expression(mixtures)
    figures["sharpness, fine to coarse"] = sharpness(net, single)
    figures["nearness to training people"] = nearness(mixtures, given.data)
    figures["speed, batch of 8"] = [speed(net, threads) for threads in (1, 2)]
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "ksame_net.json").write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
