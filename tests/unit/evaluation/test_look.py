import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from skimage.data import astronaut

from deid.errors import ConfigError, InputError
from deid.evaluation import corpus, expression, look, trials
from deid.evaluation.corpus import Corpus, Place
from deid.evaluation.labels import Label
from deid.evaluation.looker import Seen
from deid.evaluation.observe import Observation
from deid.evaluation.seam import Seam
from deid.evaluation.settings import Evaluation
from deid.shards import storage, tar
from deid.shards.pictures import encode

KEYS = ("a", "b", "c")


def evaluation(**changes):
    base = {
        "source": {"uri": "source"},
        "output": "out",
        "baselines": ["solid"],
        "results": [{"name": "ours", "uri": "nothing"}],
    }
    return Evaluation.model_validate(base | changes)


def observation(size, sex=0.9, age=33.0, smile=0.0):
    mesh = np.random.default_rng(0).normal(100, 20, (468, 3))
    mesh[[61, 291], 1] -= smile
    box = np.array([0, 0, size, size], np.float64)
    return Observation(score=0.9, face_box=box, sex=sex, age=age, mesh=mesh, lab=np.array([70.0, 10, 10]))


def seen(number, label, size):
    made = observation(size)
    return Seen(
        number,
        [label],
        [made],
        [made],
        {"ours": [Observation()], "solid": [made]},
        {"ours": [Seam()], "solid": [Seam(1.0, 1.0)]},
        {
            "": Counter(),
            "ours": Counter({"not readable": 1}),
            "solid": Counter({"solid": 1, "not looked at": 0}),
        },
    )


@pytest.fixture
def places():
    return Corpus(
        {key: Place(f"{key}.jpg", "jpg", 1) for key in KEYS}, False, None, notes={"ours": {"paired": 3}}
    )


def test_faces_have_their_people_and_roles(places):
    labels = [Label("a", "p", expression="smiling", age=20.0), Label("b", "p", sex="female"), Label("c", "q")]
    some = [seen(n, label, 10 + n) for n, label in enumerate(labels)]
    faces = look.assembled(evaluation(), places, some)
    first, second, third = faces.subjects
    assert (first.picture, first.person, first.enrolled, first.probe) == ("a", "p", False, True)
    assert (first.sex, first.age, first.expression) == ("male", 20.0, "smiling")
    assert (second.sex, second.age, second.enrolled) == ("female", 33.0, True)
    assert (third.enrolled, third.probe) == (True, False)
    assert third.tone == pytest.approx(63.43, abs=0.01)
    assert list(faces.treated) == ["ours", "solid"]
    assert faces.smile_threshold == expression.SMILING
    assert [a.name for a in faces.attackers] == ["dlib"]


def test_without_labels_each_face_is_somebody(places):
    faces = look.assembled(evaluation(), places, [seen(n, None, 10) for n in range(3)])
    assert len(set(faces.persons)) == 3
    assert faces.enrolled.tolist() == faces.probes.tolist() == [0, 1, 2]


def test_notes_say_what_was_made_and_what_failed(places, tmp_path):
    manifest = {"people": {"k": 5}, "counts": {"faces": 9}, "config": {"seed": 1}, "objects": []}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    given = evaluation(results=[{"name": "ours", "uri": str(tmp_path)}])
    notes = look._notes(given, places, [seen(n, None, 10) for n in range(3)])
    assert notes["ours"] == {
        "paired": 3,
        "people": {"k": 5},
        "counts": {"faces": 9},
        "settings": {"seed": 1},
        "faults": {"not readable": 3},
    }
    assert notes["solid"] == {"settings": {"anonymizer": "solid"}, "anonymizers": {"solid": 3}}
    assert notes["sources"] == {"pictures": 3, "without a label": 0, "faces": 3}


def test_the_threshold_of_smiles_is_of_the_corpus_where_it_can_be(places):
    labels = [Label("a", f"{n}", expression=("neutral", "smiling")[n % 2]) for n in range(12)]
    clear = [observation(10, smile=(0.0, 30.0)[n % 2]) for n in range(12)]
    subjects = [look._subject("a", label, o, 0, True, True) for label, o in zip(labels, clear, strict=True)]
    values = expression.smile(np.array([o.mesh for o in clear]))
    assert values[0] < look.smile_threshold(subjects, clear) < values[1]
    assert look.smile_threshold(subjects[:9], clear[:9]) == expression.SMILING


