"""The three networks of MTCNN as PyTorch modules, filled from the state dicts of facenet-pytorch.

Source: Zhang, Zhang, Li, Qiao 2016, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", figure 2. All take pixels float32 [N, 3, H, W], RGB, (p - 127.5) / 128, and give face probabilities and
shifts of the box's corners (x0, y0, x1, y1) in widths and heights of the box.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

CELL, STRIDE = 12, 2  # px of P-Net's input: side of the window that one output sees, and between two windows
R_SIDE, O_SIDE = 24, 48  # px, of the square inputs of R-Net and O-Net


class PNet(nn.Module):
    """Any size of picture to a map of windows: probabilities [N, h, w] and shifts [N, 4, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.max_pool2d(self.prelu1(self.conv1(pixels)), 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(1)[:, 1], self.conv4_2(x)


class RNet(nn.Module):
    """Windows [N, 3, 24, 24] to probabilities [N] and shifts [N, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.max_pool2d(self.prelu1(self.conv1(pixels)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = self.prelu4(self.dense4(_columns_first(self.prelu3(self.conv3(x)))))
        return self.dense5_1(x).softmax(1)[:, 1], self.dense5_2(x)


class ONet(nn.Module):
    """Windows [N, 3, 48, 48] to probabilities [N], shifts [N, 4] and points [N, 5, 2] (x, y in 0..1 of the box)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def features(self, pixels: Tensor) -> Tensor:
        """Activations [N, 256] of the last layer but one."""
        x = functional.max_pool2d(self.prelu1(self.conv1(pixels)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        return self.prelu5(self.dense5(_columns_first(self.prelu4(self.conv4(x)))))  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.features(pixels)
        points = self.dense6_3(x).view(-1, 2, 5).transpose(1, 2)
        return self.dense6_1(x).softmax(1)[:, 1], self.dense6_2(x), points


def load(network: nn.Module, path: Path) -> nn.Module:
    """The network with the weights of a state dict, which is read as tensors alone (no code of a pickle runs)."""
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def _columns_first(x: Tensor) -> Tensor:
    """[N, C, H, W] flattened as [N, W * H * C]: the weights come from a framework of that order."""
    return x.permute(0, 3, 2, 1).flatten(1)
