"""Parts that fail in one stated way, named in configurations by class path."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deid.faces.detect import CenterFaceDetector
from deid.faces.embed import DlibEmbedder
from deid.faces.merge import chosen
from deid.faces.mesh import FaceMesher
from deid.interfaces import Detections, Face, Picture
from deid.models.store import default_store
from deid.surrogates.cover import COLOUR

SECRET_TEXT = "canary-3f9a in the text of an exception"


class RaisingGenerator:
    style_dim = 512

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        pass

    def generate(self, styles: NDArray[np.float32], side: int | None = None) -> NDArray[np.uint8]:
        raise RuntimeError(SECRET_TEXT)


class NoiseGenerator(RaisingGenerator):
    """Pictures without a face."""

    def generate(self, styles: NDArray[np.float32], side: int | None = None) -> NDArray[np.uint8]:
        return np.random.default_rng(0).integers(0, 255, (len(styles), 256, 256, 3), np.uint8)


class DetectorThatHatesGrey(CenterFaceDetector):
    """Raises for a batch that holds a picture whose channels are equal."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        super().__init__(default_store().files("centerface"), threads, device)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        if any((p[..., 0] == p[..., 1]).all() and p.size > 3 for p in pictures):
            raise ValueError(SECRET_TEXT)
        return super().detect(pictures)


class DetectorThatDiesOfGrey(CenterFaceDetector):
    """Ends the process at a picture whose channels are equal."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        super().__init__(default_store().files("centerface"), threads, device)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        if any((p[..., 0] == p[..., 1]).all() for p in pictures):
            os.abort()
        return super().detect(pictures)


class DetectorThatBlinks(CenterFaceDetector):
    """Sees nothing in a picture whose corner is white."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        super().__init__(default_store().files("centerface"), threads, device)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        found = super().detect(pictures)
        return [
            Detections(of.boxes[:0], of.scores[:0], of.points[:0]) if p[:8, :8].mean() > 200 else of
            for p, of in zip(pictures, found, strict=True)
        ]


class DetectorThatDiesAtOnce(CenterFaceDetector):
    """Ends the process when it is built."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        os.abort()


def covered(picture: Picture) -> bool:
    """The picture is a result in which a face was covered."""
    return bool((picture == COLOUR).all(2).mean() > 0.01)


class DetectorThatHatesResults(CenterFaceDetector):
    """Raises for a picture in which a face was covered."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        super().__init__(default_store().files("centerface"), threads, device)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        if any(covered(picture) for picture in pictures):
            raise ValueError(SECRET_TEXT)
        return super().detect(pictures)


class DetectorOfOneAtFirst(DetectorThatHatesResults):
    """Finds the best face alone as long as none was covered."""

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        found = CenterFaceDetector.detect(self, pictures)
        return [
            faces if covered(picture) else chosen(faces, np.arange(len(faces)) < 1)
            for picture, faces in zip(pictures, found, strict=True)
        ]


class UnsureMesher(FaceMesher):
    """No face is a face; generated ones neither."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        super().__init__(default_store().files("facemesh"), threads, device)

    def mesh(
        self, picture: Picture, detections: Detections
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        meshes, scores = super().mesh(picture, detections)
        return meshes, scores * 0


class RaisingEmbedder(DlibEmbedder):
    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        super().__init__(default_store().files("dlib_resnet"), threads, device)

    def embed(
        self, pictures: Sequence[Picture], faces: Sequence[Sequence[Face]]
    ) -> list[NDArray[np.float32]]:
        raise MemoryError(os.getcwd())
