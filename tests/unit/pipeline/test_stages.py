"""A part that gives too few results costs its picture or face, not the run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deid import config
from deid.faces.appearance import LOOKS
from deid.faces.segment import FACE, PARTS, SIDE
from deid.faces.segmenter import HeadSegmenter
from deid.interfaces import Detections, Face, Picture
from deid.pipeline import rows
from deid.pipeline.rows import Row
from deid.pipeline.stages import Analyse, Generate
from tests.e2e import corpus

SETTINGS = config.parse(
    {
        "input": {"uri": "raw"},
        "output": {"uri": "out"},
        "state": "state",
        "models": {"accept": ["clean", "permissive", "restricted"]},
        "assignment": {"mode": "per-face"},
    }
)


@pytest.fixture
def analyse() -> Analyse:
    return Analyse(SETTINGS)


def analysed(stage: Analyse) -> Row:
    source = Row(0, 0, 0, corpus.encoded(corpus.group()), "jpg")
    return rows.from_table(stage(rows.to_table([source])))[0]


def test_whole_parts_find_and_embed_both_faces(analyse: Analyse) -> None:
    row = analysed(analyse)
    assert (row.reason, [face.failure for face in row.faces]) == ("", ["", ""])
    assert (row.width, row.height) == (900, 520)
    assert all(face.embedding is not None and face.mesh is not None for face in row.faces)
    for face in row.faces:
        assert face.segments is not None
        assert face.looks is not None
        assert face.segments.shape == (SIDE, SIDE, len(PARTS))
        assert (face.segments[70:80, 60:68].argmax(-1) == FACE).all()
        assert face.looks.shape == (len(LOOKS),)
        assert np.isfinite(face.looks[LOOKS.index("skin_l")])


def test_a_detector_whose_results_do_not_fit_costs_the_picture(analyse: Analyse) -> None:
    whole = analyse.detector

    class Short:
        def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
            return [Detections(d.boxes, d.scores[:-1], d.points) for d in whole.detect(pictures)]

    analyse.detector = Short()
    row = analysed(analyse)
    assert (row.reason, row.image, row.faces) == ("detector_failed", b"", [])


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_mesher_with_another_number_of_meshes_costs_the_faces(analyse: Analyse, length: int) -> None:
    class Short:
        def mesh(self, picture: Picture, found: Detections) -> tuple[NDArray[Any], NDArray[Any]]:
            return np.ones((length, 468, 3), np.float32), np.ones(length, np.float32)

    analyse.mesher = Short()
    assert {face.failure for face in analysed(analyse).faces} == {"mesh_failed"}


def test_an_embedder_with_too_few_embeddings_costs_the_faces(analyse: Analyse) -> None:
    class Short:
        def embed(
            self, pictures: Sequence[Picture], faces: Sequence[Sequence[Face]]
        ) -> list[NDArray[np.float32]]:
            return [np.ones((len(of) - 1, 128), np.float32) for of in faces]

    analyse.embedder = Short()
    assert {face.failure for face in analysed(analyse).faces} == {"embed_failed"}


def test_surrogates_are_drawn_no_larger_than_their_places_need(analyse: Analyse) -> None:
    stage, asked = Generate(SETTINGS, bytes(32)), []
    whole = stage.generator

    class Recording:
        def generate(self, styles: NDArray[np.float32], side: int | None = None) -> NDArray[np.uint8]:
            asked.append((len(styles), side))
            return whole.generate(styles, side)

    stage.generator = Recording()
    row = analysed(analyse)
    for face in row.faces:
        stage.start(face)
    stage.fill([row])
    assert [face.failure for face in row.faces] == ["", ""]
    sides = {stage.side(face) for face in row.faces}
    assert sides <= {side for _, side in asked}
    assert max(side for _, side in asked) == max(sides) < 1024
    for face in row.faces:
        assert face.surrogate is not None
        assert len(face.surrogate) <= stage.side(face)


def test_a_segmenter_that_fails_costs_the_head_and_not_the_face(analyse: Analyse) -> None:
    class Broken(HeadSegmenter):
        def __init__(self) -> None:
            pass

        def parts(self, chips: Sequence[Picture]) -> list[NDArray[np.uint8]]:
            raise RuntimeError("out of memory")

    analyse.segmenter = Broken()
    row = analysed(analyse)
    assert [face.failure for face in row.faces] == ["", ""]
    assert all(face.embedding is not None and face.segments is None for face in row.faces)
    analyse.segmenter = None
    assert all(face.segments is None and face.looks is None for face in analysed(analyse).faces)
