"""Fits the heads of `deid.models.image_heads` to the generator's own pictures; development only.

    python jobs/fit_image_heads.py fit HEADS.safetensors          # a minute on an idle core
    python jobs/fit_image_heads.py measure [--heads HEADS.safetensors] [--sheet SHEET.png]

Each head is to give what averaging the picture of 1024 px down gives. It starts from the network's own kernels, and
Adam moves them, one fresh generated picture a step, on the mean squared difference. No photograph is used. The same
seed gives the same styles; the processor's arithmetic shows in the last digits.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deid.faces.align import five_points
from deid.faces.embed import DlibEmbedder
from deid.faces.mesh import FaceMesher
from deid.gallery import store as gallery_store
from deid.interfaces import Detections, Face, Picture
from deid.models.image_heads import BLOCKS, ImageHeads
from deid.models.mobilestylegan import (
    STYLES,
    MappingNetwork,
    SynthesisNetwork,
    load_mapping,
    load_synthesis,
)
from deid.models.store import default_store
from deid.surrogates.generator import pixels

TRUNCATION = 0.8
CENTRE_DRAWS = 4096
MIXED = 0.4  # share of pictures whose upper blocks take another style
CUTS = (2, 6)  # the lower style ends after a block from the first of these to before the last
STEPS = 60  # pictures
RATE = 2e-3  # of Adam at the first step, in standard deviations of each kernel; falls to 0 by a cosine


def draw(mapping: MappingNetwork, count: int, seed: int, mixed: float = MIXED) -> Tensor:
    """Truncated styles [N, 9, 512]; a share `mixed` takes another style from a block on."""
    rng = np.random.default_rng(seed)
    latents = rng.standard_normal((CENTRE_DRAWS + 2 * count, 512), np.float32)
    with torch.inference_mode():
        styles = mapping(torch.from_numpy(latents))
    centre = styles[:CENTRE_DRAWS].mean(0)
    pairs = (centre + TRUNCATION * (styles[CENTRE_DRAWS:] - centre)).view(count, 2, 1, 512)
    chosen = rng.random(count) < mixed
    cuts = np.where(chosen, rng.integers(*CUTS, count), STYLES)
    lower = torch.from_numpy(np.arange(STYLES) - 1 <= cuts[:, None])[..., None]
    return torch.where(lower, pairs[:, 0], pairs[:, 1])


def fit_heads(network: SynthesisNetwork, heads: ImageHeads, styles: Tensor) -> list[dict[int, float]]:
    """Fit heads (float32) to the pictures of a network, one step a style of [N, 9, 512]; the losses by level."""
    levels = [level for level in BLOCKS if heads.fitted(level)]
    parameters = [
        parameter.requires_grad_() for level in levels for parameter in heads.fitted(level).values()
    ]
    optimizer = torch.optim.Adam([{"params": [p], "lr": RATE * float(p.detach().std())} for p in parameters])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(styles))
    losses: list[dict[int, float]] = []
    for style in styles.split(1):
        with torch.no_grad():
            blocks = list(network.blocks(style))
            picture = network.picture(blocks[-1], style).clamp(-1, 1)
        optimizer.zero_grad()
        losses.append({})
        for level in levels:
            wanted = F.interpolate(picture, size=(level, level), mode="area")
            loss = F.mse_loss(heads.head(level)(blocks[BLOCKS[level]].float(), style), wanted)
            loss.backward()
            losses[-1][level] = loss.item()
        optimizer.step()
        schedule.step()
    return losses


def fit(output: Path, steps: int, seed: int) -> None:
    """Write heads fitted to `steps` generated pictures."""
    files = default_store().files("mobilestylegan")
    styles = draw(load_mapping(files), steps, seed)
    heads = ImageHeads(load_synthesis(files))
    losses = fit_heads(load_synthesis(files, torch.bfloat16), heads, styles)
    heads.save(output)
    for level in losses[0]:
        print(f"{level} px: loss {np.mean([loss[level] for loss in losses[-50:]]):.6f}")


class Eyes:
    """Embeddings [128] of generated pictures, whose faces lie where the gallery's do."""

    def __init__(self) -> None:
        store = default_store()
        self.mesher = FaceMesher(store.files("facemesh"))
        self.embedder = DlibEmbedder(store.files("dlib_resnet"))
        mesh = gallery_store.load(None).meshes.mean(0)
        self.box = np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)]).astype(np.float32)
        self.points = five_points(mesh)

    def __call__(self, picture: Picture) -> NDArray[np.float32]:
        side, score = np.float32(len(picture)), np.ones(1, np.float32)
        found = Detections(self.box[None] * side, score, self.points[None] * side)
        meshes, _ = self.mesher.mesh(picture, found)
        face = Face(found.boxes[0], 1.0, found.points[0], meshes[0])
        return self.embedder.embed([picture], [[face]])[0][0]


