"""Face generators: styles in, pictures out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deid.errors import ConfigError, ModelError
from deid.models import mobilestylegan
from deid.models.image_heads import ImageHeads

ENGINES = ("auto", "torch", "openvino")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CUDA_BATCH = 16  # styles in one pass; on CPU one at a time is fastest: the features stay in the caches

Synthesis = Callable[[Tensor, int], Tensor]
"""Styles [N, 512] or [N, 9, 512] on the CPU and a side (px) to pictures [N, 3, S, S], -1..1, S at least the side."""


class MobileStyleGANGenerator:
    """MobileStyleGAN trained on FFHQ; `deid.models.mobilestylegan` is the network.

    Args:
        files: the model's files by base name, from the model store.
        threads: of the CPU, for one call; set for the whole process, as PyTorch has it.
        device: "cpu" or "cuda".
        engine: "torch", "openvino" (CPU only, one style a picture), or "auto": PyTorch, which measures faster.
        precision: of the features, "float32", "bfloat16", or "auto": bfloat16 where the processor has instructions
            for it (AMX, CUDA from compute capability 8), else float32. bfloat16 moves pixels by half a level of
            255 on average.
        size: side of the pictures in pixels where `generate` is not told another, 1 to 1024.
        heads: draw sides up to 512 px by the heads of `deid.models.image_heads`, in a fraction of the time (PyTorch
            only). False: whatever the side, draw 1024 px. Both are averaged down to the side.

    Raises:
        ConfigError: an option has no such value.
        ModelError: the files are not the expected ones.
    """

    style_dim = mobilestylegan.STYLE_DIM
    latent_dim = mobilestylegan.STYLE_DIM

    def __init__(
        self,
        files: Mapping[str, Path],
        threads: int = 1,
        device: str = "cpu",
        engine: str = "auto",
        precision: str = "auto",
        size: int = mobilestylegan.SIDE,
        heads: bool = True,
    ) -> None:
        if engine not in ENGINES or (engine == "openvino" and device != "cpu"):
            raise ConfigError(f"generator: engine {engine!r} on {device}: use one of {', '.join(ENGINES)}")
        if precision not in ("auto", *PRECISIONS):
            raise ConfigError(f"generator: precision {precision!r}: use auto, {', '.join(PRECISIONS)}")
        if not 1 <= size <= mobilestylegan.SIDE:
            raise ConfigError(f"generator: size {size}: use 1 to {mobilestylegan.SIDE} pixels")
        self.size = size
        self.batch = 1 if device == "cpu" else _CUDA_BATCH
        torch.set_num_threads(threads)
        self._mapping = mobilestylegan.load_mapping(files)
        if engine == "openvino":
            self._synthesis = _openvino_synthesis(files, threads, precision)
        else:
            self._synthesis = _torch_synthesis(files, device, precision, heads)

    def map(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Styles [N, 512] of latents [N, 512] drawn from a standard normal distribution."""
        with torch.inference_mode():
            styles = self._mapping(torch.from_numpy(np.ascontiguousarray(latents, np.float32)))
        return np.asarray(styles.numpy())

    def generate(self, styles: NDArray[np.float32], side: int | None = None) -> NDArray[np.uint8]:
        """Pictures [N, side, side, 3] RGB of styles.

        Args:
            styles: [N, 512], or [N, 9, 512]: one each for the first convolution, blocks 0 to 6 (features of 8, 16,
                ... 512 px), and the head. Pose, shape and identity follow the lower ones, colour and light the upper.
            side: in pixels, 1 to 1024; None: the configured `size`.

        Raises:
            ValueError: styles or side are not as above.
            ConfigError: a style for each block under OpenVINO, whose network takes one.
        """
        side = self.size if side is None else side
        if not 1 <= side <= mobilestylegan.SIDE:
            raise ValueError(f"generator: side {side}: use 1 to {mobilestylegan.SIDE} pixels")
        given = torch.from_numpy(np.array(styles, np.float32))
        if given.shape[1:] not in ((self.style_dim,), (mobilestylegan.STYLES, self.style_dim)):
            raise ValueError(
                f"generator: styles [N, 512] or [N, {mobilestylegan.STYLES}, 512] wanted, not {list(given.shape)}"
            )
        pictures = np.empty((len(given), side, side, 3), np.uint8)
        with torch.inference_mode():
            for start in range(0, len(given), self.batch):
                part = slice(start, start + self.batch)
                pictures[part] = pixels(self._synthesis(given[part], side), side).cpu().numpy()
        return pictures


def pixels(pictures: Tensor, side: int) -> Tensor:
    """uint8 [N, side, side, 3] of float pictures [N, 3, S, S], -1..1."""
    levels = pictures.add(1).mul_(127.5).clamp_(0, 255)
    if side != pictures.shape[-1]:
        levels = F.interpolate(levels, size=(side, side), mode="area")
    return levels.round_().to(torch.uint8).permute(0, 2, 3, 1)


def _torch_synthesis(files: Mapping[str, Path], device: str, precision: str, heads: bool) -> Synthesis:
    if precision == "auto":
        precision = "bfloat16" if _fast_bfloat16(device) else "float32"
    network = mobilestylegan.load_synthesis(files, PRECISIONS[precision]).to(device)
    if not heads:
        return lambda styles, side: network(styles.to(device))
    early = ImageHeads.load(network).to(device)
    return lambda styles, side: early(styles.to(device), side)


def _fast_bfloat16(device: str) -> bool:
    if device == "cpu":
        return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return torch.cuda.get_device_capability(device)[0] >= 8


def _openvino_synthesis(files: Mapping[str, Path], threads: int, precision: str) -> Synthesis:
    import openvino

    hint = "bf16" if precision == "bfloat16" else "f32"
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    core = openvino.Core()
    try:
        model = core.read_model(files["SynthesisNetwork.xml"], files["SynthesisNetwork.bin"])
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            f"SynthesisNetwork: OpenVINO cannot read it ({type(error).__name__}); fetch it again"
        ) from error
    compiled = core.compile_model(model, "CPU", options)

    def synthesis(styles: Tensor, side: int) -> Tensor:
        if styles.ndim != 2:
            raise ConfigError(
                "generator: OpenVINO takes one style a picture; use engine: torch for styles by block"
            )
        return torch.from_numpy(compiled(styles.numpy())[0])

    return synthesis
