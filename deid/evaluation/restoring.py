"""Two attackers that learn to restore what a face was before it was treated: a ridge regression and a small network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from deid.evaluation import learning

Floats = NDArray[np.float64]
RIDGES = 10.0 ** np.arange(-3, 4)  # beside kernels whose mean diagonal is 1
CONSTANT = 100.0  # weight of the intercept's block beside the features': hardly held back
KEPT = (0.0, 0.5, 1.0)  # shares of the treated value itself in the guess; small ones help by chance
STEPS, BATCH, RATE = 160, 16, 5e-3
POOLED = 2  # cells a side, of what the embeddings' heads look at
HELD = 0.2  # of the people, whom the network's guesses are shrunk on
SWIFT = 4.0  # shares of the treated value are learned so much faster than weights
EMBEDDINGS = 0.3  # weight of their loss beside the pixels'


@dataclass(frozen=True)
class Ridge:
    """Kernel ridge regression of Y on X, around a share of the treated value; settings by leaving out one person each.

    Saunders, Gammerman, Vovk 1998, "Ridge regression learning algorithm in dual variables". With a linear kernel over
    blocks of features it is the ridge regression on all of them, each block weighing the same.
    """

    kernels: Sequence[
        Floats
    ]  # [N, N] of all faces, on features of which nothing was learned but mean and scale
    train: NDArray[np.intp]  # [T] faces to learn from
    test: NDArray[np.intp]
    persons: NDArray[np.intp]  # [N]

    def restore(self, target: Floats, same: Floats | None = None) -> tuple[Floats, float]:
        """Guesses for the tested faces [S, D], and the error left when a person of the training is left out, over the
        constant guess's: of the best kernel, ridge and share.

        target: [N, D]; only the rows to learn from are looked at. same: [N, D] the treated value of the same kind.
        """
        mean = target[self.train].mean(axis=0)
        wanted = target[self.train] - mean
        worth = max(float((wanted**2).sum()), 1e-12)
        start = np.zeros_like(target) if same is None else same - same[self.train].mean(axis=0)
        rests = {
            share: wanted - share * start[self.train] for share in (KEPT if same is not None else (0.0,))
        }
        best, chosen = np.inf, (0, RIDGES[-1], 0.0)
        for number, kernel in enumerate(self.kernels):
            own = kernel[np.ix_(self.train, self.train)]
            values, vectors = np.linalg.eigh(own)
            for ridge in RIDGES:
                left = self._left_out(np.maximum(values, 0), vectors, ridge)
                for share, rest in rests.items():
                    error = float(((left @ (rest @ rest.T)) * left).sum()) / worth
                    if error < best:
                        best, chosen = error, (number, ridge, share)
        number, ridge, share = chosen
        kernel, rest = self.kernels[number], rests[share]
        own = kernel[np.ix_(self.train, self.train)] + ridge * np.eye(len(self.train))
        guess = kernel[np.ix_(self.test, self.train)] @ np.linalg.solve(own, rest)
        return mean + share * start[self.test] + guess, best

    def _left_out(self, values: Floats, vectors: Floats, ridge: float) -> Floats:
        """[T, T] that takes targets to what is left of each face's when its person is not learned from."""
        rest = (vectors * (ridge / (values + ridge))) @ vectors.T  # identity less the hat matrix
        left = np.empty_like(rest)
        people = self.persons[self.train]
        for person in np.unique(people):
            rows = np.flatnonzero(people == person)
            left[rows] = np.linalg.solve(rest[np.ix_(rows, rows)] + 1e-9 * np.eye(len(rows)), rest[rows])
        return left


def linear_kernel(blocks: Sequence[Floats], train: NDArray[np.intp]) -> Floats:
    """[N, N] inner products of blocks of features [N, D], each centred and scaled on the training's."""
    total = np.zeros((len(blocks[0]), len(blocks[0])))
    for block in blocks:
        centred = block - block[train].mean(axis=0)
        total += centred @ centred.T / max(float((centred[train] ** 2).sum(axis=1).mean()), 1e-12)
    return total / len(blocks) + CONSTANT


