"""Views of labelled heads for training: other backgrounds, framings, light and quality.

View n is a function of the seed and n alone, so that training can go on where it stopped.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deid.faces.segment import BACKGROUND, HAIR, INPUT, OTHER, PARTS
from deid.interfaces import Picture
from deid.surrogates.masks import Field
from deid.surrogates.matting import foreground

OWN, PLAIN = (
    0.45,
    0.30,
)  # shares of views with their own background and with a plain one; the rest: another picture
SOFT = 20  # px: radius of the foreground estimate
CUT = 0.03  # share of hair in the uppermost rows from which the picture's border cuts the hair
OCCLUDED, GREY, BLURRED, NOISY, COMPRESSED = 0.15, 0.12, 0.4, 0.4, 0.4  # shares of views


class Views:
    """Chips [3, INPUT, INPUT], -1..1, and their parts [5, INPUT, INPUT], 0..1, for a PyTorch loader.

    Args:
        pictures: [N, INPUT, INPUT, 3].
        parts: [N, INPUT, INPUT, 5], 0..255.
        seed: of all views.
        numbers: of the views, in this order.
    """

    def __init__(
        self, pictures: NDArray[np.uint8], parts: NDArray[np.uint8], seed: int, numbers: Sequence[int]
    ) -> None:
        self.pictures, self.parts = pictures, parts
        self.seed, self.numbers = seed, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, self.numbers[place]))
        face, other = rng.integers(len(self.pictures), size=2)
        picture, parts = view(rng, self.pictures[face], self.parts[face], self.pictures[other])
        return to_chips(picture), torch.from_numpy(np.ascontiguousarray(parts.transpose(2, 0, 1)))


def to_chips(pictures: NDArray[np.uint8]) -> Tensor:
    """What the network takes, [..., 3, H, W], of pictures [..., H, W, 3]."""
    return torch.from_numpy(np.moveaxis(pictures, -1, -3).astype(np.float32) / np.float32(127.5) - 1)


def view(
    rng: np.random.Generator, picture: Picture, parts: NDArray[np.uint8], other: Picture
) -> tuple[Picture, Field]:
    """One view of a picture [INPUT, INPUT, 3] and its parts [INPUT, INPUT, 5]; `other`: a picture of someone else."""
    shares, plain = np.asarray(parts / np.float32(255), np.float32), picture.astype(np.float32)
    shown = rng.random()
    move, border = placement(rng, bool(shares[:3, :, HAIR].max(0).mean() > CUT))

    def moved(values: Field) -> Field:
        return np.asarray(cv2.warpAffine(values, move, (INPUT, INPUT), borderMode=border), np.float32)

    placed = np.clip(moved(shares), 0, 1)
    placed /= placed.sum(-1, keepdims=True) + 1e-6
    if shown < OWN:
        x = moved(plain)
    else:
        behind = flat(rng) if shown < OWN + PLAIN else elsewhere(rng, other)
        alpha = 1 - placed[..., BACKGROUND, None]
        x = moved(foreground(plain, 1 - shares[..., BACKGROUND], SOFT)) * alpha + behind * (1 - alpha)
    if rng.random() < OCCLUDED:
        x, placed = occlude(rng, x, placed, other)
    result = degrade(rng, relight(rng, x))
    return (result[:, ::-1], placed[:, ::-1]) if rng.random() < 0.5 else (result, placed)


def placement(rng: np.random.Generator, cut: bool) -> tuple[NDArray[np.float64], int]:
    """Map [2, 3] and OpenCV border mode: mostly as on `segment.head_chip`, smaller than the picture and lower.

    Hair that the picture's border cuts is mostly left at the border, since beyond it would be invented.
    """
    large = cut and rng.random() < 0.6
    scale = rng.uniform(0.88, 1.1) if large else rng.uniform(0.58, 1.0)
    middle = INPUT / 2
    move = np.array(cv2.getRotationMatrix2D((middle, middle), rng.normal(0, 5), scale), np.float64)
    slack = middle * max(0.0, 1 - scale)
    down = rng.uniform(0, slack)
    if scale >= 1:
        down = rng.uniform(-12, 25)
    elif rng.random() < 0.8:
        down = slack + rng.uniform(-3, 14)
    move[:, 2] += (rng.uniform(-20, 20), down)
    return move, cv2.BORDER_REFLECT if rng.random() < 0.4 else cv2.BORDER_REPLICATE


def flat(rng: np.random.Generator) -> Field:
    """A wall [INPUT, INPUT, 3], 0..255, of one colour, half of them grey, unevenly lit."""
    colour = rng.uniform(0.03, 1, 3) * rng.uniform(0.3, 1)
    if rng.random() < 0.5:
        colour[:] = colour.mean()
    light = cv2.resize(rng.uniform(0.75, 1.25, (2, 2)).astype(np.float32), (INPUT, INPUT))
    return np.asarray(np.clip(colour * light[..., None], 0, 1) * 255, np.float32)


def elsewhere(rng: np.random.Generator, other: Picture) -> Field:
    """Part of another picture [INPUT, INPUT, 3], enlarged and out of focus, 0..255."""
    angle = rng.uniform(-180, 180) if rng.random() < 0.3 else 0.0
    turn = cv2.getRotationMatrix2D((INPUT / 2, INPUT / 2), angle, rng.uniform(1.5, 3))
    move = np.array(turn, np.float64)
    move[:, 2] += rng.uniform(-150, 150, 2)
    part = cv2.warpAffine(other.astype(np.float32), move, (INPUT, INPUT), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(cv2.GaussianBlur(part, (0, 0), rng.uniform(0.3, 4)), np.float32)


def occlude(rng: np.random.Generator, x: Field, parts: Field, other: Picture) -> tuple[Field, Field]:
    """With an ellipse of a flat colour or of another picture before it, which is `OTHER`."""
    mask = np.zeros((INPUT, INPUT), np.float32)
    centre, axes = (tuple(int(v) for v in rng.integers(low, high, 2)) for low, high in ((40, 216), (10, 45)))
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    cover = cv2.GaussianBlur(mask, (0, 0), 1)[..., None]
    shift = tuple(int(v) for v in rng.integers(INPUT, size=2))
    front = flat(rng) if rng.random() < 0.5 else np.roll(other.astype(np.float32), shift, (0, 1))
    here = np.eye(len(PARTS), dtype=np.float32)[OTHER]
    return x * (1 - cover) + front * cover, parts * (1 - cover) + here * cover


def relight(rng: np.random.Generator, x: Field) -> Field:
    """With other tone curve, white balance, exposure and contrast [h, w, 3], 0..255; a part of the views grey."""
    level = np.clip(x / 255, 0, 1) ** np.exp(rng.normal(0, 0.3))
    level = level * (1 + rng.normal(0, 0.12, 3)) * np.exp(rng.normal(0, 0.2))
    level = (level - level.mean()) * np.exp(rng.normal(0, 0.2)) + level.mean()
    if rng.random() < GREY:
        level = level.mean(-1, keepdims=True).repeat(3, -1)
    return np.asarray(level * 255, np.float32)


def degrade(rng: np.random.Generator, x: Field) -> Picture:
    """Smaller and enlarged again, noisy, compressed; each in a part of the views."""
    if rng.random() < BLURRED:
        scale = rng.uniform(0.25, 0.9)
        small = cv2.resize(x, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        x = np.asarray(cv2.resize(small, x.shape[1::-1]), np.float32)
    if rng.random() < NOISY:
        x = x + rng.normal(0, 255 * rng.uniform(0, 0.05), x.shape).astype(np.float32)
    picture = np.asarray(np.clip(x, 0, 255), np.uint8)
    return compress(picture, int(rng.integers(25, 90))) if rng.random() < COMPRESSED else picture


def compress(picture: Picture, quality: int) -> Picture:
    """The picture [h, w, 3] after JPEG."""
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
