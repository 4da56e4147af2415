"""MobileStyleGAN (Belousov 2021, arXiv:2104.04767) as PyTorch modules, filled from its OpenVINO IR.

The wavelet variant of StyleGAN2's synthesis network for 1024 px: a constant 4x4 input, one modulated 3x3
convolution, and seven blocks, each an inverse Haar transform that doubles the side and two modulated
depthwise-separable convolutions. One head turns the last features (512 px) into the four Haar bands of an RGB
picture. The noise maps are fixed, and demodulation is folded into the kernels, so a style gives one picture.
"""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from deid.errors import ModelError

STYLE_DIM = 512
SIDE = 1024  # px
WIDTHS = (512, 512, 512, 512, 256, 128, 64)  # channels after each block; sides 8, 16, ... 512
STYLES = len(WIDTHS) + 2  # places that take a style: the first convolution, each block, the head
SLOPE = 0.2  # of every leaky ReLU

Constants = dict[str, NDArray[np.float32]]
Network = TypeVar("Network", bound=nn.Module)


def read_constants(files: Mapping[str, Path], name: str) -> Constants:
    """The float32 constants of the OpenVINO IR (opset 1) `name`.xml and .bin, by name, in the order of the graph.

    Raises:
        ModelError: a file is missing, is no IR, or the weights are cut short.
    """
    try:
        raw = files[f"{name}.bin"].read_bytes()
        layers = ET.parse(files[f"{name}.xml"]).getroot().iterfind("layers/layer[@type='Const']")
        constants: Constants = {}
        for layer in layers:
            data = layer.find("data")
            if data is None or data.get("element_type") != "f32":
                continue
            shape = [int(side) for side in data.attrib["shape"].split(",") if side.strip()]
            values = np.frombuffer(raw, "<f4", math.prod(shape), int(data.attrib["offset"]))
            constants[layer.attrib["name"]] = values.reshape(shape)
    except (OSError, ET.ParseError, KeyError, ValueError) as error:
        raise ModelError(
            f"{name}: not a readable OpenVINO model ({type(error).__name__}); fetch it again"
        ) from error
    return constants


class MappingNetwork(nn.Module):
    """Latents [N, 512], standard normal, to styles [N, 512]: eight layers after normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(STYLE_DIM, STYLE_DIM) for _ in range(8))

    def forward(self, latents: Tensor) -> Tensor:
        x = latents * torch.rsqrt(latents.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * math.sqrt(2)
        return x


class Modulation(nn.Linear):
    """Scales of the channels [N, C, 1, 1] of styles [N, 512]."""

    def __init__(self, channels: int) -> None:
        super().__init__(STYLE_DIM, channels)

    def forward(self, styles: Tensor) -> Tensor:
        return super().forward(styles)[:, :, None, None]


class ModulatedConv(nn.Module):
    """Channels scaled by the style, then a convolution: dense, or depthwise 3x3 and pointwise.

    For a single style the scales go into the kernel, which saves a pass over the features.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, separable: bool) -> None:
        super().__init__()
        self.separable = separable
        self.modulation = Modulation(inputs)
        self.gain = 1 / ((3 if separable else kernel) * math.sqrt(inputs))
        if separable:
            self.weight_dw = nn.Parameter(torch.empty(inputs, 1, 3, 3))
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))

    def forward(self, x: Tensor, styles: Tensor, bias: Tensor) -> Tensor:
        scales = (self.modulation(styles) * self.gain).to(x.dtype)
        weight = self.weight
        if len(styles) > 1:
            x = x * scales
        if self.separable:
            depthwise = self.weight_dw if len(styles) > 1 else self.weight_dw * scales.view(-1, 1, 1, 1)
            x = F.conv2d(x, depthwise, padding=1, groups=x.shape[1])
        elif len(styles) == 1:
            weight = weight * scales
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


class StyledConv(nn.Module):
    """Modulated convolution, fixed noise map, bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, side: int, kernel: int = 1, separable: bool = True) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, kernel, separable)
        self.noise = nn.Parameter(torch.empty(1, 1, side, side))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        return F.leaky_relu_(self.conv(x, styles, self.bias).add_(self.noise), SLOPE)


class Upsample(nn.Module):
    """Channels scaled by the style, taken as Haar bands, to a quarter of the channels at twice the side.

    The transform is a pointwise convolution and a pixel shuffle: twice as fast as sums of slices.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulation = Modulation(channels)
        self.register_buffer("kernel", haar_kernel(channels), persistent=False)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        scales = self.modulation(styles).to(x.dtype)
        if len(styles) > 1:
            return F.pixel_shuffle(F.conv2d(x * scales, self.kernel), 2)
        return F.pixel_shuffle(F.conv2d(x, self.kernel * scales), 2)


