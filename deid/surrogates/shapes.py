"""Mesh coefficients: who somebody is (shape), what the face does (expression) and how the head is held (pose).

A mesh is `scale * (shape + sum of coefficient * mode) @ rotation.T + shift`. The modes of expression are the mean
change of a smile, the main ways in which smiles differ, and four that are made by hand: jaw, lids, brows and lips.
The expression of an unknown face is fitted together with a shape, so that a wide mouth is not taken for a smile.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deid.errors import FaceError
from deid.faces import align
from deid.surrogates import masks
from deid.surrogates.shapefree import STEADY

Shape = NDArray[np.float64]  # [468, 3] in the unit of the mean
Coefficients = NDArray[np.float64]  # [E]

SMILES = 3  # modes of how smiles differ, beside their mean
MADE = ("jaw", "lids", "brows", "lips")  # by hand
MODES = ("smile", *(f"smile {n}" for n in range(1, SMILES + 1)), *MADE)
# How far each mode goes, one standard deviation: in mean smiles, in its own deviation, in face heights.
SPREAD = (0.8, *(1.0,) * SMILES, 0.05, 0.012, 0.012, 0.02)
PEOPLE = 24  # modes of shape at most
NOISE = 0.006  # face heights by which a point of a mesh is off
ROUNDS = 4  # of pose and coefficients in turn
STEPS = 3  # towards measures that are asked for


@dataclass(frozen=True)
class Pose:
    scale: float
    rotation: NDArray[np.float64]  # [3, 3]
    shift: NDArray[np.float64]  # [3]


@dataclass(frozen=True)
class Shapes:
    """Mean, modes of expression and modes of shape, the modes one standard deviation long.

    Args:
        mean: [468, 3], of neutral faces, upright and frontal.
        expressions: [E, 468, 3].
        people: [P, 468, 3].
    """

    mean: Shape
    expressions: NDArray[np.float64]
    people: NDArray[np.float64]

    @classmethod
    def fit(cls, mean: Shape, neutral: NDArray[np.floating], smiling: NDArray[np.floating]) -> "Shapes":
        """From meshes [N, 468, 3] of people, neutral and smiling, in any unit and pose.

        Args:
            mean: a mesh that says where, how large and how turned shapes are.
        """
        here = np.stack([placed(mesh, mean) for mesh in neutral])
        change = np.stack([placed(mesh, mean) for mesh in smiling]) - here
        middle = here.mean(0)
        smile = change.mean(0)
        power = (smile**2).sum()
        rest = change - (change * smile).sum((1, 2))[:, None, None] / power * smile
        learned = [SPREAD[0] * smile, *_principal(rest, SMILES)]
        height = float(np.ptp(middle[:, 1]))
        made = [
            spread * height * mode for spread, mode in zip(SPREAD[1 + SMILES :], _made(middle), strict=True)
        ]
        people = _principal(here - middle, min(PEOPLE, len(here) - 2))
        return cls(middle, np.stack([*learned, *made]), people)

    def pose_and_expression(self, mesh: NDArray[np.floating]) -> tuple[Pose, Coefficients]:
        """Pose, and coefficients [E] in standard deviations, of any face's mesh [468, 3].

        Raises:
            FaceError: the mesh has no size or is not finite.
        """
        found = np.zeros(len(self._basis))
        for _ in range(ROUNDS):
            like = self.mean + np.tensordot(found, self._basis, 1)
            pose = _pose(like, mesh)
            here = (np.asarray(mesh, np.float64) - pose.shift) @ pose.rotation / pose.scale
            found = self._solver @ (here - self.mean).ravel()
        return pose, found[: len(self.expressions)]

    @cached_property
    def _basis(self) -> NDArray[np.float64]:
        return np.concatenate([self.expressions, self.people])

    @cached_property
    def _solver(self) -> NDArray[np.float64]:
        """Coefficients [E + P, 1404] of a deviation from the mean: ridge regression, for modes of unit variance."""
        flat = self._basis.reshape(len(self._basis), -1)
        noise = (NOISE * float(np.ptp(self.mean[:, 1]))) ** 2
        return np.asarray(np.linalg.solve(flat @ flat.T + noise * np.eye(len(flat)), flat), np.float64)

    def mesh_of(self, shape: Shape, expression: Coefficients, pose: Pose) -> NDArray[np.float32]:
        """Mesh [468, 3] of a neutral shape with an expression [E], in a pose."""
        whole = shape + np.tensordot(expression, self.expressions, 1)
        return (pose.scale * whole @ pose.rotation.T + pose.shift).astype(np.float32)

    def towards(
        self, shape: Shape, measures: NDArray[np.floating], start: Coefficients | None = None
    ) -> Coefficients:
        """The coefficients [E] nearest to `start` (none: to 0) that give a shape these measures [5] of
        `align.EXPRESSION`, or nearly."""
        start = np.zeros(len(self.expressions)) if start is None else start
        found = start
        wanted, step = np.asarray(measures, np.float64), 0.05
        weight = 1 / np.array([0.003, 0.004, 0.008, 0.003, 0.004])  # how near is near enough
        for _ in range(STEPS):
            whole = shape + np.tensordot(found, self.expressions, 1)
            here = align.expression(whole)
            slope = ((align.expression(whole + step * self.expressions) - here) / step).T * weight[:, None]
            lacking = (wanted - here) * weight + slope @ (found - start)
            found = start + np.linalg.solve(slope.T @ slope + np.eye(len(found)), slope.T @ lacking)
        return found

    def smile(self, expression: Coefficients) -> float:
        """How much of a mean smile [0 .. 1] an expression has."""
        return float(np.clip(expression[0] * SPREAD[0], 0, 1))


def placed(mesh: NDArray[np.floating], mean: Shape) -> Shape:
    """A mesh [468, 3] where, as large and as turned as the mean is, by the points that expression does not move."""
    pose = _pose(mesh[STEADY], mean[STEADY])
    return np.asarray(pose.scale * np.asarray(mesh, np.float64) @ pose.rotation.T + pose.shift)


def _pose(here: NDArray[np.floating], there: NDArray[np.floating]) -> Pose:
    try:
        return Pose(*align.rigid(here, there))
    except ValueError:
        raise FaceError("generate_failed") from None


def _principal(shapes: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The main modes [count, 468, 3] of deviations [N, 468, 3], one standard deviation long."""
    _, strength, modes = np.linalg.svd(shapes.reshape(len(shapes), -1), full_matrices=False)
    scaled = strength[:count, None] / np.sqrt(len(shapes)) * modes[:count]
    return np.asarray(scaled.reshape(count, *shapes.shape[1:]))


