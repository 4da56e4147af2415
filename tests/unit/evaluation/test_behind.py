import numpy as np
import pytest

from deid.evaluation import behind
from deid.evaluation.faces import Faces
from deid.evaluation.reid import Templates
from tests.unit.evaluation import faking

ASKED = faking.evaluation(["shared"])


def shared(people, k):
    """Faces of which k people show the same surrogate each; the last group also shows one that is nobody's."""
    faces, rng = faking.faces(people=people), np.random.default_rng(2)
    surrogates = 5 * rng.normal(size=(people // k, faking.SIZE))
    seen = [
        faking.observation(surrogates[n // 2 // k] + 0.15 * rng.normal(size=faking.SIZE), rng, False, 0)
        for n in range(len(faces))
    ]
    treated = {"shared": seen, "identity": faces.clear, "missing": faces.treated["missing"]}
    seams = dict.fromkeys(treated, faces.seams["identity"])
    return Faces(faces.subjects, faces.clear, faces.grey, treated, seams, faces.attackers, 0.0)


@pytest.mark.parametrize("attacker", faking.ATTACKERS, ids=lambda a: a.name)
def test_people_behind_a_surrogate_are_counted(attacker):
    notes = {"shared": {"people": {"min": 4, "median": 4.0}}}
    made = behind.table(shared(24, 4), ASKED, attacker, notes, np.random.default_rng(0))
    row = made.rows["shared"]
    assert made.valid
    assert [row[c].value for c in ("clusters", "least", "median", "alone")] == [6, 4, 4, 0]
    assert row["guess"].value == row["most"].value == 0.25
    assert (row["said_least"].value, row["said_median"].value) == (4, 4)
    clear = made.rows["clear"]
    assert (clear["clusters"].value, clear["alone"].value, clear["guess"].value) == (24, 1, 1)
    assert clear["said_least"].text == "not said"
    assert made.rows["missing"]["guess"].text == "no pictures to compare"


def test_labels_that_do_not_fit_are_said():
    faces = shared(24, 4)
    mixed = np.random.default_rng(1).permutation(faces.persons)
    subjects = [type(s)(**{**vars(s), "person": str(p)}) for s, p in zip(faces.subjects, mixed, strict=True)]
    wrong = Faces(subjects, faces.clear, faces.grey, faces.treated, faces.seams, faces.attackers, 0.0)
    made = behind.table(wrong, ASKED, faking.ATTACKERS[0], {}, np.random.default_rng(0))
    assert "the labels do not fit the pictures" in made.problems[0]


def test_the_threshold_lies_between_own_and_other_scores():
    vectors = np.array([[0.0, 0], [0, 1], [10, 0], [10, 1]])
    threshold = behind.equal_error_threshold(Templates(vectors, np.array([0, 0, 1, 1])), "euclidean")
    assert -10 < threshold < -1
    assert np.isnan(behind.equal_error_threshold(Templates(vectors, np.arange(4)), "euclidean"))


def test_the_threshold_has_equal_errors():
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(60), 2)
    vectors = np.repeat(rng.normal(size=(60, 4)), 2, 0) + 0.7 * rng.normal(size=(120, 4))
    threshold = behind.equal_error_threshold(Templates(vectors, subjects), "euclidean")
    scores = -np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    above = np.triu(np.ones((120, 120), bool), 1)
    same = subjects[:, None] == subjects[None]
    missed = (scores[same & above] < threshold).mean()
    accepted = (scores[~same & above] >= threshold).mean()
    assert missed == pytest.approx(accepted, abs=0.02)
    assert 0.02 < missed < 0.4


def test_of_too_many_faces_whole_people_are_drawn(monkeypatch):
    monkeypatch.setattr(behind, "MOST_FACES", 9)
    faces = shared(24, 4)
    chosen = behind._chosen(faces, np.random.default_rng(0))
    assert len(chosen) == 8
    assert (np.unique(faces.persons[chosen], return_counts=True)[1] == 2).all()
