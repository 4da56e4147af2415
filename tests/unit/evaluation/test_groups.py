import numpy as np
import pytest

from deid.evaluation.groups import age_band, attribute_groups, chance_upper


def test_age_bands():
    ages = (17, 18, 24.9, 25, 34, 35, 44, 45, 90, float("nan"))
    assert [age_band(age) for age in ages] == [
        "under 18",
        *["18-24"] * 2,
        *["25-34"] * 2,
        *["35-44"] * 2,
        *["45+"] * 2,
        "unknown",
    ]


def test_groups_are_of_all_three():
    made = attribute_groups({"a": "male", "b": "male"}, {"a": 20, "b": np.nan}, {"a": 30, "b": np.nan})
    assert made == {"a": ("male", "18-24", "intermediate"), "b": ("male", "unknown", "unknown")}


def test_chance_of_people_alone_is_certain():
    assert chance_upper(np.ones(10, int)) == 1.0


def test_chance_is_what_guesses_reach():
    sizes = np.repeat([2, 5, 10], 20)
    hits = (np.random.default_rng(0).random((20_000, 60)) < 1 / sizes).mean(axis=1)
    assert chance_upper(sizes) == pytest.approx(np.quantile(hits, 0.975), abs=1 / 60)
    assert hits.mean() == pytest.approx((1 / sizes).mean(), abs=0.01)