def test_a_trial_is_the_job_in_a_folder_of_its_own(tmp_path):
    trial = {
        "name": "k is 9",
        "settings": {"assignment": {"k": 9}, "output": {"quality": 90}, "input": {"uri": "x"}},
    }
    given = evaluation(trials=[trial], seed=7)
    config = trials.configured(given, given.trials[0], tmp_path)
    assert (config.assignment.k, config.assignment.mode, config.seed) == (9, "k-same", 7)
    assert config.models.accept == given.models.accept
    assert {config.input.uri, config.output.uri, config.state} == {
        str(tmp_path / n) for n in ("input", "output", "state")
    }
    assert config.output.quality == 90


def test_settings_of_a_trial_that_are_wrong_are_told_before_anything_runs():
    given = evaluation(trials=[{"name": "odd", "settings": {"assignment": {"q": 9}}}])
    with pytest.raises(ConfigError, match=r"trials: odd: assignment\.q is no setting"):
        look.check(given)


def test_loose_pictures_are_packed_with_their_person(tmp_path):
    places, labels = {}, {}
    for n, key in enumerate(("x y", "é")):
        (tmp_path / f"{n}.jpg").write_bytes(b"picture" + bytes([n]))
        places[key] = Place(str(tmp_path / f"{n}.jpg"), "jpg", 8)
        labels[key] = [Label(key, f"person {n}")]
    keys = trials.pack(Corpus(places, False, labels), str(tmp_path / "packed"))
    assert list(keys.values()) == list(places)
    found, _ = corpus.pictures(str(tmp_path / "packed"), "packed")
    assert {keys[name]: where.read() for name, where in found.items()} == {
        key: where.read() for key, where in places.items()
    }
    (shard,) = storage.list_files(str(tmp_path / "packed"))
    assert b'{"subject": "person 1"}' in storage.read_bytes(shard.uri)
    assert [member.name for member in tar.Reader(shard)] == [
        f"0000000{n}.{extension}" for n in (0, 1) for extension in ("jpg", "json")
    ]


@pytest.fixture
def portraits(tmp_path) -> Path:
    """One person in three pictures, and a wall."""
    folder = tmp_path / "portraits"
    folder.mkdir()
    whole = astronaut()[:320, 60:380]
    for name, picture in (("a", whole), ("b", whole[:, ::-1]), ("c", whole[10:, 10:])):
        (folder / f"{name}.jpg").write_bytes(encode(np.ascontiguousarray(picture), "jpg", 95))
    (folder / "wall.png").write_bytes(encode(np.full((200, 200, 3), 90, np.uint8), "png", 95))
    return folder


@pytest.mark.slow
def test_pictures_results_trials_and_baselines_in_ray(portraits, tmp_path):
    (tmp_path / "labels.csv").write_text("key,subject\na,1\nb,1\nc,1\nwall,2\n")
    settings = {"assignment": {"mode": "per-face"}, "region": {"kind": "face"}}
    given = evaluation(
        source={"uri": str(portraits), "labels": str(tmp_path / "labels.csv")},
        results=[{"name": "ours", "uri": str(portraits), "pairing": "key"}],
        trials=[{"name": "fresh", "settings": settings}],
        actors=1,
    )
    looked = look.look(given, corpus.read(given))
    faces = looked.faces
    assert [s.picture for s in faces.subjects] == ["a", "b", "c", "wall"]
    assert [o.score > 0 for o in faces.clear] == [True, True, True, False]
    assert list(faces.treated) == ["ours", "fresh", "solid"]
    assert (faces.treated["ours"][0].vectors["dlib"] == faces.clear[0].vectors["dlib"]).all()
    moved = np.linalg.norm(faces.treated["fresh"][0].vectors["dlib"] - faces.clear[0].vectors["dlib"])
    assert moved > 0.4
    assert faces.treated["fresh"][0].score > 0.5
    assert looked.notes["fresh"]["paired"] == 4
    assert looked.notes["fresh"]["counts"]["faces"] == 3
    assert looked.notes["fresh"]["changes"] == settings
    assert looked.notes["solid"]["anonymizers"] == {"solid": 3}
    assert min(looked.seconds.values()) > 0


@pytest.mark.slow
def test_no_face_anywhere_ends_it(tmp_path):
    (tmp_path / "wall.png").write_bytes(encode(np.full((200, 200, 3), 90, np.uint8), "png", 95))
    given = evaluation(source={"uri": str(tmp_path)}, results=[], actors=1)
    with pytest.raises(InputError, match="no face was found in any picture"):
        look.look(given, corpus.read(given))
