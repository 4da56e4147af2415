"""The 468-point face mesh in LiteRT, on upright crops.

Source: Kartynnik, Ablavatski, Grishchenko, Grundmann 2019, "Real-time Facial Surface Geometry from Monocular Video
on Mobile GPUs" (MediaPipe Face Mesh).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deid.faces.align import LEFT_EYE, RIGHT_EYE
from deid.faces.crop import chip
from deid.interfaces import Detections, Picture

SIDE = 192  # px, of the network's input
POINTS = 468
REACH = 1.5  # side of the crop over the longer side of the face


class FaceMesher:
    """Meshes of faces at any roll; crops beyond the border are padded with black.

    A crop by the detector's box and eyes gives a first mesh, the crop by this one the mesh that counts: when the box
    moves by 5 % of its size, the points move by 1.2 % of the distance between the eyes, and by 2.7 % without.

    Args:
        files: the model's files by base name, from the model store.
        threads: of the CPU.
        device: "cpu"; LiteRT has no CUDA, and a face takes under 2 ms.
    """

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._net = Interpreter(model_path=str(files["face_landmark.tflite"]), num_threads=threads)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = self._net.get_output_details()
        self._mesh = next(o["index"] for o in outputs if np.prod(o["shape"]) == POINTS * 3)
        self._score = next(o["index"] for o in outputs if np.prod(o["shape"]) == 1)

    def mesh(
        self, picture: Picture, detections: Detections
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Meshes [N, 468, 3] in pixels of the picture (z in the same unit, towards the camera negative), and the
        probabilities [N] that there is a face."""
        meshes = np.empty((len(detections), POINTS, 3), np.float32)
        scores = np.empty(len(detections), np.float32)
        for n, (box, points) in enumerate(zip(detections.boxes, detections.points, strict=True)):
            side = REACH * max(box[2] - box[0], box[3] - box[1])
            first, _ = self._one(picture, (box[:2] + box[2:]) / 2, side, points[1] - points[0])
            low, high = first[:, :2].min(0), first[:, :2].max(0)
            eyes = [first[list(corners), :2].mean(0) for corners in (RIGHT_EYE, LEFT_EYE)]
            meshes[n], scores[n] = self._one(
                picture, (low + high) / 2, REACH * float((high - low).max()), eyes[1] - eyes[0]
            )
        return meshes, scores

    def _one(
        self, picture: Picture, centre: NDArray[np.float32], side: float, across: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float]:
        """Mesh [468, 3] and score from a square crop; `across` [2] runs from the right eye to the left."""
        scale = SIDE / max(float(side), 1.0)
        angle = np.arctan2(across[1], across[0])
        turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        transform = np.hstack([turn, (SIDE / 2 - turn @ centre)[:, None]])
        crop = chip(picture, transform, SIDE)
        self._net.set_tensor(self._input, (crop.astype(np.float32) / 255)[None])
        self._net.invoke()
        found = self._net.get_tensor(self._mesh).reshape(POINTS, 3).astype(np.float64)
        logit = float(self._net.get_tensor(self._score).ravel()[0])
        flat = (found[:, :2] - transform[:, 2]) @ np.linalg.inv(turn).T
        mesh = np.hstack([flat, found[:, 2:] / scale]).astype(np.float32)
        return mesh, float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))
