"""What the k-Same-Net is trained on: mixtures of people at an expression between neutral and smiling, whose exact
target is the average of their aligned pictures and meshes.

An average of k people is smooth where they differ. `Bank.target` gives it back the contrast that each of them has, band
by band and place by place, so that a mixture is as sharp as its members.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deid.faces import align
from deid.models.ksame_net import CHANNELS, LIGHT, TURN, Conditions
from deid.surrogates.shapefree import Frame

Values = NDArray[np.float32]

EXPRESSIONS = ("neutral", "smiling")
BEYOND = 0.25  # how far meshes go beyond neutral and smiling, in the way between them
MANY = 10  # people in a mixture at most
FLOOR = 0.02  # weight of colours outside a head, which only fill up what nothing else does
BANDS, POOL = 3, 8  # bands of contrast, and the pixels over which it is measured
GAIN = 2.5  # by which contrast is raised at most
WOBBLE = 5  # directions in which expressions vary beside smiling
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class People:
    """Aligned pictures of N people in two expressions, and their meshes."""

    names: list[str]  # [N]
    pictures: NDArray[np.uint8]  # [C, N, 2, S, S, 4] RGB and head mask, at each of C poses
    meshes: Values  # [N, 2, 468, 3] in the head's own axes, about 0, in sides of the picture
    poses: Values  # [C, 3] yaw, pitch, roll in degrees

    def __len__(self) -> int:
        return len(self.names)

    def save(self, path: Path, frame: Frame) -> None:
        """Write them and the frame in which they stand; pictures of people, never for a repository."""
        names, mean = np.array(self.names), frame.mean
        np.savez(path, names=names, frame=mean, pictures=self.pictures, meshes=self.meshes, poses=self.poses)

    @classmethod
    def load(cls, path: Path) -> "tuple[People, Frame]":
        with np.load(path, allow_pickle=False) as held:
            names = [str(name) for name in held["names"]]
            return cls(names, held["pictures"], held["meshes"], held["poses"]), Frame(held["frame"])

    def without(self, names: list[str]) -> "People":
        """Those whose names are not given.

        Raises:
            ValueError: one of them is not there.
        """
        if unknown := sorted(set(names) - set(self.names)):
            raise ValueError(f"no pictures of {', '.join(unknown)}")
        kept = [n for n, name in enumerate(self.names) if name not in names]
        return People([self.names[n] for n in kept], self.pictures[:, kept], self.meshes[kept], self.poses)


@dataclass(frozen=True)
class Recipe:
    """What a batch shows, drawn under a seed; B rows each."""

    weights: Values  # [B, N], k entries of 1/k
    smile: Values  # [B] 0: neutral, 1: as the people smile
    pose: NDArray[np.int64]  # [B] number of the pose
    light: Values  # [B, 4], `LIGHT`
    wobble: Values  # [B, WOBBLE] standard deviations

    @classmethod
    def plain(cls, weights: Values, smile: float = 0.0) -> "Recipe":
        """Mixtures [B, N] in their own light, at the first pose."""
        count = len(weights)
        return cls(
            weights.astype(np.float32),
            np.full(count, smile, np.float32),
            np.zeros(count, np.int64),
            np.zeros((count, len(LIGHT)), np.float32),
            np.zeros((count, WOBBLE), np.float32),
        )

    @classmethod
    def draw(cls, seed: tuple[int, ...], size: int, people: int, poses: int) -> "Recipe":
        rng = np.random.default_rng(seed)
        weights = np.zeros((size, people), np.float32)
        for row in weights:
            k = int(rng.integers(1, min(MANY, people) + 1)) if rng.random() < 0.7 else 1
            row[rng.choice(people, k, replace=False)] = 1 / k
        smile = np.where(
            rng.random(size) < 0.4, rng.integers(0, 2, size), rng.uniform(-BEYOND, 1 + BEYOND, size)
        )
        light = rng.normal(0, (0.3, 0.2, 0.2, 0.08), (size, len(LIGHT))) * (rng.random((size, 1)) < 0.6)
        wobble = rng.normal(0, 0.5, (size, WOBBLE)) * (rng.random((size, 1)) < 0.5)
        pose = rng.integers(poses, size=size)
        return cls(
            weights, smile.astype(np.float32), pose, light.astype(np.float32), wobble.astype(np.float32)
        )


class Bank:
    """The people's pictures in memory at one side.

    Args:
        people: see above.
        side: px; the pictures are averaged down to it.
        restore: give averages the contrast of their members.
    """

    def __init__(self, people: People, side: int, restore: bool = True, device: str = "cpu") -> None:
        self.side, self.restore, self.device = side, restore, device
        poses, count = people.pictures.shape[:2]
        each = torch.from_numpy(people.pictures.reshape(-1, *people.pictures.shape[3:])).permute(0, 3, 1, 2)
        held, contrasts = [], []
        for part in each.split(16):
            x = F.interpolate(part.to(device).float() / 255, size=(side, side), mode="area")
            mask = x[:, 3:]
            contrasts.append(contrast(x[:, :3]))
            held.append(torch.cat([x[:, :3] * (FLOOR + (1 - FLOOR) * mask), mask], 1))
        self.held = torch.cat(held).reshape(poses, count * 2, -1)  # colours times mask, and mask
        self.contrast = torch.cat(contrasts).reshape(poses, count * 2, -1)

    def target(self, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """Pictures [B, 4, S, S], 0..1, and the contrast [B, BANDS, S / POOL, S / POOL] of their members."""
        smile = np.clip(recipe.smile, 0, 1)[:, None, None]
        both = recipe.weights[:, :, None] * np.concatenate([1 - smile, smile], 2)
        weights = torch.from_numpy(both.reshape(len(both), -1).astype(np.float32)).to(self.device)
        mixed = torch.empty(len(both), self.held.shape[-1], device=self.device)
        wanted = torch.empty(len(both), self.contrast.shape[-1], device=self.device)
        for pose in np.unique(recipe.pose):
            here = torch.from_numpy(recipe.pose == pose).to(self.device)
            mixed[here] = weights[here] @ self.held[pose]
            wanted[here] = weights[here] @ self.contrast[pose]
        mixed = mixed.view(-1, CHANNELS, self.side, self.side)
        wanted = wanted.view(len(mixed), BANDS, self.side // POOL, -1)
        mask, colour = firm(mixed[:, 3:]), mixed[:, :3] / (FLOOR + (1 - FLOOR) * mixed[:, 3:])
        if self.restore:
            colour = restored(colour, wanted)
        return torch.cat([lit(colour, torch.from_numpy(recipe.light).to(self.device)), mask], 1), wanted


class Shapes:
    """Meshes of mixtures, and the coefficients that describe them.

    Args:
        people: see above.
        count: of coefficients.
    """

    def __init__(self, people: People, count: int) -> None:
        self.meshes = people.meshes.reshape(len(people), 2, -1).astype(np.float64)
        smiles = self.meshes[:, 1] - self.meshes[:, 0]
        _, deviations, ways = np.linalg.svd(smiles - smiles.mean(0), full_matrices=False)
        self.ways = (ways * (deviations / np.sqrt(max(1, len(people) - 1)))[:, None])[:WOBBLE]
        flat = self.meshes.reshape(-1, self.meshes.shape[-1])
        self.mean = flat.mean(0)
        _, deviations, basis = np.linalg.svd(flat - self.mean, full_matrices=False)
        scale = deviations / np.sqrt(max(1, len(flat) - 1))
        self.basis = np.zeros((count, flat.shape[1]))  # fewer people have fewer ways to differ
        self.basis[: len(scale)] = (basis * scale[:, None])[:count]
        self.inverse = np.linalg.pinv(self.basis)
        measured = align.expression(people.meshes)
        self.centre, self.spread = measured.mean((0, 1)), measured.std((0, 1)) + 1e-6

    def meshes_of(self, recipe: Recipe) -> NDArray[np.float64]:
        """Meshes [B, 468, 3] in the head's own axes."""
        neutral, smiling = (recipe.weights.astype(np.float64) @ self.meshes[:, e] for e in (0, 1))
        wobble = recipe.wobble[:, : len(self.ways)] @ self.ways
        mesh = neutral + recipe.smile[:, None] * (smiling - neutral) + wobble
        return np.asarray(mesh.reshape(len(mesh), -1, 3))

    def coefficients(self, meshes: NDArray[np.floating]) -> Values:
        """Of meshes [B, 468, 3]: [B, C], about standard normal."""
        return ((meshes.reshape(len(meshes), -1) - self.mean) @ self.inverse).astype(np.float32)

    def expression(self, meshes: NDArray[np.floating]) -> Values:
        """Standardised `align.EXPRESSION` [B, 5] of meshes."""
        return ((align.expression(meshes) - self.centre) / self.spread).astype(np.float32)

    def conditions(self, recipe: Recipe, poses: Values) -> tuple[Conditions, Tensor]:
        """What the network is given for a recipe, and the coefficients [B, C] it should give."""
        meshes = self.meshes_of(recipe)
        given = (recipe.weights, self.expression(meshes), poses[recipe.pose] / TURN, recipe.light)
        tensors = (torch.from_numpy(np.asarray(values, np.float32)) for values in given)
        return Conditions(*tensors), torch.from_numpy(self.coefficients(meshes))