class Network(nn.Module):
    """A U-Net (Ronneberger, Fischer, Brox 2015) from a treated chip to the clear one, with a head for each embedding.

    It starts from the mean clear chip and embedding, and learns how much of the treated ones to add.

    Args:
        mean: [3, 64, 64] of the clear chips, -1..1.
        sizes: D of each embedding, which come centred and scaled.
    """

    mean: Tensor

    def __init__(self, mean: Tensor, sizes: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.one, self.two, self.three = _block(12, 24), _block(24, 48, 2), _block(48, 64, 2)
        self.deep, self.up, self.top = _block(64, 64), _block(64 + 48, 48), _block(48 + 24, 24)
        self.pixels = nn.Conv2d(24, 12, 3, 1, 1)
        self.heads = nn.ModuleList(nn.Linear(64 * POOLED**2 + sum(sizes), size) for size in sizes)
        self.share = nn.Parameter(torch.zeros(1 + len(sizes)))
        for layer in (self.pixels, *self.heads):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, chips: Tensor, vectors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Of chips [B, 3, 64, 64] and treated embeddings [B, D]: the clear chips, and embeddings."""
        fine = self.one(F.pixel_unshuffle(chips, 2))
        middle = self.two(fine)
        deep = self.deep(self.three(middle))
        up = self.up(torch.cat([F.interpolate(deep, scale_factor=2.0), middle], 1))
        top = self.top(torch.cat([F.interpolate(up, scale_factor=2.0), fine], 1))
        shares = SWIFT * self.share
        start = self.mean + shares[0] * (chips - self.mean)
        flat = torch.cat([F.adaptive_avg_pool2d(deep, POOLED).flatten(1), *vectors], 1)
        guesses = [
            share * own + head(flat) for share, own, head in zip(shares[1:], vectors, self.heads, strict=True)
        ]
        return start + F.pixel_shuffle(self.pixels(top), 2), guesses


def _block(come: int, go: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(come, go, 3, stride, 1, bias=False), nn.BatchNorm2d(go), nn.ReLU())


@dataclass(frozen=True)
class Pairs:
    """Treated faces beside what they are restored to: chips [N, 64, 64, 3], embeddings [N, D] of each recognizer."""

    chips: NDArray[np.uint8]
    vectors: Sequence[Floats]
    clear: NDArray[np.uint8]
    wanted: Sequence[Floats]

    def of(self, chosen: NDArray[np.intp]) -> "Pairs":
        kept = [[v[chosen] for v in kind] for kind in (self.vectors, self.wanted)]
        return Pairs(self.chips[chosen], kept[0], self.clear[chosen], kept[1])


class Restorer:
    """A `Network` trained on pairs; its guesses are shrunk towards the mean as suits people whom it has not seen.

    Args:
        pairs: to learn from.
        persons: [N] of the pairs; of these people some are held back for the shrinking.
        seed: of weights, batches and the people held back.
        steps: of training.
    """

    def __init__(self, pairs: Pairs, persons: NDArray[np.intp], seed: int, steps: int = STEPS) -> None:
        people = np.random.default_rng(seed).permutation(np.unique(persons))
        held = np.isin(persons, people[: max(1, round(HELD * len(people)))])
        self.scales = [_scale(v) for v in pairs.vectors], [_scale(v) for v in pairs.wanted]
        self.mean = learning.unit(learning.tensor(pairs.clear)).mean(0)
        sizes = [v.shape[1] for v in pairs.wanted]
        self.network = learning.initial(lambda: Network(self.mean, sizes), seed)
        self._learn(pairs.of(np.flatnonzero(~held)), seed, steps)
        self.shrink = [1.0] * (1 + len(sizes))
        self.shrink = self._fitting(pairs.of(np.flatnonzero(held)))

    def _learn(self, pairs: Pairs, seed: int, steps: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        source, target = learning.tensor(pairs.chips), learning.tensor(pairs.clear)
        come, go = self._scaled(pairs.vectors, 0), self._scaled(pairs.wanted, 1)
        spread = (learning.unit(target) - self.mean).square().mean().clamp(min=1e-4)
        batches = learning.Batches(len(source), BATCH, generator)

        def loss() -> Tensor:
            chosen = batches.next()
            flip = torch.rand(len(chosen), generator=generator) < 0.5
            before, after = (learning.mirror(learning.unit(t[chosen]), flip) for t in (source, target))
            pixels, guesses = self.network(before, [v[chosen] for v in come])
            errors = [
                (guess - value[chosen]).square().sum(1).mean()
                for guess, value in zip(guesses, go, strict=True)
            ]
            return F.mse_loss(pixels, after) / spread + EMBEDDINGS * torch.stack(errors).mean()

        learning.train(self.network, loss, steps, RATE)

    def _fitting(self, held: Pairs) -> list[float]:
        """Of the pixels and of each embedding, the share of the guess that leaves the least error on these pairs."""
        pixels, guesses = self.restore(held.chips, held.vectors)
        middle = (self.mean.permute(1, 2, 0).double().numpy() + 1) * 127.5
        kinds = [(pixels - middle, held.clear - middle)]
        for guess, value, (mean, _) in zip(guesses, held.wanted, self.scales[1], strict=True):
            kinds.append((guess - mean, value - mean))
        return [float(np.clip((g * v).sum() / max((g * g).sum(), 1e-12), 0, 1)) for g, v in kinds]

    @torch.no_grad()
    def restore(self, chips: NDArray[np.uint8], vectors: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """Restored chips [S, 64, 64, 3], 0..255, and embeddings [S, D], of treated ones; a face and its mirror image
        taken together."""
        come, parts = self._scaled(vectors, 0), []
        for rows in torch.arange(len(chips)).split(128):
            seen, own = learning.unit(learning.tensor(chips[rows.numpy()])), [v[rows] for v in come]
            (one, first), (two, second) = self.network(seen, own), self.network(seen.flip(-1), own)
            parts.append(
                [(one + two.flip(-1)) / 2, *[(a + b) / 2 for a, b in zip(first, second, strict=True)]]
            )
        pixels, *guesses = [torch.cat(kind) for kind in zip(*parts, strict=True)]
        shrunk = (self.mean + self.shrink[0] * (pixels - self.mean)).clamp(-1, 1).permute(0, 2, 3, 1)
        restored = [
            share * scale * guess.double().numpy() + mean
            for guess, share, (mean, scale) in zip(guesses, self.shrink[1:], self.scales[1], strict=True)
        ]
        return (shrunk.double().numpy() + 1) * 127.5, restored

    def _scaled(self, vectors: Sequence[Floats], side: int) -> list[Tensor]:
        scaled = ((v - mean) / scale for v, (mean, scale) in zip(vectors, self.scales[side], strict=True))
        return [torch.from_numpy(v).float() for v in scaled]


def _scale(vectors: Floats) -> tuple[Floats, float]:
    """Mean [D], and root of the mean squared distance from it."""
    mean = vectors.mean(axis=0)
    return mean, max(float(np.sqrt(((vectors - mean) ** 2).sum(axis=1).mean())), 1e-9)
