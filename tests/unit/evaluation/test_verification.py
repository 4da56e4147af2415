import itertools

import numpy as np
import pytest

from deid.evaluation.verification import auc, eer, roc, tar_at


def brute_force_auc(genuine, impostor):
    wins = [1.0 if g > i else 0.5 if g == i else 0.0 for g, i in itertools.product(genuine, impostor)]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 20, 10**6])
def test_auc_is_the_rank_statistic_ties_included(seed, levels):
    rng = np.random.default_rng(seed)
    genuine = np.round(rng.normal(0.7, 1, 40) * levels) / levels
    impostor = np.round(rng.normal(0.0, 1, 90) * levels) / levels
    assert auc(*roc(genuine, impostor)) == pytest.approx(brute_force_auc(genuine, impostor), abs=1e-12)


def test_each_point_of_the_roc_is_the_share_accepted_at_its_threshold():
    rng = np.random.default_rng(1)
    genuine, impostor = rng.normal(1, 1, 15).round(1), rng.normal(0, 1, 25).round(1)
    far, tar = roc(genuine, impostor)
    thresholds = sorted({*genuine, *impostor}, reverse=True)
    assert far[1:] == pytest.approx([np.mean(impostor >= t) for t in thresholds])
    assert tar[1:] == pytest.approx([np.mean(genuine >= t) for t in thresholds])
    assert (far[0], tar[0]) == (0, 0)


def test_eer_of_two_normal_distributions():
    rng = np.random.default_rng(2)
    far, tar = roc(rng.normal(2, 1, 20_000), rng.normal(0, 1, 20_000))
    assert eer(far, tar) == pytest.approx(0.1587, abs=0.01)  # both error rates are P(normal > 1)


def test_ends_of_the_scale():
    apart = roc(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    assert (auc(*apart), eer(*apart), tar_at(*apart, 0.0)) == (1.0, 0.0, 1.0)
    reversed_ = roc(np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    assert (auc(*reversed_), eer(*reversed_), tar_at(*reversed_, 0.01)) == (0.0, 1.0, 0.0)
    tied = roc(np.ones(3), np.ones(4))
    assert (auc(*tied), eer(*tied), tar_at(*tied, 0.01)) == (0.5, 0.5, 0.0)


def test_tar_never_passes_the_allowed_far():
    impostor = np.arange(100.0)
    genuine = np.array([99.5, 98.5, 97.5, 10.0])
    far, tar = roc(genuine, impostor)
    assert tar_at(far, tar, 0.01) == 0.5  # a threshold below 98 would accept two of a hundred impostors
    assert tar_at(far, tar, 0.0) == 0.25


def test_without_pairs_there_is_no_figure():
    far, tar = roc(np.array([]), np.array([1.0, 2.0]))
    assert np.isnan([auc(far, tar), eer(far, tar), tar_at(far, tar, 0.01)]).all()
