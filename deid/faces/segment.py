"""Parts of the head: background, face, hair, neck, and other things, by a small network of the project's own.

A U-Net (Ronneberger, Fischer, Brox 2015) on square chips in which every face stands as the gallery's mean face does. It
was trained on generated people alone, labelled by the generator's own features: `docs/models/segmenter.md`.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from deid.errors import ModelError
from deid.faces.align import similarity
from deid.faces.crop import chip
from deid.interfaces import Picture

Points = NDArray[np.floating]
Segments = NDArray[np.uint8]  # [SIDE, SIDE, len(PARTS)], 0..255, the parts of a pixel add up to about 255

PARTS = (
    "background",
    "face",
    "hair",
    "neck",
    "other",
)  # face: with ears, eyes and mouth; other: clothes, hats, hands
BACKGROUND, FACE, HAIR, NECK, OTHER = range(len(PARTS))
INPUT = 256  # px: side of the network's chips
SIDE = 128  # px: side of its answers
SPAN = 1.45  # side of a chip over the side of a generated picture of the same face
ABOVE = 0.28  # part of a chip that lies above the top of such a picture
WIDTHS = (24, 40, 64, 96, 128)  # channels at 128, 64, 32, 16 and 8 px
FINE = 16  # channels at 256 px
ANCHORS = (
    33,
    133,
    362,
    263,
    168,
    6,
    197,
    195,
    5,
    4,
    1,
    2,
    98,
    327,
    61,
    291,
)  # mesh points a chip is aligned on
# Where these stand on the mean face of the default gallery, in sides of its pictures.
FRAME = np.array(
    [
        *((0.312, 0.472), (0.427, 0.479), (0.568, 0.478), (0.682, 0.470), (0.499, 0.456), (0.499, 0.488)),
        *((0.499, 0.518), (0.500, 0.545), (0.500, 0.574), (0.501, 0.609), (0.501, 0.635), (0.500, 0.657)),
        *((0.426, 0.645), (0.573, 0.644), (0.380, 0.727), (0.617, 0.725)),
    ]
)


class _Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class SegmenterNetwork(nn.Module):
    """Chips [N, 3, 256, 256], RGB, -1..1, to logits of the parts [N, 5, 256, 256]."""

    def __init__(self) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        )
        inputs = (first, *WIDTHS[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(_Block(i, o), _Block(o, o)) for i, o in zip(inputs, WIDTHS, strict=True)
        )
        self.mid = _Block(WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList(
            _Block(WIDTHS[i] + WIDTHS[i - 1], WIDTHS[i - 1]) for i in range(len(WIDTHS) - 1, 0, -1)
        )
        self.fine = _Block(first + 3, FINE)
        self.head = nn.Conv2d(FINE, len(PARTS), 1)

    def forward(self, chips: Tensor) -> Tensor:
        x = self.stem(chips)
        skips = []
        for level, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        x = self.mid(x)
        for skip, up in zip(reversed(skips[:-1]), self.up, strict=True):
            x = up(torch.cat([_double(x), skip], 1))
        logits: Tensor = self.head(self.fine(torch.cat([_double(x), chips], 1)))
        return logits


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def frame(mesh: Points) -> NDArray[np.float64]:
    """The similarity [2, 3] that takes pixels of a picture to those of the face's chip (`INPUT` px a side).

    Args:
        mesh: [468, 2 or 3] in pixels of the picture.
    """
    inside = (FRAME / SPAN + [(1 - 1 / SPAN) / 2, ABOVE]) * INPUT
    return similarity(mesh[list(ANCHORS), :2], inside)


def whole(side: int) -> NDArray[np.float64]:
    """The map [2, 3] of pixels of a generated picture to those of a chip that is this picture, whole."""
    scale = INPUT / side
    return np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])


def head_chip(picture: Picture, mesh: Points) -> Picture:
    """The chip [INPUT, INPUT, 3] of one face of a picture."""
    return chip(picture, frame(mesh), INPUT, cv2.BORDER_REPLICATE)


class HeadSegmenter:
    """Parts of the heads of faces with meshes.

    Args:
        path: safetensors file of the network; None: the one in the package.
        threads: of the CPU; set for the whole process, as PyTorch has it.
        device: "cpu" or "cuda".

    Raises:
        ModelError: the file cannot be read, or holds another network.
    """

    def __init__(self, path: str | Path | None = None, threads: int = 1, device: str = "cpu") -> None:
        file = Path(path) if path else Path(__file__).parent / "data" / "segmenter.safetensors"
        self.device = device
        self.half = device != "cpu" or bool(torch.cpu.get_capabilities().get("amx_bf16", False))
        torch.set_num_threads(threads)
        network = SegmenterNetwork()
        try:
            network.load_state_dict(load_file(file))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ModelError(
                f"{file.name}: no segmenter ({type(error).__name__}); install deid again"
            ) from None
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval().requires_grad_(False).to(device)

    def segment(self, pictures: Sequence[Picture], meshes: Sequence[Points]) -> list[Segments]:
        """Parts [128, 128, 5] of one face in each picture [H, W, 3], on the chip that `frame` of its mesh
        [468, 3] gives; what lies beyond the picture repeats its border."""
        return self.parts([head_chip(*given) for given in zip(pictures, meshes, strict=True)])

    def parts(self, chips: Sequence[Picture]) -> list[Segments]:
        """Parts [128, 128, 5] of chips, or of generated pictures whole, of any one side."""
        if not chips:
            return []
        sized = [
            cv2.resize(c, (INPUT, INPUT), interpolation=cv2.INTER_AREA) if len(c) != INPUT else c
            for c in chips
        ]
        x = torch.from_numpy(np.stack(sized)).to(self.device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            parts = F.avg_pool2d(self.network(x).float().softmax(1), INPUT // SIDE)
        return list(parts.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
