"""People of a consented collection, as mixtures are made of them: textures in the shape-free frame, meshes, looks.

The pictures show one person each, upright, before a plain background, neutral and smiling.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.interfaces import Picture
from deid.surrogates import masks
from deid.surrogates.masks import Field
from deid.surrogates.shapefree import Frame, Mesh

CUT_SIDE = 320  # px at which heads are cut out
CUTS = 3  # rounds of GrabCut
PLAIN = 8.0  # distance in Lab below which a pixel is background
RAYS = 90  # directions of an outline, clockwise from straight up
CENTRE = np.array([0.5, 0.5])  # of the rays, in sides of the frame: about between the eyes
REACH = 0.62  # of a ray, sides of the frame
UPPER = 115  # degrees from straight up: below it heads go over into shoulders


@dataclass(frozen=True)
class Person:
    """Of two pictures, neutral and smiling."""

    subject: str
    male: bool
    age: float  # years, NaN where not known
    group: str  # as the collection names it
    meshes: NDArray[np.float32]  # [2, 468, 3] px of the pictures
    embeddings: NDArray[np.float32]  # [2, dim]
    textures: NDArray[np.float32]  # [2, S, S, 4] RGB 0..255 and opacity 0..1


def cut_out(picture: Picture, mesh: Mesh) -> Field:
    """Opacity [H, W], 0..1, of the person before a plain background: GrabCut, begun with the background's colour."""
    height, width = picture.shape[:2]
    scale = CUT_SIDE / max(height, width)
    size = round(width * scale), round(height * scale)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    away = np.linalg.norm(lab - _background(lab), axis=2)
    labels = np.where(away < PLAIN, cv2.GC_BGD, cv2.GC_PR_FGD).astype(np.uint8)
    labels[cv2.GaussianBlur(away, (0, 0), 2) > PLAIN] = cv2.GC_PR_FGD
    hull = cv2.convexHull((mesh[:, :2] * scale).astype(np.float32))
    cv2.fillConvexPoly(labels, np.round(hull).astype(np.int32), cv2.GC_FGD)
    labels[int(0.97 * size[1]) :, size[0] // 4 : -size[0] // 4] = cv2.GC_FGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(small, labels, None, *models, CUTS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    opened = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, parts = cv2.connectedComponents(opened)
    at = (mesh[4, :2] * scale).round().astype(int)
    person = (parts == parts[at[1], at[0]]).astype(np.uint8)
    closed = cv2.morphologyEx(person, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    soft = cv2.GaussianBlur(_filled(closed.astype(np.uint8)).astype(np.float32), (0, 0), 1.2)
    whole = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(masks.smoothstep((whole - 0.3) / 0.6), np.float32)


def _background(lab: Field) -> Field:
    """The background's colour [h, w, 3]: a quadratic surface through what is seen of it above and beside the head."""
    height, width = lab.shape[:2]
    y, x = np.mgrid[:height, :width] / np.float32(max(height, width)) - np.float32(0.5)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1).astype(np.float32)
    edge = np.zeros((height, width), np.bool_)
    edge[: height // 20] = True
    edge[: round(0.6 * height), : width // 16] = edge[: round(0.6 * height), -width // 16 :] = True
    for _ in range(3):
        surface = terms @ np.linalg.lstsq(terms[edge], lab[edge], rcond=None)[0]
        off = np.linalg.norm(lab - surface, axis=2)
        edge &= off < max(3.0, 2 * float(np.median(off[edge])))
    return np.asarray(surface, np.float32)


def _filled(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask without its holes."""
    edges, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(mask.copy(), edges, -1, 1, cv2.FILLED), np.uint8)


def texture(frame: Frame, picture: Picture, mesh: Mesh, side: int) -> Field:
    """The person in the frame: colours and opacity [side, side, 4]."""
    opacity = cut_out(picture, mesh)
    layers = np.dstack([picture.astype(np.float32), opacity])
    return np.asarray(frame.to_frame(layers, mesh, side), np.float32)


def face_outline(frame: Frame) -> NDArray[np.float64]:
    """Radii [RAYS] of the mean face, in sides of the frame."""
    edge = frame.mean[masks.OVAL, :2] - CENTRE
    bearing = np.mod(np.arctan2(edge[:, 0], -edge[:, 1]), 2 * np.pi)
    order = np.argsort(bearing)
    return np.interp(_turns(), bearing[order], np.hypot(*edge[order].T), period=2 * np.pi)


def _turns() -> NDArray[np.float64]:
    return np.asarray(np.arange(RAYS) * (2 * np.pi / RAYS), np.float64)


def head_outline(frame: Frame, opacity: Field) -> NDArray[np.float64]:
    """Radii [RAYS] of a head, in sides of the frame; no less than the mean face's."""
    side, face = len(opacity), face_outline(frame)
    rays = np.stack([np.sin(_turns()), -np.cos(_turns())], 1)
    steps = np.linspace(0, REACH, 200)
    at = ((CENTRE + steps[None, :, None] * rays[:, None]) * side - 0.5).astype(np.float32)
    seen = cv2.remap(opacity, at[..., 0], at[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE) > 0.5
    outside = ~seen & (steps[None] > face[:, None])
    head = np.where(outside.any(1), steps[outside.argmax(1)], REACH)
    smooth = cv2.GaussianBlur(np.tile(head, 3)[None].astype(np.float64), (0, 0), 1.5)[0, RAYS : 2 * RAYS]
    return np.maximum(smooth, face * 1.02)


def upper() -> NDArray[np.float64]:
    """How much each direction [RAYS] belongs to the upper head, 1 above to 0 at the shoulders."""
    away = np.abs((np.arange(RAYS) * 360 / RAYS + 180) % 360 - 180)
    return np.asarray(1 - masks.smoothstep((away - UPPER + 25) / 25), np.float64)


def reshaped(frame: Frame, layers: Field, head: NDArray[np.float64], wanted: NDArray[np.float64]) -> Field:
    """A texture [S, S, C] whose hair ends at the `wanted` radii [RAYS] where it ended at those of `head`; what is
    inside the face stays."""
    radius, place, across, down = _polar(len(layers))
    low = place.astype(np.int32)
    part = place - low

    def everywhere(values: NDArray[np.float64]) -> Field:
        table = np.append(values, values[0]).astype(np.float32)
        return np.asarray(table[low] * (1 - part) + table[low + 1] * part, np.float32)

    goal = head + upper() * (wanted - head)
    inner, now, then = everywhere(face_outline(frame)), everywhere(head), everywhere(goal)
    share = np.clip((radius - inner) / (then - inner), 0, 1)
    beyond = np.clip(radius - then, 0, None)
    fade = np.exp(-beyond / 0.15)
    taken = np.where(radius < inner, radius, radius + (now - then) * share * fade)
    ratio = (taken / np.maximum(radius, 1e-6)).astype(np.float32)
    at = [
        ((offset * ratio + centre) * len(layers) - 0.5).astype(np.float32)
        for offset, centre in zip((across, down), CENTRE, strict=True)
    ]
    return np.asarray(
        cv2.remap(layers, at[0], at[1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE), np.float32
    )


@functools.lru_cache(maxsize=2)
def _polar(side: int) -> tuple[Field, Field, Field, Field]:
    """Of each pixel of the frame [side, side]: its radius, its direction in steps between rays, and both offsets from
    the rays' centre."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    across, down = (x + 0.5) / side - np.float32(CENTRE[0]), (y + 0.5) / side - np.float32(CENTRE[1])
    place = np.mod(np.arctan2(across, -down), 2 * np.pi) * (RAYS / (2 * np.pi))
    return np.hypot(across, down), np.minimum(place, RAYS - 1e-3).astype(np.float32), across, down


def average(layers: Sequence[Field]) -> Field:
    """Equal-weight average [S, S, 4] of textures, without their backgrounds."""
    stack = np.stack(layers)
    weight = stack[..., 3:] + 1e-3
    colours = (stack[..., :3] * weight).sum(0) / weight.sum(0)
    return np.asarray(np.dstack([colours, stack[..., 3].mean(0)]), np.float32)
