"""The gate: a second look, at the result. Is a replaced face far enough from the person, and was a face missed?

The result is searched with the detector that searched the source. Where a replaced face is found again, it is
embedded and compared with its source; below the margin it goes one rung down the ladder and the picture is composed
again. What is found where the result still shows the source was missed before: it is covered. The looks are bounded;
what the last of them refuses is covered with grey, and that needs no look.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deid import config
from deid import log as logs
from deid.errors import ConfigError
from deid.faces.merge import chosen, overlaps
from deid.interfaces import Detections, Detector, Embedder, Face, Gallery, Mesher, Picture
from deid.surrogates import ladder

log = logs.logger(__name__)

IOU = 0.3  # from which a detection on the result is looked at as a face of the source
CORE = 0.5  # sides of a detection's core, in its own
HIDDEN = 0.5  # share of the core that must have changed for a detection to be no missed face
FAINT = 0.8  # correlation of the core's detail with the source's from which it is a fainter copy
LOOKS = len(ladder.RUNGS)  # at one picture
MESH_SCORE = 0.5  # below it the embedding goes by the detector's points
_BLOCK = 256  # rows of distances worked out at once

Refused = list[tuple[Face, str]]  # with a code of `records.COVER`


@dataclass(frozen=True)
class Gate:
    """The networks and limits of the second look.

    margin: least Euclidean distance of the result's embedding from the source's.
    score: least score of a detection that counts as a missed face.
    """

    detector: Detector
    mesher: Mesher
    embedder: Embedder
    margin: float
    score: float = 0.0

    def verify(
        self, source: Picture, result: Picture, faces: list[Face], compose: Callable[[], Picture]
    ) -> Picture:
        """The result [H, W, 3] that may go out. Faces are lowered in place, and missed ones put behind them.

        Args:
            result: of `faces` as they stand.
            compose: makes it again.

        Raises:
            Exception: the detector's or compose's own: the result was not searched for missed faces, and nothing may
                go out.
        """
        for left in reversed(range(LOOKS)):
            refused, missed = self.look(source, result, faces)
            if not refused and not missed:
                break
            for face, code in refused:
                lower(face, code, last=not left or code != "too_close")
            faces += missed
            result = compose()
        for face in faces:
            if face.gate == "" or (face.gate in ("passed", "not_found") and face.status != "replaced"):
                face.gate = "unchecked"
        return result

    def look(self, source: Picture, result: Picture, faces: Sequence[Face]) -> tuple[Refused, list[Face]]:
        """Replaced faces that do not pass, and missed faces as they are to be covered; sets `gate` of the others."""
        found = self.detector.detect([result])[0]
        if not found.sound:
            raise ValueError("a detector gave boxes, scores and points that do not fit each other")
        near = overlapping(faces, found.boxes)
        checked = [n for n, face in enumerate(faces) if comparable(face)]
        for n in checked:
            faces[n].gate = faces[n].gate or "not_found"
        again = np.asarray(near[checked].any(0))
        distance = self.distances(result, [faces[n] for n in checked], chosen(found, again))
        refused: Refused = []
        for n, row in zip(checked, distance, strict=True):
            if not near[n].any():
                continue
            least = row[near[n][again]].min()  # NaN when one of them has no embedding
            if least >= self.margin:
                faces[n].gate = "lowered" if faces[n].gate == "lowered" else "passed"
            else:
                refused.append((faces[n], "too_close" if least < self.margin else "gate_failed"))
        covered = np.array([face.status != "replaced" for face in faces], np.bool_)
        # A score that is no number counts.
        new = np.asarray(~near[covered].any(0) & ~(found.scores < self.score), np.bool_)
        shown = [
            unchanged(source, result, box) if own else not hidden(source, result, box)
            for box, own in zip(found.boxes[new], np.asarray(near.any(0), np.bool_)[new], strict=True)
        ]
        missed = chosen(chosen(found, new), np.array(shown, np.bool_))
        return refused, [
            Face(box, float(score), points, anonymizer="solid", failure="missed", gate="missed")
            for box, score, points in zip(missed.boxes, missed.scores, missed.points, strict=True)
        ]

    def distances(self, result: Picture, faces: Sequence[Face], found: Detections) -> NDArray[np.float64]:
        """Distances [F, N] of the faces' own embeddings from those of detections on the result; NaN where there is
        none, so everywhere when a network raises."""
        apart = np.full((len(faces), len(found)), np.nan)
        if not apart.size:
            return apart
        try:
            vectors = self.embed(result, found)
            for row, face in zip(apart, faces, strict=True):
                row[:] = np.linalg.norm(vectors - np.asarray(face.embedding, np.float64), axis=1)
        except Exception as error:  # noqa: BLE001 - fail closed: what was not compared is covered
            with logs.context(stage="gate"):
                log.warning("%s", type(error).__name__)
            apart[:] = np.nan
        return apart

    def embed(self, result: Picture, found: Detections) -> NDArray[np.float64]:
        """Embeddings [N, dim] of detections on the result."""
        meshes, scores = self.mesher.mesh(result, found)
        faces = [
            Face(box, float(score), points, mesh if sure >= MESH_SCORE and np.isfinite(mesh).all() else None)
            for box, score, points, mesh, sure in zip(
                found.boxes, found.scores, found.points, meshes, scores, strict=True
            )
        ]
        vectors = np.asarray(self.embedder.embed([result], [faces])[0], np.float64)
        if len(vectors) != len(faces):
            raise ValueError("an embedder gave another number of embeddings than of faces")
        return vectors


STRANGERS = (
    "strangers"  # of a gallery's metadata: shares and distances below which so many pairs lie, ascending
)


def margin(options: config.Gate, gallery: Gallery) -> float:
    """The configured margin, or the one calibrated on the gallery."""
    return calibrated(gallery, options.false_match_rate) if options.margin is None else options.margin


def calibrated(gallery: Gallery, rate: float) -> float:
    """The distance below which a share `rate` of pairs of different gallery identities of one apparent sex lie; of
    pairs of strangers where the gallery tells theirs (`STRANGERS`), since its own identities share people.

    Raises:
        ConfigError: there is no such pair.
    """
    if STRANGERS in gallery.metadata:
        shares, distances = np.array(json.loads(gallery.metadata[STRANGERS]), np.float64).T
        return float(np.interp(rate, shares, distances))
    likelihood = np.asarray(gallery.attributes.get("sex", np.zeros(len(gallery))), np.float64)
    found = [_apart(gallery.embeddings[(likelihood >= 0.5) == male].astype(np.float64)) for male in (0, 1)]
    distances = np.concatenate(found)
    if not len(distances):
        raise ConfigError(
            "gate.margin: the gallery has no two identities of one sex to calibrate it on; set it"
        )
    return float(np.quantile(distances, rate))


def _apart(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances [n * (n - 1) / 2] between vectors [n, dim]."""
    squares = (vectors**2).sum(1)
    parts = [np.zeros(0)]
    for start in range(0, len(vectors), _BLOCK):
        rows = slice(start, start + _BLOCK)
        squared = squares[rows, None] + squares - 2 * vectors[rows] @ vectors.T
        parts.append(squared[np.triu(np.ones(squared.shape, np.bool_), start + 1)])
    return np.asarray(np.sqrt(np.maximum(np.concatenate(parts), 0)))


