"""Training of the k-Same-Net (`deid.models.ksame_net`): a warm start, then steps that can go on where they stopped.

The warm start fills the learned pictures with the principal components of the mixtures' pyramids, and teaches the fully
connected stages alone to weigh them, which takes seconds. Then everything learns from pictures, small ones first.
Step n draws what it shows under the seed and n alone.
"""

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from deid.models.ksame_net import CHANNELS, FIELD, LEARNED, SIDE, Conditions, KSameNetwork
from deid.surrogates.shapes import Shapes as MeshShapes
from deid.training import ksame_losses as losses
from deid.training.mixtures import Bank, People, Recipe, Shapes, Values, plane

FEW = 256  # px; below it the pictures of `Plan.small` steps


@dataclass(frozen=True)
class Plan:
    """How a network is trained."""

    steps: int = 3000
    small: int = 1500  # of them at half the side
    batch: int = 8
    warm: int = 3000  # steps of the warm start, without pictures; 0: none
    samples: int = 768  # mixtures that it learns from
    coefficients: int = 24  # of the mesh; 0: the plain variant
    restore: bool = True
    terms: tuple[str, ...] = losses.TERMS
    rate: float = 2e-4
    seed: int = 0

    def side(self, step: int) -> int:
        return SIDE // 2 if step < self.small else SIDE


