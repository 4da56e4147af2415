"""Makes weights of `deid.faces.segmenter` from consented photographs before a plain wall; development only.

    python jobs/train_segmenter_clean.py label PHOTOGRAPHS LABELLED --bald 021      # parts, by colour and mesh
    python jobs/train_segmenter_clean.py sheet LABELLED SHEET.png                   # look at them
    python jobs/train_segmenter_clean.py fit LABELLED SEGMENTER.safetensors [--resume]
    python jobs/train_segmenter_clean.py measure LABELLED [--weights SEGMENTER.safetensors]

PHOTOGRAPHS holds SUBJECT_ANYTHING.jpg, square. Each sixth subject is held out. No network that descends from
non-commercial weights or pictures has a part in it: `docs/models/segmenter_clean.md`.
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
from torch.nn import functional as F
from torch.utils.data import DataLoader

from deid.faces import segment
from deid.faces.detect import CenterFaceDetector
from deid.faces.mesh import FaceMesher
from deid.faces.segment import INPUT, PARTS, SIDE
from deid.faces.segmenter import HeadSegmenter
from deid.interfaces import Picture
from deid.models.store import default_store
from deid.training import photographs
from deid.training.photograph_views import People, PhotographViews
from deid.training.segmenter import Training, overlap, ratio
from deid.training.views import compress

PACKAGED = Path(segment.__file__).parent / "data" / "segmenter_clean.safetensors"
HELD = 6  # each sixth subject is held out, from the fourth on
COARSE = 0.75  # share of the steps on chips of half the side, at a quarter of the cost
MESH_SCORE = 0.9  # least, of a photograph to learn from
SURE = 0.8  # share of one part from which a label counts as sure
COLOURS = np.array([(60, 60, 60), (255, 90, 90), (90, 160, 255), (255, 220, 90), (90, 255, 120)], np.float32)


def label(photographs_at: Path, folder: Path, bald: list[str], without: list[str]) -> None:
    """Write pictures NAME.png [512, 512, 3], meshes NAME.npy [468, 3] and parts NAME.parts.png [512, 5 * 512], side by
    side. What is there already is left."""
    store = default_store()
    detector = CenterFaceDetector(store.files("centerface"), threshold=0.3, enlarge=1.0)
    mesher, side = FaceMesher(store.files("facemesh")), photographs.SIDE
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(photographs_at.glob("*.jpg")):
        target = folder / f"{file.stem}.parts.png"
        if target.exists() or file.stem in without:
            continue
        small = cv2.resize(read_picture(file), (side, side), interpolation=cv2.INTER_AREA)
        picture: Picture = np.ascontiguousarray(small, np.uint8)
        found = detector.detect([picture])[0]
        meshes, scores = mesher.mesh(picture, found)
        if not len(found) or scores.max() < MESH_SCORE:
            print(f"{file.name}: no sure face, left out", flush=True)
            continue
        mesh = meshes[int(np.argmax(found.boxes[:, 3] - found.boxes[:, 1]))]
        keep(folder / file.stem, picture, mesh, photographs.label(picture, mesh, subject(file.stem) in bald))


def keep(name: Path, picture: Picture, mesh: NDArray[np.float32], parts: NDArray[np.float32]) -> None:
    """Write the three files of a labelled picture, the parts last."""
    np.save(name.with_name(f"{name.name}.npy"), mesh)
    write_picture(name.with_name(f"{name.name}.png"), picture)
    strip = np.hstack(list((parts * 255).round().astype(np.uint8).transpose(2, 0, 1)))
    write_picture(name.with_name(f"{name.name}.parts.png"), np.repeat(strip[..., None], 3, -1))


def subject(name: str) -> str:
    return name.split("_")[0]


def read_picture(file: Path) -> Picture:
    return np.ascontiguousarray(np.asarray(cv2.imread(str(file)), np.uint8)[..., ::-1])


def write_picture(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a PNG, whole or not at all."""
    fresh = file.with_name(file.name + ".new")
    fresh.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    fresh.replace(file)


