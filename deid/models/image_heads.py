"""Pictures of 128, 256 and 512 px from the generator, in a fraction of the time of 1024 px.

A picture of S px needs no feature finer than that. So the blocks run as they are up to features of S px; those after
them give averages over areas from averages over areas, and the last head its mean bands only. Convolutions of averages
are close to exact; activations are not (the mean of a leaky ReLU is not that of the mean), which is made up for by
refitting the kernels of these blocks. Modulations stay the network's own, so a style for each block works as ever. For
512 px nothing is approximated. How they were fitted and how close they come: `docs/models/image_heads.md`.
"""

import copy
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from deid.errors import ModelError
from deid.models.mobilestylegan import SIDE, SLOPE, Block, StyledConv, SynthesisNetwork, ToImage, each_style

BLOCKS = {128: 4, 256: 5, 512: 6}  # side of a picture in px, and the block with features of that side
LEVELS = (*BLOCKS, SIDE)  # px, the sides that can be drawn
FITTED = ("weight", "weight_dw", "bias")  # last parts of the names of the parameters that are refitted


def level_of(side: int) -> int:
    """The least of LEVELS that covers a side, both in pixels."""
    return next((level for level in LEVELS if level >= side), SIDE)


class MeanBlock(nn.Module):
    """A block on features of one side, [N, inputs, S, S] to [N, outputs, S, S], all averaged over areas.

    The inverse Haar transform and the depthwise convolution after it are one: the four bands of each channel go through
    a kernel each, and are added up.

    Args:
        block: of the network; its modulations are shared, its kernels copied and made those of averages.
        times: how many times finer its own features are.
    """

    noise: Tensor

    def __init__(self, block: Block, times: int) -> None:
        super().__init__()
        self.up, self.first = block.up.modulation, block.conv1.conv.modulation
        self.gain = block.conv1.conv.gain
        kernels = band_kernels(block.conv1.conv.weight_dw.detach(), times)
        self.weight_dw = nn.Parameter(kernels)
        self.weight = nn.Parameter(each_band(block.conv1.conv.weight.detach()))
        self.bias = nn.Parameter(block.conv1.bias.detach().clone())
        self.register_buffer("noise", F.avg_pool2d(block.conv1.noise.detach(), times))
        self.conv2 = averaged(block.conv2, times)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        scales = (self.up(styles) * each_band(self.first(styles)) * self.gain).to(x.dtype)
        kernels = self.weight_dw
        if len(styles) == 1:
            kernels = kernels * scales.view(-1, 1, 1, 1)
        else:
            x = x * scales
        x = F.conv2d(x, kernels, padding=1, groups=x.shape[1])
        x = F.conv2d(x, self.weight, self.bias).add_(self.noise)
        return self.conv2(F.leaky_relu_(x, SLOPE), styles)  # type: ignore[no-any-return]


class MeanToImage(nn.Module):
    """Features [N, C, S, S] to RGB pictures [N, 3, S, S], about -1..1: the mean bands of the network's head."""

    def __init__(self, head: ToImage) -> None:
        super().__init__()
        self.conv = copy.deepcopy(head.conv)
        self.conv.modulation = head.conv.modulation
        self.conv.weight = nn.Parameter(head.conv.weight[:3].detach() / 2)
        self.bias = nn.Parameter(head.bias[:3].detach() / 2)

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        return self.conv(x.to(self.bias.dtype), styles, self.bias)  # type: ignore[no-any-return]


class ImageHead(nn.Module):
    """What stands for the rest of the network at one level: mean blocks and the means of the last head."""

    def __init__(self, network: SynthesisNetwork, level: int) -> None:
        super().__init__()
        first, last = BLOCKS[level] + 1, network.layers[-1]
        following: dict[str, Any] = {str(n): block for n, block in enumerate(network.layers) if n >= first}
        self.blocks = nn.ModuleDict(
            {n: MeanBlock(block, 2 ** (int(n) - first + 1)) for n, block in following.items()}
        )
        self.to_img = MeanToImage(last.to_img)  # type: ignore[arg-type]

    def forward(self, x: Tensor, styles: Tensor) -> Tensor:
        """Pictures [N, 3, S, S] of the features [N, C, S, S] after the last whole block."""
        places = each_style(styles)
        for number, block in self.blocks.items():
            x = block(x, places[int(number) + 1])
        return self.to_img(x, places[-1])  # type: ignore[no-any-return]


