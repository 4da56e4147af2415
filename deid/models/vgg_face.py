"""The VGG-Face network (VGG-16) and an embedder on it, with weights that the user supplies.

Source: Parkhi, Vedaldi, Zisserman 2015, "Deep Face Recognition", configuration A.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from deid.errors import ConfigError
from deid.faces.embed import chip, chip_transform, embed_chips, prepare, run_network
from deid.interfaces import Face, Picture

CHIP_SIZE = 224  # px
PADDING = 0.4  # of the face box on each side; the network was trained on loose crops
DIM = 4096
_MEAN = (129.1863, 104.7624, 93.5940)  # RGB
_WIDTHS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # filters and convolutions of each block
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, UnpicklingError, safetensors.SafetensorError)
_TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # where torchvision's VGG-16 keeps them


class VGGFace(nn.Module):
    """Pixels float32 [N, 3, 224, 224] RGB, 0..255, to fc7 after its ReLU, scaled to L2 norm 1: [N, 4096]."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        before = 3
        for block, (filters, count) in enumerate(_WIDTHS, 1):
            for number in range(1, count + 1):
                self.add_module(f"conv{block}_{number}", nn.Conv2d(before, filters, 3, padding=1))
                before = filters
        self.fc6 = nn.Linear(512 * 7 * 7, DIM)
        self.fc7 = nn.Linear(DIM, DIM)

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels - self.mean
        for block, (_, count) in enumerate(_WIDTHS, 1):
            for number in range(1, count + 1):
                x = functional.relu(self.get_submodule(f"conv{block}_{number}")(x))
            x = functional.max_pool2d(x, 2)
        x = functional.relu(self.fc7(functional.relu(self.fc6(x.flatten(1)))))
        return functional.normalize(x)


class VGGFaceEmbedder:
    """fc7 of VGG-Face on chips of 224 px.

    Args:
        files: not used; the weights come from `weights`.
        weights: path of a state dict, `.safetensors` or PyTorch's own, with the keys `conv1_1.weight`,
            `conv1_1.bias`, ..., `conv5_3.*`, `fc6.*`, `fc7.*`, or with those of torchvision's VGG-16
            (`features.N.*`, `classifier.0.*`, `classifier.3.*`). Other keys are not read. The weights must
            expect RGB input minus the mean (129.1863, 104.7624, 93.5940).

    Raises:
        ConfigError: no weights given, the file cannot be read, or it is no VGG-16.
    """

    dim = DIM

    def __init__(
        self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu", weights: str | None = None
    ) -> None:
        del files
        self.device = device
        self.network = prepare(load(weights), threads, device)

    def embed(
        self, pictures: Sequence[Picture], faces: Sequence[Sequence[Face]]
    ) -> list[NDArray[np.float32]]:
        """Per picture the embeddings [N, 4096] of its faces; NaN where a face cannot be aligned."""
        return embed_chips(pictures, faces, _vgg_chip, self.embed_chips, self.dim)

    def embed_chips(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings [B, 4096] of aligned chips [B, 224, 224, 3] RGB."""
        return run_network(self.network, chips, self.device)


def load(weights: str | None) -> VGGFace:
    """The network filled from a state dict; see `VGGFaceEmbedder`."""
    if not weights:
        raise ConfigError(
            "embedder.options.weights: give the path of VGG-Face weights, a .safetensors or .pth state dict of "
            "VGG-16; they are in no package registry"
        )
    with torch.device("meta"):
        network = VGGFace()
    given = _state(weights)
    names = {ours: ours if ours in given else theirs for ours, theirs in _names(network)}
    missing = [ours for ours, name in names.items() if name not in given]
    if missing:
        raise ConfigError(
            f"embedder.options.weights: {weights} is no VGG-16: it has no {', '.join(missing[:3])}"
        )
    wrong = [name for name, value in network.state_dict().items() if value.shape != given[names[name]].shape]
    if wrong:
        raise ConfigError(f"embedder.options.weights: {weights}: wrong shape of {', '.join(wrong[:3])}")
    network.load_state_dict({ours: given[name].float() for ours, name in names.items()}, assign=True)
    network.mean = torch.tensor(_MEAN).view(1, 3, 1, 1)
    return network.eval().requires_grad_(False)


def _names(network: VGGFace) -> list[tuple[str, str]]:
    """Our key and torchvision's for each parameter."""
    modules = [f"features.{index}" for index in _TORCHVISION] + ["classifier.0", "classifier.3"]
    ours = list(dict.fromkeys(key.rpartition(".")[0] for key in network.state_dict()))
    pairs = zip(ours, modules, strict=True)
    return [(f"{a}.{kind}", f"{b}.{kind}") for a, b in pairs for kind in ("weight", "bias")]


def _state(weights: str) -> Mapping[str, Tensor]:
    try:
        if Path(weights).suffix == ".safetensors":
            return safetensors.torch.load_file(weights)
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ConfigError(
            f"embedder.options.weights: {weights} cannot be read ({type(error).__name__}); give a state dict, "
            ".safetensors or .pth, that holds only tensors"
        ) from None
    if not isinstance(state, Mapping):
        raise ConfigError(f"embedder.options.weights: {weights} holds no state dict")
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _vgg_chip(picture: Picture, face: Face) -> Picture:
    return chip(picture, chip_transform(face, CHIP_SIZE, PADDING), CHIP_SIZE)
