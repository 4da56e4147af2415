"""dlib's face recognition ResNet-29 as a PyTorch module, filled from dlib's own serialised file.

Architecture: dlib, `tools/python/src/face_recognition.cpp` (`anet_type`). Affine layers are folded into the
convolutions before them. Format: `dlib/serialize.h`; the parameters of a layer are one tensor after its tag.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from deid.errors import ModelError

CHIP_SIZE = 150  # px, side of the square input
DIM = 128
_MEAN = (122.782, 117.001, 104.298)  # RGB; `input_rgb_image_sized`, which also divides by 256
_STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
# filters, blocks, whether the first block halves the size


class DlibResNet(nn.Module):
    """Pixels float32 [N, 3, 150, 150] RGB, 0..255, to embeddings [N, 128]; same person below distance 0.6."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.stem = _convolution(3, 32, kernel=7, stride=2)
        widths = [32, *(filters for filters, _, _ in _STAGES)]
        blocks = []
        for (before, filters), (_, count, halve) in zip(pairwise(widths), _STAGES, strict=True):
            blocks += [_Block(before, filters, halve)] + [_Block(filters, filters) for _ in range(count - 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(256, DIM, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        x = functional.relu(self.stem((pixels - self.mean) / 256))
        x = self.blocks(functional.max_pool2d(x, 3, 2))
        return self.head(x.mean(dim=(2, 3)))


class _Block(nn.Module):
    """Residual block. Where the sizes of the two branches differ, dlib pads the smaller one with zeros."""

    def __init__(self, before: int, filters: int, halve: bool = False) -> None:
        super().__init__()
        self.halve = halve
        self.first = _convolution(before, filters, kernel=3, stride=2 if halve else 1)
        self.second = _convolution(filters, filters, kernel=3, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(functional.relu(self.first(x)))
        if self.halve:
            x = functional.avg_pool2d(x, 2, 2)
            height, width = max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3])
            x = functional.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, y.shape[1] - x.shape[1]))
            y = functional.pad(y, (0, width - y.shape[3], 0, height - y.shape[2]))
        return functional.relu(x + y)


def _convolution(before: int, filters: int, kernel: int, stride: int) -> nn.Conv2d:
    """dlib pads by half the kernel where the stride is 1, and not at all elsewhere."""
    return nn.Conv2d(before, filters, kernel, stride, padding=kernel // 2 if stride == 1 else 0)


def load(path: Path) -> DlibResNet:
    """The network filled from `dlib_face_recognition_resnet_model_v1.dat`.

    Raises:
        ModelError: the file is not this network.
    """
    network = DlibResNet()
    reader = _Reader(path.read_bytes(), path.name)
    with torch.no_grad():
        for convolution in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
            filters, inputs, height, width = convolution.weight.shape
            values = reader.tensor(b"con_4", filters * (inputs * height * width + 1))
            gamma, beta = reader.tensor(b"affine_", 2 * filters).reshape(2, filters)
            weight = values[:-filters].reshape(filters, inputs, height, width) * gamma[:, None, None, None]
            convolution.weight.copy_(torch.from_numpy(weight))
            if convolution.bias is not None:
                convolution.bias.copy_(torch.from_numpy(values[-filters:] * gamma + beta))
        head = reader.tensor(b"fc_2", 256 * DIM, skip=2).reshape(256, DIM)
        network.head.weight.copy_(torch.from_numpy(head.T.copy()))
    return network.eval().requires_grad_(False)


class _Reader:
    """Reads the parameter tensors of a serialised dlib network, in the order of the layers."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.position = data, name, 0

    def tensor(self, tag: bytes, size: int, skip: int = 0) -> NDArray[np.float32]:
        """The tensor [size] after the next `tag`; `skip` integers and the version stand before it."""
        tagged = bytes([1, len(tag)]) + tag
        start = self.data.find(tagged, self.position)
        if start < 0:
            raise ModelError(
                f"{self.name}: not dlib's face recognition network (no more {tag.decode()} layers)"
            )
        self.position = start + len(tagged)
        *_, version = [self._integer() for _ in range(skip + 1)]
        shape = [self._integer() for _ in range(4)]
        if version != 2 or np.prod(shape) != size or self.position + 4 * size > len(self.data):
            raise ModelError(
                f"{self.name}: not dlib's face recognition network ({tag.decode()} has shape {shape})"
            )
        values = np.frombuffer(self.data, "<f4", size, self.position)
        self.position += 4 * size
        return values

    def _integer(self) -> int:
        """One control byte (low bits: count of bytes; 0x80: negative), then the bytes, little-endian."""
        control, start = self.data[self.position], self.position + 1
        self.position = start + (control & 0x0F)
        value = int.from_bytes(self.data[start : self.position], "little")
        return -value if control & 0x80 else value
