"""A folder of labelled faces as the k-Same-Net learns them: aligned pictures with head masks, and meshes.

`labels.csv` names the columns file, subject and expression (neutral or smiling); each picture shows one face before a
plain backdrop. Who lacks one of the two expressions is left out.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deid.errors import DeidError
from deid.faces import align
from deid.faces.detect import CenterFaceDetector
from deid.faces.mesh import FaceMesher
from deid.interfaces import Picture
from deid.models.ksame_net import SIDE
from deid.models.store import default_store
from deid.surrogates.ksame_net import turned
from deid.surrogates.shapefree import STEADY, Frame
from deid.training.backdrop import head_mask
from deid.training.mixtures import EXPRESSIONS, FLOOR, People, contrast, firm, restored

SURE = 0.5  # least mesh score
POSES = (
    (0, 0, 0),
    (12, 0, 0),
    (-12, 0, 0),
    (24, 0, 0),
    (-24, 0, 0),
    (0, 10, 0),
    (0, -10, 0),
)  # of `posed`, degrees
SWAPS = 20_000  # tried when groups are made


class Unusable(DeidError):
    """A folder that cannot be learnt from."""


def read(folder: Path, threads: int = 1) -> dict[str, dict[str, tuple[Picture, NDArray[np.float32]]]]:
    """By subject and expression the picture [H, W, 3] and its mesh [468, 3] in pixels.

    Raises:
        Unusable: no labels, or fewer than two people with both expressions.
    """
    labels = folder / "labels.csv"
    if not labels.exists():
        raise Unusable(f"{folder.name}: no labels.csv with file, subject and expression")
    store = default_store()
    detector = CenterFaceDetector(store.files("centerface"), threads, enlarge=1)
    mesher = FaceMesher(store.files("facemesh"), threads)
    found: dict[str, dict[str, tuple[Picture, NDArray[np.float32]]]] = {}
    with labels.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["expression"] not in EXPRESSIONS:
                continue
            pixels = cv2.imread(str(folder / row["file"]))
            if pixels is None:
                raise Unusable(f"{row['file']}: cannot be read as a picture")
            picture = np.ascontiguousarray(np.asarray(pixels, np.uint8)[..., ::-1])
            meshes, scores = mesher.mesh(picture, detector.detect([picture])[0])
            if len(scores) and scores.max() > SURE:
                found.setdefault(row["subject"], {})[row["expression"]] = picture, meshes[scores.argmax()]
    both = {name: each for name, each in sorted(found.items()) if len(each) == len(EXPRESSIONS)}
    if len(both) < 2:
        raise Unusable(f"{folder.name}: needs two people at least with a neutral and a smiling picture")
    return both


def shape_free(
    found: Mapping[str, Mapping[str, tuple[Picture, NDArray[np.float32]]]], side: int = SIDE
) -> tuple[People, Frame]:
    """What `read` found, in the shape-free frame of their mean mesh."""
    frame = Frame.fit(np.stack([each[e][1] for each in found.values() for e in EXPRESSIONS]))
    pictures = np.empty((1, len(found), 2, side, side, 4), np.uint8)
    meshes = np.empty((len(found), 2, 468, 3), np.float32)
    for n, each in enumerate(found.values()):
        for e, expression in enumerate(EXPRESSIONS):
            picture, mesh = each[expression]
            mask = (head_mask(picture, mesh) * 255).round().astype(np.uint8)
            pictures[0, n, e] = frame.to_frame(np.dstack([picture, mask]), mesh, side)
            scale, turn, shift = align.rigid(mesh[STEADY], frame.mean[STEADY])
            meshes[n, e] = scale * mesh @ turn.T + shift
    return People(list(found), pictures, meshes, np.zeros((1, 3), np.float32)), frame


def posed(people: People, frame: Frame, poses: Sequence[Sequence[float]] = POSES) -> People:
    """The people's pictures whole, each head turned as its mesh is: what the plain variant learns."""
    side = people.pictures.shape[-2]
    pictures = np.empty((len(poses), *people.pictures.shape[1:]), np.uint8)
    for n, pose in enumerate(poses):
        for person in range(len(people)):
            for e in range(2):
                mesh = turned(people.meshes[person, e], pose) * side
                pictures[n, person, e] = frame.from_frame(
                    people.pictures[0, person, e], mesh.astype(np.float32), side
                )
    return People(people.names, pictures, people.meshes, np.array(poses, np.float32))


def groups(people: People, each: int, seed: int) -> list[list[int]]:
    """The people in groups of at least `each` who look alike in their pictures, so that averages keep a character.

    Raises:
        Unusable: fewer than `each` people.
    """
    if len(people) < each:
        raise Unusable(f"groups of {each} need as many people; there are {len(people)}")
    neutral = people.pictures[0, :, 0]
    mask = neutral[..., 3:] / 255.0
    layers = np.concatenate([neutral[..., :3] * mask, 128 * mask], -1)
    looks = np.stack([cv2.resize(one, (16, 16), interpolation=cv2.INTER_AREA).ravel() for one in layers])
    apart = ((looks[:, None] - looks[None]) ** 2).sum(-1)
    count, rng = len(people) // each, np.random.default_rng(seed)
    member = rng.permutation(np.arange(len(people)) % count)

    def spread(label: int) -> float:
        own = np.flatnonzero(member == label)
        return float(apart[np.ix_(own, own)].sum() / len(own))

    for _ in range(SWAPS if count > 1 else 0):
        a, b = rng.choice(len(people), 2, replace=False)
        if member[a] == member[b]:
            continue
        labels = int(member[a]), int(member[b])
        before = spread(labels[0]) + spread(labels[1])
        member[a], member[b] = labels[::-1]
        if spread(labels[0]) + spread(labels[1]) >= before:
            member[a], member[b] = labels
    return [np.flatnonzero(member == label).tolist() for label in range(count)]


def merged(people: People, of: Sequence[Sequence[int]], restore: bool = True) -> People:
    """One person for each group: the average of its members, with their contrast."""
    pictures = np.empty((len(people.pictures), len(of), *people.pictures.shape[2:]), np.uint8)
    for pose, number in np.ndindex(len(people.pictures), len(of)):
        for e in range(2):
            stack = torch.from_numpy(people.pictures[pose, list(of[number]), e].astype(np.float32) / 255)
            x = stack.permute(0, 3, 1, 2)
            weight = FLOOR + (1 - FLOOR) * x[:, 3:]
            colour = (x[:, :3] * weight).sum(0, keepdim=True) / weight.sum(0, keepdim=True)
            if restore:
                colour = restored(colour, contrast(x[:, :3]).mean(0, keepdim=True))
            made = torch.cat([colour[0], firm(x[:, 3:].mean(0))]).permute(1, 2, 0)
            pictures[pose, number, e] = (made.numpy() * 255).round().astype(np.uint8)
    meshes = np.stack([people.meshes[list(group)].mean(0) for group in of])
    names = ["+".join(people.names[n] for n in group) for group in of]
    return People(names, pictures, meshes.astype(np.float32), people.poses)


def mixing(of: Sequence[Sequence[int]], people: int) -> NDArray[np.float32]:
    """Weights [groups, people], equal in each group: what `KSameNetwork.fold` takes."""
    weights = np.zeros((len(of), people), np.float32)
    for row, group in zip(weights, of, strict=True):
        row[list(group)] = 1 / len(group)
    return weights
