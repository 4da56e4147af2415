"""Clusters all over the cells, united in tasks."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from deid.privacy import unite
from deid.privacy.clusters import Clusters
from deid.privacy.unite import near, united

RNG = np.random.default_rng(0)


def points(*places: float) -> np.ndarray:
    """Vectors [n, 4] on a line."""
    return np.array([[place, 0, 0, 0] for place in places], np.float32)


def singles(vectors: np.ndarray, subjects: list[int] | None = None) -> Clusters:
    n = len(vectors)
    codes = None if subjects is None else np.array(subjects)
    return Clusters(vectors.copy(), np.ones(n), np.zeros(n, np.float32), codes)


def test_nearest_cells_are_those_of_brute_force() -> None:
    means, centres = (RNG.normal(size=(n, 4)).astype(np.float32) for n in (40, 25))
    expected = np.argsort(((means[:, None] - centres) ** 2).sum(2), axis=1)
    for m in (1, 8, 25):
        assert (near((means, centres, m)) == expected[:, :m]).all()


def test_a_single_picture_is_looked_for_in_more_cells() -> None:
    centres = points(0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    vectors = points(0.0, 0.0, 0.0, 0.0, 0.38)
    for wide, persons in ((1, 2), (6, 1)):
        assert len(set(united(singles(vectors), centres, 0.4, 1, wide))) == persons


def test_two_subjects_stay_apart_and_take_in_who_has_none() -> None:
    heads = united(singles(points(0, 0.01, 0.02, 0.03, 3.0), [7, -1, -1, 9, 9]), points(0, 3), 1.6, 2, 2)
    assert heads[0] == heads[1]
    assert heads[3] == heads[4]
    assert heads[0] != heads[3]


def test_how_much_a_task_does_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, centres = (RNG.normal(0, 0.2, (n, 4)).astype(np.float32) for n in (300, 20))
    calls: list[str] = []

    def run(function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterable[Any]:
        for job in jobs:
            calls.append(function.__name__)
            yield function(job)

    whole = united(singles(vectors), centres, 0.3, 4, 8, run)
    once = len(calls)
    monkeypatch.setattr(unite, "WORK", 1)
    parts = united(singles(vectors), centres, 0.3, 4, 8, run)
    assert (whole == parts).all()
    assert len(calls) - once > 3 * once
    assert 1 < len(set(whole)) < 300
