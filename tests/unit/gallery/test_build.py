from dataclasses import replace

import cv2
import numpy as np
import pytest

from deid.faces.appearance import LOOKS
from deid.faces.detect import CenterFaceDetector
from deid.faces.embed import DlibEmbedder
from deid.faces.mesh import FaceMesher
from deid.faces.segment import HAIR, INPUT, PARTS, SIDE
from deid.gallery import build
from deid.interfaces import Detections
from deid.models.store import default_store
from deid.surrogates.generator import MobileStyleGANGenerator

RECIPE = build.Recipe(seed=1)
NUMBERS = np.array([5, 6, 10, 12])
STYLE = np.zeros(512, np.float32)


@pytest.fixture(scope="module")
def examiner() -> build.Examiner:
    files = default_store().files
    return build.Examiner(
        MobileStyleGANGenerator(files("mobilestylegan"), **build.OPTIONS["mobilestylegan"]),
        CenterFaceDetector(files("centerface"), **build.OPTIONS["centerface"]),
        FaceMesher(files("facemesh")),
        DlibEmbedder(files("dlib_resnet")),
        RECIPE,
    )


@pytest.fixture(scope="module")
def examined(examiner: build.Examiner) -> build.Batch:
    return examiner(NUMBERS)


def fake(numbers: list[int], embeddings: list[float], dropped: list[str] | None = None) -> build.Batch:
    """A batch of candidates whose embeddings lie on a line."""
    n = len(numbers)
    batch: build.Batch = {name: np.zeros(n, np.float32) for name in build.ATTRIBUTES}
    embedding = np.zeros((n, 128), np.float32)
    embedding[:, 0] = embeddings
    return batch | {
        "number": np.array(numbers),
        "style": np.array(numbers, np.float32)[:, None] * np.ones(512, np.float32),
        "embedding": embedding,
        "mesh": np.zeros((n, 468, 3), np.float32),
        "dropped": np.array(dropped or [""] * n),
    }


def collected(batches: list[build.Batch], size: int):
    return build.collect(batches, size, np.zeros(512, np.float32), RECIPE, {"model.x": "y"})


def test_candidates_are_measured(examined):
    kept = examined["dropped"] == ""
    assert kept.tolist() == [False, True, True, True]
    meshes = examined["mesh"][kept]
    assert meshes.shape[1:] == (468, 3)
    assert 0.4 < meshes[:, :, 0].mean() < 0.6
    assert 0.2 < np.ptp(meshes[:, :, 1], axis=1).min() < 0.9
    assert np.isfinite(examined["embedding"][kept]).all()
    assert (np.abs(examined["yaw"][kept]) <= RECIPE.yaw).all()
    assert ((examined["skin_l"][kept] > 15) & (examined["skin_l"][kept] < 95)).all()


def test_a_candidate_does_not_depend_on_its_batch(examiner, examined):
    alone = examiner(NUMBERS[2:3])
    assert {name: values[0].tobytes() for name, values in alone.items() if name != "dropped"} == {
        name: values[2].tobytes() for name, values in examined.items() if name != "dropped"
    }


def test_styles_are_truncated_and_fit_float16(examiner):
    plain = replace(RECIPE, truncation=1.0)
    far = build.draw_styles(examiner.generator, plain, NUMBERS, examiner.centre) - examiner.centre
    near = build.draw_styles(examiner.generator, RECIPE, NUMBERS, examiner.centre)
    assert np.abs((near - examiner.centre) - 0.8 * far).max() < 5e-3
    assert np.array_equal(near, near.astype(np.float16).astype(np.float32))


def test_seeds_give_other_people(examiner):
    other = build.draw_styles(examiner.generator, replace(RECIPE, seed=2), NUMBERS, examiner.centre)
    own = build.draw_styles(examiner.generator, RECIPE, NUMBERS, examiner.centre)
    assert np.abs(other - own).mean() > 0.05


@pytest.mark.parametrize("count", [0, 2])
def test_only_pictures_of_one_face_are_used(examiner, count):
    found = Detections(
        np.zeros((count, 4), np.float32), np.ones(count, np.float32), np.zeros((count, 5, 2), np.float32)
    )
    row = examiner.examine(STYLE, np.zeros((64, 64, 3), np.uint8), found)
    assert row["dropped"] == "faces"
    assert np.isnan(row["embedding"]).all()


def test_a_picture_without_a_face_has_no_mesh(examiner):
    picture = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    points = np.array([[[90, 110], [160, 110], [125, 140], [100, 180], [150, 180]]], np.float32)
    found = Detections(np.array([[60, 60, 190, 220]], np.float32), np.ones(1, np.float32), points)
    assert examiner.examine(STYLE, picture, found)["dropped"] == "mesh"


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ({}, ""),
        ({"yaw": -31}, "pose"),
        ({"pitch": 26}, "pose"),
        ({"roll": 21}, "pose"),
        ({"eye_darkness": 0.5}, "eyes"),
        ({"headgear": 0.9}, "headgear"),
        ({"glasses": 0.9}, "glasses"),
    ],
)
def test_reasons(examiner, measured, reason):
    row = dict.fromkeys(build.ATTRIBUTES, -1.0) | {"embedding": np.zeros(128)} | measured
    assert examiner.reason(row) == reason
    assert reason == "" or reason in build.DROPPED


