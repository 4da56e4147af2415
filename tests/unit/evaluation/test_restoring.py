import numpy as np
import pytest
import torch

from deid.evaluation.restoring import Pairs, Restorer, Ridge, linear_kernel

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def ridge(features, train, persons):
    test = np.setdiff1d(np.arange(len(features)), train)
    return Ridge([linear_kernel([features], train)], train, test, persons), test


def gain(guess, true, constant):
    return 1 - ((guess - true) ** 2).sum() / ((constant - true) ** 2).sum()


def test_the_ridge_restores_what_the_input_holds_and_nothing_from_noise(rng):
    target = rng.normal(size=(120, 6))
    persons, train = np.arange(120) // 2, np.arange(80)
    for features, least, most in (
        (target @ rng.normal(size=(6, 6)) + 5, 0.95, 1.0),
        (rng.normal(size=(120, 40)), -0.05, 0.05),
    ):
        attack, test = ridge(features, train, persons)
        guess, _ = attack.restore(target)
        assert least <= gain(guess, target[test], target[train].mean(axis=0)) <= most


def test_the_treated_value_itself_is_taken_where_it_helps(rng):
    target = rng.normal(size=(60, 200)) + 3
    persons, train = np.arange(60), np.arange(30)
    attack, test = ridge(rng.normal(size=(60, 5)), train, persons)
    constant = target[train].mean(axis=0)
    assert (
        gain(attack.restore(target, target + 0.1 * rng.normal(size=target.shape))[0], target[test], constant)
        > 0.9
    )
    assert abs(gain(attack.restore(target, rng.normal(size=target.shape))[0], target[test], constant)) < 0.05


def test_leaving_a_person_out_is_as_if_it_had_not_been_there(rng):
    features, target = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    persons, train = np.arange(12) // 3, np.arange(12)
    kernel = linear_kernel([features], train)
    attack = Ridge([kernel], train, train, persons)
    values, vectors = np.linalg.eigh(kernel)
    left = attack._left_out(values, vectors, 0.3) @ target
    for person in range(4):
        out, rest = np.flatnonzero(persons == person), np.flatnonzero(persons != person)
        weights = np.linalg.solve(kernel[np.ix_(rest, rest)] + 0.3 * np.eye(9), target[rest])
        np.testing.assert_allclose(left[out], target[out] - kernel[np.ix_(out, rest)] @ weights, atol=1e-6)


def pairs(rng, count, holds):
    clear = rng.integers(0, 255, (count, 1, 1, 3)) * np.ones((1, 64, 64, 1))
    clear[:, 20:40, 20:40] = rng.integers(0, 255, (count, 1, 1, 3))
    wanted = rng.normal(size=(count, 8))
    if holds:
        return Pairs((255 - clear).astype(np.uint8), [wanted + 0.05], clear.astype(np.uint8), [wanted])
    noise = rng.integers(0, 255, (count, 64, 64, 3)).astype(np.uint8)
    return Pairs(noise, [rng.normal(size=(count, 8))], clear.astype(np.uint8), [wanted])


@pytest.mark.parametrize("holds", [True, False])
def test_the_network_restores_what_the_input_holds_and_nothing_from_noise(rng, holds):
    learned, tested = pairs(rng, 40, holds), pairs(rng, 20, holds)
    network = Restorer(learned, np.arange(40) // 2, seed=1, steps=50)
    pixels, (vectors,) = network.restore(tested.chips, tested.vectors)
    gains = [
        gain(pixels, tested.clear.astype(float), learned.clear.mean(axis=0)),
        gain(vectors, tested.wanted[0], learned.wanted[0].mean(axis=0)),
    ]
    if holds:
        assert min(gains) > 0.6
    else:
        assert max(gains) < 0.05
        assert min(gains) > -0.2


def test_the_network_is_the_same_for_the_same_seed(rng):
    learned = pairs(rng, 16, True)
    one, same, other = (
        torch.cat([p.flatten() for p in Restorer(learned, np.arange(16), seed, 3).network.parameters()])
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
