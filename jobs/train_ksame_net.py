"""Makes the weights of `deid.surrogates.ksame_net` from a folder of labelled faces; development only.

    python jobs/train_ksame_net.py prepare FOLDER PEOPLE.npz [--leave-out 003 005]
    python jobs/train_ksame_net.py fit PEOPLE.npz KSAME_NET.safetensors [--variant plain] [--each 3] [--resume]
    python jobs/train_ksame_net.py export PEOPLE.npz KSAME_NET.safetensors    # of a checkpoint, before it is done
    python jobs/train_ksame_net.py sheet KSAME_NET.safetensors SHEET.png

FOLDER holds `labels.csv` with the columns file, subject and expression (neutral, smiling), and the pictures: one face
each, before a plain backdrop. PEOPLE.npz and the checkpoint hold faces of people: keep them out of any repository. With
`--each 3` and more, what is learned are mixtures of so many people, who look alike; with `--each 1` single people, and
the exported file is folded onto groups of `--fold` (3). Beside the weights lie a checkpoint and the terms of the loss.
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

from deid.errors import DeidError
from deid.models.ksame_net import VARIANTS
from deid.surrogates.ksame_net import KSameNet
from deid.surrogates.shapefree import Frame
from deid.training import faces
from deid.training.ksame_losses import TERMS
from deid.training.ksame_net import Plan, Training, export
from deid.training.mixtures import People

LEAST = 3  # people in each identity of an exported file
COEFFICIENTS = 24
BACKGROUND = np.array((200, 200, 200))  # of sheets


def prepare(folder: Path, people: Path, leave_out: list[str], threads: int) -> None:
    """Align the pictures of a folder and write them."""
    found = faces.read(folder, threads)
    made, frame = faces.shape_free({name: each for name, each in found.items() if name not in leave_out})
    made.save(people, frame)
    print(f"{len(made)} people, {len(leave_out)} left out")


def fit(
    people: Path,
    output: Path,
    variant: str,
    each: int,
    fold: int,
    leave_out: list[str],
    terms: list[str],
    restore: bool,
    steps: int,
    small: int,
    warm: int,
    samples: int,
    batch: int,
    rate: float,
    seed: int,
    every: int,
    threads: int,
    device: str,
    resume: bool,
) -> None:
    """Train, and write the weights; beside `output` a checkpoint (.checkpoint) and the terms of the loss (.csv)."""
    torch.set_num_threads(threads)
    learned, single, frame, mixing = material(people, variant, each, fold, leave_out, restore, seed)
    coefficients = COEFFICIENTS if variant == "shapefree" else 0
    plan = Plan(steps, small, batch, warm, samples, coefficients, restore, tuple(terms), rate, seed)
    training, rows = Training(learned, plan, device, single), []
    checkpoint, curve = output.with_suffix(".checkpoint"), output.with_suffix(".csv")
    if resume:
        if not checkpoint.exists():
            raise SystemExit(f"{checkpoint}: no checkpoint to go on from; leave out --resume")
        training.load(checkpoint)
        rows = list(csv.reader(curve.open(encoding="utf-8")))[1 : training.step + 1]
    elif warm:
        print(f"warm start: {training.warm_up():.4f}", flush=True)
    while training.step < steps:
        found = training.learn()
        rows.append([str(training.step), *(f"{found.get(name, 0):.5f}" for name in (*TERMS, "shape"))])
        if training.step % every == 0 or training.step == steps:
            write(curve, rows)
            training.save(checkpoint)
            print(*rows[-1], flush=True)
    export(training, output, frame.mean, mixing)


def material(
    people: Path, variant: str, each: int, fold: int, leave_out: list[str], restore: bool, seed: int
) -> tuple[People, People, Frame, NDArray[np.float32] | None]:
    """Who is learned, single people, their frame, and what the identities are folded with when they are exported."""
    single, frame = People.load(people)
    single = single.without(leave_out)
    if variant == "plain":
        single = faces.posed(single, frame)
    groups = faces.groups(single, max(each, fold, LEAST), seed)
    if each >= LEAST:
        return faces.merged(single, groups, restore), single, frame, None
    return single, single, frame, faces.mixing(groups, len(single))


def export_checkpoint(
    people: Path, output: Path, each: int, fold: int, leave_out: list[str], threads: int
) -> None:
    """Write the weights of an unfinished training, from its checkpoint beside `output`."""
    torch.set_num_threads(threads)
    checkpoint = output.with_suffix(".checkpoint")
    given = torch.load(checkpoint, weights_only=True)["plan"]
    plan = Plan(**given | {"terms": tuple(given["terms"])})
    variant = "shapefree" if plan.coefficients else "plain"
    learned, single, frame, mixing = material(people, variant, each, fold, leave_out, plan.restore, plan.seed)
    training = Training(learned, plan, real=single)
    training.load(checkpoint)
    export(training, output, frame.mean, mixing)
    print(f"after {training.step} of {plan.steps} steps")


def write(path: Path, rows: Iterable[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["step", *TERMS, "shape"], *rows])


def sheet(weights: Path, output: Path, count: int, seed: int, threads: int) -> None:
    """Mixtures of 1, 2, 3 and 5 identities by row, and below them one from neutral to smiling, turned, and lit."""
    net, rng = KSameNet({"ksame_net.safetensors": weights}, threads), np.random.default_rng(seed)
    rows = []
    for k in (1, 2, 3, 5):
        chosen = [rng.choice(net.identities, min(k, net.identities), replace=False) for _ in range(count)]
        rows.append(shown(net, np.stack([net.mixture(members.tolist()) for members in chosen])))
    one = np.repeat(rows_of(net, seed), count, 0)
    ramp = np.linspace(-1.5, 1.5, count)[:, None]
    measures = net.centre + ramp * net.spread * np.array([1, 0.6, 1, -0.4, 0])
    rows.append(shown(net, one, measures))
    rows.append(shown(net, one, pose=ramp * (20, 0, 0)))
    rows.append(shown(net, one, light=ramp * (0.4, 0.3, 0, 0)))
    cv2.imwrite(str(output), np.concatenate(rows)[..., ::-1])


def rows_of(net: KSameNet, seed: int) -> NDArray[np.float32]:
    members = np.random.default_rng(seed).choice(net.identities, min(2, net.identities), replace=False)
    return net.mixture(members.tolist())[None]


def shown(net: KSameNet, mixtures: NDArray[np.float32], *given: Any, **more: Any) -> NDArray[np.uint8]:
    """Heads on grey [256, N * 256, 3]."""
    pictures, _ = net.portraits(mixtures, *given, **more)
    mask = pictures[..., 3:] / 255
    return np.concatenate(list((pictures[..., :3] * mask + BACKGROUND * (1 - mask)).astype(np.uint8)), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    preparing = verb(verbs, "prepare", prepare, "folder", "people")
    fitting = verb(verbs, "fit", fit, "people", "output")
    exporting = verb(verbs, "export", export_checkpoint, "people", "output")
    for parsed in (preparing, fitting, exporting):
        parsed.add_argument("--leave-out", nargs="*", default=[], help="subjects")
    for parsed in (fitting, exporting):
        parsed.add_argument("--each", type=int, default=LEAST, help="people in what is learned; 1: singles")
        parsed.add_argument("--fold", type=int, default=LEAST, help="people in what is exported, at least")
    fitting.add_argument("--variant", choices=VARIANTS, default=VARIANTS[0])
    numbers = {
        "steps": 3000,
        "small": 1500,
        "warm": 1500,
        "samples": 384,
        "batch": 8,
    }
    for name, value in {**numbers, "seed": 0, "every": 50}.items():
        fitting.add_argument(f"--{name}", type=int, default=value)
    fitting.add_argument("--rate", type=float, default=2e-4, help="of the first steps after the warm start")
    fitting.add_argument("--terms", nargs="+", choices=TERMS, default=list(TERMS), help="of the loss")
    fitting.add_argument(
        "--no-restore", dest="restore", action="store_false", help="plain averages as targets"
    )
    fitting.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    fitting.add_argument("--resume", action="store_true", help="from the last checkpoint")
    drawing = verb(verbs, "sheet", sheet, "weights", "output")
    drawing.add_argument("--count", type=int, default=8)
    drawing.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    try:
        arguments.pop("call")(**arguments)
    except (DeidError, ValueError) as error:
        raise SystemExit(str(error)) from None


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
