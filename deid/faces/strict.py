"""A detector for which a missed face counts more than time: three networks, two views, one box a face."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deid.errors import ConfigError
from deid.faces.blazeface import BlazeFace
from deid.faces.detect import CenterFaceDetector, suppress
from deid.faces.merge import View, chosen, joined, vote
from deid.faces.mtcnn import MTCNN
from deid.interfaces import Detections, Picture

VIEW = 0.05  # least score in a view of CenterFace
FACE = 0.04  # least mean over both views of what is looked at again
SMALL = 20.0  # px: least height of what MTCNN proposes of its own
PASS = (0.6, 0.7, 0.9)  # least scores in MTCNN's three networks of what it proposes
GLANCE = 0.6  # least score of what BlazeFace proposes

# Probability of a face as a logistic function of the logits of three scores, each held within its limits: the mean of
# CenterFace's views, O-Net, BlazeFace. Fitted to 100 photographs of crowds (`benchmarks/RESULTS.md`).
WEIGHTS = np.array([1.7, 0.1, 0.42])
BIAS = 1.05
LIMITS = np.array([[0.05, 0.01, 0.01], [0.95, 0.99, 0.99]])


class StrictDetector:
    """CenterFace on the picture and on its mirror image, at a low threshold; MTCNN and BlazeFace add and judge.

    Boxes of both views are joined by weighted means. What they do not hold, MTCNN and BlazeFace propose. Every face so
    found is looked at by O-Net and by BlazeFace in a view of its own, and the three scores give one probability: a weak
    face stays where others see it, and one that CenterFace does not see at all needs both others.

    Args:
        files: of the models centerface, blazeface and mtcnn by base name, as the model store gives them.
        threads: of each network on a CPU.
        device: of CenterFace and MTCNN.
        threshold: least probability of a face, as crowds with many small faces show them; lower finds more.
        engine, enlarge, enlarge_pixels, tile: as in `CenterFaceDetector`.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        threads: int = 1,
        device: str = "cpu",
        *,
        engine: str = "onnxruntime",
        threshold: float = 0.035,
        enlarge: float = 3.0,
        enlarge_pixels: int = 1_200_000,
        tile: int = 1280,
    ) -> None:
        if not 0 < threshold < 1:
            raise ConfigError(f"detector.options.threshold: {threshold} does not lie between 0 and 1")
        self.threshold = threshold
        self.centerface = CenterFaceDetector(
            files,
            threads,
            device,
            engine=engine,
            threshold=VIEW,
            enlarge=enlarge,
            enlarge_pixels=enlarge_pixels,
            tile=tile,
        )
        self.mtcnn = MTCNN(files, threads, device)
        self.scanner = BlazeFace(files, "full", threads)
        self.judge = BlazeFace(files, "short", threads)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Faces of each picture [H, W, 3], best first, in its pixels; a score is the probability of a face."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Picture) -> Detections:
        found, seen = self.candidates(picture)
        opinions = self.mtcnn.judge(picture, found.boxes).scores, self.judge.judge(picture, found.boxes)
        found.scores = probability(np.stack([seen, *opinions], axis=1))
        found = chosen(found, found.scores >= self.threshold)
        return chosen(found, np.argsort(-found.scores, kind="stable"))

    def candidates(self, picture: Picture) -> tuple[Detections, NDArray[np.float32]]:
        """Every face that any network proposes, once, and its mean score [N] in the views of CenterFace, or 0."""
        mirror = np.ascontiguousarray(picture[:, ::-1])
        views = [
            View(*self.centerface.candidates(picture, every=True)),
            View(*self.centerface.candidates(mirror, every=True)).mirrored(picture.shape[1]),
        ]
        faces = vote(views)
        faces = chosen(faces, faces.scores >= FACE)
        proposed = joined([self.mtcnn.detect(picture, SMALL, PASS), self.scanner.scan(picture, GLANCE)])
        # CenterFace's own come first, so that a proposal counts only where it says nothing.
        ranks = np.concatenate([faces.scores + 1, proposed.scores])
        every = joined([faces, proposed])
        kept = suppress(every.boxes, ranks)
        seen = np.where(kept < len(faces), every.scores[kept], 0).astype(np.float32)
        return chosen(every, kept), seen


def probability(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities [N] of a face from the scores [N, 3] of CenterFace, O-Net and BlazeFace."""
    held = np.clip(scores.astype(np.float64), *LIMITS)
    logits = np.log(held / (1 - held)) @ WEIGHTS + BIAS
    return (1 / (1 + np.exp(-logits))).astype(np.float32)
