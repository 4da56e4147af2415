"""The logic of the second look, with parts whose answers are known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from deid import config
from deid.errors import ConfigError
from deid.gallery import store
from deid.interfaces import Detections, Face, Gallery, Picture
from deid.privacy import gate
from deid.privacy.gate import Gate

SOURCE = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
BOX = (20.0, 20.0, 80.0, 100.0)
OTHER = (200.0, 50.0, 260.0, 130.0)
MESH = np.ones((468, 3), np.float32)


def detections(*boxes: Sequence[float]) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.full(n, 0.6, np.float32),
        np.zeros((n, 5, 2), np.float32),
    )


def face(
    box: Sequence[float] = BOX, anonymizer: str = "surrogate", spare: bool = True, at: float = 0.0
) -> Face:
    made = Face(
        np.array(box, np.float32), 0.9, np.zeros((5, 2), np.float32), MESH, anonymizer=anonymizer, k=5
    )
    made.embedding = np.array([at, 0], np.float32)
    made.surrogate, made.surrogate_mesh = np.zeros((8, 8, 3), np.uint8), MESH
    if spare:
        made.spare, made.spare_mesh = np.full((8, 8, 3), 9, np.uint8), MESH * 2
    return made


class World:
    """Detector, mesher, embedder and compositor. `like` says how far from 0 a result's embedding lies on each rung."""

    def __init__(self, faces: list[Face], found: Detections, **like: float) -> None:
        self.faces, self.found, self.like, self.composed = faces, found, like, 0

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        return [self.found]

    def mesh(self, picture: Picture, found: Detections) -> tuple[Any, Any]:
        return np.repeat(MESH[None], len(found), 0), np.ones(len(found), np.float32)

    def embed(self, pictures: Sequence[Picture], faces: Sequence[Sequence[Face]]) -> list[Any]:
        at = self.like.get(self.faces[0].anonymizer, 0.0)
        return [np.array([[at, 0]] * len(faces[0]), np.float32)]

    def compose(self) -> Picture:
        self.composed += 1
        result = SOURCE.copy()
        for one in self.faces:
            x0, y0, x1, y1 = one.box.astype(int)
            own = slice(max(y0, 0), y1), slice(max(x0, 0), x1)
            result[own] = SOURCE[own] ^ 255
            one.status = "covered" if one.anonymizer in ("solid", "blur", "pixelate") else "replaced"
        return result

    def verify(self, margin: float = 0.5, score: float = 0.0) -> Picture:
        return Gate(self, self, self, margin, score).verify(SOURCE, self.compose(), self.faces, self.compose)  # type: ignore[arg-type]


def outcome(faces: Sequence[Face]) -> list[tuple[str, str, str, str]]:
    return [(f.status, f.anonymizer, f.failure, f.gate) for f in faces]


def test_a_face_that_is_far_enough_passes_and_is_composed_once() -> None:
    world = World([face()], detections(BOX), surrogate=0.5)
    world.verify()
    assert outcome(world.faces) == [("replaced", "surrogate", "", "passed")]
    assert world.composed == 1


def test_a_face_that_is_not_found_again_is_fine() -> None:
    world = World([face()], detections())
    world.verify()
    assert outcome(world.faces) == [("replaced", "surrogate", "", "not_found")]


def test_a_face_that_is_too_close_gets_its_spare() -> None:
    world = World([face()], detections(BOX), surrogate=0.49, **{"ksame-pixel": 0.9})
    world.verify()
    assert outcome(world.faces) == [("replaced", "ksame-pixel", "too_close", "lowered")]
    assert world.faces[0].surrogate is not None
    assert (world.faces[0].surrogate == 9).all()
    assert (world.faces[0].k, world.composed) == (5, 2)


@pytest.mark.parametrize("spare", [True, False])
@pytest.mark.parametrize("anonymizer", ["surrogate", "simple", "ksame-pixel"])
def test_a_face_that_no_rung_keeps_away_ends_grey(anonymizer: str, spare: bool) -> None:
    world = World([face(anonymizer=anonymizer, spare=spare)], detections(BOX))
    world.verify()
    assert outcome(world.faces) == [("covered", "solid", "too_close", "lowered")]
    assert world.faces[0].surrogate is None


def test_the_nearest_of_all_detections_at_a_face_counts() -> None:
    world = World([face()], detections(BOX, (24, 24, 84, 104)))
    world.embed = lambda pictures, faces: [np.array([[0.9, 0], [0.1, 0]], np.float32)]  # type: ignore[method-assign]
    world.verify()
    assert world.faces[0].gate == "lowered"


def test_what_only_the_result_shows_is_covered_and_counted() -> None:
    world = World([face()], detections(BOX, OTHER), surrogate=0.9)
    result = world.verify()
    assert outcome(world.faces) == [
        ("replaced", "surrogate", "", "passed"),
        ("covered", "solid", "missed", "missed"),
    ]
    assert world.composed == 2
    assert (result[90, 230] != SOURCE[90, 230]).all()


def test_missed_faces_must_reach_the_score() -> None:
    world = World([face()], detections(BOX, OTHER), surrogate=0.9)
    world.verify(score=0.7)
    assert len(world.faces) == 1


def test_what_stands_on_replaced_pixels_was_not_missed() -> None:
    within = (50.0, 60.0, 75.0, 90.0)
    world = World([face()], detections(BOX, within), surrogate=0.9)
    world.verify()
    assert len(world.faces) == 1


