"""Views of few photographed people for training: other backgrounds, clothes, colours, poses, framings and light.

With a few dozen people before one wall, in one kind of white shirt, nearly all variety has to be made. View n is a
function of the seed and n alone, so that training can go on where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from deid.demo import backgrounds
from deid.faces.align import OVAL
from deid.faces.segment import ABOVE, BACKGROUND, FACE, HAIR, INPUT, NECK, OTHER, PARTS, SPAN, Points, frame
from deid.interfaces import Picture
from deid.surrogates.masks import Field
from deid.surrogates.matting import foreground
from deid.training.views import SOFT, degrade, elsewhere, flat, occlude, relight, to_chips

PLACES = 144  # procedural backgrounds to draw from
OWN, PLAIN, DRAWN = (
    0.2,
    0.25,
    0.35,
)  # shares of views before their own wall, a plain one, a drawn one; else a picture
DRESSED, DYED, TANNED, HATTED, MASKED = 0.8, 0.5, 0.5, 0.07, 0.05  # shares of views
OCCLUDED, CUT, WHOLE, TURNED, SHADED = 0.15, 0.2, 0.3, 0.8, 0.5
YAW, PITCH, ROLL = 11.0, 7.0, 6.0  # standard deviations, degrees
GRID = 17  # of the warp
CONTROL = (*OVAL[::2], 4, 168, 33, 263, 61, 291, 152, 13)  # mesh points that the warp follows
BROW, LIPS = (105, 334), (2, 98, 327, 123, 352, *OVAL[12:25])  # mesh points: brows; what a face mask covers


@dataclass(frozen=True)
class People:
    """Labelled photographs: pictures [N, S, S, 3], parts [N, S, S, 5] of 0..255, and meshes [N, 468, 3] in pixels."""

    pictures: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    meshes: NDArray[np.float32]

    def __getitem__(self, rows: NDArray[np.bool_]) -> "People":
        return People(self.pictures[rows], self.parts[rows], self.meshes[rows])

    def chips(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Chips [N, INPUT, INPUT, 3] and their parts [N, INPUT, INPUT, 5], as the job cuts them."""
        pairs = zip(self.pictures, self.parts, self.meshes, strict=True)
        cut = [[_cut(given, frame(mesh)) for given in (picture, parts)] for picture, parts, mesh in pairs]
        return np.stack([pair[0] for pair in cut]), np.stack([pair[1] for pair in cut])


class PhotographViews:
    """Chips [3, INPUT, INPUT], -1..1, and their parts [5, INPUT, INPUT], 0..1, for a PyTorch loader.

    Args:
        people: to draw from.
        seed: of all views.
        numbers: of the views, in this order.
    """

    def __init__(self, people: People, seed: int, numbers: Sequence[int]) -> None:
        self.people, self.seed, self.numbers = people, seed, numbers
        rng = np.random.default_rng(seed)
        drawn = [backgrounds.background(rng, kind, INPUT, INPUT) for kind in range(PLACES)]
        self.places = (np.stack(drawn) * 255).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, self.numbers[place]))
        picture, parts = view(rng, self.people, self.places)
        return to_chips(picture), torch.from_numpy(np.ascontiguousarray(parts.transpose(2, 0, 1)))


