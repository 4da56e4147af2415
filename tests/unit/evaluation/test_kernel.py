import numpy as np
import pytest

from deid.evaluation import kernel


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def test_the_kernel_is_that_of_the_paper():
    a, b = np.array([[1.0, 2.0]]), np.array([[3.0, -1.0], [0.0, 0.0]])
    assert kernel.kernel(a, b).tolist() == [[(1 / 2 + 1) ** 3, 1.0]]


def test_the_estimator_is_the_mean_over_pairs_of_different_people(rng):
    people = np.array(["a", "a", "b", "c", "d", "d"])
    x, y = rng.normal(size=(6, 5)), rng.normal(1, 1, size=(6, 5))
    k = kernel.kernel
    pairs = [
        (k(x[[i]], x[[j]]) + k(y[[i]], y[[j]]) - k(x[[i]], y[[j]]) - k(x[[j]], y[[i]])).item()
        for i in range(6)
        for j in range(6)
        if people[i] != people[j]
    ]
    assert kernel.paired(x, y, people, rng, 50).value == pytest.approx(np.mean(pairs))


def test_nothing_done_is_no_distance(rng):
    x = rng.normal(size=(60, 16))
    found = kernel.paired(x, x, np.arange(60) // 2, rng, 200)
    assert [found.value, found.low, found.high] == pytest.approx([0, 0, 0], abs=1e-12)


def test_two_halves_differ_by_chance_alone(rng):
    x = rng.normal(size=(80, 16))
    found = kernel.halves(x, np.arange(80) // 2, rng, 400)
    assert found.low < 0 < found.high
    assert abs(found.value) < 0.2 * (found.high - found.low)


def test_another_distribution_is_further_than_chance(rng):
    x, people = rng.normal(size=(80, 16)), np.arange(80) // 2
    floor = kernel.halves(x, people, rng, 400)
    near, far = (kernel.paired(x, x + by, people, rng, 400) for by in (0.3, 1.0))
    assert floor.high < near.low < near.value < near.high < far.low


def test_a_fresh_sample_of_the_same_kind_is_not(rng):
    values = []
    for _ in range(40):
        x, y = rng.normal(size=(2, 40, 16))
        values.append(kernel.paired(x, y, np.arange(40), rng, 10).value)
    assert abs(np.mean(values)) < 3 * np.std(values) / 40**0.5


def test_a_person_s_own_pictures_are_no_evidence(rng):
    """Ten copies of everybody: a mean over all pairs would take each person for ten, and see a difference."""
    x, y = rng.normal(size=(2, 20, 16))
    once = kernel.paired(x, y, np.arange(20), rng, 10).value
    tenfold = kernel.paired(
        np.repeat(x, 10, 0), np.repeat(y, 10, 0), np.repeat(np.arange(20), 10), rng, 10
    ).value
    assert tenfold == pytest.approx(once)


def test_faces_without_features_take_no_part(rng):
    x, y, people = rng.normal(size=(30, 16)), rng.normal(size=(30, 16)), np.arange(30)
    y[7] = np.nan
    whole = kernel.paired(x, y, people, rng, 10).value
    assert whole == pytest.approx(kernel.paired(*(np.delete(v, 7, 0) for v in (x, y, people)), rng, 10).value)
    assert kernel.scale(np.array([[3.0, 4.0], [np.nan, 1.0]])) == pytest.approx(12.5**0.5)


def test_too_few_people_are_not_measured(rng):
    x = rng.normal(size=(9, 16))
    for found in (kernel.paired(x, x, np.arange(9) // 3, rng), kernel.halves(x, np.arange(9) // 3, rng)):
        assert np.isnan([found.value, found.low, found.high]).all()
    empty = np.full((9, 16), np.nan)
    assert np.isnan(kernel.paired(x, empty, np.arange(9), rng).value)
    assert np.isnan(kernel.scale(empty))
