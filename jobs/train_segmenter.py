"""Makes the weights of `deid.faces.segmenter` from generated faces and the generator's own features; development only.

    python jobs/train_segmenter.py draw FACES --count 1536      # pictures and features, seed 77
    python jobs/train_segmenter.py label FACES                  # parts of each, 0..255, as one strip of pictures
    python jobs/train_segmenter.py fit FACES SEGMENTER.safetensors [--resume]
    python jobs/train_segmenter.py draw HELD --seed 78 --count 128 && python jobs/train_segmenter.py label HELD
    python jobs/train_segmenter.py measure HELD [--weights SEGMENTER.safetensors]

Each verb goes on where it was interrupted; `fit` with --resume. No photograph of a person is trained on.
"""

import argparse
import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from deid.faces.mesh import FaceMesher, as_detection
from deid.faces.segment import INPUT, PARTS, SIDE, Points, frame, head_chip
from deid.faces.segmenter import HeadSegmenter
from deid.gallery import store as galleries
from deid.gallery.build import Recipe, draw_styles, mean_style
from deid.interfaces import Picture
from deid.models.mobilestylegan import load_synthesis
from deid.models.store import default_store
from deid.surrogates.generator import MobileStyleGANGenerator
from deid.training.labels import Cells, label, render
from deid.training.segmenter import Training, fast_bfloat16, overlap, ratio
from deid.training.views import Views, compress

SEED = 77
MESH_SCORE = 0.5  # least, of a face to learn from
HELD = 12  # each twelfth face is held out
SURE = 0.8  # share of one part from which a label counts as sure


