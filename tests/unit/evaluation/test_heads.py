import numpy as np
import pytest

from deid.evaluation import heads
from deid.evaluation.reid import Templates, compare


@pytest.fixture
def rng():
    return np.random.default_rng(9)


def people(rng, count=40, each=2, size=32, noise=0.2):
    subjects = np.repeat(np.arange(count), each)
    return Templates(
        np.repeat(rng.normal(size=(count, size)), each, 0) + noise * rng.normal(size=(count * each, size)),
        subjects,
    )


def test_the_variances_that_stand_out_are_kept_and_the_others_made_equal(rng):
    directions = np.linalg.qr(rng.normal(size=(50, 2)))[0]
    rows = rng.normal(size=(60, 50)) + rng.normal(size=(60, 2)) * (12, 8) @ directions.T
    values, vectors = heads.spiked(rows)
    assert len(set(np.round(values[:-2], 9))) == 1
    assert values[0] == pytest.approx(1, abs=0.2)
    assert values[-1] == pytest.approx(145, rel=0.6)
    assert np.linalg.norm(vectors[:, -2:].T @ directions, 2) > 0.95


def test_fewer_rows_than_directions_leave_no_variance_at_zero(rng):
    values, _ = heads.spiked(rng.normal(size=(6, 50)))
    assert values.min() > 0


def test_training_undoes_a_disturbance_for_people_it_never_saw(rng):
    known = people(rng, count=80)
    moved = heads.disturbed(known, rng)
    fold = heads.folds(known.subjects, rng, 2)
    trained = heads.fit(Templates(moved.vectors[fold == 0], moved.subjects[fold == 0]))

    def rank1(templates):
        chosen = np.flatnonzero(fold == 1)
        first, second = (
            Templates(templates.vectors[n], templates.subjects[n]) for n in (chosen[::2], chosen[1::2])
        )
        return heads.rank1(compare(first, second, "cosine"))

    assert rank1(moved) < 0.3
    assert rank1(trained(moved)) > 0.95


def test_people_stay_in_one_fold_and_folds_are_of_one_size(rng):
    persons = np.array([f"p{n}" for n in range(20)]).repeat(3)
    fold = heads.folds(persons, rng)
    assert sorted(np.bincount(fold)) == [12] * 5
    assert all(len(set(fold[persons == person])) == 1 for person in set(persons))


def test_what_teaches_nothing_is_refused(rng):
    with pytest.raises(ValueError, match="two different pictures"):
        heads.fit(people(rng, each=1))
    with pytest.raises(ValueError, match="two different pictures"):
        heads.fit(Templates(np.ones((20, 8)), np.arange(20) // 2))
    assert not heads.trainable(people(rng, count=heads.LEAST_PEOPLE - 1))
    assert heads.trainable(people(rng, count=heads.LEAST_PEOPLE))


def test_lost_pictures_stay_lost(rng):
    known = people(rng)
    known.vectors[3] = np.nan
    assert (heads.fit(known)(known).acquired == known.acquired).all()


def test_turned_templates_have_the_same_distances(rng):
    known = people(rng, count=5, size=64)
    known.vectors[2] = np.nan
    turned = heads.compact(known)
    assert turned.vectors.shape == (10, 9)
    assert (turned.acquired == known.acquired).all()
    both = [t.vectors[t.acquired] for t in (known, turned)]
    assert np.allclose(*(np.linalg.norm(v[:, None] - v[None], axis=2) for v in both))
    assert heads.compact(people(rng)).vectors.shape == (80, 32)
