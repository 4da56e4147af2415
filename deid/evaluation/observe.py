"""What the measuring models see in one picture: the input of `surrogates`, for a source and for its result alike."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import skin
from deid.evaluation.recognizers import MESH_SCORE, Recognizer, largest
from deid.faces.attributes import AttributeHeads
from deid.interfaces import Detections, Detector, Embedder, Face, Mesher, Picture


@dataclass(frozen=True)
class Observation:
    """The largest face of one picture. Arrays of NaN, and scores of 0, where it was not found."""

    score: float = 0.0  # of the pipeline's detector, 0..1
    face_box: NDArray[np.floating] = field(default_factory=lambda: np.full(4, np.nan))  # the same detector's
    points: NDArray[np.floating] = field(default_factory=lambda: np.full((5, 2), np.nan))  # the same
    box: NDArray[np.floating] = field(default_factory=lambda: np.full(4, np.nan))  # of an unrelated detector
    mesh: NDArray[np.floating] = field(default_factory=lambda: np.full((468, 3), np.nan))  # pixels
    mesh_score: float = 0.0  # 0..1
    lab: NDArray[np.floating] = field(default_factory=lambda: np.full(3, np.nan))  # skin, L*a*b*
    expression: NDArray[np.floating] = field(default_factory=lambda: np.full(7, np.nan))  # probabilities
    sex: float = np.nan  # P(male)
    age: float = np.nan  # years
    vectors: dict[str, NDArray[np.floating]] = field(default_factory=dict)  # by recognizer

    @property
    def face(self) -> Face | None:
        """As the detector and the mesher found it."""
        if not self.score:
            return None
        mesh = self.mesh.astype(np.float32) if self.mesh_score >= MESH_SCORE else None
        return Face(
            self.face_box.astype(np.float32),
            self.score,
            self.points.astype(np.float32),
            mesh=mesh,
            mesh_score=self.mesh_score,
        )


class BoxDetector(Protocol):
    def boxes(self, picture: Picture) -> NDArray[np.float64]:
        """Boxes [N, 4] in pixels of the picture, best first."""


class Expression(Protocol):
    def probabilities(self, picture: Picture, mesh: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities [7] of `expression.CLASSES`, of the face with this mesh."""


@dataclass
class Observer:
    """The measuring models. The embedder of the attribute heads is dlib's."""

    detector: Detector
    mesher: Mesher
    embedder: Embedder
    second: BoxDetector
    expression: Expression
    recognizers: Sequence[Recognizer]
    heads: AttributeHeads = field(default_factory=AttributeHeads.load)

    def observe(self, picture: Picture, known: Face | None = None) -> Observation:
        """Everything about the largest face. With `known`, that face is taken as found: for control pictures in which
        no detector would find one.
        """
        boxes = self.second.boxes(picture)
        seen: dict[str, Any] = {"box": boxes[_largest(boxes)]} if len(boxes) else {}
        face = known or self._find(picture)
        if face is None:
            return Observation(**seen)
        seen |= {"score": face.score, "face_box": face.box, "points": face.points}
        seen |= {"mesh_score": face.mesh_score}
        if face.mesh is not None and np.isfinite(face.mesh).all():
            seen |= {"mesh": face.mesh, "lab": skin.skin_lab(picture, face.mesh)}
            seen["expression"] = self.expression.probabilities(picture, face.mesh)
        own = self.embedder.embed([picture], [[face]])[0]
        said = self.heads.predict(own)
        seen |= {"sex": float(said["sex"][0]), "age": float(said["age"][0])}
        return Observation(**seen, vectors={r.name: r.embed(picture, face) for r in self.recognizers})

    def _find(self, picture: Picture) -> Face | None:
        face = largest(self.detector.detect([picture])[0])
        if face is None:
            return None
        found = Detections(face.box[None], np.array([face.score], np.float32), face.points[None])
        meshes, scores = self.mesher.mesh(picture, found)
        trusted = scores[0] >= MESH_SCORE and bool(np.isfinite(meshes[0]).all())
        return dataclasses.replace(
            face, mesh=meshes[0] if trusted else None, mesh_score=float(scores[0]) if trusted else 0.0
        )


def _largest(boxes: NDArray[np.float64]) -> int:
    return int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)))