def averaged(conv: StyledConv, times: int) -> StyledConv:
    """A styled convolution for features averaged over areas of `times` x `times` pixels.

    Exact before the activation where the features are constant in each area.
    """
    made = copy.deepcopy(conv)
    made.conv.modulation = conv.conv.modulation
    taps = _means(times)
    kernel = taps @ conv.conv.weight_dw.detach().float() @ taps.T
    made.conv.weight_dw = nn.Parameter(kernel.to(conv.conv.weight_dw.dtype))
    made.noise = nn.Parameter(F.avg_pool2d(conv.noise.detach(), times))
    return made


def band_kernels(kernels: Tensor, times: int) -> Tensor:
    """Kernels [4 C, 1, 3, 3] from Haar bands to what kernels [C, 1, 3, 3] make of the features, averaged over areas.

    Exact where the bands are constant in each area of `times` x `times` pixels of the features.
    """
    mean, change = _means(times), _changes(times)
    of = kernels.float() / 2
    details = torch.stack([change @ of @ mean.T, mean @ of @ change.T, change @ of @ change.T], dim=1)
    return torch.cat([mean @ of @ mean.T, details.flatten(0, 1)]).to(kernels.dtype)


def each_band(values: Tensor) -> Tensor:
    """Values [N, C, 1, 1] of channels for their Haar bands [N, 4 C, 1, 1]: first the means, then three details each."""
    return torch.cat([values, values.repeat_interleave(3, 1)], 1)


def _means(times: int) -> Tensor:
    """From the three taps of a line to those of areas: before, own and after; features constant in each area."""
    near, own = 1 / times, 1 - 1 / times
    return torch.tensor([[near, 0, 0], [own, 1, own], [0, 0, near]])


def _changes(times: int) -> Tensor:
    """The same for features that alternate between 1 and -1."""
    return torch.tensor([[-1.0, 0, 0], [1, 0, -1], [0, 0, 1]]) / times


class ImageHeads(nn.Module):
    """The network with an end for every level.

    Args:
        network: whose blocks are run, and whose modulations and head are shared.
    """

    def __init__(self, network: SynthesisNetwork) -> None:
        super().__init__()
        self.network = network
        self.heads = nn.ModuleDict({str(level): ImageHead(network, level) for level in BLOCKS})

    @classmethod
    def load(cls, network: SynthesisNetwork, path: str | Path | None = None) -> "ImageHeads":
        """Heads with the kernels of a safetensors file; None: those in the package.

        Raises:
            ModelError: the file cannot be read, or holds something else.
        """
        file = Path(path) if path else Path(__file__).parents[1] / "surrogates/data/image_heads.safetensors"
        try:
            given = load_file(file)
        except (OSError, SafetensorError):
            raise ModelError(f"{file.name}: cannot be read as image heads; install deid again") from None
        heads = cls(network)
        own = heads.fitted()
        if {name: value.shape for name, value in given.items()} != {
            n: value.shape for n, value in own.items()
        }:
            raise ModelError(f"{file.name}: holds no image heads for this generator")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(given[name])
        return heads.eval().requires_grad_(False)

    def save(self, path: str | Path) -> None:
        """Write the fitted kernels as float32; the same heads give the same bytes."""
        Path(path).write_bytes(save({n: v.detach().float().contiguous() for n, v in self.fitted().items()}))

    def head(self, level: int) -> ImageHead:
        """The end for a picture of `level` px."""
        return self.heads[str(level)]  # type: ignore[return-value]

    def fitted(self, level: int | None = None) -> dict[str, nn.Parameter]:
        """The parameters that are fitted, of one level or of all, by name; 512 px has none."""
        some = {level} if level else BLOCKS.keys()
        shared = {id(parameter) for parameter in self.network.parameters()}
        return {
            f"{of}.{name}": parameter
            for of in some
            if self.head(of).blocks
            for name, parameter in self.head(of).named_parameters()
            if id(parameter) not in shared and name.rpartition(".")[2] in FITTED
        }

    def forward(self, styles: Tensor, side: int) -> Tensor:
        """Pictures [N, 3, S, S], about -1..1, of styles [N, 512] or [N, 9, 512]; S is the level that covers `side`."""
        level = level_of(side)
        if level == SIDE:
            return self.network(styles)  # type: ignore[no-any-return]
        *_, x = islice(self.network.blocks(styles), BLOCKS[level] + 1)
        return self.head(level)(x, styles)  # type: ignore[no-any-return]
