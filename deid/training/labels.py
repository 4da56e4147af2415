"""Soft labels of the parts of generated heads, from the generator's own features.

Features of a generator fall into semantic cells when they are clustered (Collins, Bala, Price, Suesstrunk 2020,
"Editing in Style", section 3.1). A person looked at the cells and named them; the mesh decides inside the face.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from deid.errors import ModelError
from deid.faces.align import OVAL
from deid.faces.segment import BACKGROUND, FACE, INPUT, PARTS, Points
from deid.interfaces import Picture
from deid.models.mobilestylegan import SynthesisNetwork
from deid.surrogates.masks import Field
from deid.surrogates.matting import refine

GRID = 64  # px: side of the cells' map
BLOCKS = (3, 4)  # of the synthesis network: features of 64 and 128 px
EDGE = "edge"  # name of cells that straddle a head and what is behind it
TEMPERATURE = 6.0  # of squared distances to the centres
EDGE_SHARE = 0.4  # of an edge cell that belongs to the parts around it; the rest is background
NEAR = 0.05  # share of a head in the cells around, below which an edge cell is background
MARGIN = 4  # px of `INPUT`: what the mesh says ends this far inside its outline
EYES = (33, 263)  # mesh points: outer corners
LIFT = 0.02  # sides of the picture above them down to which the mesh decides: hair may hang above
RADIUS, SMOOTH = 5, 2e-4  # of the guided filter


@dataclass(frozen=True)
class Cells:
    """What the generator's features are compared with. The blocks' components are concatenated in `centres`.

    Attributes:
        means: [512] and [256], of the channels.
        components: [48, 512] and [32, 256], principal components over the channels' standard deviations.
        centres: [K, 80].
        names: K, each of `PARTS` or `EDGE`.
    """

    means: tuple[Field, ...] = field(repr=False)
    components: tuple[Field, ...] = field(repr=False)
    centres: Field = field(repr=False)
    names: tuple[str, ...]

    @classmethod
    def load(cls, path: Path | None = None) -> "Cells":
        """The cells of a file; None: those in the package.

        Raises:
            ModelError: the file cannot be read, or holds something else.
        """
        file = path or Path(__file__).parent / "data" / "cells.safetensors"
        try:
            with safe_open(file, "numpy") as data:
                means, components = (
                    tuple(data.get_tensor(f"{kind}.{block}") for block in BLOCKS)
                    for kind in ("mean", "components")
                )
                cells = cls(
                    means, components, data.get_tensor("centres"), tuple(data.metadata()["names"].split(","))
                )
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise ModelError(f"{file.name}: no cells ({type(error).__name__}); install deid again") from None
        if len(cells.names) != len(cells.centres) or not set(cells.names) <= {*PARTS, EDGE}:
            raise ModelError(f"{file.name}: {len(cells.centres)} cells, names {', '.join(cells.names)}")
        return cells

    def save(self, path: Path) -> None:
        arrays = {"centres": self.centres}
        for number, block in enumerate(BLOCKS):
            arrays |= {f"mean.{block}": self.means[number], f"components.{block}": self.components[number]}
        save_file(arrays, path, metadata={"names": ",".join(self.names)})

    def project(self, blocks: Iterable[Field]) -> Field:
        """Components [80, GRID, GRID] of the features [C, S, S] of `BLOCKS`, S a multiple of `GRID`."""
        parts = []
        for features, mean, components in zip(blocks, self.means, self.components, strict=True):
            step = features.shape[-1] // GRID
            small = features.reshape(len(features), GRID, step, GRID, step).mean((2, 4), dtype=np.float32)
            parts.append(components @ (small.reshape(len(small), -1) - mean[:, None]))
        return np.concatenate(parts).reshape(-1, GRID, GRID).astype(np.float32)

    def memberships(self, components: Field) -> tuple[Field, Field]:
        """Shares [GRID, GRID, 5] of the parts and [GRID, GRID] of the edge; they add up to 1."""
        points = components.reshape(len(components), -1).T
        distances = (points**2).sum(1, keepdims=True) - 2 * points @ self.centres.T + (self.centres**2).sum(1)
        near = np.exp((distances.min(1, keepdims=True) - distances) / np.float32(TEMPERATURE))
        near /= near.sum(1, keepdims=True)
        named = np.array([[name == part for part in (*PARTS, EDGE)] for name in self.names], np.float32)
        shares = (near @ named).reshape(GRID, GRID, -1)
        return shares[..., :-1], shares[..., -1]


@torch.inference_mode()
def render(network: SynthesisNetwork, style: NDArray[np.float32]) -> tuple[Picture, list[Field]]:
    """The picture [INPUT, INPUT, 3] of a style [512], and the features [C, S, S] of `BLOCKS`."""
    given, kept = torch.from_numpy(style[None]), []
    for number, x in enumerate(network.blocks(given)):
        if number in BLOCKS:
            kept.append(np.asarray(x[0].float().numpy()))
    image = network.layers[-1].get_submodule("to_img")(x, given)[0].permute(1, 2, 0).numpy()
    levels = np.clip((image + 1) * 127.5, 0, 255)
    small = cv2.resize(levels, (INPUT, INPUT), interpolation=cv2.INTER_AREA)
    return np.asarray(small.round(), np.uint8), kept


def share_edges(shares: Field, edge: Field) -> Field:
    """Parts [h, w, 5] with the edge cells' share [h, w] divided between the background and the parts around."""
    around = np.array(cv2.blur(shares, (3, 3)), np.float32)
    around[..., BACKGROUND] = 0
    around /= around.sum(-1, keepdims=True) + 1e-6
    beside = cv2.blur(shares[..., BACKGROUND + 1 :].sum(-1), (3, 3)) > NEAR
    given = np.where(beside, np.float32(EDGE_SHARE), 0) * edge
    parts = shares + given[..., None] * around
    parts[..., BACKGROUND] += edge - given
    return np.asarray(parts / parts.sum(-1, keepdims=True), np.float32)