class ToImage(nn.Module):
    """Features [N, C, S, S] to RGB pictures [N, 3, 2S, 2S], about -1..1."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(channels, 12, kernel=1, separable=False)
        self.bias = nn.Parameter(torch.empty(12))
        self.register_buffer("kernel", haar_kernel(12), persistent=False)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        bands = self.conv(x.to(self.bias.dtype), styles, self.bias)
        return F.pixel_shuffle(F.conv2d(bands, self.kernel), 2)


class Block(nn.Module):
    """Features [N, inputs, S, S] to [N, outputs, 2S, 2S]."""

    def __init__(self, inputs: int, outputs: int, side: int, last: bool) -> None:
        super().__init__()
        self.up = Upsample(inputs)
        self.conv1 = StyledConv(inputs // 4, outputs, side)
        self.conv2 = StyledConv(outputs, outputs, side)
        if last:
            self.to_img = ToImage(outputs)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        return self.conv2(self.conv1(self.up(x, styles), styles), styles)


class ConstantInput(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.empty(1, channels, 4, 4))


class SynthesisNetwork(nn.Module):
    """Styles to pictures [N, 3, 1024, 1024], RGB, about -1..1.

    Styles are [N, 512], or [N, 9, 512] with one each for the first convolution, blocks 0 to 6, and the head.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input = ConstantInput(WIDTHS[0])
        self.conv1 = StyledConv(WIDTHS[0], WIDTHS[0], side=4, kernel=3, separable=False)
        widths = (WIDTHS[0], *WIDTHS)
        self.layers = nn.ModuleList(
            Block(widths[i], widths[i + 1], side=8 << i, last=i == len(WIDTHS) - 1)
            for i in range(len(WIDTHS))
        )

    def blocks(self, styles: Tensor) -> Iterator[Tensor]:
        """Features after each block, [N, WIDTHS[i], 8 << i, 8 << i], computed as they are asked for."""
        first, *rest = each_style(styles)
        x = self.conv1(self.input.input.expand(len(styles), -1, -1, -1), first)
        for layer, style in zip(self.layers, rest, strict=False):
            x = layer(x, style)
            yield x

    def forward(self, styles: Tensor) -> Tensor:
        *_, x = self.blocks(styles)
        return self.picture(x, styles)

    def picture(self, x: Tensor, styles: Tensor) -> Tensor:
        """Pictures of the features after the last block."""
        image: Tensor = self.layers[-1].get_submodule("to_img")(x, each_style(styles)[-1])
        return image


def each_style(styles: Tensor) -> tuple[Tensor, ...]:
    """The 9 styles [N, 512] of the first convolution, blocks 0 to 6 and the head, of [N, 512] or [N, 9, 512]."""
    return styles.unbind(1) if styles.ndim == 3 else (styles,) * STYLES


def haar_kernel(channels: int) -> Tensor:
    """Pointwise kernel [C, C, 1, 1] of the inverse Haar transform, before a pixel shuffle by 2.

    In: C / 4 means, then for each of them vertical, horizontal and diagonal detail. Out: for each of them the four
    pixels, row by row.
    """
    c = channels // 4
    bands = (
        torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]).T / 2
    )  # [pixel, band]
    kernel = torch.zeros(c, 4, channels)
    each = torch.arange(c)
    for band, column in enumerate((each, c + 3 * each, c + 3 * each + 1, c + 3 * each + 2)):
        kernel[each, :, column] = bands[:, band]
    return kernel.view(channels, channels, 1, 1)


def load_mapping(files: Mapping[str, Path]) -> MappingNetwork:
    """The mapping network of MappingNetwork.xml and .bin."""
    constants = list(read_constants(files, "MappingNetwork").values())
    network = MappingNetwork()
    weights = [c for c in constants if c.shape == (STYLE_DIM, STYLE_DIM)]
    biases = [c for c in constants if c.shape == (STYLE_DIM,)]
    named = {f"layers.{i}.weight": weight for i, weight in enumerate(weights)}
    named |= {f"layers.{i}.bias": bias for i, bias in enumerate(biases)}
    return _fill(network, named)


def load_synthesis(files: Mapping[str, Path], dtype: torch.dtype = torch.float32) -> SynthesisNetwork:
    """The synthesis network of SynthesisNetwork.xml and .bin.

    `dtype` is that of the features. Styles, modulations and the last head stay float32: they cost little, and
    rounding them would show. The layout is channels last, which is faster on CPU and CUDA.

    Constants go by their PyTorch names. Two kinds have lost theirs in the conversion and go by their order: the
    pre-multiplied kernels (`Mul_NNN_copy`) and the noise maps, one of each for every styled convolution.
    """
    constants = read_constants(files, "SynthesisNetwork")
    network = SynthesisNetwork()
    named = {name.removeprefix("m."): value for name, value in constants.items() if name.startswith("m.")}
    styled = [name for name, module in network.named_modules() if isinstance(module, StyledConv)]
    kernels = [value for name, value in constants.items() if re.fullmatch(r"Mul_\d+_copy", name)]
    noises = [v for v in constants.values() if v.ndim == 4 and v.shape[:2] == (1, 1) and v.shape[2] > 1]
    named |= {f"{name}.conv.weight": value for name, value in zip(styled, kernels, strict=False)}
    named |= {f"{name}.noise": value for name, value in zip(styled, noises, strict=False)}
    _fill(network, named).to(dtype)
    for module in network.modules():
        if isinstance(module, (Modulation, ToImage)):
            module.float()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _fill(network: Network, named: Constants) -> Network:
    state = network.state_dict()
    wrong = [n for n, own in state.items() if n not in named or named[n].size != own.numel()]
    if wrong or len(named) != len(state):
        raise ModelError(f"{type(network).__name__}: the file is another network than expected ({wrong[:1]})")
    network.load_state_dict(
        {n: torch.from_numpy(named[n].copy()).reshape(own.shape) for n, own in state.items()}
    )
    return network.eval().requires_grad_(False)