def bands(x: Tensor) -> list[Tensor]:
    """The Laplacian pyramid (Burt, Adelson 1983) of pictures [B, C, S, S], fine to coarse, and what is left."""
    found = []
    for _ in range(BANDS):
        small = F.avg_pool2d(x, 2)
        found.append(x - enlarge(small))
        x = small
    return [*found, x]


def enlarge(x: Tensor, side: int | None = None) -> Tensor:
    """Pictures [B, C, S, S] at twice their side, or at another (px)."""
    size = 2 * x.shape[-1] if side is None else side
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def luma(x: Tensor) -> Tensor:
    """Brightness [B, 1, S, S] of colours [B, 3, S, S]."""
    return (x * torch.tensor(LUMA, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def contrast(x: Tensor) -> Tensor:
    """Mean size [B, BANDS, S / POOL, S / POOL] of the bands of colours [B, 3, S, S]."""
    return pooled(bands(luma(x))[:BANDS])


def pooled(details: list[Tensor]) -> Tensor:
    """Mean size [B, BANDS, S / POOL, S / POOL] of bands, each [B, 1, s, s]."""
    return torch.cat([F.avg_pool2d(band.abs(), POOL >> level) for level, band in enumerate(details)], 1)


def restored(colour: Tensor, wanted: Tensor) -> Tensor:
    """Colours [B, 3, S, S] with their bands raised to a contrast [B, BANDS, ...], by `GAIN` at most."""
    *details, low = bands(colour)
    gain = (wanted / (pooled([luma(band) for band in details]) + 1e-4)).clamp(1, GAIN)
    for level, band in reversed(list(enumerate(details))):
        low = enlarge(low) + band * enlarge(gain[:, level : level + 1], band.shape[-1])
    return low.clamp(0, 1)


def firm(mask: Tensor) -> Tensor:
    """Averaged masks 0..1 with an edge as narrow as their members' have: hair that few of them share is left out."""
    t = ((mask - 0.2) / 0.6).clamp(0, 1)
    return t * t * (3 - 2 * t)


def lit(colour: Tensor, light: Tensor) -> Tensor:
    """Colours [B, 3, S, S], 0..1, under lights [B, 4]."""
    return torch.sigmoid(torch.logit(colour, 0.004) + plane(light, colour.shape[-1]))


def plane(light: Tensor, side: int) -> Tensor:
    """What lights [B, 4] add to the logits of colours [B, 3, side, side]."""
    line = (torch.arange(side, device=light.device) + 0.5) * (2 / side) - 1
    exposure, across, down, warmth = light.view(-1, len(LIGHT), 1, 1, 1).unbind(1)
    warm = warmth * torch.tensor([1.0, 0, -1], device=light.device).view(1, 3, 1, 1)
    return exposure + across * line.view(1, 1, 1, -1) + down * line.view(1, 1, -1, 1) + warm
