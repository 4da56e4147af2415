"""Mixtures of consented people: which of them go together, and what their average looks like.

A mixture is of at least three people of one sex, alike in skin, age and hair, each with the same weight, so that the
average looks like somebody; it is nobody of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.errors import ModelError
from deid.gallery import people
from deid.gallery.people import Person
from deid.surrogates import masks
from deid.surrogates.masks import Field
from deid.surrogates.shapefree import Frame
from deid.surrogates.shapes import Shape, Shapes, placed

LEAST = 3  # people of a mixture
SIZES = (4, 5, 6, 7)  # people of those that are tried
NEAR = 14  # people most alike, of whom one's mixtures are
BANDS, GAIN = 3, 2.0  # scales of detail, from 1/640 of the side on, and how much of it is given back at most
DRAWS = 150  # sets that are looked at, for each person
RARE = 1e-3  # odds, over those of the most alike, below which nobody is put into a set
SHARED = 0.67  # of the people of the larger of two mixtures
LARGER = 0.15  # steps that one more person is worth
# What counts as one step apart: skin and hair in Lab, years, sides of the frame, beard in L*.
SKIN, HAIR, AGE, OUTLINE, LOW, BEARD = 5.0, 12.0, 8.0, 0.03, 0.25, 6.0
OPEN = 0.04  # `mouth_opening` from which a smile shows teeth
CHEEKS = np.array([50, 101, 118, 117, 123, 187, 205, 36, 280, 330, 347, 346, 352, 411, 425, 266])
FOREHEAD = np.array([109, 338, 297, 336, 107, 67, 9, 151])
CHIN = np.array([83, 18, 313, 406, 428, 199, 208, 182])


@dataclass(frozen=True)
class Looks:
    """What makes people alike, one row a person."""

    skin: NDArray[np.float64]  # [N, 3] Lab
    hair: NDArray[np.float64]  # [N, 3] Lab, above the forehead
    age: NDArray[np.float64]  # [N] years
    head: NDArray[np.float64]  # [N, RAYS] outline, sides of the frame
    low: NDArray[np.float64]  # [N] share of hair beside the neck
    beard: NDArray[np.float64]  # [N] how much darker the chin is than the cheeks

    @classmethod
    def of(cls, frame: Frame, given: Sequence[Person]) -> "Looks":
        rows = [_looks(frame, person.textures[0]) for person in given]
        skin, hair, head, low, beard = (np.array(column) for column in zip(*rows, strict=True))
        age = np.array([person.age for person in given])
        age = np.where(np.isnan(age), np.nanmedian(age), age)
        return cls(skin, hair, age, head, low, beard)

    def apart(self) -> NDArray[np.float64]:
        """How unlike two people are [N, N]."""
        up = people.upper() / people.upper().sum()
        steps = [
            np.linalg.norm(self.skin[:, None] - self.skin[None], axis=2) / SKIN,
            np.linalg.norm(self.hair[:, None] - self.hair[None], axis=2) / HAIR,
            np.abs(self.age[:, None] - self.age[None]) / AGE,
            np.abs(self.head[:, None] - self.head[None]) @ up / OUTLINE,
            np.abs(self.low[:, None] - self.low[None]) / LOW,
            np.abs(self.beard[:, None] - self.beard[None]) / BEARD,
        ]
        return np.asarray(np.sqrt(sum(step**2 for step in steps)), np.float64)


def _looks(frame: Frame, texture: Field) -> tuple[object, ...]:
    side = len(texture)
    lab = cv2.cvtColor(np.ascontiguousarray(texture[..., :3]) / np.float32(255), cv2.COLOR_RGB2LAB)

    def inside(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        x, y = (frame.mean[rows, :2] * side).astype(int).T
        return np.asarray(np.median(lab[y, x], axis=0), np.float64)

    head = people.head_outline(frame, texture[..., 3])
    skin, chin = inside(CHEEKS), inside(CHIN)
    y, x = np.mgrid[:side, :side] / side
    top = (y < frame.mean[10, 1] - 0.02) & (texture[..., 3] > 0.9) & (np.abs(x - 0.5) < 0.12)
    hair = np.median(lab[top], axis=0) if top.sum() > 50 else skin
    jaw, chin_y = frame.mean[[13, 152], 1]
    low = (y > jaw) & (y < chin_y) & (np.abs(np.abs(x - 0.5) - 0.2) < 0.03)
    return skin, np.asarray(hair, np.float64), head, float(texture[low, 3].mean()), float(skin[0] - chin[0])


def draw(
    apart: NDArray[np.float64], male: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Up to `count` sets of people of one sex, alike, each with each person's most alike; two of them share at most
    `SHARED` of their people.

    Args:
        apart: how unlike two people are [N, N].
    """
    ranked: list[list[tuple[int, ...]]] = []
    for seed in range(len(apart)):
        others = np.flatnonzero((male == male[seed]) & (np.arange(len(apart)) != seed))
        near = others[np.argsort(apart[seed, others], kind="stable")][:NEAR]
        odds = np.exp(-apart[seed, near])
        most = int((odds > RARE * odds.max()).sum()) if len(near) else 0
        found: dict[tuple[int, ...], float] = {}
        for _ in range(DRAWS):
            size = min(int(rng.choice(SIZES)) - 1, most)
            if size + 1 < LEAST:
                continue
            picked = rng.choice(near, size, replace=False, p=odds / odds.sum())
            one = tuple(sorted([seed, *picked.tolist()]))
            pairs = apart[np.ix_(one, one)][np.triu_indices(len(one), 1)]
            found[one] = float(np.sqrt((pairs**2).mean())) - LARGER * len(one)
        ranked.append(sorted(found, key=lambda each: (found[each], each)))
    chosen: list[tuple[int, ...]] = []
    while any(ranked) and len(chosen) < count:
        for sets in ranked:  # one of each person in turn, so that none dominates
            while sets:
                one = sets.pop(0)
                shared = (len(set(one) & set(other)) / max(len(one), len(other)) for other in chosen)
                if max(shared, default=0.0) <= SHARED:
                    chosen.append(one)
                    break
    return chosen[:count]