def _made(mean: Shape) -> list[Shape]:
    """Jaw down, lids closed, brows up and lips to a point, by one face height."""
    height = float(np.ptp(mean[:, 1]))
    x, y = mean[:, 0], mean[:, 1]
    corners = mean[[61, 291]]
    middle, half = corners.mean(0), float(np.ptp(corners[:, 0])) / 2
    jaw = np.clip((y - middle[1]) / (0.1 * height), 0, 1) * np.exp(-(((x - middle[0]) / (2.4 * half)) ** 4))
    jaw[masks.MOUTH[1:10]] = np.clip(1 - ((x[masks.MOUTH[1:10]] - middle[0]) / half) ** 2, 0, 1) ** 0.5
    jaw[masks.MOUTH[11:]] = 0
    jaw[[61, 291, 78, 308]] = 0.3
    down, narrow, up, shut = (np.zeros_like(mean) for _ in range(4))
    down[:, 1], down[:, 2] = jaw, 0.3 * jaw
    for eye in masks.EYES:
        inner, outer = mean[eye[8]], mean[eye[0]]
        along = np.clip((mean[:, 0] - outer[0]) / (inner[0] - outer[0]), 0, 1)
        line = outer[1] + along * (inner[1] - outer[1])
        wide = float(np.abs(inner[0] - outer[0]))
        over = (y - line) / (0.22 * wide)
        arch = np.clip(4 * along * (1 - along), 0, 1)
        near = np.exp(-(np.clip(np.abs(over) - 1, 0, None) ** 2) / 1.5) * arch
        shut[:, 1] += np.where(over < 0, 1.0, -0.25) * np.clip(np.abs(over), 0, 1) * near
    for brow in (masks.BROWS[:10], masks.BROWS[10:]):
        apart = ((mean[:, None, :2] - mean[None, brow, :2]) ** 2).sum(-1).min(1)
        up[:, 1] -= np.exp(-apart / (2 * (0.035 * height) ** 2))
    apart = ((mean[:, :2] - middle[:2]) ** 2).sum(1)
    narrow[:, 0] = -(x - middle[0]) / half * np.exp(-apart / (2 * (1.1 * half) ** 2)) * 1.5
    narrow[:, 2] = -0.5 * np.exp(-apart / (2 * (0.8 * half) ** 2))
    return [down, shut, up, narrow]