def draw(folder: Path, first: int, count: int, seed: int, threads: int) -> None:
    """Write faces `first` to `first + count - 1` under a seed: NNNNN.png [256, 256, 3] and the components of their
    features, NNNNN.npy [80, 64, 64]."""
    files, recipe, cells = default_store().files("mobilestylegan"), Recipe(seed=seed), Cells.load()
    generator = MobileStyleGANGenerator(files, threads)
    network = load_synthesis(files, torch.bfloat16 if fast_bfloat16() else torch.float32)
    centre = mean_style(generator, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        features, picture = (folder / f"{number:05}{end}" for end in (".npy", ".png"))
        if features.exists() and picture.exists():
            continue
        style = draw_styles(generator, recipe, np.array([number]), centre)[0]
        drawn, blocks = render(network, style)
        np.save(features, cells.project(blocks).astype(np.float16))
        write_picture(picture, drawn[..., ::-1])


def label_all(folder: Path, threads: int) -> None:
    """Write the parts of the faces of `draw`, NNNNN.parts.png [256, 5 * 256], side by side. Where the mesh finds no
    face there is nothing to learn from."""
    cells, look = Cells.load(), mesher(threads)
    for file in sorted(folder.glob("*.npy")):
        drawn, target = file.with_suffix(".png"), file.with_suffix(".parts.png")
        if target.exists() or not drawn.exists():
            continue
        picture = read_picture(drawn)
        mesh, score = look(picture)
        if score > MESH_SCORE:
            parts = label(picture, np.load(file).astype(np.float32), mesh, cells)
            strip = np.hstack(list((parts * 255).round().astype(np.uint8).transpose(2, 0, 1)))
            write_picture(target, strip)


def mesher(threads: int = 1) -> Callable[[Picture], tuple[Points, float]]:
    """Meshes [468, 3] of generated pictures and their scores; a face is looked for where the gallery's mean is."""
    net, mean = FaceMesher(default_store().files("facemesh"), threads), galleries.load(None).meshes.mean(0)

    def look(picture: Picture) -> tuple[Points, float]:
        meshes, scores = net.mesh(picture, as_detection(mean * np.float32(len(picture))))
        return meshes[0], float(scores[0])

    return look


def write_picture(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a PNG, whole or not at all; colours in OpenCV's order."""
    fresh = file.with_name(file.name + ".new")
    fresh.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    fresh.replace(file)


def read_picture(file: Path) -> Picture:
    return np.ascontiguousarray(np.asarray(cv2.imread(str(file)), np.uint8)[..., ::-1])


def read(folder: Path) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]:
    """Numbers [N], pictures [N, 256, 256, 3] and parts [N, 256, 256, 5] of the labelled faces of a folder."""
    files = sorted(folder.glob("*.parts.png"))
    if not files:
        raise SystemExit(f"{folder}: no labelled faces; draw and label first")
    names = [file.name.removesuffix(".parts.png") for file in files]
    pictures = np.stack([read_picture(folder / f"{name}.png") for name in names])
    parts = np.empty((len(files), INPUT, INPUT, len(PARTS)), np.uint8)
    for row, file in enumerate(files):
        strip = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        parts[row] = np.asarray(strip).reshape(INPUT, len(PARTS), INPUT).transpose(0, 2, 1)
    return np.array([int(name) for name in names]), pictures, parts


def fit(
    folder: Path,
    output: Path,
    steps: int,
    batch: int,
    seed: int,
    every: int,
    workers: int,
    threads: int,
    device: str,
    resume: bool,
) -> None:
    """Train on the labelled faces of a folder; beside `output` a checkpoint (.checkpoint) and the losses (.csv)."""
    torch.set_num_threads(threads)
    numbers, pictures, parts = read(folder)
    held = numbers % HELD == 0
    training, rows = Training(steps, seed, device), []
    checkpoint, losses = output.with_suffix(".checkpoint"), output.with_suffix(".csv")
    if resume:
        if not checkpoint.exists():
            raise SystemExit(f"{checkpoint}: no checkpoint to go on from; leave out --resume")
        training.load(checkpoint)
        rows = list(csv.reader(losses.open(encoding="utf-8")))[1 : training.step + 1]
    ahead = range(training.step * batch, steps * batch)
    views = Views(pictures[~held], parts[~held], seed, ahead)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(views, batch, num_workers=workers)  # type: ignore[arg-type]
    for chips, wanted in loader:
        row = [str(training.step), f"{training.learn(chips, wanted):.5f}"]
        rows.append(row)
        if training.step % every == 0 or training.step == steps:
            row += [f"{value:.4f}" for value in training.check(pictures[held], parts[held])]
            write_losses(losses, rows)
            training.save(checkpoint)
            print(*row, flush=True)
    training.export(output)


def write_losses(path: Path, rows: Iterable[list[str]]) -> None:
    """Rows of step, loss and, where it was measured, IoU of the parts on the held-out faces."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["step", "loss", *PARTS], *rows])


def small(chip: Picture) -> Picture:
    """As of a face whose whole chip was 64 px wide."""
    few = cv2.resize(chip, (64, 64), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(few, chip.shape[1::-1]), np.uint8)


CONDITIONS: dict[str, Callable[[Picture], Picture]] = {
    "as drawn": lambda chip: chip,
    "64 px": small,
    "JPEG 30": lambda chip: compress(chip, 30),
    "dark, x 0.25": lambda chip: (chip * 0.25).astype(np.uint8),
    "grey": lambda chip: np.repeat(cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY)[..., None], 3, -1),
}


def framings(
    picture: Picture, parts: NDArray[np.uint8], mesh: Points
) -> dict[str, tuple[Picture, NDArray[np.uint8], NDArray[np.bool_]]]:
    """By framing: a chip, its parts, and where the picture is not made up: beyond its border nothing is known."""
    move, size = frame(mesh), (INPUT, INPUT)
    placed = cv2.warpAffine(parts, move, size, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones(size, np.float32), move, size) > 0.99
    return {
        "face chip": (head_chip(picture, mesh), np.asarray(placed, np.uint8), inside),
        "whole picture": (picture, parts, np.ones(size, np.bool_)),
    }


def measure(folder: Path, weights: Path | None, threads: int) -> None:
    """Print the IoU of each part with the labels of faces that were not trained on, by framing and condition: over
    all pixels, and where the label is sure."""
    segmenter, look = HeadSegmenter(weights, threads), mesher(threads)
    tallies: dict[tuple[str, str, str], NDArray[np.float64]] = {}
    _, pictures, labels = read(folder)
    for picture, parts in zip(pictures, labels, strict=True):
        for framing, (chip, wanted, inside) in framings(picture, parts, look(picture)[0]).items():
            share = np.asarray(cv2.resize(wanted, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            seen = inside.reshape(SIDE, INPUT // SIDE, SIDE, INPUT // SIDE).all((1, 3))
            sure = seen & (share.max(-1) >= SURE * 255)
            found = segmenter.parts([change(chip) for change in CONDITIONS.values()])
            for condition, answer in zip(CONDITIONS, found, strict=True):
                for kind, where in (("all", seen), ("sure", sure)):
                    key = (framing, condition, kind)
                    tally = overlap(answer[where].argmax(-1), share[where].argmax(-1))
                    tallies[key] = tallies.get(key, 0) + tally
    print(f"{len(pictures)} faces", *PARTS, sep=",")
    for key, tally in tallies.items():
        print(" ".join(key), *(f"{value:.3f}" for value in ratio(tally)), sep=",")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    drawing = verb(verbs, "draw", draw, "folder")
    drawing.add_argument("--first", type=int, default=0)
    drawing.add_argument("--count", type=int, default=1536)
    verb(verbs, "label", label_all, "folder")
    fitting = verb(verbs, "fit", fit, "folder", "output")
    for name, value in (("steps", 1100), ("batch", 16), ("every", 100), ("workers", 1)):
        fitting.add_argument(f"--{name}", type=int, default=value)
    fitting.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    fitting.add_argument("--resume", action="store_true", help="from the last checkpoint")
    for parsed, seed in ((drawing, SEED), (fitting, 0)):
        parsed.add_argument("--seed", type=int, default=seed)
    verb(verbs, "measure", measure, "folder").add_argument(
        "--weights", type=Path, help="default: the package's"
    )
    arguments = vars(parser.parse_args())
    arguments.pop("call")(**arguments)


def verb(verbs: Any, name: str, call: Callable[..., None], *paths: str) -> argparse.ArgumentParser:
    """A parser for one verb, with its positional paths."""
    parser: argparse.ArgumentParser = verbs.add_parser(name)
    parser.set_defaults(call=call)
    parser.add_argument("--threads", type=int, default=2)
    for path in paths:
        parser.add_argument(path, type=Path)
    return parser


if __name__ == "__main__":
    main()