def mixed(frame: Frame, given: Sequence[Person], head: NDArray[np.float64]) -> Field:
    """Textures [2, S, S, 4] of a mixture, neutral and smiling: averages of people whose hair is brought to one outline.

    Args:
        head: outlines [len(given), 2, RAYS] of their heads.
    """
    goal, found = head.mean((0, 1)), []
    for smiling in (0, 1):
        alike = [
            people.reshaped(frame, person.textures[smiling], own[smiling], goal)
            for person, own in zip(given, head, strict=True)
        ]
        found.append(crisp(people.average(alike), alike))
    return np.stack(found)


def firm(opacity: Field) -> Field:
    """The opacity of an average without what few of its members have, loose hair above all."""
    return masks.smoothstep((opacity - 0.35) / 0.3)


def crisp(layers: Field, members: Sequence[Field]) -> Field:
    """An average [S, S, 4] with as much fine detail as its members have: what averaging took from each scale is given
    back by a factor, `GAIN` at most. It is the average's own detail, no member's."""
    colours = [_bands(member) for member in members]
    own, inside = _bands(layers), layers[..., 3] > 0.9
    result = own[-1].copy()
    for scale in range(BANDS):
        power = float(np.mean([(bands[scale][inside] ** 2).mean() for bands in colours]))
        gain = np.sqrt(power / max(float((own[scale][inside] ** 2).mean()), 1e-6))
        result += own[scale] * np.float32(np.clip(gain, 1, GAIN))
    return np.dstack([result.clip(0, 255), layers[..., 3]]).astype(np.float32)


def _bands(layers: Field) -> list[Field]:
    """The colours of a texture by scale, finest first; they add up to it."""
    found, rest = [], np.ascontiguousarray(layers[..., :3])
    for scale in range(BANDS):
        low = np.asarray(cv2.GaussianBlur(rest, (0, 0), len(layers) / 640 * 2**scale), np.float32)
        found.append(rest - low)
        rest = low
    return [*found, rest]


def ghosts(layers: Field) -> float:
    """How much of a texture [S, S, 4] above the shoulders is neither head nor background, over the head's edge, px."""
    part = layers[: int(0.7 * len(layers)), :, 3]
    unsure = ((part > 0.15) & (part < 0.85)).sum()
    edge = cv2.morphologyEx(
        (part > 0.5).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)
    ).sum()
    return float(unsure / max(int(edge), 1))


def streaks(frame: Frame, layers: Field) -> float:
    """Detail on the forehead of a texture [S, S, 4], grey levels: strands of a fringe."""
    side = len(layers)
    grey = cv2.cvtColor(np.ascontiguousarray(layers[..., :3], np.float32), cv2.COLOR_RGB2GRAY)
    detail = cv2.GaussianBlur(grey, (0, 0), side / 400) - cv2.GaussianBlur(grey, (0, 0), side / 80)
    forehead = np.zeros((side, side), np.uint8)
    corners = np.round(frame.mean[FOREHEAD, :2] * side - 0.5).astype(np.int32)
    cv2.fillConvexPoly(forehead, cv2.convexHull(corners), 1)
    return float(detail[forehead > 0].std())


def shape(given: Sequence[Person], shapes: Shapes) -> Shape:
    """Neutral shape [468, 3] of a mixture."""
    return np.asarray(np.mean([placed(person.meshes[0], shapes.mean) for person in given], axis=0))


def mouth(frame: Frame, given: Sequence[Person], openings: NDArray[np.float64]) -> Field:
    """What shows between parted lips: average [S, S, 4] of those whose smile shows teeth; opacity 1 between the lips.

    Raises:
        ModelError: fewer than `LEAST` people show teeth.
    """
    shown = [person.textures[1] for person, opening in zip(given, openings, strict=True) if opening > OPEN]
    if len(shown) < LEAST:
        raise ModelError(
            f"{len(shown)} people show teeth; {LEAST} are needed: add photographs of open smiles"
        )
    side = len(shown[0])
    between = np.zeros((side, side), np.uint8)
    polygon = np.round((frame.mean[masks.MOUTH, :2] * side - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(between, [polygon], 255, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(between.astype(np.float32) / 255, (0, 0), side / 400)
    soft[soft < 1 / 255] = 0
    colours = np.mean(shown, axis=0)[..., :3] * (soft > 0)[..., None]
    return np.dstack([colours, soft]).astype(np.float32)
