"""The k-Same-Net: from a mixture of identities, an expression, a pose and a light to a picture with a head mask.

Meden et al. 2017 ("Face deidentification with generative deep neural networks") and 2018 ("k-Same-Net"): each
condition goes through three fully connected stages, all are joined, and six blocks double the side from 4 to 256 px.
Two things are added, since the people are few and well aligned. From 32 px on each block adds its part to a pyramid of
pictures (Karras et al. 2020), and beside what its convolutions make it holds learned pictures, weighted by the
conditions. And light is a smooth field that is added to the picture's logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deid.faces.align import EXPRESSION, POSE

SIDE = 256  # px
VARIANTS = ("shapefree", "plain")  # a texture on the mean mesh with mesh coefficients, or the picture whole
LIGHT = (
    "exposure",
    "across",
    "down",
    "warmth",
)  # logarithms of factors; of the right over the left, and so on
TURN = 30.0  # degrees that count as 1 in a pose
CHANNELS = 4  # red, green, blue, mask
SLOPE = 0.2  # of every leaky ReLU
FIELD = 8  # px: side of the coarse field of light
STAGES = {"identity": 192, "expression": 48, "pose": 24, "light": 24}  # widths of the fully connected stages
WIDTHS = {4: 128, 8: 128, 16: 96, 32: 64, 64: 32, 128: 16, 256: 8}  # channels by side in px
LEARNED = {32: 64, 64: 64, 128: 48, 256: 32}  # learned pictures by side in px


@dataclass(frozen=True)
class Conditions:
    """What a picture is made from; all float32, one row a picture."""

    identity: Tensor  # [N, identities], each row adds up to 1: k entries of 1/k
    expression: Tensor  # [N, 5], standardised `align.EXPRESSION`
    pose: Tensor  # [N, 3] yaw, pitch, roll in units of `TURN`
    light: Tensor  # [N, 4], `LIGHT`

    def to(self, device: str) -> "Conditions":
        return Conditions(*(getattr(self, name).to(device) for name in STAGES))


class Block(nn.Module):
    """Features [N, inputs, S/2, S/2] to [N, outputs, S, S], and its part of the picture [N, 4, S, S].

    Args:
        side: S.
        style: numbers that describe the conditions.
    """

    def __init__(self, inputs: int, side: int, style: int) -> None:
        super().__init__()
        width, self.learned = WIDTHS[side], LEARNED.get(side, 0)
        self.widen = nn.Conv2d(
            inputs, 4 * width, 3, padding=1
        )  # sub-pixel (Shi et al. 2016): cheap on the CPU
        self.place = nn.Parameter(torch.zeros(width, side, side))
        self.scale = nn.Linear(style, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)
        if self.learned:
            self.draw = nn.Conv2d(width, CHANNELS, 3, padding=1)
            self.weigh = nn.Linear(style, self.learned)
            self.pictures = nn.Parameter(torch.randn(self.learned, CHANNELS, side, side) * 0.02)
            self.mean = nn.Parameter(torch.zeros(CHANNELS, side, side))
            nn.init.normal_(self.draw.weight, std=0.01)
            nn.init.zeros_(self.draw.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, style: Tensor) -> tuple[Tensor, Tensor | None]:
        x = F.pixel_shuffle(self.widen(x), 2)
        x = x * (1 + self.scale(style))[:, :, None, None] + self.place
        x = F.leaky_relu(self.conv(F.leaky_relu(x, SLOPE)), SLOPE)
        if not self.learned:
            return x, None
        weighted = self.weigh(style) @ self.pictures.flatten(1)
        return x, self.draw(x) + weighted.view(-1, *self.mean.shape) + self.mean


class KSameNetwork(nn.Module):
    """Conditions to pictures [N, 4, S, S], 0..1 (red, green, blue, head mask), and mesh coefficients [N, C].

    Args:
        identities: entries of the identity vector.
        coefficients: C, of a mesh; 0: the plain variant has none.
    """

    def __init__(self, identities: int, coefficients: int = 0) -> None:
        super().__init__()
        self.identities, self.coefficients = identities, coefficients
        inputs = {
            "identity": identities,
            "expression": len(EXPRESSION),
            "pose": len(POSE),
            "light": len(LIGHT),
        }
        self.stages = nn.ModuleDict({name: _stages(inputs[name], width) for name, width in STAGES.items()})
        style = sum(STAGES.values())
        self.start = nn.Linear(style, WIDTHS[4] * 16)
        sides = list(WIDTHS)
        self.blocks = nn.ModuleList(Block(WIDTHS[below], side, style) for below, side in pairwise(sides))
        self.shade = nn.Linear(style, 3 * FIELD**2)
        nn.init.zeros_(self.shade.weight)
        nn.init.zeros_(self.shade.bias)
        if coefficients:
            self.shape = nn.Sequential(
                nn.Linear(style, 128), nn.LeakyReLU(SLOPE), nn.Linear(128, coefficients)
            )

    def forward(self, given: Conditions, side: int = SIDE) -> tuple[Tensor, Tensor]:
        """Pictures and coefficients; `side` below 256 leaves out the last blocks."""
        style = self.style(given)
        x = F.leaky_relu(self.start(style), SLOPE).view(-1, WIDTHS[4], 4, 4)
        picture = x.new_zeros(len(x), CHANNELS, 1, 1)
        for number, block in enumerate(self.blocks):
            size = 8 << number
            if size > side:
                break
            x, part = block(x, style)
            if part is not None:
                picture = part + _enlarge(picture, size)
        field = _enlarge(self.shade(style).view(-1, 3, FIELD, FIELD), side)
        colour = torch.sigmoid(picture[:, :3] + field)
        mask = torch.sigmoid(picture[:, 3:])
        shape = self.shape(style) if self.coefficients else style.new_zeros(len(style), 0)
        return torch.cat([colour, mask], 1), shape

    def style(self, given: Conditions) -> Tensor:
        """The conditions after their stages [N, 288]."""
        return torch.cat([stage(getattr(given, name)) for name, stage in self.stages.items()], 1)

    def fold(self, mixtures: Tensor) -> "KSameNetwork":
        """A network over mixtures [M, identities] of the identities: what it was told of each is not kept.

        Only the first identity layer changes; its product with the mixtures has at most their rank, so that people who
        have the same share in each mixture cannot be told apart any more, whatever is put in.
        """
        made = KSameNetwork(len(mixtures), self.coefficients)
        state = {name: value.clone() for name, value in self.state_dict().items()}
        first = "stages.identity.0.weight"
        state[first] = state[first] @ mixtures.T.to(state[first])
        made.load_state_dict(state)
        return made


def sizes(state: Mapping[str, Any]) -> tuple[int, int]:
    """Identities and coefficients of a network with these tensors."""
    last = state.get("shape.2.weight")
    return state["stages.identity.0.weight"].shape[1], 0 if last is None else len(last)


def _stages(inputs: int, width: int) -> nn.Sequential:
    """Three fully connected stages."""
    layers: list[nn.Module] = []
    for size in (inputs, width, width):
        layers += [nn.Linear(size, width), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _enlarge(x: Tensor, side: int) -> Tensor:
    if x.shape[-1] == 1:
        return x
    return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