def view(rng: np.random.Generator, people: People, places: NDArray[np.uint8]) -> tuple[Picture, Field]:
    """One view [INPUT, INPUT, 3] and its parts [INPUT, INPUT, 5] of people before one of `places`."""
    row, other = rng.integers(len(people.pictures), size=2)
    mesh = people.meshes[row]
    move = placement(rng, mesh)
    x, y = lookup(
        rng, mesh[:, :2] @ move[:, :2].T + move[:, 2], mesh[:, 2] * np.sqrt(np.linalg.det(move[:, :2])), move
    )
    plain, shares = (
        cv2.remap(given, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
        for given in (people.pictures[row], people.parts[row])
    )
    shares /= shares.sum(-1, keepdims=True) + 1e-6
    another = cv2.resize(people.pictures[other], (INPUT, INPUT), interpolation=cv2.INTER_AREA)
    behind, alpha = scene(rng, another, places), 1 - shares[..., BACKGROUND, None]
    front = foreground(plain, alpha[..., 0], SOFT)
    front = coloured(rng, front, shares, places)
    pixels = front * alpha + (plain if behind is None else behind) * (1 - alpha)
    points = mesh[:, :2] @ move[:, :2].T + move[:, 2]
    pixels, shares = worn(rng, pixels, shares, points, places)
    if rng.random() < OCCLUDED:
        pixels, shares = occlude(rng, pixels, shares, another)
    if rng.random() < SHADED:
        light = cv2.resize(
            rng.uniform(0.45, 1.2, (3, 3)).astype(np.float32), (INPUT, INPUT), interpolation=cv2.INTER_CUBIC
        )
        pixels = pixels * light[..., None]
    picture = degrade(rng, relight(rng, pixels))
    if rng.random() < CUT:
        picture, shares = cut(rng, picture, shares)
    return (picture[:, ::-1], shares[:, ::-1]) if rng.random() < 0.5 else (picture, shares)


def placement(rng: np.random.Generator, mesh: Points) -> NDArray[np.float64]:
    """Map [2, 3] of the photograph to the chip: mostly about as the job cuts faces, in part as a generator's pictures
    frame them."""
    move = np.vstack([frame(mesh), [0, 0, 1]])
    if rng.random() < WHOLE:
        shift = np.array([(1 - 1 / SPAN) / 2, ABOVE]) * SPAN * INPUT
        move = np.array([[SPAN, 0, -shift[0]], [0, SPAN, -shift[1]], [0, 0, 1]]) @ move
    middle, scale = INPUT / 2, np.exp(rng.normal(0, 0.1))
    turn = np.vstack([cv2.getRotationMatrix2D((middle, middle), rng.normal(0, ROLL), scale), [0, 0, 1]])
    turn[:2, 2] += rng.normal(0, 8, 2)
    stretch = np.diag([np.exp(rng.normal(0, 0.04)), 1, 1])
    return np.asarray((turn @ stretch @ move)[:2], np.float64)


def lookup(
    rng: np.random.Generator, points: Points, depth: NDArray[np.floating], move: NDArray[np.float64]
) -> tuple[Field, Field]:
    """Where in the photograph each pixel of the chip comes from, columns and rows [INPUT, INPUT]: the inverse of
    `move`, with the head turned and bent a little.

    Args:
        points, depth: the mesh [468, 2] and [468] in pixels of the chip.
    """
    steps = np.linspace(0, INPUT - 1, GRID)
    flow = rng.normal(0, 1.5, (GRID, GRID, 2)) if rng.random() < TURNED else np.zeros((GRID, GRID, 2))
    if rng.random() < TURNED:
        grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
        flow += turning(rng, points, depth)(grid).reshape(GRID, GRID, 2)
    fine = cv2.resize(cv2.GaussianBlur(flow, (3, 3), 0), (INPUT, INPUT), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[:INPUT, :INPUT]
    back = cv2.invertAffineTransform(move)
    x, y = columns + fine[..., 0], rows + fine[..., 1]
    return tuple(np.asarray(r[0] * x + r[1] * y + r[2], np.float32) for r in back)  # type: ignore[return-value]


def turning(rng: np.random.Generator, points: Points, depth: NDArray[np.floating]) -> RBFInterpolator:
    """The backward flow of a head that yaws and nods about its middle; the chip's border stays where it is."""
    yaw, pitch = np.radians(np.clip(rng.normal(0, (YAW, PITCH)), (-24, -14), (24, 14)))
    oval = points[list(OVAL[::2])]
    centre, wide = points.mean(0), np.ptp(points[:, 0])
    ring = centre + (oval - centre) * 1.5  # about the outline of head and hair
    control = np.concatenate([points[list(CONTROL)], ring])
    z = np.concatenate([depth[list(CONTROL)], np.full(len(ring), depth[list(OVAL)].mean() + 0.3 * wide)])
    x, y, z = control[:, 0] - centre[0], control[:, 1] - centre[1], z - z.mean() - 0.1 * wide
    moved = np.stack([x * np.cos(yaw) - z * np.sin(yaw), y * np.cos(pitch) - z * np.sin(pitch)], 1) + centre
    moved = moved + (control - moved).mean(0)
    side = np.linspace(-0.25, 1.25, 6) * INPUT
    still = np.array([(u, v) for u in side for v in side if min(u, v) < 0 or max(u, v) > INPUT])
    at, flow = np.concatenate([moved, still]), np.concatenate([control - moved, np.zeros_like(still)])
    return RBFInterpolator(at, flow, kernel="thin_plate_spline", smoothing=20.0)


def scene(rng: np.random.Generator, another: Picture, places: NDArray[np.uint8]) -> Field | None:
    """What is behind the person [INPUT, INPUT, 3], 0..255; None: the photograph's own wall."""
    shown = rng.random()
    if shown < OWN:
        return None
    if shown < OWN + PLAIN:
        return flat(rng)
    return texture(rng, places) if shown < OWN + PLAIN + DRAWN else elsewhere(rng, another)


def texture(rng: np.random.Generator, places: NDArray[np.uint8]) -> Field:
    """Part of a drawn background [INPUT, INPUT, 3], 0..255."""
    middle, angle = (INPUT / 2, INPUT / 2), rng.uniform(-180, 180)
    turn = np.array(cv2.getRotationMatrix2D(middle, angle, rng.uniform(0.8, 2.5)), np.float64)
    turn[:, 2] += rng.uniform(-60, 60, 2)
    place = places[rng.integers(len(places))]
    return np.asarray(cv2.warpAffine(place, turn, (INPUT, INPUT), borderMode=cv2.BORDER_REFLECT), np.float32)


def coloured(rng: np.random.Generator, front: Field, shares: Field, places: NDArray[np.uint8]) -> Field:
    """The person with clothes, hair and skin of other colours. White clothes show their own shading, so that any
    cloth can be laid on them."""
    result = front.copy()
    if rng.random() < DRESSED:
        cloth = flat(rng) if rng.random() < 0.55 else texture(rng, places)
        shade = np.clip(front.mean(-1, keepdims=True) / 235, 0, 1) ** rng.uniform(0.7, 3)
        result = _laid(result, cloth * shade, shares[..., OTHER])
    if rng.random() < DYED:
        level = front.mean(-1, keepdims=True) if rng.random() < 0.5 else front
        tint = np.exp(rng.normal(0, 0.12, 3)) * np.exp(rng.uniform(-0.6, 1.0))
        fair = 255 * (np.clip(level / 255, 0, 1) ** np.exp(rng.normal(0, 0.2))) * tint
        result = _laid(result, np.asarray(fair, np.float32), shares[..., HAIR])
    if rng.random() < TANNED:
        tint = np.exp(rng.normal(0, 0.07, 3)) * np.exp(rng.uniform(-0.8, 0.3))
        result = _laid(result, np.asarray(front * tint, np.float32), shares[..., FACE] + shares[..., NECK])
    return np.clip(result, 0, 255)


def worn(
    rng: np.random.Generator, pixels: Field, shares: Field, points: Points, places: NDArray[np.uint8]
) -> tuple[Field, Field]:
    """With a hat, which is `OTHER`, or a mask before mouth and nose, which is part of the face."""
    pick = rng.random()
    if pick < HATTED:
        brow, chin = points[list(BROW)].mean(0), points[152]
        tall = float(np.linalg.norm(chin - brow))
        up = (brow - chin) / tall
        rows, columns = np.mgrid[:INPUT, :INPUT]
        height = (columns - brow[0]) * up[0] + (rows - brow[1]) * up[1]
        head = (shares[..., FACE] + shares[..., HAIR] > 0.5) & (height > 0)
        grown = cv2.dilate(head.astype(np.uint8), np.ones((int(rng.integers(3, 15)),) * 2, np.uint8))
        hat = (grown > 0) & (height > tall * rng.uniform(0.12, 0.4))
        cover = cv2.GaussianBlur(hat.astype(np.float32), (0, 0), 1.2)
        cloth = flat(rng) if rng.random() < 0.6 else texture(rng, places)
        here = np.eye(len(PARTS), dtype=np.float32)[OTHER]
        return _laid(pixels, cloth, cover), _laid(shares, np.broadcast_to(here, shares.shape), cover)
    if pick < HATTED + MASKED:
        mask = np.zeros((INPUT, INPUT), np.uint8)
        cv2.fillConvexPoly(mask, cv2.convexHull(points[list(LIPS)].astype(np.int32)), 1)
        cover = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.2)
        return _laid(pixels, flat(rng), cover * (shares[..., FACE] + shares[..., NECK])), shares
    return pixels, shares


def cut(rng: np.random.Generator, picture: Picture, shares: Field) -> tuple[Picture, Field]:
    """As of a picture that ends within the chip: what lies beyond repeats its border."""
    top, bottom, left, right = (int(v) for v in rng.uniform(0, 0.22 * INPUT, 4) * (rng.random(4) < 0.4))
    inner = slice(top, INPUT - bottom), slice(left, INPUT - right)
    sides = (top, bottom, left, right, cv2.BORDER_REPLICATE)
    return (
        np.asarray(cv2.copyMakeBorder(picture[inner], *sides), np.uint8),
        np.asarray(cv2.copyMakeBorder(shares[inner], *sides), np.float32),
    )


def _laid(below: Field, above: Field, cover: Field) -> Field:
    share = np.asarray(cover, np.float32)[..., None]
    return np.asarray(below * (1 - share) + above * share, np.float32)


def _cut(values: NDArray[np.uint8], move: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The chip of values [S, S, C], smoothed first as they become smaller."""
    scale = float(np.sqrt(np.linalg.det(move[:, :2])))
    soft = cv2.GaussianBlur(values, (0, 0), 0.45 / scale) if scale < 0.8 else values
    return np.asarray(cv2.warpAffine(soft, move, (INPUT, INPUT), borderMode=cv2.BORDER_REPLICATE), np.uint8)