def compared(early: Picture, full: Picture, eyes: Eyes) -> dict[str, float]:
    """Mean difference and PSNR of two pictures, their mean colours' greatest difference, sharpness, and the distance
    of their embeddings; differences in levels of 255.
    """
    difference = early.astype(np.float64) - full
    energy = [np.square(cv2.Laplacian(p.astype(np.float64), cv2.CV_64F)).mean() for p in (early, full)]
    return {
        "mean_difference": float(np.abs(difference).mean()),
        "psnr": float(10 * np.log10(255**2 / np.square(difference).mean())),
        "colour_cast": float(np.abs(difference.mean((0, 1))).max()),
        "sharpness": float(np.sqrt(energy[0] / energy[1])),  # 1: the same energy of fine detail
        "embedding_distance": float(np.linalg.norm(eyes(early) - eyes(full))),
    }


def measure(heads: Path | None, count: int, seed: int, mixed: float, sheet: Path | None) -> None:
    """Print how close the heads come on pictures of other styles; write some of them side by side."""
    files = default_store().files("mobilestylegan")
    network = load_synthesis(files, torch.bfloat16)
    early, eyes = ImageHeads.load(network, heads), Eyes()
    styles, pairs = draw(load_mapping(files), count, seed, mixed), []
    rows: dict[int, list[dict[str, float]]] = {level: [] for level in BLOCKS}
    for style in styles.split(1):
        with torch.inference_mode():
            full = network(style)
            for level, values in rows.items():
                pair = pixels(early(style, level), level)[0].numpy(), pixels(full, level)[0].numpy()
                values.append(compared(*pair, eyes))
                pairs.append(pair)
    for level, values in rows.items():
        print(f"{level} px, {count} pictures")
        for name in values[0]:
            column = np.array([value[name] for value in values])
            print(f"  {name}: mean {column.mean():.3f}, from {column.min():.3f} to {column.max():.3f}")
    if sheet:
        tiles = [
            cv2.resize(np.hstack(pair), (1024, 512), interpolation=cv2.INTER_CUBIC) for pair in pairs[:12]
        ]
        strips = [np.hstack(tiles[n : n + len(BLOCKS)]) for n in range(0, len(tiles), len(BLOCKS))]
        cv2.imwrite(str(sheet), np.vstack(strips)[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    fitting = verbs.add_parser("fit")
    fitting.set_defaults(call=fit)
    fitting.add_argument("output", type=Path)
    fitting.add_argument("--steps", type=int, default=STEPS, help="pictures to fit to")
    fitting.add_argument("--seed", type=int, default=11)
    measuring = verbs.add_parser("measure")
    measuring.set_defaults(call=measure)
    measuring.add_argument("--heads", type=Path, help="default: those in the package")
    measuring.add_argument("--count", type=int, default=40, help="pictures to compare")
    measuring.add_argument("--seed", type=int, default=12)
    measuring.add_argument("--mixed", type=float, default=0.0, help="share of pictures of two styles")
    measuring.add_argument(
        "--sheet", type=Path, help="picture to write: by level, the head's and the averaged one"
    )
    arguments = vars(parser.parse_args())
    arguments.pop("call")(**arguments)


if __name__ == "__main__":
    main()