def sure_face(mesh: Points, side: int = INPUT) -> NDArray[np.bool_]:
    """Where [side, side] the mesh [468, 2 or 3] leaves no doubt: inside its outline, from the eyes down."""
    inside = np.zeros((side, side), np.uint8)
    cv2.fillPoly(inside, [np.round(mesh[list(OVAL), :2]).astype(np.int32)], 1)
    inside = np.asarray(cv2.erode(inside, np.ones((2 * MARGIN + 1,) * 2, np.uint8)))
    right, left = mesh[list(EYES), :2].astype(np.float64)
    across = (left - right) / np.linalg.norm(left - right)
    rows, columns = np.mgrid[:side, :side]
    x, y = columns - (right + left)[0] / 2, rows - (right + left)[1] / 2
    return np.asarray((inside > 0) & (y * across[0] - x * across[1] > -LIFT * side))


def label(picture: Picture, components: Field, mesh: Points, cells: Cells) -> Field:
    """Parts [INPUT, INPUT, 5], 0..1, adding up to 1, of a generated picture [INPUT, INPUT, 3].

    Args:
        components: [80, GRID, GRID] of `Cells.project`.
        mesh: [468, 2 or 3] in pixels of the picture.
    """
    parts = share_edges(*cells.memberships(components))
    parts = np.clip(cv2.resize(parts, (INPUT, INPUT), interpolation=cv2.INTER_CUBIC), 0, 1)
    parts[sure_face(mesh)] = np.eye(len(PARTS), dtype=np.float32)[FACE]
    parts = refine(picture, np.asarray(parts, np.float32), RADIUS, SMOOTH)
    return np.asarray(parts / np.maximum(parts.sum(-1, keepdims=True), 1e-6), np.float32)
