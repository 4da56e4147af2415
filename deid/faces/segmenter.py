"""Parts of heads by a small network of the project's own.

A U-Net (Ronneberger, Fischer, Brox 2015), trained on generated people alone, which the generator's own features
labelled: `docs/models/segmenter.md`.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from deid.errors import ModelError
from deid.faces.segment import INPUT, PARTS, SIDE, Points, Segments, head_chip
from deid.interfaces import Picture

WIDTHS = (24, 40, 64, 96, 128)  # channels at 128, 64, 32, 16 and 8 px
FINE = 16  # channels at 256 px


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
