"""A small network that tells smiling from neutral faces, trained within seconds."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from deid.evaluation import learning

Floats = NDArray[np.float64]
FACE = (slice(20, 60), slice(12, 52))  # rows and columns of a chip that hold the face, see `quality.chip`
STEPS, BATCH, RATE = 150, 32, 4e-3
SMOOTH = 0.05  # of the labels: no network is sure
ZOOM, MOVE, TURN = 0.1, 0.08, 0.15  # of a chip in training: at most by this share, share of its side, radians


class Network(nn.Module):
    """The logarithm of the odds [B] that a face [B, 3, 40, 40] smiles."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_block(3, 24, 1), _block(24, 32, 2), _block(32, 48, 2), _block(48, 48, 2))
        self.head = nn.Linear(48 * 5 * 5, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, chips: Tensor) -> Tensor:
        odds: Tensor = self.head(self.body(chips).flatten(1))[:, 0]
        return odds


def _block(come: int, go: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(come, go, 3, stride, 1, bias=False), nn.BatchNorm2d(go), nn.ReLU())


def train(chips: NDArray[np.uint8], smiling: NDArray[np.bool_], seed: int, steps: int = STEPS) -> Network:
    """Learn from chips [N, 64, 64, 3] and whether each smiles [N], both kinds weighing the same."""
    generator = torch.Generator().manual_seed(seed)
    network = learning.initial(Network, seed)
    pictures, wanted = learning.tensor(chips[:, *FACE]), torch.from_numpy(smiling)
    share = wanted.float().mean().clamp(0.01, 0.99)
    weight = torch.where(wanted, 0.5 / share, 0.5 / (1 - share))
    soft = torch.where(wanted, 1 - SMOOTH, SMOOTH)
    batches = learning.Batches(len(chips), BATCH, generator)

    def loss() -> Tensor:
        chosen = batches.next()
        odds = network(_varied(_own(pictures[chosen]), generator))
        return F.binary_cross_entropy_with_logits(odds, soft[chosen], weight[chosen])

    learning.train(network, loss, steps, RATE)
    return network


def _own(faces: Tensor) -> Tensor:
    """Faces [B, 3, 40, 40], bytes, in their own lightness and contrast."""
    values = learning.unit(faces)
    spread = values.std((1, 2, 3), keepdim=True).clamp(min=1e-2)
    return (values - values.mean((1, 2, 3), keepdim=True)) / spread


def _varied(chips: Tensor, generator: torch.Generator) -> Tensor:
    """Chips mirrored, turned, zoomed, moved and tinted at random."""
    count = len(chips)

    def either(most: float, *more: int) -> Tensor:
        return most * (2 * torch.rand(count, *more, generator=generator) - 1)

    chips = learning.mirror(chips, torch.rand(count, generator=generator) < 0.5)
    zoom, turn = 1 + either(ZOOM), either(TURN)
    back = torch.zeros(count, 2, 3)
    back[:, 0, 0] = back[:, 1, 1] = zoom * turn.cos()
    back[:, 0, 1], back[:, 1, 0] = -zoom * turn.sin(), zoom * turn.sin()
    back[:, :, 2] = either(2 * MOVE, 2)
    grid = F.affine_grid(back, list(chips.shape), align_corners=False)
    moved = F.grid_sample(chips, grid, padding_mode="border", align_corners=False)
    return learning.tinted(moved, generator).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def odds(network: Network, chips: NDArray[np.uint8]) -> Floats:
    """[N] logarithm of the odds that chips [N, 64, 64, 3] smile; of each and its mirror image, the mean."""
    parts = [_own(part) for part in learning.tensor(chips[:, *FACE]).split(256)]
    both = [network(part) + network(part.flip(-1)) for part in parts]
    return (torch.cat(both) / 2).double().numpy() if both else np.zeros(0)


def balanced(right: NDArray[np.bool_], smiling: NDArray[np.bool_], weight: Floats) -> float:
    """Mean of the shares [N] that are right among smiling and among neutral, where face n counts `weight` [N] times."""
    shares = [
        float((right * weight)[kind].sum() / weight[kind].sum()) if weight[kind].sum() else float("nan")
        for kind in (smiling, ~smiling)
    ]
    return float(np.mean(shares))
