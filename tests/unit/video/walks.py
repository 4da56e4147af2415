"""Made-up faces that move: what tracking is tried on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Face

SAME = 0.6
DIM = 128


@dataclass
class Walk:
    """Sightings in the order of the frames, and who they are of."""

    frames: NDArray[np.int64]  # [N]
    boxes: NDArray[np.float32]  # [N, 4]
    embeddings: NDArray[np.float32]  # [N, 128]
    people: NDArray[np.int64]  # [N]


def embedding(person: int, rng: np.random.Generator, spread: float = 0.35) -> NDArray[np.float32]:
    """Of one person: two of these are about 0.35 apart, those of two people 0.8 and more."""
    centre = np.random.default_rng((7, person)).normal(size=DIM)
    centre /= np.linalg.norm(centre) * 1.4
    return (centre + rng.normal(0, spread / np.sqrt(2 * DIM), DIM)).astype(np.float32)


def walk(
    paths: dict[int, NDArray[np.float64]],
    rng: np.random.Generator,
    missing: float = 0.0,
    jitter: float = 0.02,
    unknown: float = 0.0,
) -> Walk:
    """Sightings of people on paths [F, 3] (x, y, size in px; NaN: not in the picture), some of them missed."""
    rows = []
    for person, path in paths.items():
        for frame in np.flatnonzero(np.isfinite(path[:, 0])):
            if rng.random() < missing:
                continue
            x, y, size = path[frame] + rng.normal(0, jitter, 3) * path[frame, 2]
            vector = embedding(person, rng) if rng.random() >= unknown else np.full(DIM, np.nan, np.float32)
            rows.append((frame, [x - size / 2, y - size / 2, x + size / 2, y + size / 2], vector, person))
    rows.sort(key=lambda row: (row[0], rng.random()))
    frames, boxes, vectors, people = zip(*rows, strict=True)
    return Walk(
        np.array(frames, np.int64), np.array(boxes, np.float32), np.array(vectors), np.array(people, np.int64)
    )


def line(
    start: tuple[float, float], stop: tuple[float, float], size: float, count: int
) -> NDArray[np.float64]:
    """A path [count, 3] at even pace."""
    return np.column_stack(
        [np.linspace(*ends, count) for ends in zip((*start, size), (*stop, size), strict=True)]
    )


def faces(walked: Walk, number: int) -> Face:
    """A face with points and a mesh that fill its box."""
    low, high = walked.boxes[number, :2], walked.boxes[number, 2:]
    shape = np.random.default_rng(3).random((468, 3)).astype(np.float32)
    mesh = shape * (high - low).mean()
    mesh[:, :2] += low
    points = low + np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32) * (
        high - low
    )
    return Face(
        walked.boxes[number], 0.9, points.astype(np.float32), mesh, 0.95, embedding=walked.embeddings[number]
    )