def test_sunglasses_are_dark(examiner, examined):
    number = int(np.flatnonzero(examined["dropped"] == "")[0])
    picture = examiner.generator.generate(examined["style"][[number]])[0]
    mesh = examined["mesh"][number] * len(picture)
    before = build.measured(picture, mesh)
    for polygon in build.ORBITS:
        cv2.fillPoly(picture, [np.round(mesh[list(polygon), :2]).astype(np.int32)], (20, 20, 20))
    after = build.measured(picture, mesh)
    assert before["eye_darkness"] < RECIPE.eye_darkness < after["eye_darkness"]
    assert after["yaw"] == before["yaw"]


def test_looks_are_measured_and_cut_is_hair_at_the_upper_border(examiner, examined):
    kept = np.flatnonzero(examined["dropped"] == "")
    for name in (*LOOKS, "cut"):
        assert np.isfinite(examined[name][kept]).any(), name
    assert ((examined["cut"][kept] >= 0) & (examined["cut"][kept] <= 1)).all()
    assert np.isnan(examined["skin_l"][examined["dropped"] == "faces"]).all()

    class Parts:
        def parts(self, chips):
            assert [chip.shape for chip in chips] == [(INPUT, INPUT, 3)] * 2
            whole = np.zeros((SIDE, SIDE, len(PARTS)), np.uint8)
            whole[:5, :32, HAIR] = 255
            return [examiner.segmenter.parts(chips[:1])[0], whole]

    picture = examiner.generator.generate(examined["style"][kept[:1]])[0]
    found = build.looked(picture, examined["mesh"][kept[0]] * len(picture), Parts())
    assert found["cut"] == pytest.approx(0.25)
    assert found["skin_l"] == examined["skin_l"][kept[0]]


def test_looks_of_a_gallery_are_those_of_its_pictures(examiner, examined):
    kept = np.flatnonzero(examined["dropped"] == "")
    gallery, _ = collected([{name: values[kept] for name, values in examined.items()}], len(kept))
    bare = replace(gallery, attributes={"yaw": gallery.attributes["yaw"]})
    again = build.annotate_looks(bare, examiner.generator, examiner.mesher, examiner.segmenter)
    assert set(again.attributes) == {"yaw", *LOOKS, "cut", "hidden"}
    assert (again.attributes["hidden"] < 0.1).all()
    assert np.array_equal(again.attributes["yaw"], gallery.attributes["yaw"])
    for name, tolerance in {"skin_l": 2, "skin_b": 2, "hair_top": 0.1, "hair_low": 0.15, "cut": 0.15}.items():
        assert np.abs(again.attributes[name] - gallery.attributes[name]).max() < tolerance, name


def test_identities_with_covered_faces_are_dropped(examined):
    kept = np.flatnonzero(examined["dropped"] == "")
    gallery, _ = collected([{name: values[kept] for name, values in examined.items()}], len(kept))
    hidden = np.zeros(len(gallery), np.float32)
    hidden[1] = 0.3
    found = build.uncovered(replace(gallery, attributes={"hidden": hidden}), build.Recipe())
    assert np.array_equal(found.styles, np.delete(gallery.styles, 1, axis=0))
    assert found.metadata["uncovered"] == f"1 of {len(gallery)} dropped"


def test_the_first_usable_candidates_are_kept_in_order():
    gallery, dropped = collected([fake([3, 1], [3, 1]), fake([0, 2, 4], [0, 2, 4], ["pose", "", ""])], 3)
    assert gallery.styles[:, 0].tolist() == [1, 2, 3]
    assert dropped == {"pose": 1}
    assert gallery.metadata["model.x"] == "y"
    assert gallery.metadata["dropped"] == "pose 1"
    assert gallery.metadata["recipe.truncation"] == "0.8"


def test_near_duplicates_are_dropped():
    gallery, dropped = collected([fake([0, 1, 2, 3], [0, 0.3, 0.36, 0.6])], 4)
    assert gallery.styles[:, 0].tolist() == [0, 2]
    assert dropped == {"duplicate": 2}


def test_a_dropped_candidate_without_embedding_does_no_harm():
    batch = fake([0, 1], [0, 1], ["faces", ""])
    batch["embedding"][0] = np.nan
    gallery, dropped = collected([batch], 2)
    assert gallery.styles[:, 0].tolist() == [1]
    assert dropped == {"faces": 1}


def test_sex_and_age_come_from_the_embeddings(examined):
    kept = np.flatnonzero(examined["dropped"] == "")
    gallery, _ = collected([{name: values[kept] for name, values in examined.items()}], len(kept))
    annotated = build.annotate(gallery).attributes
    assert ((annotated["sex"] >= 0) & (annotated["sex"] <= 1)).all()
    assert ((annotated["age"] > 0) & (annotated["age"] < 100)).all()
    assert np.array_equal(annotated["yaw"], gallery.attributes["yaw"])
    other = replace(gallery, attributes={}, embeddings=np.zeros((len(gallery), 4096), np.float32))
    assert build.annotate(other).attributes == {}
