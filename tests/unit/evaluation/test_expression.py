import numpy as np
import pytest

from deid.evaluation import expression
from deid.evaluation.expression import SIDE, ExpressionNetwork, crop, happier, threshold
from deid.models.store import default_store


def test_the_threshold_lies_between_two_kinds():
    cut, accuracy = threshold(np.array([0.1, 0.2, 0.3, 0.5, 0.6, np.nan]), np.array([0, 0, 0, 1, 1, 1], bool))
    assert (cut, accuracy) == (pytest.approx(0.4), 1.0)


def test_the_threshold_of_mixed_kinds_is_the_best_there_is():
    rng = np.random.default_rng(0)
    smiling = np.arange(400) % 4 == 0
    cut, accuracy = threshold(rng.normal(size=400) + 2.0 * smiling, smiling)
    assert cut == pytest.approx(1, abs=0.4)
    assert accuracy == pytest.approx(0.84, abs=0.05)


def test_a_threshold_needs_both_kinds():
    with pytest.raises(ValueError, match="smiling and neutral"):
        threshold(np.arange(3.0), np.ones(3, bool))


def test_happier_than_neutral():
    assert happier(np.eye(7)).tolist() == [0, 0, 0, 1, 0, 0, -1]


def test_smile_follows_the_mouth_corners():
    rng = np.random.default_rng(0)
    mesh = rng.normal(0, 1, (468, 3))
    for index, place in ((33, (-30, -20)), (263, (30, -20)), (234, (-60, 0)), (454, (60, 0)), (10, (0, -70))):
        mesh[index, :2] = place
    mesh[2, :2] = 0, 10
    mesh[[13, 14], 1], mesh[[61, 291], 1] = 30, 30
    up = mesh.copy()
    up[[61, 291], 1] = 24
    flat, smiling = expression.smile(np.stack([mesh, up]))
    assert smiling - flat == pytest.approx(6 / 124, rel=0.1)


def test_the_crop_is_around_the_mesh():
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[60:140, 120:200] = 255
    mesh = np.zeros((468, 3), np.float32)
    mesh[:, 0], mesh[:, 1] = np.linspace(120, 200, 468), np.linspace(60, 140, 468)
    part = crop(picture, mesh)
    assert part.shape == (SIDE, SIDE, 3)
    assert part.min() == 255


def test_the_network_gives_probabilities():
    network = ExpressionNetwork(default_store().files("fer_expression"))
    mesh = np.random.default_rng(0).uniform(50, 150, (468, 3)).astype(np.float32)
    found = network.probabilities(np.full((200, 200, 3), 90, np.uint8), mesh)
    assert found.shape == (7,)
    assert found.sum() == pytest.approx(1, abs=1e-4)
