"""Procedural backgrounds and foregrounds: out-of-focus places without a camera, drawn from a seed.

Each is drawn at a quarter of a megapixel or less and enlarged, as a background out of focus has no fine detail.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture

Field = NDArray[np.float32]  # [h, w] or [h, w, 3], 0..1
WORK_SIDE = 480  # px, long side at which backgrounds are drawn


def rgb(red: float, green: float, blue: float) -> NDArray[np.float32]:
    return np.array([red, green, blue], np.float32)


def blurred(picture: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: float, octaves: int = 4) -> Field:
    """Smooth noise [h, w], about 0 to 1; `cells` is the number of blobs along the long side."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        count = cells * 2**octave / max(shape)
        grid = rng.random((max(2, round(height * count) + 1), max(2, round(width * count) + 1)), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.55**octave
    low, high = np.percentile(total, [1, 99])
    return np.asarray((total - low) / (high - low + 1e-6), np.float32)


def mix(share: Field, *colours: NDArray[np.float32]) -> Field:
    """Colours [h, w, 3] along a ramp through `colours` [3] each, at `share` 0..1 [h, w]."""
    stops = np.linspace(0, 1, len(colours))
    table = np.array(colours, np.float32)
    return np.stack([np.interp(share, stops, table[:, c]) for c in range(3)], -1).astype(np.float32)


def colour(rng: np.random.Generator, low: float, high: float, saturation: float) -> NDArray[np.float32]:
    """A random colour [3], brightness between `low` and `high`."""
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(0, saturation), rng.uniform(low, high)]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def shade(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Uneven light [h, w], about 0.75 to 1.1: a soft gradient in a random direction."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / max(shape)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = x * np.cos(angle) + y * np.sin(angle)
    ramp = (ramp - ramp.min()) / (np.ptp(ramp) + 1e-6)
    return np.asarray(0.78 + 0.3 * ramp + 0.05 * (noise(rng, shape, 2, 2) - 0.5), np.float32)


def wall(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """A painted wall, perhaps with a panel line."""
    paint = colour(rng, 0.45, 0.9, 0.35)
    picture = np.ones((*shape, 3), np.float32) * paint
    picture += 0.04 * (noise(rng, shape, 6) - 0.5)[..., None]
    if rng.random() < 0.5:
        edge = int(shape[1] * rng.uniform(0.1, 0.9))
        picture[:, edge:] *= rng.uniform(0.8, 0.93)
    return blurred(picture, 1.5) * shade(rng, shape)[..., None]


def studio(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """A backdrop with a light on its middle."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    centre = rng.uniform(0.3, 0.7, 2) * shape
    away = np.hypot(y - centre[0], x - centre[1]) / max(shape)
    paint = colour(rng, 0.5, 0.85, 0.4)
    mottle = 1 + 0.18 * (noise(rng, shape, 3) - 0.5)
    return paint * (np.clip(1.1 - 0.9 * away, 0.25, 1.1) * mottle)[..., None]


def foliage(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Leaves out of focus, with spots of sky between them."""
    dark, leaf = rgb(0.06, 0.13, 0.05), rgb(0.25, 0.42, 0.14)
    light = rgb(0.55, 0.68, 0.3) * rng.uniform(0.85, 1.1)
    share = np.clip(noise(rng, shape, 7, 5), 0, 1)
    picture = mix(share, dark, leaf * 0.7, leaf, light) * rgb(1, rng.uniform(0.9, 1.05), 1)
    spots = bright_spots(rng, shape, 30, 0.012, 0.03)
    picture = picture * (1 - 0.5 * spots[..., None]) + 0.5 * spots[..., None] * rgb(0.9, 0.95, 0.85)
    return blurred(picture, rng.uniform(2, 5)) * shade(rng, shape)[..., None]


def bright_spots(
    rng: np.random.Generator, shape: tuple[int, int], count: int, least: float, most: float
) -> Field:
    """Soft discs [h, w], 0..1, radii in long sides."""
    spots = np.zeros(shape, np.float32)
    for _ in range(count):
        disc = np.zeros(shape, np.uint8)
        centre = (int(rng.integers(shape[1])), int(rng.integers(shape[0])))
        cv2.circle(disc, centre, max(2, int(rng.uniform(least, most) * max(shape))), 255, -1, cv2.LINE_AA)
        spots = np.maximum(spots, disc.astype(np.float32) / 255 * rng.uniform(0.3, 1))
    return blurred(spots, 1.2)


def bokeh(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """A street at night: lights as discs before a dark, warm or cool, ground."""
    low, high = colour(rng, 0.05, 0.12, 0.6), colour(rng, 0.18, 0.32, 0.5)
    picture = mix(noise(rng, shape, 3), low, high)
    for _ in range(4):
        tint = colour(rng, 0.8, 1.0, 0.55)
        tint[2] *= 0.75  # lamps are warm more often than cool
        lights = bright_spots(rng, shape, 9, 0.015, 0.045)[..., None]
        picture = picture * (1 - 0.55 * lights) + 0.55 * lights * tint
    return picture


def outdoors(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Sky over far trees or houses and a meadow, sand or street, all blurred."""
    height, width = shape
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    sky = mix(y, rgb(0.42, 0.6, 0.85), rgb(0.85, 0.9, 0.95))
    clouds = np.clip(noise(rng, shape, 3, 5) - 0.5, 0, 1)[..., None]
    picture = sky * (1 - clouds) + clouds * 0.97
    skyline = rng.uniform(0.42, 0.6) + 0.12 * (noise(rng, (2, width), 8, 4)[0] - 0.5)
    far = mix(noise(rng, shape, 14), colour(rng, 0.12, 0.2, 0.4), rgb(0.35, 0.42, 0.3))
    picture = np.where((y > skyline)[..., None], far, picture)
    near = mix(noise(rng, shape, 20), *(rgb(*c) for c in GROUNDS[rng.integers(len(GROUNDS))]))
    horizon = rng.uniform(0.62, 0.75)
    picture = np.where((y > horizon)[..., None], near, picture)
    return blurred(picture, rng.uniform(2.5, 5))


GROUNDS = (
    ((0.22, 0.34, 0.12), (0.42, 0.52, 0.22)),
    ((0.62, 0.55, 0.42), (0.8, 0.73, 0.58)),
    ((0.35, 0.35, 0.36), (0.5, 0.5, 0.5)),
)


def bricks(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """A brick wall with uneven bricks."""
    height, width = shape
    tall = max(6, int(max(shape) * rng.uniform(0.028, 0.05)))
    long, joint = int(tall * 2.6), max(1, tall // 9)
    base = rgb(0.58, 0.32, 0.24) if rng.random() < 0.6 else colour(rng, 0.5, 0.75, 0.2)
    mortar = rgb(0.68, 0.65, 0.6) * rng.uniform(0.7, 1)
    picture = np.ones((*shape, 3), np.float32) * mortar
    for row, y in enumerate(range(0, height, tall)):
        for x in range(-(row % 2) * long // 2, width, long):
            paint = base * rng.uniform(0.75, 1.15) + rng.normal(0, 0.015, 3)
            picture[y + joint : y + tall, max(0, x + joint) : max(0, x + long)] = paint
    picture *= 1 + 0.22 * (noise(rng, shape, 60, 2) - 0.5)[..., None]
    return blurred(picture, rng.uniform(0.8, 1.8)) * shade(rng, shape)[..., None]


def wood(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Upright planks with grain."""
    height, width = shape
    base = rgb(0.52, 0.37, 0.23) * rng.uniform(0.7, 1.3)
    plank = max(12, int(max(shape) * rng.uniform(0.08, 0.16)))
    picture = np.empty((*shape, 3), np.float32)
    for x in range(0, width, plank):
        grain = noise(rng, (max(2, height // 30), plank), 14, 3)
        long = cv2.resize(grain, (plank, height), interpolation=cv2.INTER_CUBIC)[:, : width - x]
        picture[:, x : x + plank] = base * rng.uniform(0.82, 1.12) * (0.8 + 0.35 * long[..., None])
        picture[:, x : x + max(1, plank // 28)] *= 0.45
    return blurred(picture, rng.uniform(0.8, 1.6)) * shade(rng, shape)[..., None]


def stripes(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """A striped curtain with folds."""
    x = np.arange(shape[1], dtype=np.float32) / max(shape)
    first, second = colour(rng, 0.4, 0.8, 0.5), colour(rng, 0.6, 0.92, 0.25)
    bands = (np.sin(2 * np.pi * x * rng.uniform(6, 14)) > 0).astype(np.float32)
    folds = 0.86 + 0.14 * np.sin(2 * np.pi * (x * rng.uniform(4, 8) + 0.4 * np.sin(9 * x)))
    line = (first * bands[:, None] + second * (1 - bands[:, None])) * folds[:, None]
    picture = np.broadcast_to(line, (*shape, 3)).astype(np.float32)
    return blurred(picture, 2.2) * shade(rng, shape)[..., None]


def room(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """A room: wall, bright window, shelves or pictures, far out of focus."""
    height, width = shape
    picture = np.ones((*shape, 3), np.float32) * colour(rng, 0.5, 0.8, 0.2)
    for _ in range(rng.integers(4, 9)):
        x, y = int(rng.integers(-width // 10, width)), int(rng.integers(-height // 10, int(height * 0.7)))
        w, h = int(width * rng.uniform(0.05, 0.25)), int(height * rng.uniform(0.08, 0.4))
        cv2.rectangle(picture, (x, y), (x + w, y + h), colour(rng, 0.15, 0.75, 0.5).tolist(), -1)
    x = int(width * rng.uniform(0, 0.75))
    cv2.rectangle(picture, (x, 0), (x + width // 5, int(height * 0.55)), (1.05, 1.05, 1.0), -1)
    return blurred(picture, max(shape) * rng.uniform(0.012, 0.03)) * shade(rng, shape)[..., None]


KINDS: tuple[Callable[[np.random.Generator, tuple[int, int]], Field], ...] = (
    wall,
    studio,
    foliage,
    bokeh,
    outdoors,
    bricks,
    wood,
    stripes,
    room,
)


def background(rng: np.random.Generator, kind: int, height: int, width: int) -> Field:
    """Background [height, width, 3], 0..1, of the kind with this number (modulo their number)."""
    scale = min(1.0, WORK_SIDE / max(height, width))
    small = (max(2, round(height * scale)), max(2, round(width * scale)))
    drawn = KINDS[kind % len(KINDS)](rng, small)
    return np.clip(cv2.resize(drawn, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def parapet(rng: np.random.Generator, height: int, width: int) -> Field:
    """What people stand behind: a low wall, a counter or a hedge [height, width, 3], 0..1, lit along its top."""
    kind = (bricks, wood, foliage, wall)[rng.integers(4)]
    scale = min(1.0, WORK_SIDE / max(height, width))
    drawn = kind(rng, (max(8, round(height * scale)), max(8, round(width * scale)))) * 0.85
    picture = np.asarray(cv2.resize(drawn, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    cap = max(2, round(height * 0.08))
    picture[:cap] = picture.mean((0, 1)) * 1.25
    picture[cap : 2 * cap] *= np.linspace(0.6, 1, len(picture[cap : 2 * cap]), dtype=np.float32)[
        :, None, None
    ]
    return np.clip(picture, 0, 1)


def to_picture(pixels: Field) -> Picture:
    return np.asarray(np.round(np.clip(pixels, 0, 1) * 255), np.uint8)