def read(folder: Path) -> tuple[list[str], NDArray[np.bool_], People]:
    """Names [N], which of them are held out [N], and the labelled people of a folder."""
    names = [file.name.removesuffix(".parts.png") for file in sorted(folder.glob("*.parts.png"))]
    if not names:
        raise SystemExit(f"{folder}: no labelled photographs; label first")
    subjects = sorted({subject(name) for name in names})
    held = np.array([subjects.index(subject(name)) % HELD == HELD // 2 for name in names])
    pictures = np.stack([read_picture(folder / f"{name}.png") for name in names])
    side = pictures.shape[1]
    parts = np.empty((len(names), side, side, len(PARTS)), np.uint8)
    for row, name in enumerate(names):
        strip = np.asarray(cv2.imread(str(folder / f"{name}.parts.png"), cv2.IMREAD_GRAYSCALE))
        parts[row] = strip.reshape(side, len(PARTS), side).transpose(0, 2, 1)
    meshes = np.stack([np.load(folder / f"{name}.npy") for name in names]).astype(np.float32)
    return names, held, People(pictures, parts, meshes)


def sheet(folder: Path, output: Path, weights: list[Path] | None, width: int) -> None:
    """Write chips with their labels, or with `weights` the held-out ones with what each network says."""
    _, held, people = read(folder)
    networks = [HeadSegmenter(path) for path in weights or []]
    chips, parts = (people[held] if weights else people).chips()
    tiles = []
    for chip, label in zip(chips, parts, strict=True):
        answers = [cv2.resize(network.parts([chip])[0], (INPUT, INPUT)) for network in networks]
        tiles.append(np.hstack([chip, *(painted(chip, answer) for answer in (label, *answers))]))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % width)
    rows = [np.hstack(tiles[at : at + width]) for at in range(0, len(tiles), width)]
    write_picture(output, np.vstack(rows))


def painted(chip: Picture, parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The chip [h, w, 3] under the colours of its parts [h, w, 5]."""
    colours = (parts / np.float32(255)) @ COLOURS
    return np.asarray(np.clip(0.6 * colours + 0.4 * chip, 0, 255), np.uint8)


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
    """Train on the labelled people of a folder; beside `output` a checkpoint (.checkpoint) and the losses (.csv)."""
    torch.set_num_threads(threads)
    _, held, people = read(folder)
    training, rows = Training(steps, seed, device), []
    checkpoint, losses = output.with_suffix(".checkpoint"), output.with_suffix(".csv")
    if resume:
        if not checkpoint.exists():
            raise SystemExit(f"{checkpoint}: no checkpoint to go on from; leave out --resume")
        training.load(checkpoint)
        rows = list(csv.reader(losses.open(encoding="utf-8")))[1 : training.step + 1]
    chips, parts = people[held].chips()
    views = PhotographViews(people[~held], seed, range(training.step * batch, steps * batch))
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(views, batch, num_workers=workers)  # type: ignore[arg-type]
    for given, wanted in loader:
        if training.step < COARSE * steps:
            given, wanted = F.avg_pool2d(given, 2), F.avg_pool2d(wanted, 2)
        row = [str(training.step), f"{training.learn(given, wanted):.5f}"]
        rows.append(row)
        if training.step % every == 0 or training.step == steps:
            row += [f"{value:.4f}" for value in training.check(chips, parts)]
            write_losses(losses, rows)
            training.save(checkpoint)
            print(*row, flush=True)
    training.export(output)


def write_losses(path: Path, rows: Iterable[list[str]]) -> None:
    """Rows of step, loss and, where it was measured, IoU of the parts on the held-out people."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["step", "loss", *PARTS], *rows])


CONDITIONS: dict[str, Callable[[Picture], Picture]] = {
    "as it is": lambda chip: chip,
    "64 px": lambda chip: np.asarray(
        cv2.resize(cv2.resize(chip, (64, 64), interpolation=cv2.INTER_AREA), (INPUT, INPUT)), np.uint8
    ),
    "JPEG 30": lambda chip: compress(chip, 30),
    "dark x 0.25": lambda chip: (chip * 0.25).astype(np.uint8),
    "grey": lambda chip: np.repeat(cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY)[..., None], 3, -1),
}


def measure(folder: Path, weights: Path | None, threads: int) -> None:
    """Print the IoU of each part with the labels of the held-out people by condition: over all pixels, and where the
    label is sure."""
    segmenter = HeadSegmenter(weights or PACKAGED, threads)
    _, held, people = read(folder)
    tallies: dict[tuple[str, str], NDArray[np.float64]] = {}
    for chip, parts in zip(*people[held].chips(), strict=True):
        share = np.asarray(cv2.resize(parts, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        sure = share.max(-1) >= SURE * 255
        found = segmenter.parts([change(chip) for change in CONDITIONS.values()])
        for condition, answer in zip(CONDITIONS, found, strict=True):
            for kind, where in (("all", np.ones_like(sure)), ("sure", sure)):
                tally = overlap(answer[where].argmax(-1), share[where].argmax(-1))
                tallies[condition, kind] = tallies.get((condition, kind), 0) + tally
    print(f"{held.sum()} photographs", *PARTS, sep=",")
    for key, tally in tallies.items():
        print(" ".join(key), *(f"{value:.3f}" for value in ratio(tally)), sep=",")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    labelling = verb(verbs, "label", label, "photographs_at", "folder")
    labelling.add_argument("--bald", nargs="*", default=[], help="subjects without any hair")
    labelling.add_argument("--without", nargs="*", default=[], help="names to leave out")
    showing = verb(verbs, "sheet", sheet, "folder", "output")
    showing.add_argument("--weights", type=Path, nargs="*")
    showing.add_argument("--width", type=int, default=6)
    fitting = verb(verbs, "fit", fit, "folder", "output")
    for name, value in (
        ("steps", 900),
        ("batch", 8),
        ("every", 100),
        ("workers", 1),
        ("seed", 0),
        ("threads", 2),
    ):
        fitting.add_argument(f"--{name}", type=int, default=value)
    fitting.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    fitting.add_argument("--resume", action="store_true", help="from the last checkpoint")
    measuring = verb(verbs, "measure", measure, "folder")
    measuring.add_argument("--weights", type=Path, help="default: the clean ones in the package")
    measuring.add_argument("--threads", type=int, default=2)
    arguments = vars(parser.parse_args())
    arguments.pop("call")(**arguments)


def verb(verbs: Any, name: str, call: Callable[..., None], *paths: str) -> argparse.ArgumentParser:
    """A parser for one verb, with its positional paths."""
    parser: argparse.ArgumentParser = verbs.add_parser(name)
    parser.set_defaults(call=call)
    for path in paths:
        parser.add_argument(path, type=Path)
    return parser


if __name__ == "__main__":
    main()
