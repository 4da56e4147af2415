"""What the demonstration measures against its own ground truth: recall, and re-identification before and after."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deid.demo.corpus import Truth
from deid.demo.sheet import Cell, around
from deid.evaluation.recognizers import EmbedderRecognizer
from deid.evaluation.reid import Result, Templates, compare, reidentify
from deid.evaluation.utility import Recall, match
from deid.evaluation.utility import recall as recall_of
from deid.interfaces import Detector, Embedder, Face, Mesher, Picture
from deid.pipeline.trace import Pair

IOU = 0.4  # with a true box, from which a detection counts
PAIRS_SHOWN = 24
_RESAMPLES = 200


@dataclass
class Measured:
    recall: Recall
    before: Result
    after: Result
    cells: list[Cell]  # of the contact sheet


@dataclass
class _Seen:
    """The faces that were found, and their embeddings in the source and in the result."""

    subjects: list[int] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    clear: list[NDArray[np.float32]] = field(default_factory=list)
    result: list[NDArray[np.float32]] = field(default_factory=list)


def measure(
    pairs: Iterable[Pair], truth: dict[str, Truth], detector: Detector, mesher: Mesher, embedder: Embedder
) -> Measured:
    """Detect in the sources, then embed each true face where it stands, in the source and in the result.

    One photograph of each subject, that with the largest face, is enrolled in clear; the others are probes. A face
    that the detector does not find is no probe: the recall says how many there are.
    """
    recognizer = EmbedderRecognizer(embedder, "own", mesher=mesher)
    seen, cells = _Seen(), list[Cell]()
    boxes_true, boxes_found = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    for pair in pairs:
        picture = truth[pair.key]
        true = np.array(picture.boxes, np.float32).reshape(-1, 4)
        source = pair.source()
        found = detector.detect([source])[0]
        boxes_true.append(true)
        boxes_found.append(found.boxes)
        if not pair.after:
            continue
        result = pair.result()
        for index, position in match(true, found.boxes, IOU):
            face = Face(found.boxes[position], float(found.scores[position]), found.points[position])
            seen.subjects.append(picture.subjects[index])
            seen.heights.append(face.height)
            seen.clear.append(recognizer.embed(source, face))
            seen.result.append(recognizer.embed(result, face))
        cells.append(_cell(source, result, true, len(cells)))
    before, after = _reidentified(seen)
    shown = np.linspace(0, len(cells) - 1, min(PAIRS_SHOWN, len(cells))).round().astype(int)
    return Measured(recall_of(boxes_true, boxes_found, IOU), before, after, [cells[n] for n in shown])


def _cell(source: Picture, result: Picture, boxes: NDArray[np.float32], number: int) -> Cell:
    """The whole picture, or for every third a close look at its largest face."""
    if number % 3 or not len(boxes):
        return Cell(source, result)
    largest = boxes[np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(1))]
    window = around(source, largest)
    return Cell(source[window], result[window])


def _reidentified(seen: _Seen) -> tuple[Result, Result]:
    subjects, heights = np.array(seen.subjects), np.array(seen.heights)
    enrolled = np.array(
        [np.flatnonzero(subjects == s)[heights[subjects == s].argmax()] for s in np.unique(subjects)]
    )
    probes = np.setdiff1d(np.arange(len(subjects)), enrolled)
    clear, result = np.stack(seen.clear), np.stack(seen.result)
    gallery = Templates(clear[enrolled], subjects[enrolled])
    figures = [
        reidentify(
            compare(gallery, Templates(vectors[probes], subjects[probes]), "euclidean"),
            np.random.default_rng(0),
            _RESAMPLES,
        )
        for vectors in (clear, result)
    ]
    return figures[0], figures[1]
