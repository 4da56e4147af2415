"""Heads cut out of a source and of its result through one and the same window."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.evaluation import corpus, groups, settings
from deid.evaluation.labels import Label
from deid.evaluation.recognizers import largest
from deid.evaluation.utility import match
from deid.faces.crop import chip
from deid.interfaces import Detections, Detector, Face, Picture

SIDE = 256  # px of a head
REACH = 1.8  # side of the window over the longer side of the detector's box, which goes from brows to chin
LEAST_REACH = 1.6  # of a window that would else reach beyond the picture; hair and chin are still in it
UP = 0.05  # of the side by which the window lies above the middle of the box: hair is higher than chins are low
MOVED = 0.1  # of the side by which a window may move into the picture
FADE, BLUR = 8, 14  # px of a head: beyond the picture's border its colours blur so far out, with this sigma
SMALLEST = 56  # px, height of a face that people are asked about
SAME_FACE = 0.3  # IoU of a labelled box and the detector's
OF_A_PERSON = 3  # pictures at most
SECOND, SECOND_SIZE = 0.5, 1 / 3  # a second head: so much of its box in the window, so high beside the first
SAME_SHAPE = 0.01  # by which width over height of source and result may differ


@dataclass(frozen=True)
class Pair:
    """A picture of the source and its result, and who is on it."""

    source: corpus.Place
    result: corpus.Place
    labels: list[Label]


@dataclass(frozen=True)
class Head:
    """One face, upright, in the source and in the result: [256, 256, 3] each."""

    number: int  # of the picture among the pairs: faces of one picture share it
    label: Label
    source: Picture
    result: Picture

    @functools.cached_property
    def known(self) -> dict[str, str]:
        """Sex, age (a band) and expression, as `questions` asks for them; "" where unknown."""
        said = {"sex": self.label.sex, "age": groups.age_band(self.label.age)}
        known = {kind: "" if answer == groups.UNKNOWN else answer for kind, answer in said.items()}
        return known | {"expression": self.label.expression}


@dataclass
class Missed:
    """Faces that are not asked about, by reason."""

    unreadable: int = 0
    no_face: int = 0
    small: int = 0
    other_shape: int = 0
    second_head: int = 0


REASONS = {
    "unreadable": "source or result cannot be read as a picture",
    "no_face": "the detector found no face in the source, or none at the label's box",
    "small": f"the face is lower than {SMALLEST} px",
    "other_shape": "the result has another shape (width over height) than its source, so the head cannot be cut alike",
    "second_head": "another head lies mostly in the same window, so nobody could tell who is meant",
}  # of `Missed`


def pairs(source: settings.Source, result: settings.Result) -> list[Pair]:
    """Every picture that has a result and, where there are labels, a label; without labels each is a person of its own.

    Raises:
        InputError: see `corpus.read`.
    """
    read = corpus.read(settings.Evaluation(source=source, output="", results=(result,), baselines=()))
    labels = {key: [Label(key, key)] for key in read.sources} if read.labels is None else read.labels
    results = read.results[result.name]
    return [Pair(read.sources[key], place, labels[key]) for key, place in results.items()]


def find(
    given: Sequence[Pair], detector: Detector, rng: np.random.Generator, enough: int, missed: Missed
) -> list[Head]:
    """Heads of people in random order, until there are enough; at most three pictures a person."""
    by_person: dict[str, dict[int, list[Label]]] = {}
    for number, pair in enumerate(given):
        for label in pair.labels:
            by_person.setdefault(label.person, {}).setdefault(number, []).append(label)
    people, found = list(by_person.values()), list[Head]()
    for person in rng.permutation(len(people)):
        numbers = list(people[person])
        for number in (numbers[place] for place in rng.permutation(len(numbers))[:OF_A_PERSON]):
            found += _heads(given[number], people[person][number], number, detector, missed)
        if len(found) >= enough:
            break
    return found


def _heads(
    pair: Pair, labels: list[Label], number: int, detector: Detector, missed: Missed
) -> Iterator[Head]:
    before, after = (corpus.decoded(place.read()) for place in (pair.source, pair.result))
    if before is None or after is None:
        missed.unreadable += len(labels)
        return
    source, result = before.pixels, after.pixels
    scale = np.array([result.shape[1] / source.shape[1], result.shape[0] / source.shape[0]])
    if abs(scale[0] / scale[1] - 1) > SAME_SHAPE:
        missed.other_shape += len(labels)
        return
    detections = detector.detect([source])[0]
    for label in labels:
        face = labelled(detections, label)
        if face is None:
            missed.no_face += 1
        elif face.height < SMALLEST:
            missed.small += 1
        else:
            there = window(face, source.shape[:2])
            if crowded(there, face, detections):
                missed.second_head += 1
                continue
            here = there @ np.diag([*(1 / scale), 1.0])
            yield Head(number, label, *(head(p, t) for p, t in ((source, there), (result, here))))


def labelled(detections: Detections, label: Label) -> Face | None:
    """The face that a label is about: at its box, or the largest; None where none was found."""
    if label.box is None:
        return largest(detections)
    matched = match(np.array([label.box], np.float32), detections.boxes, SAME_FACE)
    if not matched:
        return None
    place = matched[0][1]
    return Face(detections.boxes[place], float(detections.scores[place]), detections.points[place])


def window(face: Face, size: tuple[int, int]) -> NDArray[np.float64]:
    """The similarity [2, 3] from a picture of this size (height, width) to an upright square around the whole head.

    Where it would reach beyond the picture it is made smaller and moved, as far as the head stays in it.
    """
    eyes = face.points[1] - face.points[0]
    turn: complex = np.conj(complex(*eyes) / max(float(np.hypot(*eyes)), 1e-6))
    wide = abs(turn.real) + abs(turn.imag)  # of the turned square, over its side
    length = float(max(face.box[2:] - face.box[:2]))
    side = float(np.clip(min(size) / wide, LEAST_REACH * length, REACH * length))
    rotation = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    middle = (face.box[:2] + face.box[2:]) / 2 - rotation.T @ [0, UP * side]
    far = np.array(size[::-1], np.float64)
    half = np.minimum(side * wide, far) / 2
    middle += np.clip(np.clip(middle, half, far - half) - middle, -MOVED * side, MOVED * side)
    linear = rotation * (SIDE / side)
    return np.hstack([linear, (SIDE / 2 - linear @ middle)[:, None]])


def crowded(transform: NDArray[np.float64], face: Face, detections: Detections) -> bool:
    """Whether another face, not much smaller than this one, lies mostly in the window of this transform [2, 3]."""
    steps = np.linspace(0, 1, 16)
    grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    for box in detections.boxes:
        if np.array_equal(box, face.box) or box[3] - box[1] < SECOND_SIZE * face.height:
            continue
        seen = (box[:2] + grid * (box[2:] - box[:2])) @ transform[:, :2].T + transform[:, 2]
        if ((seen >= 0) & (seen < SIDE)).all(axis=1).mean() > SECOND:
            return True
    return False


def head(picture: Picture, transform: NDArray[Any]) -> Picture:
    """[256, 256, 3]; beyond the picture's border its colours go on, more and more blurred."""
    move = np.asarray(transform, np.float64)
    sharp = chip(picture, move, SIDE, cv2.BORDER_REPLICATE)
    soft = cv2.GaussianBlur(sharp, (0, 0), BLUR)
    back = cv2.invertAffineTransform(move)
    places = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1) @ back[:, :2].T + back[:, 2]
    far = np.array(picture.shape[1::-1]) - 1
    beyond = np.maximum(-places, places - far).max(-1, keepdims=True) / np.hypot(*back[:, 0])
    share = np.clip(beyond / FADE, 0, 1)
    return np.asarray(np.rint((1 - share) * sharp + share * soft), np.uint8)
