"""What the networks that an evaluation trains have in common: halves of the people, repeatable steps, intervals."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deid.evaluation.reid import Estimate

Floats = NDArray[np.float64]
T = TypeVar("T")
N = TypeVar("N", bound=nn.Module)
WORKERS = 2  # networks that are trained at a time
SEEDING = threading.Lock()  # torch has one generator for weights
DECAY = 1e-3  # weight decay
WARM = 0.15  # share of the steps up to the highest rate
FEWEST = 8  # people, below which nothing is trained


def halves(persons: NDArray[Any], rng: np.random.Generator) -> NDArray[np.intp]:
    """[N] 0 or 1 for N faces of these people: each half of the people is once learned from and once tested."""
    people, index = np.unique(persons, return_inverse=True)
    side = np.zeros(len(people), np.intp)
    side[rng.permutation(len(people))[: len(people) // 2]] = 1
    return side[index]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside, so that sums do not depend on the machine; as it was after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """What the jobs return, in their order; `WORKERS` at a time, each on one thread."""

    def run(job: Callable[[], T]) -> T:
        torch.set_num_threads(1)  # of this worker: OpenMP keeps it for each thread
        return job()

    with one_thread(), ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(run, jobs))


def initial(make: Callable[[], N], seed: int) -> N:
    """A network with weights drawn from a seed; torch's own generator is left as it was."""
    with SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = make()
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def train(network: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    """AdamW (Loshchilov, Hutter 2019) under a one-cycle rate (Smith, Topin 2018). loss: of a fresh batch."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=WARM)
    network.train()
    for _ in range(steps):
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        cycle.step()
    network.eval()


class Batches:
    """Indices of batches without end: every one of N once before any comes again."""

    def __init__(self, count: int, size: int, generator: torch.Generator) -> None:
        self.count, self.size, self.generator = count, min(size, count), generator
        self._left = torch.zeros(0, dtype=torch.long)

    def next(self) -> Tensor:
        """[B]"""
        if len(self._left) < self.size:
            self._left = torch.cat([self._left, torch.randperm(self.count, generator=self.generator)])
        taken, self._left = self._left[: self.size], self._left[self.size :]
        return taken


def tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """[N, 3, H, W] bytes of pictures [N, H, W, 3]."""
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))


def unit(batch: Tensor) -> Tensor:
    """[B, C, H, W] -1..1 of bytes."""
    return batch.float() / 127.5 - 1


def mirror(batch: Tensor, flip: Tensor) -> Tensor:
    """[B, C, H, W], those of `flip` [B] mirrored left to right."""
    return torch.where(flip[:, None, None, None], batch.flip(-1), batch)


def tinted(batch: Tensor, generator: torch.Generator, strength: float = 0.25) -> Tensor:
    """[B, 3, H, W] lighter or darker, with more or less contrast, and off-colour; at random, each its own way."""
    size = (len(batch), batch.shape[1], 1, 1)
    gain = 1 + strength * (2 * torch.rand(len(batch), 1, 1, 1, generator=generator) - 1)
    shift = strength * (2 * torch.rand(len(batch), 1, 1, 1, generator=generator) - 1)
    colour = 0.3 * strength * (2 * torch.rand(size, generator=generator) - 1)
    return batch * gain + shift + colour


def weights(people: int, rng: np.random.Generator, resamples: int) -> Floats:
    """[R, P] how often each of the people is drawn in each bootstrap resample."""
    return rng.multinomial(people, np.full(people, 1 / people), size=resamples).astype(np.float64)


def interval(value: float, samples: Floats, people: int = 0) -> Estimate:
    """95 % of the finite bootstrap samples [R] around a value.

    people: of whom the value is a share, or a difference of shares; where all samples are the same, the interval
    reaches as far as the rule of three, not to a point. 0: no share.
    """
    finite = samples[np.isfinite(samples)]
    if not len(finite) or not np.isfinite(value):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(finite, [2.5, 97.5])
    if people and low == high:
        low, high = max(low - 3 / people, min(0.0, np.sign(low))), min(high + 3 / people, 1.0)
    return Estimate(value, float(low), float(high))
