"""A drawn person before a plain wall, as the labels of photographs expect one: no photograph."""

import cv2
import numpy as np

from deid.faces.align import OVAL
from deid.faces.segment import BACKGROUND, FACE, HAIR, NECK, OTHER
from deid.gallery import store
from deid.training.photographs import SIDE

SKIN, HAIRY, CLOTH = (205, 160, 135), (60, 40, 30), (246, 246, 248)


def mesh():
    """The mean face [468, 3], a third of a picture high, in the middle."""
    points = store.load(None).meshes.mean(0).astype(np.float32)
    centre = points.mean(0)
    return (points - centre) * np.float32(SIDE * 0.62) + np.array([SIDE / 2, SIDE * 0.48, 0], np.float32)


def person(bald=False):
    """Picture [SIDE, SIDE, 3], mesh [468, 3] and the true part [SIDE, SIDE] of each pixel."""
    points, rng = mesh(), np.random.default_rng(2)
    chin, top = points[152], points[10]
    tall, middle = chin[1] - top[1], int(SIDE / 2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    part = np.full((SIDE, SIDE), BACKGROUND, np.uint8)
    part[(np.abs(columns - middle) < 0.3 * tall) & (rows > chin[1] - 0.3 * tall)] = NECK
    shoulders = rows > chin[1] + 0.25 * tall + 0.0015 * (columns - middle) ** 2
    part[shoulders] = OTHER
    head = (middle, int((chin[1] + top[1]) / 2 - 0.08 * tall))
    cv2.ellipse(part, head, (int(0.52 * tall), int(0.68 * tall)), 0, 180, 360, FACE if bald else HAIR, -1)
    oval = np.zeros_like(part)
    cv2.fillPoly(oval, [np.round(points[list(OVAL), :2]).astype(np.int32)], 1)
    part[oval > 0] = FACE
    colours = np.array([(0, 0, 0), SKIN, HAIRY, SKIN, CLOTH], np.float32)
    colours[NECK] *= 0.93
    picture = colours[part]
    wall = (200 + 20 * rows / SIDE - 15 * np.abs(columns / SIDE - 0.5))[..., None]
    picture = np.where((part == BACKGROUND)[..., None], wall, picture)
    for eye in (33, 263):
        cv2.circle(picture, tuple(int(v) for v in points[eye, :2]), 4, (40, 30, 30), -1)
    picture = cv2.GaussianBlur(picture + rng.normal(0, 1.5, picture.shape), (0, 0), 1.0)
    return picture.clip(0, 255).astype(np.uint8), points, part
