"""Looking with the real models, at a public-domain portrait once large and once small beside it."""

import dataclasses
import pickle

import cv2
import numpy as np
import pyarrow as pa
import pytest
from skimage.data import astronaut

from deid.errors import ConfigError
from deid.evaluation import look, looker
from deid.evaluation.corpus import Place
from deid.evaluation.labels import Label
from deid.evaluation.looker import Job, Looker
from deid.evaluation.settings import Evaluation
from deid.shards.pictures import encode

LARGE, SMALL = (177.0, 66.6, 273.1, 175.8), (600.5, 33.3, 648.6, 87.9)  # px, of the faces
NOBODY = (20.0, 300.0, 80.0, 370.0)
SIZE = (512, 768)
EVALUATION = {
    "source": {"uri": "source"},
    "output": "out",
    "baselines": ["solid", "distant, face"],
    "results": [{"name": "ours", "uri": "results"}],
}


@pytest.fixture(scope="module")
def picture():
    made = np.full((*SIZE, 3), 200, np.uint8)
    made[:, :512] = astronaut()
    made[:256, 512:] = cv2.resize(astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    return made


@pytest.fixture(scope="module")
def job(picture, tmp_path_factory):
    """Two people with labels, and one where nobody is; as the result, the picture with a grey small face."""
    folder = tmp_path_factory.mktemp("looker")
    result = picture.copy()
    result[20:100, 580:670] = 127
    for name, pixels in (("source", picture), ("result", result)):
        (folder / f"{name}.png").write_bytes(encode(pixels, "png", 95))
    labels = [Label("a", who, box) for who, box in (("1", LARGE), ("2", SMALL), ("3", NOBODY))]
    places = [Place(str(folder / f"{name}.png"), "png", 1) for name in ("source", "result")]
    return Job(5, "a", places[0], labels, {"ours": places[1]})


@pytest.fixture(scope="module")
def eyes():
    return Looker(Evaluation.model_validate(EVALUATION), bytes(32))


@pytest.fixture(scope="module")
def seen(eyes, job):
    return eyes.look(job)


def test_every_label_has_a_face_everywhere(seen):
    assert [label.person for label in seen.labels] == ["1", "2", "3"]
    everything = [seen.clear, seen.grey, *seen.treated.values(), *seen.seams.values()]
    assert {len(some) for some in everything} == {3}
    assert set(seen.treated) == set(seen.seams) == {"ours", "solid", "distant, face"}


def test_sources_are_seen_where_the_labels_are(seen):
    large, small, nobody = seen.clear
    assert np.abs(large.box - LARGE).max() < 30
    assert np.abs(small.box - SMALL).max() < 20
    assert min(large.score, small.score) > 0.7
    assert np.isfinite(large.gaze).all()
    assert np.isfinite(small.mesh).all()
    assert large.features.any()
    assert (nobody.score, nobody.vectors["dlib"].shape) == (0.0, (128,))
    assert np.linalg.norm(large.vectors["dlib"] - small.vectors["dlib"]) < 0.3


def test_a_result_is_seen_face_by_face(seen):
    large, small, _ = seen.treated["ours"]
    assert (large.mesh == seen.clear[0].mesh).all()
    assert small.score == 0
    assert np.isnan(small.box).all()
    assert small.chip.shape == (64, 64, 3)
    assert np.linalg.norm(small.vectors["dlib"] - seen.clear[1].vectors["dlib"]) > 0.5
    assert seen.seams["ours"][0].whole == 1
    assert seen.seams["ours"][1].whole > 1.5


def test_scenes_are_of_one_window_in_source_and_result(seen):
    for name in seen.treated:
        for before, after in zip(seen.clear, seen.treated[name], strict=True):
            assert before.scene.shape == after.scene.shape == (96, 96, 3)
            assert (before.scene_box == after.scene_box).all()
    changed = []
    for before, after in zip(seen.clear[:2], seen.treated["ours"], strict=False):
        left, top, right, bottom = before.scene_box.round().astype(int)
        difference = np.abs(before.scene.astype(int) - after.scene)
        changed.append(difference[top:bottom, left:right].max())
    assert changed[0] == 0
    assert changed[1] > 50


def test_controls_and_baselines_hide_the_people(seen):
    for n in (0, 1):
        clear = seen.clear[n].vectors["dlib"]
        shown = {"grey": seen.grey, **seen.treated}
        far = {name: np.linalg.norm(some[n].vectors["dlib"] - clear) for name, some in shown.items()}
        assert min(far["grey"], far["solid"], far["distant, face"]) > 0.5
    assert [o.score for o in seen.treated["solid"]] == [0, 0, 0]
    assert seen.treated["distant, face"][0].score > 0.7
    assert seen.grey[0].score == seen.clear[0].score
    assert seen.counts["solid"]["solid"] == 2


def test_without_labels_everybody_is_somebody_else(eyes, job):
    seen = eyes.look(dataclasses.replace(job, labels=None, results={"ours": None}))
    assert seen.labels == [None, None]
    assert [o.vectors for o in seen.treated["ours"]] == [{}, {}]
    assert not seen.counts["ours"]


def test_a_label_without_a_box_is_the_largest_face(eyes, job):
    seen = eyes.look(dataclasses.replace(job, labels=[Label("a", "1")]))
    assert len(seen.clear) == 1
    assert np.abs(seen.clear[0].box - LARGE).max() < 30


def test_what_cannot_be_read_counts(eyes, job, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    broken = Place(str(tmp_path / "broken.jpg"), "jpg", 10)
    seen = eyes.look(dataclasses.replace(job, source=broken, labels=[Label("a", "1")]))
    assert seen.counts[""]["not readable"] == 1
    assert (len(seen.clear), seen.clear[0].vectors, len(seen.treated["solid"])) == (1, {}, 1)
    seen = eyes.look(dataclasses.replace(job, results={"ours": broken}))
    assert seen.counts["ours"]["not readable"] == 1
    assert [o.vectors for o in seen.treated["ours"]] == [{}, {}, {}]


def test_a_result_of_another_size_is_fitted(eyes, job, picture, tmp_path):
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    (tmp_path / "half.png").write_bytes(encode(half, "png", 95))
    place = Place(str(tmp_path / "half.png"), "png", 1)
    seen = eyes.look(dataclasses.replace(job, results={"ours": place}))
    assert seen.counts["ours"]["of another size"] == 1
    assert np.abs(seen.treated["ours"][0].box - LARGE).max() < 30


def test_a_result_on_its_side_is_no_result_in_which_nobody_is_found(eyes, job, picture, tmp_path):
    """The source itself, turned: squeezed into the source's shape no recognizer would find anybody."""
    (tmp_path / "turned.png").write_bytes(encode(np.ascontiguousarray(np.rot90(picture)), "png", 95))
    place = Place(str(tmp_path / "turned.png"), "png", 1)
    seen = eyes.look(dataclasses.replace(job, results={"ours": place}))
    assert seen.counts["ours"]["of another shape"] == 1
    assert [o.vectors for o in seen.treated["ours"]] == [{}, {}, {}]


def test_pictures_of_small_faces_are_enlarged_as_the_job_does(eyes, job, picture, tmp_path):
    eyes.look(job)
    assert eyes.observer.detector is eyes.plain
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    (tmp_path / "half.png").write_bytes(encode(half, "png", 95))
    seen = eyes.look(
        dataclasses.replace(job, source=Place(str(tmp_path / "half.png"), "png", 1), labels=None)
    )
    assert eyes.observer.detector is eyes.full is eyes.baselines.gate.detector
    assert len(seen.clear) == 2


def test_jobs_and_what_was_seen_travel_as_a_table(eyes, job, seen):
    made = eyes(pa.table({"number": [5], "job": [pickle.dumps(job)]}))
    again = pickle.loads(made["seen"][0].as_py())
    assert made["number"].to_pylist() == [again.number] == [5]
    assert (again.clear[0].mesh == seen.clear[0].mesh).all()


def test_recognizers_need_names_of_their_own(tmp_path):
    text = "path: x.onnx\ntemplate: [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]\n"
    (tmp_path / "x.onnx").touch()
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text)
    given = EVALUATION | {"recognizers": [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]}
    with pytest.raises(ConfigError, match="two have one name among dlib, x, x"):
        look.attackers(Evaluation.model_validate(given))
    (tmp_path / "b.yaml").write_text(f"{text}name: other\nmetric: euclidean\n")
    found = look.attackers(Evaluation.model_validate(given))
    assert [(a.name, a.metric, a.own) for a in found] == [
        ("dlib", "euclidean", True),
        ("x", "cosine", False),
        ("other", "euclidean", False),
    ]


def test_faults_are_no_anonymizers():
    from deid import records

    assert not set(looker.FAULTS) & set(records.ANONYMIZERS)
