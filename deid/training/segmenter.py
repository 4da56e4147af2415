"""Training of `deid.faces.segmenter`'s network, and how far its answers overlap with labels."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from deid.faces.segment import PARTS
from deid.faces.segmenter import SegmenterNetwork
from deid.training.views import to_chips

Scores = NDArray[np.float64]
WEIGHTS = (1.0, 1.0, 1.3, 1.5, 1.2)  # of the parts in the cross entropy
DICE = 0.5  # weight of the overlap's loss beside the cross entropy
RATE, WARM, DECAY = 2.5e-3, 0.08, 1e-4  # highest rate, share of the steps up to it, weight decay


def fast_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16; without, it is slower than float32."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


class Training:
    """A network on its way: AdamW (Loshchilov, Hutter 2019) under a one-cycle rate (Smith, Topin 2018)."""

    def __init__(self, steps: int, seed: int, device: str = "cpu") -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = SegmenterNetwork()
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.half, self.step = device, device != "cpu" or fast_bfloat16(), 0
        self.weights = torch.tensor(WEIGHTS, device=device).view(1, -1, 1, 1)
        self.optimizer = torch.optim.AdamW(network.parameters(), weight_decay=DECAY)
        self.rate = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, RATE, total_steps=steps, pct_start=WARM
        )

    def learn(self, chips: Tensor, parts: Tensor) -> float:
        """One step on chips [N, 3, S, S] and their parts [N, 5, S, S]; the loss."""
        self.network.train()
        loss = self.loss(self.logits(chips), parts.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.rate.step()
        self.step += 1
        return float(loss.detach())

    def logits(self, chips: Tensor) -> Tensor:
        chips = chips.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            found: Tensor = self.network(chips)
        return found.float()

    def loss(self, logits: Tensor, parts: Tensor) -> Tensor:
        """Cross entropy, and one minus the mean overlap of the parts (soft Dice, Milletari et al. 2016)."""
        logs = F.log_softmax(logits, 1)
        entropy = -(logs * parts * self.weights).sum(1).mean()
        p, axes = logs.exp(), (0, 2, 3)
        dice = (2 * (p * parts).sum(axes) + 1) / (p.square().sum(axes) + parts.square().sum(axes) + 1)
        return entropy + DICE * (1 - dice).mean()

    @torch.no_grad()
    def check(self, pictures: NDArray[np.uint8], parts: NDArray[np.uint8], batch: int = 16) -> Scores:
        """IoU [5] on pictures [N, H, W, 3] and their parts [N, H, W, 5], whole."""
        self.network.eval()
        tally = np.zeros((2, len(PARTS)))
        for at in range(0, len(pictures), batch):
            found = self.logits(to_chips(pictures[at : at + batch])).argmax(1).cpu().numpy()
            tally += overlap(found, parts[at : at + batch].argmax(-1))
        return ratio(tally)

    def save(self, path: Path) -> None:
        """Write everything that training goes on from."""
        parts = {name: getattr(self, name).state_dict() for name in ("network", "optimizer", "rate")}
        fresh = path.with_name(path.name + ".new")
        torch.save({**parts, "step": self.step}, fresh)
        fresh.replace(path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote; where `steps` is another number now, the rate falls to its end by it."""
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        own = self.rate.state_dict()
        state["rate"] |= {name: own[name] for name in ("total_steps", "_schedule_phases")}
        for name in ("network", "optimizer", "rate"):
            getattr(self, name).load_state_dict(state[name])

    def export(self, path: Path) -> None:
        """Write the weights, floats as float16, as `HeadSegmenter` reads them."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        save_file({n: v.half() if v.is_floating_point() else v for n, v in state.items()}, path)


def overlap(found: NDArray[np.integer], wanted: NDArray[np.integer]) -> Scores:
    """Intersections and unions [2, 5], in pixels, of the parts in two maps of part numbers."""
    each = [(found == part, wanted == part) for part in range(len(PARTS))]
    return np.array([[(a & b).sum() for a, b in each], [(a | b).sum() for a, b in each]], np.float64)


def ratio(tally: Scores) -> Scores:
    """IoU [5] of sums [2, 5] of `overlap`; NaN for a part that is nowhere."""
    return tally[0] / np.where(tally[1] > 0, tally[1], np.nan)
