"""What the measuring models see in one picture: the input of `surrogates`, for a source and for its result alike."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import quality, skin
from deid.evaluation.gaze import Gaze
from deid.evaluation.quality import Features
from deid.evaluation.recognizers import MESH_SCORE, EmbedderRecognizer, Recognizer, largest
from deid.evaluation.utility import iou
from deid.faces.attributes import AttributeHeads
from deid.interfaces import Detections, Detector, Embedder, Face, Mesher, Picture

FOUND = 0.3  # IoU with the source face from which a detection is of it
WINDOW = 2.0  # half the side of what the second detector looks at, over the longer side of the face


@dataclass(frozen=True)
class Observation:
    """One face of one picture. Arrays of NaN, and scores of 0, where it was not found."""

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
    gaze: NDArray[np.floating] = field(default_factory=lambda: np.full(2, np.nan))  # see `gaze`: right, down
    sharpness: float = np.nan  # see `quality.sharpness`
    features: NDArray[np.floating] = field(
        default_factory=lambda: np.full(256, np.nan)
    )  # see `quality.Features`
    # The head upright [64, 64, 3], RGB, see `quality.chip`; at the source face's place if not found; else empty.
    chip: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))
    # A window around the source's face, see `scenes.scene`: [96, 96, 3], RGB; empty without a picture. And that
    # face's box in it, the source's also for a result.
    scene: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))
    scene_box: NDArray[np.floating] = field(default_factory=lambda: np.full(4, np.nan))
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
    """The measuring models. The embedder of the attribute heads is dlib's.

    gaze, features: None: these fields of observations stay NaN.
    """

    detector: Detector
    mesher: Mesher
    embedder: Embedder
    second: BoxDetector
    expression: Expression
    recognizers: Sequence[Recognizer]
    heads: AttributeHeads = field(default_factory=AttributeHeads.load)
    gaze: Gaze | None = None
    features: Features | None = None

    def observe(self, picture: Picture, known: Face | None = None) -> Observation:
        """Everything about the largest face. With `known`, that face is taken as found: for control pictures in which
        no detector would find one.
        """
        boxes = self.second.boxes(picture)
        seen: dict[str, Any] = {"box": boxes[_largest(boxes)]} if len(boxes) else {}
        face = known or self._find(picture)
        return Observation(**seen) if face is None else Observation(**seen, **self._seen(picture, face))

    def observe_at(
        self, picture: Picture, places: Sequence[Face], found: Detections | None = None
    ) -> list[Observation]:
        """What there is at the places of the faces [N] of a source, in the source or in a result of its size.

        The pipeline's detector looks at the whole picture, and the detection that overlaps a place best is the face
        there; the second detector looks at a window around each place. Where no detection overlaps it, the score is 0.
        Where there is none, or no mesh fits it, vectors and chip are those of the place itself, with its points and
        its mesh: an attacker who knows where the face was loses nothing when a detector does.

        Args:
            found: what the detector finds in the picture; None: it has not looked yet.
        """
        if not places:
            return []
        found = self.detector.detect([picture])[0] if found is None else found
        chosen = [nearest(place.box, found.boxes) for place in places]
        made = []
        for place, index in zip(places, chosen, strict=True):
            seen = self._second(picture, place.box)
            if index is not None:
                face = Face(found.boxes[index], float(found.scores[index]), found.points[index])
                seen |= self._seen(picture, self.meshed(picture, face))
            if "mesh" not in seen:
                seen |= {"chip": quality.chip(picture, place), "vectors": self._vectors(picture, place)}
            made.append(Observation(**seen))
        return made

    def observe_known(self, picture: Picture, faces: Sequence[Face]) -> list[Observation]:
        """Faces [N] taken as found where they are, without any detector: of control pictures."""
        return [Observation(**self._seen(picture, face)) for face in faces]

    def meshed(self, picture: Picture, face: Face) -> Face:
        """The face with its mesh, where that can be trusted."""
        found = Detections(face.box[None], np.array([face.score], np.float32), face.points[None])
        meshes, scores = self.mesher.mesh(picture, found)
        trusted = scores[0] >= MESH_SCORE and bool(np.isfinite(meshes[0]).all())
        return dataclasses.replace(
            face, mesh=meshes[0] if trusted else None, mesh_score=float(scores[0]) if trusted else 0.0
        )

    def _find(self, picture: Picture) -> Face | None:
        face = largest(self.detector.detect([picture])[0])
        return None if face is None else self.meshed(picture, face)

    def _seen(self, picture: Picture, face: Face) -> dict[str, Any]:
        """Fields of the observation of a face, but those of the second detector."""
        seen: dict[str, Any] = {"score": face.score, "face_box": face.box, "points": face.points}
        seen |= {"mesh_score": face.mesh_score, "chip": quality.chip(picture, face)}
        meshed = face.mesh is not None and bool(np.isfinite(face.mesh).all())
        if face.mesh is not None and meshed:
            seen |= {"mesh": face.mesh, "lab": skin.skin_lab(picture, face.mesh)}
            seen["expression"] = self.expression.probabilities(picture, face.mesh)
            if self.gaze is not None:
                seen["gaze"] = self.gaze.of(picture, face.mesh)
        seen["sharpness"] = quality.sharpness(
            picture, face.mesh if face.mesh is not None and meshed else face.box
        )
        if self.features is not None:
            seen["features"] = self.features.of(picture, face)
        own = self.embedder.embed([picture], [[face]])[0]
        said = self.heads.predict(own)
        seen |= {"sex": float(said["sex"][0]), "age": float(said["age"][0])}
        return seen | {"vectors": self._vectors(picture, face, own[0])}

    def _vectors(
        self, picture: Picture, face: Face, own: NDArray[np.float32] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """By recognizer. own: the face's embedding, where it is there already."""
        made = {}
        for r in self.recognizers:
            same = isinstance(r, EmbedderRecognizer) and r.embedder is self.embedder and r.mesher is None
            made[r.name] = own if same and own is not None else r.embed(picture, face)
        return made

    def _second(self, picture: Picture, place: NDArray[np.floating]) -> dict[str, Any]:
        """The second detector's box at a place [4], of what it finds in a window around it."""
        left, top, right, bottom = window(picture, place, WINDOW)
        if right - left < 1 or bottom - top < 1:
            return {}
        corner = np.array([left, top, left, top])
        boxes = self.second.boxes(picture[top:bottom, left:right]) + corner
        index = nearest(place, boxes)
        return {} if index is None else {"box": boxes[index]}


def window(picture: Picture, box: NDArray[np.floating], reach: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the square around a face box [4], px, cut to the picture.

    reach: half the side, over the longer side of the box.
    """
    middle, half = (box[:2] + box[2:]) / 2, reach * float((box[2:] - box[:2]).max())
    size = np.array(picture.shape[1::-1])
    low = np.clip(np.floor(middle - half), 0, size).astype(int)
    high = np.clip(np.ceil(middle + half), 0, size).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def nearest(box: NDArray[np.floating], boxes: NDArray[np.floating]) -> int | None:
    """Index of the box of [N, 4] that overlaps a box [4] best; None where none does by `FOUND`."""
    if not len(boxes):
        return None
    overlap = iou(box[None], boxes)[0]
    best = int(np.argmax(overlap))
    return best if overlap[best] >= FOUND else None


def _largest(boxes: NDArray[np.float64]) -> int:
    return int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)))