def comparable(face: Face) -> bool:
    """A face that was replaced, and of which an embedding is known."""
    return face.status == "replaced" and face.embedding is not None


def overlapping(faces: Sequence[Face], boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which detections [N, 4] stand where which faces stand: [F, N]."""
    rows = [overlaps(face.box, boxes)[0] >= IOU for face in faces]
    return np.array(rows, np.bool_).reshape(len(faces), len(boxes))


def hidden(source: Picture, result: Picture, box: NDArray[np.floating]) -> bool:
    """The core of a box shows the result's own pixels: they are not the source's, and not a fainter copy of them, as
    beside a large surrogate that fades into the picture. A box without a pixel in the picture, too: there is nothing
    to hide."""
    before, after = _core(source, box), _core(result, box)
    return not before.size or not (unchanged(source, result, box) or likeness(before, after) > FAINT)


def unchanged(source: Picture, result: Picture, box: NDArray[np.floating]) -> bool:
    """Most pixels of the core of a box are the source's; not so where it has none."""
    before, after = _core(source, box), _core(result, box)
    return bool(before.size) and bool((before != after).any(2).mean() < HIDDEN)


def likeness(before: Picture, after: Picture) -> float:
    """Correlation, -1..1, of the detail of two pictures [h, w, 3]; 0 where one of them has none."""
    sigma = max(1.0, max(before.shape[:2]) / 6)
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in (before, after)]
    first, second = ((grey - cv2.GaussianBlur(grey, (0, 0), sigma)).ravel() for grey in greys)
    return float(first @ second / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-3))


def _core(picture: Picture, box: NDArray[np.floating]) -> Picture:
    height, width = picture.shape[:2]
    middle, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2 * CORE, 0.5)
    x0, y0 = np.clip(np.floor(middle - half), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(middle + half), 0, (width, height)).astype(int)
    return picture[y0:y1, x0:x1]


def lower(face: Face, code: str, last: bool = False) -> None:
    """Put a face on the next rung that needs no rendering: its spare, an average of gallery faces, else grey.

    Args:
        last: not even the spare.
    """
    spare, mesh, k = face.spare, face.spare_mesh, face.k
    face.spare, face.spare_mesh, face.gate = None, None, "lowered"
    while ladder.lower(face, code) != ladder.RUNGS[-1]:
        if face.anonymizer == "ksame-pixel" and spare is not None and mesh is not None and not last:
            face.surrogate, face.surrogate_mesh, face.k = spare, mesh, k
            return
