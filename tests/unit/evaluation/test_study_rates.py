import numpy as np
import pytest

from deid.evaluation.study import rates


def test_wilson_as_published():
    found = rates.wilson(81 / 263, 263)  # Newcombe 1998, "Two-sided confidence intervals", table I
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    none = rates.wilson(0, 20)
    assert (none.low, none.high) == pytest.approx((0, 0.1611), abs=5e-5)


def test_d_prime():
    assert rates.d_prime(500, 1000, 500, 1000) == pytest.approx(0)
    assert rates.d_prime(841345, 10**6, 158655, 10**6) == pytest.approx(2, abs=1e-4)
    assert 2 < rates.d_prime(10, 10, 0, 10) < 4  # finite


def test_interval_covers_the_rate_of_other_people_and_tasks():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(80):
        people, tasks = rng.normal(0, 0.12, (12, 1)), rng.normal(0, 0.12, (1, 15))
        hits = (rng.random((12, 15)) < np.clip(0.6 + people + tasks, 0, 1)) * 1.0
        found = rates.Resampler(12, rng, 300).share(hits)
        inside += found.low <= 0.6 <= found.high
    assert inside >= 72


def test_few_tasks_have_wider_intervals():
    assert rates.tails(10**6) == pytest.approx((2.5, 97.5), abs=1e-3)
    student = rates.NormalDist().inv_cdf(rates.tails(11)[0] / 100) / (11 / 10) ** 0.5
    assert student == pytest.approx(-2.228, abs=2e-3)  # of 10 degrees of freedom, 97.5 %


def test_missing_answers_take_no_part():
    hits = np.array([[1, 0, np.nan], [1, np.nan, np.nan], [0, 0, np.nan]])
    assert rates.Resampler(3, np.random.default_rng(0), 100).share(hits).value == pytest.approx(0.4)
    nothing = rates.Resampler(3, np.random.default_rng(0), 100).share(np.full((3, 2), np.nan))
    assert np.isnan(nothing.value)


def test_no_interval_is_a_point():
    sampler = rates.Resampler(5, np.random.default_rng(0), 100)
    found = sampler.share(np.ones((5, 8)))
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(rates.wilson(1, 5).low)
    alone = rates.Resampler(1, np.random.default_rng(0), 100).share(np.array([[1, 0, 1, 1.0]]))
    assert alone == rates.wilson(0.75, 4)


def test_d_prime_interval():
    rng = np.random.default_rng(0)
    hits, alarms = rng.random((20, 20)) < 0.8, rng.random((20, 20)) < 0.2
    found = rates.Resampler(20, rng, 400).d_prime(hits * 1.0, alarms * 1.0)
    assert found.low < 1.683 < found.high
    assert found.high - found.low < 1