def test_a_large_face_behind_a_small_find_was_missed() -> None:
    world = World([face((90, 60, 110, 80))], detections((90, 60, 110, 80), (40, 10, 160, 150)), surrogate=0.9)
    world.verify()
    assert [one.gate for one in world.faces] == ["passed", "missed"]


def test_a_face_that_largely_overlaps_a_replaced_one_and_shows_the_source_was_missed() -> None:
    behind = (20.0, 55.0, 80.0, 165.0)
    world = World([face()], detections(BOX, behind), surrogate=0.9)
    assert gate.overlapping(world.faces, np.array([behind])).all()
    world.verify()
    assert [one.gate for one in world.faces] == ["passed", "missed"]


def test_a_face_that_shows_faintly_was_missed() -> None:
    """As beside a large surrogate, whose soft edge changes every pixel a little."""
    world = World([], detections(OTHER))
    faint = (SOURCE * 0.7 + 30).astype(np.uint8)
    Gate(world, world, world, 0.5).verify(SOURCE, faint, world.faces, world.compose)  # type: ignore[arg-type]
    assert [one.gate for one in world.faces] == ["missed"]


def test_pixels_of_another_face_hide() -> None:
    other = np.random.default_rng(1).integers(0, 255, SOURCE.shape).astype(np.uint8)
    assert gate.hidden(SOURCE, other, np.array(OTHER))
    assert gate.hidden(SOURCE, np.full_like(SOURCE, 128), np.array(OTHER))
    assert not gate.hidden(SOURCE, SOURCE, np.array(OTHER))
    assert gate.hidden(SOURCE, SOURCE, np.array(OTHER) + 1000)
    assert not gate.hidden(np.full_like(SOURCE, 9), np.full_like(SOURCE, 9), np.array(OTHER))


def test_a_score_that_is_no_number_does_not_let_a_missed_face_through() -> None:
    world = World([], detections(OTHER))
    world.found.scores[:] = np.nan
    world.verify()
    assert [one.gate for one in world.faces] == ["missed"]


def test_new_finds_on_every_look_do_not_keep_it_busy() -> None:
    world = World([face()], detections(BOX), surrogate=0.9)

    def detect(pictures: Sequence[Picture]) -> list[Detections]:
        return [detections((20.0 * world.composed, 150, 20.0 * world.composed + 15, 170))]

    world.detect = detect  # type: ignore[method-assign]
    world.verify()
    assert world.composed == gate.LOOKS + 1
    assert len(world.faces) == gate.LOOKS + 1
    assert {one.status for one in world.faces[1:]} == {"covered"}


@pytest.mark.parametrize("anonymizer", ["solid", "blur"])
def test_covered_faces_and_baselines_are_not_compared(anonymizer: str) -> None:
    world = World([face(anonymizer=anonymizer)], detections(BOX))
    world.verify()
    assert [(one.anonymizer, one.gate) for one in world.faces] == [(anonymizer, "unchecked")]


def test_a_face_without_an_embedding_cannot_be_compared() -> None:
    unknown = face(anonymizer="ksame-pixel")
    unknown.embedding = None
    world = World([unknown], detections(BOX))
    world.verify()
    assert outcome(world.faces) == [("replaced", "ksame-pixel", "", "unchecked")]


@pytest.mark.parametrize("flaw", ["raises", "nan", "few", "length", "mesher"])
def test_what_cannot_be_compared_is_covered(flaw: str) -> None:
    def embed(pictures: Sequence[Picture], faces: Sequence[Sequence[Face]]) -> list[Any]:
        if flaw == "raises":
            raise MemoryError
        shape = {"few": (0, 2), "length": (1, 3)}.get(flaw, (1, 2))
        return [np.full(shape, np.nan if flaw == "nan" else 0.9)]

    world = World([face()], detections(BOX))
    world.embed = embed  # type: ignore[method-assign]
    if flaw == "mesher":
        world.mesh = lambda picture, found: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    world.verify()
    assert outcome(world.faces) == [("covered", "solid", "gate_failed", "lowered")]


def test_a_result_that_cannot_be_searched_goes_nowhere() -> None:
    world = World([face()], detections(BOX))
    world.found.scores = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        world.verify()


def test_a_picture_without_faces_is_searched() -> None:
    world = World([], detections())
    assert (world.verify() == SOURCE).all()
    world = World([], detections(OTHER))
    world.verify()
    assert [one.gate for one in world.faces] == ["missed"]


def pairs(gallery: Gallery) -> np.ndarray:
    found = []
    for male in (0, 1):
        own = gallery.embeddings[(np.asarray(gallery.attributes["sex"]) >= 0.5) == male]
        found += [np.linalg.norm(own[n + 1 :] - own[n], axis=1) for n in range(len(own))]
    return np.concatenate(found)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.5])
def test_the_calibrated_margin_lets_so_many_strangers_match(rate: float) -> None:
    gallery = store.load(None)
    margin = gate.margin(config.Gate(false_match_rate=rate), gallery)
    assert (pairs(gallery) < margin).mean() == pytest.approx(rate, rel=0.01)


def test_an_explicit_margin_overrides() -> None:
    assert gate.margin(config.Gate(margin=0.7), store.load(None)) == 0.7


def test_a_gallery_without_a_pair_cannot_calibrate() -> None:
    whole = store.load(None)
    two = Gallery(
        whole.styles[:2], whole.embeddings[:2], whole.meshes[:2], {"sex": np.array([0.1, 0.9])}, None
    )
    with pytest.raises(ConfigError, match=r"gate\.margin"):
        gate.margin(config.Gate(), two)
