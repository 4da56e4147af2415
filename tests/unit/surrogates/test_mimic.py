import numpy as np
import pytest
from numpy.typing import NDArray

from deid.faces.align import EXPRESSION, expression
from deid.gallery import store
from deid.surrogates import mimic


@pytest.fixture(scope="module")
def meshes() -> NDArray[np.float32]:
    return store.load(None).meshes


def moved(mesh: NDArray[np.float32], movements: list[mimic.Movement]) -> NDArray[np.float64]:
    """The mesh with its points where the movements put their content."""
    result = mesh.astype(np.float64)
    for movement in movements:
        result[:, :2] += movement.at(mesh[:, :2].astype(np.float64))
    return result


def pairs(meshes: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Frontal faces whose expressions differ by less than the limits."""
    limits = np.array(list(mimic.LIMITS.values()))
    near = [
        (meshes[i], meshes[j])
        for i, j in np.random.default_rng(0).integers(len(meshes), size=(400, 2))
        if (np.abs(expression(meshes[i]) - expression(meshes[j])) < limits).all()
    ]
    assert len(near) > 20
    return near


def test_movements_bring_the_expression_nearer(meshes: NDArray[np.float32]) -> None:
    before, after = [], []
    for source, surrogate in pairs(meshes):
        movements = mimic.movements(expression(source), surrogate, surrogate[:, :2].astype(np.float64))
        before.append(np.abs(expression(source) - expression(surrogate)))
        after.append(np.abs(expression(source) - expression(moved(surrogate, movements))))
    ratio = dict(zip(EXPRESSION, np.mean(after, 0) / np.mean(before, 0), strict=True))
    assert ratio["smile"] < 0.5
    assert ratio["mouth_width"] < 0.5
    assert ratio["eye_opening"] < 0.75
    assert ratio["brow_height"] < 0.5
    assert ratio["mouth_opening"] < 1


def test_nothing_moves_farther_than_its_limit_or_away_from_the_features(meshes: NDArray[np.float32]) -> None:
    rng = np.random.default_rng(1)
    places = rng.uniform(-0.5, 1.5, (2000, 2))
    for i, j in rng.integers(len(meshes), size=(50, 2)):
        surrogate = meshes[j]
        placed = surrogate[:, :2].astype(np.float64)
        movements = mimic.movements(expression(meshes[i]), surrogate, placed)
        shift = np.linalg.norm(mimic.origins(places, movements) - places, axis=1)
        assert shift.max() < 0.08
        away = np.linalg.norm(places[:, None] - placed[None, ::7], axis=2).min(1) > 0.25
        assert shift[away].max() < 1e-3


def test_the_same_expression_moves_nothing(meshes: NDArray[np.float32]) -> None:
    mesh = meshes[3]
    places = np.random.default_rng(2).uniform(0, 1, (100, 2))
    movements = mimic.movements(expression(mesh * 700 + 20), mesh, mesh[:, :2].astype(np.float64))
    np.testing.assert_allclose(mimic.origins(places, movements), places, atol=1e-6)


def test_closed_lips_stay_closed(meshes: NDArray[np.float32]) -> None:
    """Points that coincide with opposite shifts cancel, instead of tearing the mouth."""
    movement = mimic.Movement(np.zeros((2, 2)), np.array([[0, -0.02], [0, 0.02]]), mimic.LIP_REACH)
    assert np.abs(movement.at(np.random.default_rng(3).normal(0, 0.05, (50, 2)))).max() < 1e-9


def test_levels_keep_what_differs_between_expressions_and_little_else() -> None:
    """Means and deviations of 60 people: neutral, smiling, and their difference from person to person."""
    neutral, smiling = (
        np.array([0.0119, 0.0139, 0.349, 0.0555, 0.1404]),
        np.array([0.0278, 0.0313, 0.397, 0.0524, 0.1384]),
    )
    people = np.random.default_rng(0).normal(0, [0.004, 0.01, 0.0123, 0.0044, 0.0153], (500, 5))
    for typical in (neutral, smiling):
        levels = np.array([mimic.levelled(typical + person) for person in people])
        counts = [len(np.unique(levels[:, n].round(5))) for n in range(5)]
        assert max(counts) <= 4
        assert (levels[:, 3] == levels[0, 3]).mean() > 0.95, "open eyes are open eyes"
        assert (levels[:, 4] == levels[0, 4]).mean() > 0.95
    assert mimic.levelled(smiling)[0] > mimic.levelled(neutral)[0]
    assert mimic.levelled(smiling)[2] > mimic.levelled(neutral)[2]
    closed = np.array([0.0119, 0.0139, 0.349, 0.02, 0.14])
    assert mimic.levelled(closed)[3] < mimic.levelled(neutral)[3]
    np.testing.assert_allclose(mimic.levelled(mimic.levelled(smiling)), mimic.levelled(smiling), rtol=1e-6)
