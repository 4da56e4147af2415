import numpy as np
import pytest
import torch

from deid.evaluation import learning, small_classifier, small_detector
from tests.unit.evaluation import faking

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_halves_never_share_a_person(rng):
    persons = rng.choice([f"p{n}" for n in range(31)], 200)
    side = learning.halves(persons, rng)
    assert not set(persons[side == 0]) & set(persons[side == 1])
    assert abs(len(set(persons[side == 0])) - len(set(persons[side == 1]))) <= 1


def test_training_leaves_torch_as_it_was():
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    first, second = learning.side_by_side([lambda: learning.initial(small_classifier.Network, 3)] * 2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_every_one_comes_once_before_any_comes_again():
    batches = learning.Batches(10, 4, torch.Generator().manual_seed(0))
    taken = torch.cat([batches.next() for _ in range(5)])
    assert sorted(taken[:10].tolist()) == sorted(taken[10:].tolist()) == list(range(10))


def test_an_interval_of_a_share_is_never_a_point():
    one, none = learning.interval(1.0, np.ones(50), 30), learning.interval(0.0, np.zeros(50), 30)
    assert (one.low, one.high) == pytest.approx((0.9, 1.0))
    assert none.low <= 0.0
    assert none.high == pytest.approx(0.1)


def scenes_of(count, start=0):
    made = [faking._scene(person) for person in range(start, start + count)]
    return np.stack([m[0] for m in made]), np.stack([m[1] for m in made])


def test_the_detector_learns_blobs_and_nothing_from_noise(rng):
    scenes, boxes = scenes_of(32)
    tested, truth = scenes_of(24, start=100)
    noise = rng.integers(0, 255, scenes.shape, np.uint8)
    recalls = []
    for seen in (scenes, noise):
        network = small_detector.train(seen, boxes, seed=1, steps=70)
        found, scores = small_detector.detect(network, tested)
        hits = small_detector.hits(truth, found)
        recalls.append(hits[0, :, 0].mean())
        assert (np.diff(scores, axis=1) <= 0).all()
    assert recalls[0] > 0.8
    assert recalls[1] < 0.3
    assert sum(p.numel() for p in network.parameters()) < 60_000


def test_the_detector_is_the_same_for_the_same_seed():
    scenes, boxes = scenes_of(8)
    jobs = [lambda seed=seed: small_detector.train(scenes, boxes, seed, 3) for seed in (4, 4, 5)]
    found = [small_detector.detect(n, scenes)[0] for n in learning.side_by_side(jobs)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_average_precision_by_hand():
    truth = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    miss, hit = [50.0, 50, 60, 60], [0.0, 0, 10, 10]
    boxes = np.array([[hit, hit], [miss, hit]])
    scores = np.array([[0.9, 0.8], [0.7, 0.6]])
    found = small_detector.hits(truth, boxes)
    assert found[:, 0].tolist() == [[True, False]] * len(small_detector.IOUS)  # the second one is a double
    # in order: true (1 of 1), false, false, true (2 of 4): half at precision 1, half at precision 1/2
    assert small_detector.precision(found, scores, np.ones(2)) == pytest.approx(0.75)
    assert small_detector.precision(found, scores, np.array([1.0, 0.0])) == pytest.approx(1.0)
    assert small_detector.precision(found, scores, np.array([0.0, 1.0])) == pytest.approx(0.5)
    assert np.isnan(small_detector.precision(found, scores, np.zeros(2)))


def test_a_box_that_fits_loosely_counts_at_low_thresholds_only():
    found = small_detector.hits(np.array([[0.0, 0, 10, 10]]), np.array([[[0.0, 0, 10, 6.2]]]))
    assert found[:, 0, 0].tolist() == [True] * 3 + [False] * 7  # IoU .62: at .5, .55, .6


def test_the_classifier_learns_a_mouth_and_nothing_from_noise(rng):
    smiling = np.arange(40) % 2 == 0
    noise = rng.integers(0, 255, (40, 64, 64, 3), np.uint8)
    mouths = noise.copy()
    mouths[smiling, 44:54, 20:44] = 255
    mouths[~smiling, 44:54, 20:44] = 0
    fresh = rng.integers(0, 255, mouths.shape, np.uint8)
    fresh[:, 44:54, 20:44] = mouths[:, 44:54, 20:44]
    other = rng.integers(0, 255, noise.shape, np.uint8)
    right = []
    for chips, tested in ((mouths, fresh), (noise, other)):
        network = small_classifier.train(chips, smiling, seed=2, steps=30)
        hits = (small_classifier.odds(network, tested) > 0) == smiling
        right.append(small_classifier.balanced(hits, smiling, np.ones(40)))
    assert right[0] > 0.95
    assert right[1] < 0.75


def test_balanced_accuracy_weighs_both_kinds_the_same():
    smiling = np.array([True, False, False, False])
    right = np.array([False, True, True, True])
    assert small_classifier.balanced(right, smiling, np.ones(4)) == pytest.approx(0.5)
    assert small_classifier.balanced(right, smiling, np.array([0.0, 1, 1, 1])) != small_classifier.balanced(
        right, smiling, np.ones(4)
    )
