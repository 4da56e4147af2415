"""The 468-point face mesh in LiteRT, on upright crops.

Source: Kartynnik, Ablavatski, Grishchenko, Grundmann 2019, "Real-time Facial Surface Geometry from Monocular Video
on Mobile GPUs" (MediaPipe Face Mesh).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deid.faces import litert
from deid.faces.align import LEFT_EYE, RIGHT_EYE, five_points
from deid.faces.crop import chip
from deid.interfaces import Detections, Picture

SIDE = 192  # px, of the network's input
POINTS = 468
REACH = 1.5  # side of the crop over the longer side of the face
PASSES = 4  # crops at most from one start
STEADY = np.cos(np.radians(3))  # the roll of a mesh and of its crop agree
FITS = 40.0  # logit: of upright crops of plain faces 45 to 65, of turned ones mostly below 15
TURNS = (0, -45, 45, -90, 90, 180, -135, 135)  # degrees from the roll of the points, tried in turn


class FaceMesher:
    """Meshes of faces at any roll; crops beyond the border are padded with black.

    A crop by the detector's box and eyes gives a first mesh, the crop by this one the mesh that counts: when the box
    moves by 5 % of its size, the points move by 1.2 % of the distance between the eyes, and by 2.7 % without. The
    detector's points are wrong for faces that lie or hang (by up to 180 degrees); then the network's logit is low, and
    other rolls are tried.

    Args:
        files: the model's files by base name, from the model store.
        threads: of the CPU.
        device: not used: LiteRT runs on the CPU, a plain face in 2 runs of 1.5 ms, a hard one in up to 32.
    """

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        self._net, self._input = litert.load(files["face_landmark.tflite"], threads)
        outputs = self._net.get_output_details()
        self._mesh = next(o["index"] for o in outputs if np.prod(o["shape"]) == POINTS * 3)
        self._score = next(o["index"] for o in outputs if np.prod(o["shape"]) == 1)

    def mesh(
        self, picture: Picture, detections: Detections
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Meshes [N, 468, 3] in pixels of the picture (z in the same unit, towards the camera negative), and the
        probabilities [N] that there is a face."""
        meshes = np.empty((len(detections), POINTS, 3), np.float32)
        logits = np.empty(len(detections))
        for n, (box, points) in enumerate(zip(detections.boxes, detections.points, strict=True)):
            meshes[n], logits[n] = self._search(picture, box, points)
        return meshes, (1 / (1 + np.exp(-np.clip(logits, -60, 60)))).astype(np.float32)

    def _search(
        self, picture: Picture, box: NDArray[np.float32], points: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float]:
        """The mesh that fits best: that from the roll of the points, or where it fits badly, from another."""
        centre, side = (box[:2] + box[2:]) / 2, REACH * float(max(box[2] - box[0], box[3] - box[1]))
        roll = _angle(points[1] - points[0])
        found = []
        for turn in TURNS:
            found.append(self._follow(picture, centre, side, roll + np.radians(turn)))
            if found[-1][1] >= FITS:
                break
        return max(found, key=lambda one: one[1])

    def _follow(
        self, picture: Picture, centre: NDArray[np.floating], side: float, roll: float
    ) -> tuple[NDArray[np.float32], float]:
        """Mesh [468, 3] and logit; each crop is taken by the mesh before, until the roll changes no more."""
        for number in range(PASSES):
            mesh, logit = self._one(picture, centre, side, roll)
            low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
            right, left = (mesh[list(corners), :2].mean(0) for corners in (RIGHT_EYE, LEFT_EYE))
            centre, side, before = (low + high) / 2, REACH * float((high - low).max()), roll
            roll = _angle(left - right)
            if number and np.cos(roll - before) > STEADY:
                break
        return mesh, logit

    def _one(
        self, picture: Picture, centre: NDArray[np.floating], side: float, roll: float
    ) -> tuple[NDArray[np.float32], float]:
        """Mesh [468, 3] and logit of a face, from a square crop that shows a head of this roll upright (radians)."""
        scale = SIDE / max(float(side), 1.0)
        turn = scale * np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        transform = np.hstack([turn, (SIDE / 2 - turn @ centre)[:, None]])
        crop = chip(picture, transform, SIDE)
        self._net.set_tensor(self._input, (crop.astype(np.float32) / 255)[None])
        self._net.invoke()
        found = self._net.get_tensor(self._mesh).reshape(POINTS, 3).astype(np.float64)
        logit = float(self._net.get_tensor(self._score).ravel()[0])
        flat = (found[:, :2] - transform[:, 2]) @ np.linalg.inv(turn).T
        mesh = np.hstack([flat, found[:, 2:] / scale]).astype(np.float32)
        return mesh, logit


def as_detection(mesh: NDArray[np.float32]) -> Detections:
    """The detection that would stand where a mesh [468, 3] is, in the mesh's units."""
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    box = np.concatenate([low, high]).astype(np.float32)
    return Detections(box[None], np.ones(1, np.float32), five_points(mesh)[None])


def _angle(direction: NDArray[np.floating]) -> float:
    """Radians, clockwise in the picture from its x axis."""
    return float(np.arctan2(direction[1], direction[0]))