class Training:
    """A network on its way.

    Args:
        people: to learn; where they are mixtures already, no single face is ever a target.
        plan: see above.
        device: "cpu" or "cuda".
        real: people whose pictures the discriminator takes for real; None: those to learn.
    """

    def __init__(self, people: People, plan: Plan, device: str = "cpu", real: People | None = None) -> None:
        self.people, self.plan, self.device, self.step = people, plan, device, 0
        self.real = people if real is None else real
        self.shapes = Shapes(people, max(1, plan.coefficients))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            network, self.patches = KSameNetwork(len(people), plan.coefficients), losses.Patches()
        self.network = network.to(device)
        self.patches.to(device)
        slow = [p for name, p in network.named_parameters() if not name.endswith((".pictures", ".mean"))]
        quick = [p for name, p in network.named_parameters() if name.endswith((".pictures", ".mean"))]
        groups = [{"params": slow, "lr": plan.rate}, {"params": quick, "lr": plan.rate * 3}]
        self.optimizer = torch.optim.Adam(groups, betas=(0.5, 0.98))
        self.judge = torch.optim.Adam(self.patches.parameters(), plan.rate, betas=(0.5, 0.98))
        self._banks: dict[tuple[int, bool], Bank] = {}

    def bank(self, side: int, real: bool = False) -> Bank:
        """The pictures at one side; those of another are given up."""
        if (side, real) not in self._banks:
            self._banks = {key: bank for key, bank in self._banks.items() if key[0] == side}
            people = self.real if real else self.people
            self._banks[side, real] = Bank(people, side, self.plan.restore, self.device)
        return self._banks[side, real]

    def recipe(self, *key: int, size: int, people: People | None = None) -> Recipe:
        people = people or self.people
        return Recipe.draw((self.plan.seed, *key), size, len(people), len(people.poses))

    def given(self, recipe: Recipe) -> tuple[Conditions, Tensor]:
        conditions, shape = self.shapes.conditions(recipe, self.people.poses)
        return conditions.to(self.device), shape.to(self.device)

    def warm_up(self) -> float:
        """Fill the learned pictures and teach the stages to weigh them; the last loss."""
        bank, parts = self.bank(SIDE), []
        recipes = [self.recipe(1, n, size=8) for n in range(self.plan.samples // 8)]
        for recipe in recipes:
            unlit = replace(recipe, light=np.zeros_like(recipe.light))
            parts.append(pyramid(bank.target(unlit)[0]))
        weights = [
            fill(block, torch.cat([levels[side] for levels in parts]))
            for side, block in self.levels().items()
        ]
        conditions = [self.given(recipe) for recipe in recipes]
        shapes = torch.cat([shape for _, shape in conditions])
        every = Conditions(*(torch.cat([getattr(c, n) for c, _ in conditions]) for n in self.network.stages))
        style_parameters = [
            *self.network.stages.parameters(),
            *self.network.shade.parameters(),
            *(p for block in self.levels().values() for p in block.weigh.parameters()),  # type: ignore[operator, union-attr]
            *(self.network.shape.parameters() if self.plan.coefficients else ()),
        ]
        optimizer = torch.optim.Adam(style_parameters, 2e-3)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=self.plan.warm)
        chosen = torch.Generator().manual_seed(self.plan.seed)
        loss = torch.zeros(())
        for _ in range(self.plan.warm):
            rows = torch.randint(len(shapes), (128,), generator=chosen).to(self.device)
            style = self.network.style(Conditions(*(getattr(every, n)[rows] for n in self.network.stages)))
            loss = torch.stack(
                [
                    F.mse_loss(block.weigh(style), wanted[rows])  # type: ignore[operator]
                    for block, wanted in zip(self.levels().values(), weights, strict=True)
                ]
            ).sum()
            wanted = plane(every.light[rows], FIELD).flatten(1)
            loss = loss + F.mse_loss(self.network.shade(style), wanted)
            if self.plan.coefficients:
                loss = loss + 0.3 * F.mse_loss(self.network.shape(style), shapes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        return float(loss.detach())

    def levels(self) -> dict[int, nn.Module]:
        """The blocks that hold learned pictures, by side."""
        return {8 << n: block for n, block in enumerate(self.network.blocks) if 8 << n in LEARNED}

    def learn(self) -> dict[str, float]:
        """One step; its terms by name."""
        side = self.plan.side(self.step)
        recipe = self.recipe(0, self.step, size=self.plan.batch)
        (conditions, shape), (wanted, members) = self.given(recipe), self.bank(side).target(recipe)
        self._set_rates()
        found, coefficients = self.network(conditions, side)
        terms = self._terms(found, wanted, members)
        loss = losses.total({name: terms[name] for name in self.plan.terms})
        if self.plan.coefficients:
            terms["shape"] = F.mse_loss(coefficients, shape)
            loss = loss + 0.1 * terms["shape"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if "adversarial" in self.plan.terms:
            self._judge(found)
        self.step += 1
        return {name: float(value.detach()) for name, value in terms.items()}

    def _terms(self, found: Tensor, wanted: Tensor, members: Tensor) -> dict[str, Tensor]:
        terms = {
            "pixel": losses.pixel(found, wanted),
            "gradient": losses.gradient(found, wanted),
            "feature": losses.feature(found, members, wanted[:, 3:]),
        }
        if "adversarial" in self.plan.terms:
            terms["adversarial"] = losses.fooled(self.patches, found)
        return terms

    def _judge(self, found: Tensor) -> None:
        """One step of the discriminator; what it takes for real are single people in the light they stood in."""
        recipe = self.recipe(2, self.step, size=len(found), people=self.real)
        rows = recipe.weights.argmax(1)
        recipe.weights[:] = 0
        recipe.weights[range(len(rows)), rows] = 1
        recipe.smile[:] = recipe.smile > 0.5
        real, _ = self.bank(found.shape[-1], real=True).target(recipe)
        loss = losses.caught(self.patches, found, real)
        self.judge.zero_grad()
        loss.backward()
        self.judge.step()

    def _set_rates(self) -> None:
        """Up over the first fiftieth, then down along a cosine, to a fiftieth."""
        done = self.step / max(1, self.plan.steps)
        factor = min(1.0, done * 50 + 0.02) * (
            0.02 + 0.49 * (1 + float(torch.cos(torch.tensor(done * 3.14159))))
        )
        for group, rate in zip(self.optimizer.param_groups, (1.0, 3.0), strict=True):
            group["lr"] = self.plan.rate * rate * factor

    def save(self, path: Path) -> None:
        """Write everything that training goes on from."""
        names = ("network", "patches", "optimizer", "judge")
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in names}
        fresh = path.with_name(path.name + ".new")
        torch.save({**state, "step": self.step, "plan": asdict(self.plan)}, fresh)
        fresh.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it is one of another plan.
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["plan"] != asdict(self.plan):
            raise ValueError(f"{path.name}: is of another plan; start anew, or give the same options")
        for name in ("network", "patches", "optimizer", "judge"):
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]


def pyramid(pictures: Tensor) -> dict[int, Tensor]:
    """What the block of each side adds, [B, 4 * S * S], to make pictures [B, 4, 256, 256] in logits."""
    logits = torch.logit(pictures, 0.004)
    sides = list(LEARNED)
    sized = {side: F.interpolate(logits, size=(side, side), mode="area") for side in sides}
    made = {sides[0]: sized[sides[0]].flatten(1)}
    for below, side in pairwise(sides):
        up = F.interpolate(sized[below], size=(side, side), mode="bilinear", align_corners=False)
        made[side] = (sized[side] - up).flatten(1)
    return made


@torch.no_grad()
def fill(block: nn.Module, parts: Tensor) -> Tensor:
    """Give a block the principal components of parts [n, 4 * S * S]; how much each part has of them [n, M]."""
    mean: Any = block.mean
    pictures: Any = block.pictures
    mean.copy_(parts.mean(0).view_as(mean))
    apart = parts - parts.mean(0)
    values, vectors = torch.linalg.eigh((apart @ apart.T).double())
    count = min(len(pictures), len(parts))
    order = values.argsort(descending=True)[:count]
    size = values[order].clamp_min(0)
    importance = (size / size.max()).float().pow(0.25) + 1e-4  # the first components matter most
    weights = parts.new_zeros(len(parts), len(pictures))
    weights[:, :count] = vectors[:, order].float() * len(parts) ** 0.5 * importance
    components = vectors[:, order].T.float() @ apart / (len(parts) ** 0.5 * importance[:, None])
    pictures[:count].copy_(components.view(count, CHANNELS, *pictures.shape[2:]))
    return weights


def export(
    training: Training, path: Path, frame: NDArray[np.float32], mixtures: Values | None = None
) -> None:
    """Write the weights as `deid.surrogates.ksame_net` reads them, floats as float16.

    Args:
        frame: [468, 3], the mean mesh in which textures stand.
        mixtures: [M, people] that the file's identities are to be, of three people each at least; None: those that
            were learned, which must be mixtures themselves.
    """
    network = training.network
    if mixtures is not None:
        network = network.fold(torch.from_numpy(mixtures).to(training.device))
    shapes, meshes = training.shapes, training.real.meshes
    fitted = MeshShapes.fit(frame.astype(np.float64), meshes[:, 0], meshes[:, 1])
    about = {"centre": shapes.centre, "spread": shapes.spread, "frame": frame}
    about |= {f"shapes.{name}": getattr(fitted, name) for name in ("mean", "expressions", "people")}
    if training.plan.coefficients:
        about |= {"mean": shapes.mean.reshape(-1, 3), "basis": shapes.basis.reshape(len(shapes.basis), -1, 3)}
    state = {name: value.detach().cpu().half().contiguous() for name, value in network.state_dict().items()}
    tensors = {f"about.{n}": torch.from_numpy(np.array(v, np.float32)) for n, v in about.items()}
    save_file({**state, **tensors}, path)
