"""Photographs of fictional people: one alone, a group, people behind a parapet, one near before others far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.demo import backgrounds, torso
from deid.demo.people import SIDE, Take
from deid.interfaces import Picture

LAYOUTS = ("alone", "group", "parapet", "depth")
_SPACING = 0.62  # sides of a person's picture: nearer neighbours would hide each other's face
_BODY = 0.85  # sides: width of head and most of the shoulders


@dataclass
class Scene:
    """A picture while it is put together; colours are float32 0..1."""

    pixels: NDArray[np.float32]  # [H, W, 3]
    boxes: list[NDArray[np.float64]] = field(default_factory=list)  # [4] each, in the order of `people`
    people: list[int] = field(default_factory=list)  # positions in the list of takes

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def add(self, number: int, take: Take, middle: float, bottom: float, side: float, light: float) -> None:
        """Put a person in front of what is there; `side` px is that of his whole picture, `bottom` its lower border."""
        scale = side / SIDE
        cutout = cv2.resize(take.cutout, None, fx=scale, fy=scale, interpolation=_method(scale))
        height, width = cutout.shape[:2]
        above, aside, _ = (scale * margin for margin in torso.margins(SIDE))
        left, top = round(middle - width / 2), round(bottom - side - above)
        across, down = np.linspace(-1, 1, width, dtype=np.float32), slice(max(0, top), max(0, top + height))
        target = self.pixels[down, max(0, left) : max(0, left + width)]
        shown = cutout[max(0, -top) :, max(0, -left) :][: target.shape[0], : target.shape[1]]
        part = shown * np.float32(1 / 255)
        slope = (1 + 0.12 * (light - 1) * across)[max(0, -left) :][: target.shape[1], None]
        alpha = part[..., 3:]
        target += alpha * (np.clip(part[..., :3] * light * slope, 0, 1) - target)
        low, high = take.mesh[:, :2].min(0), take.mesh[:, :2].max(0)
        corner = np.array([left + aside, top + above])
        self.boxes.append(np.concatenate([low * scale + corner, high * scale + corner]))
        self.people.append(number)


def _method(scale: float) -> int:
    return cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC


def compose(
    rng: np.random.Generator, takes: Sequence[Take], layout: str, kind: int, size: tuple[int, int]
) -> tuple[Picture, NDArray[np.float32], list[int]]:
    """A photograph of these people over the background of this kind.

    Returns:
        Picture [H, W, 3]; face boxes [N, 4] in its pixels (bounds of the mesh); for each box the position of
        its person in `takes`. Who finds no room in the layout is left out.
    """
    width, height = size
    scene = Scene(backgrounds.background(rng, kind, height, width))
    light = float(np.clip(0.66 + 0.7 * scene.pixels.mean(), 0.74, 1.05))
    lights = light * rng.uniform(0.92, 1.1, len(takes))
    {"alone": _alone, "group": _group, "parapet": _parapet, "depth": _depth}[layout](
        rng, scene, takes, lights
    )
    pixels = developed(rng, scene.pixels)
    return pixels, np.array(scene.boxes, np.float32).reshape(-1, 4), scene.people


def _alone(
    rng: np.random.Generator, scene: Scene, takes: Sequence[Take], lights: NDArray[np.float64]
) -> None:
    width, height = scene.size
    side = min(height * rng.uniform(0.55, 0.9), width * rng.uniform(0.9, 1.2))
    bottom = height - side * rng.uniform(0.0, 0.3)
    scene.add(0, takes[0], width * rng.uniform(0.36, 0.64), bottom, side, lights[0])


def _group(
    rng: np.random.Generator, scene: Scene, takes: Sequence[Take], lights: NDArray[np.float64]
) -> None:
    width, height = scene.size
    count = len(takes)
    spacing = rng.uniform(_SPACING, 0.74)
    side = min(width / (_BODY + spacing * (count - 1)), height * rng.uniform(0.62, 0.8))
    start = (width - side * spacing * (count - 1)) / 2 + rng.uniform(-0.05, 0.05) * side
    sides = side * rng.uniform(0.92, 1.04, count)
    for number in np.argsort(sides):
        bottom = height - sides[number] * rng.uniform(0.04, 0.28)
        middle = start + number * spacing * side
        scene.add(int(number), takes[number], middle, bottom, sides[number], lights[number])


def _parapet(
    rng: np.random.Generator, scene: Scene, takes: Sequence[Take], lights: NDArray[np.float64]
) -> None:
    width, height = scene.size
    _far(
        rng,
        scene,
        takes,
        lights,
        range(len(takes)),
        (0.03 * width, 0.97 * width),
        rng.uniform(0.5, 0.8) * height,
    )


def _depth(
    rng: np.random.Generator, scene: Scene, takes: Sequence[Take], lights: NDArray[np.float64]
) -> None:
    width, height = scene.size
    side = min(height * rng.uniform(0.65, 0.85), 0.7 * width)
    right = bool(rng.random() < 0.5)
    near = 0.44 * side
    free = (0.02 * width, width - 2 * near) if right else (2 * near, 0.98 * width)
    _far(rng, scene, takes, lights, range(1, len(takes)), free, rng.uniform(0.62, 0.78) * height)
    scene.add(0, takes[0], width - near if right else near, height - 0.2 * side, side, lights[0])


def _far(
    rng: np.random.Generator,
    scene: Scene,
    takes: Sequence[Take],
    lights: NDArray[np.float64],
    numbers: Sequence[int],
    span: tuple[float, float],
    top: float,
) -> None:
    """People behind a parapet whose upper edge is at `top`, between two columns."""
    width, height = scene.size
    room = span[1] - span[0]
    largest = min(room / (_SPACING * len(numbers) + 0.3), 0.75 * top)
    wanted = rng.uniform(84, 120) if rng.random() < 0.25 else rng.uniform(0.3, 1.0) * largest
    side = float(np.clip(wanted, min(84.0, largest), min(420.0, largest)))
    slack = room - side * (_BODY + (len(numbers) - 1) * _SPACING)
    gaps = rng.dirichlet(np.ones(len(numbers) + 1)) * max(0.0, slack)
    middle = span[0] + _BODY / 2 * side
    for gap, number in zip(gaps, numbers, strict=False):
        middle += gap
        bottom = top - side * rng.uniform(0.06, 0.3)
        scene.add(number, takes[number], middle, bottom, side * rng.uniform(0.94, 1.0), lights[number])
        middle += _SPACING * side
    edge = round(top)
    scene.pixels[edge:] = backgrounds.parapet(rng, height - edge, width)


def portrait(
    rng: np.random.Generator, picture: Picture, mesh: NDArray[np.float32], size: tuple[int, int]
) -> tuple[Picture, NDArray[np.float32]]:
    """A generated picture as it is, its own background included, cropped and enlarged; and the face's box [1, 4]."""
    width, height = size
    scale = max(size) / len(picture)
    spare = np.array([max(size) - width, max(size) - height])
    offset = np.round(spare * [0.5, 0.35]).astype(int)
    large = cv2.resize(picture, (max(size), max(size)), interpolation=_method(scale))
    crop = large[offset[1] : offset[1] + height, offset[0] : offset[0] + width] * np.float32(1 / 255)
    flat = mesh[:, :2] * scale - offset
    return developed(rng, crop), np.concatenate([flat.min(0), flat.max(0)]).astype(np.float32)[None]


def developed(rng: np.random.Generator, pixels: NDArray[np.float32]) -> Picture:
    """What a camera adds: white balance, contrast, vignette, noise."""
    height, width = pixels.shape[:2]
    warmth = rng.uniform(-0.05, 0.05)
    balance = np.array([1 + warmth, 1, 1 - warmth], np.float32) * rng.uniform(0.94, 1.06)
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    vignette = 1 - rng.uniform(0, 0.12) * (x**2 + y**2) / 2
    exposed = np.clip(pixels * vignette[..., None] * balance, 0, 1) ** np.float32(rng.uniform(0.9, 1.12))
    exposed += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0.003, 0.012))
    return backgrounds.to_picture(exposed)
