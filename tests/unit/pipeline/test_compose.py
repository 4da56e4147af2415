"""The last stage with its real networks: what the gate lets out."""

import copy
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deid import config
from deid.interfaces import Detections, Face, Picture
from deid.pipeline import rows
from deid.pipeline.compose import Compose
from deid.pipeline.rows import Row
from deid.pipeline.stages import Analyse, Generate
from deid.surrogates.cover import COLOUR
from tests.e2e import corpus

RAW = {
    "input": {"uri": "raw"},
    "output": {"uri": "out", "image_format": "png"},
    "state": "state",
    "models": {"accept": ["clean", "permissive", "restricted"]},
    "assignment": {"mode": "per-face"},
    "region": {"kind": "face"},
    "match": {"corrections": 0},
}
SETTINGS = config.parse(RAW)
SIDE = 400


@pytest.fixture(scope="module")
def generated() -> Row:
    """One person with a surrogate and a spare, as they reach the stage."""
    source = Row(0, 0, 0, corpus.encoded(corpus.portrait(SIDE), "PNG"), "png")
    table = Generate(SETTINGS, b"s" * 32)(Analyse(SETTINGS)(rows.to_table([source])))
    return rows.from_table(table)[0]


@pytest.fixture(scope="module")
def networks() -> Compose:
    return Compose(SETTINGS)


@pytest.fixture
def compose(networks: Compose) -> Compose:
    return copy.copy(networks)


@pytest.fixture
def row(generated: Row) -> Row:
    return copy.deepcopy(generated)


def composed(stage: Compose, row: Row) -> Row:
    return rows.from_table(stage(rows.to_table([row])))[0]


def outcome(row: Row) -> list[tuple[str, str, str, str]]:
    return [(face.status, face.anonymizer, face.failure, face.gate) for face in row.faces]


def test_a_spare_comes_with_every_first_rung(row: Row) -> None:
    face = row.faces[0]
    assert (face.anonymizer, face.failure) == ("surrogate", "")
    assert face.spare is not None
    assert face.spare.shape == (128, 128, 3)
    assert face.spare_mesh is not None
    assert face.spare_mesh.shape == (468, 3)


def test_a_stranger_passes_and_nothing_of_the_source_travels_on(compose: Compose, row: Row) -> None:
    done = composed(compose, row)
    assert outcome(done) == [("replaced", "surrogate", "", "passed")]
    assert (done.reason, done.image, done.result_extension) == ("", b"", "png")
    assert all(
        getattr(done.faces[0], name) is None
        for name in ("embedding", "mesh", "surrogate", "spare", "spare_mesh", "segments", "looks")
    )


def test_a_surrogate_that_is_the_person_gives_way_to_the_spare(compose: Compose, row: Row) -> None:
    face = row.faces[0]
    face.surrogate, face.surrogate_mesh = np.asarray(corpus.portrait(SIDE)), face.mesh
    assert outcome(composed(compose, row)) == [("replaced", "ksame-pixel", "too_close", "lowered")]


def test_a_spare_that_is_the_person_gives_way_to_grey(compose: Compose, row: Row) -> None:
    face = row.faces[0]
    face.surrogate, face.surrogate_mesh = np.asarray(corpus.portrait(SIDE)), face.mesh
    face.spare, face.spare_mesh = face.surrogate, face.mesh
    done = composed(compose, row)
    assert outcome(done) == [("covered", "solid", "too_close", "lowered")]
    assert grey_at(done, row.faces[0].box)


def test_a_face_that_the_first_look_missed_is_covered(compose: Compose, row: Row) -> None:
    box, row.faces = row.faces[0].box, []
    done = composed(compose, row)
    assert outcome(done) == [("covered", "solid", "missed", "missed")]
    assert grey_at(done, box)


def test_an_embedder_that_raises_leaves_grey(compose: Compose, row: Row) -> None:
    class Raising:
        def embed(self, pictures: Sequence[Picture], faces: Sequence[Sequence[Face]]) -> list[Any]:
            raise MemoryError

    compose.gate = replaced(compose, embedder=Raising())
    done = composed(compose, row)
    assert outcome(done) == [("covered", "solid", "gate_failed", "lowered")]
    assert grey_at(done, row.faces[0].box)


def test_a_detector_that_raises_costs_the_picture(compose: Compose, row: Row) -> None:
    class Raising:
        def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
            raise MemoryError

    compose.gate = replaced(compose, detector=Raising())
    done = composed(compose, row)
    assert (done.reason, done.result, done.image, done.faces) == ("gate_failed", b"", b"", [])


def test_without_the_gate_nothing_is_loaded_or_checked(row: Row) -> None:
    stage = Compose(config.parse(RAW | {"gate": {"enabled": False}}))
    assert stage.gate is None
    assert outcome(composed(stage, row)) == [("replaced", "surrogate", "", "unchecked")]


def replaced(stage: Compose, **parts: Any) -> Any:
    assert stage.gate is not None
    return dataclasses.replace(stage.gate, **parts)


def grey_at(row: Row, box: np.ndarray) -> bool:
    x0, y0, x1, y1 = box.astype(int)
    with Image.open(io.BytesIO(row.result)) as image:
        return bool((np.asarray(image)[y0:y1, x0:x1] == COLOUR).all())
