"""Clusters that unite, nearest first."""

import itertools

import numpy as np
import pytest

from deid.privacy import clusters
from deid.privacy.clusters import Clusters, Link, averaged, clustered, crowds, link, mutual

RNG = np.random.default_rng(0)


def points(*places: float) -> np.ndarray:
    """Vectors [n, 4] on a line."""
    return np.array([[place, 0, 0, 0] for place in places], np.float32)


def singles(vectors: np.ndarray) -> Clusters:
    n = len(vectors)
    return Clusters(vectors.copy(), np.ones(n), np.zeros(n, np.float32))


def test_means_by_group_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CHUNK", 7)
    vectors, groups, weights = (
        RNG.normal(size=(100, 3)),
        RNG.integers(0, 9, 100),
        RNG.integers(0, 3, 100) * 1.0,
    )
    found = averaged(vectors, groups, 11, weights=weights)
    for number in range(9):
        mine = groups == number
        np.testing.assert_allclose(
            found[number], weights[mine] @ vectors[mine] / weights[mine].sum(), atol=1e-6
        )
    assert (found[9:] == 0).all()


def test_merged_mean_weight_and_spread_are_those_of_all_members() -> None:
    vectors = RNG.normal(size=(7, 4)).astype(np.float32)
    found = singles(vectors)
    found.merge(np.arange(4), np.array([0, 0, 0, 0]))
    found.merge(np.arange(4, 7), np.array([4, 4, 4]))
    found.merge(np.array([0, 4]), np.array([0, 0]))
    np.testing.assert_allclose(found.means[0], vectors.mean(0), atol=1e-6)
    assert found.weights[0] == 7
    assert found.spreads[0] == pytest.approx(((vectors - vectors.mean(0)) ** 2).sum(1).mean(), rel=1e-5)
    assert set(found.roots()) == {0}


@pytest.mark.parametrize("barring", [False, True])
def test_links_are_those_of_brute_force(barring: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "TILE", 32)
    queries, targets = (RNG.normal(size=(n, 4)).astype(np.float32) for n in (70, 50))
    targets[:20] = queries[:20]
    spreads = RNG.random(70).astype(np.float32), RNG.random(50).astype(np.float32)
    own = np.where(np.arange(70) < 20, np.arange(70), -1)
    subjects = RNG.integers(-1, 2, 70), RNG.integers(-1, 2, 50)
    best, least = link(Link(queries, targets, spreads, own, subjects if barring else None))
    apart = ((queries[:, None] - targets) ** 2).sum(2) + spreads[0][:, None] + spreads[1]
    apart[np.arange(20), np.arange(20)] = np.inf
    if barring:
        apart[(subjects[0][:, None] >= 0) & (subjects[1] >= 0)] = np.inf
    assert (best == apart.argmin(1)).all()
    np.testing.assert_allclose(least, apart.min(1), rtol=1e-4)


@pytest.mark.parametrize("places", [(0, 1, 2, 3, 4), (0, 0, 0, 0), (0, 1, 3, 6, 10), (5, 4, 3, 3, 3, 1)])
def test_the_closest_two_are_always_each_others_nearest(places: tuple[float, ...]) -> None:
    vectors = points(*places)
    apart = np.abs(vectors[:, None, 0] - vectors[:, 0]) + np.where(np.eye(len(vectors)), np.inf, 0)
    for pick in itertools.product(
        *[np.flatnonzero(row == row.min()) for row in apart]
    ):  # however ties are broken
        nearest, distance = mutual(np.array(pick), apart.min(1))
        pairs = nearest[nearest] == np.arange(len(places))
        assert pairs.any()
        assert distance[pairs].min() == apart.min()


def test_crowds_hold_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CROWD", 10)
    for vectors in (RNG.normal(size=(333, 4)), np.zeros((333, 4))):
        parts = list(crowds(vectors, np.arange(333)))
        assert max(map(len, parts)) <= 10
        assert sorted(np.concatenate(parts)) == list(range(333))


def test_faces_of_two_cells_are_grouped_apart() -> None:
    labels, count = clustered(np.zeros((6, 4)), np.array([3, 1, 3, 1, 3, 3], np.int32), 0.4)
    assert count == 2
    assert len({labels[1], labels[3]}) == len({labels[0], labels[2], labels[4], labels[5]}) == 1


def test_thousands_of_copies_take_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(clusters, "link", lambda job: (calls.append(1), link(job))[1])
    clustered(np.full((4000, 4), 0.3, np.float16), np.zeros(4000, np.int32), 0.4)
    assert len(calls) <= 3
