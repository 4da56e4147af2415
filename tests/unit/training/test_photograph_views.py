import cv2
import numpy as np
import pytest

from deid.faces.segment import BACKGROUND, FACE, HAIR, INPUT, OTHER, PARTS
from deid.training import photograph_views
from deid.training.photograph_views import People, PhotographViews
from tests.unit.training import drawn


@pytest.fixture(scope="module")
def people():
    picture, mesh, part = drawn.person()
    parts = (np.eye(len(PARTS))[part] * 255).astype(np.uint8)
    return People(np.stack([picture] * 2), np.stack([parts] * 2), np.stack([mesh] * 2))


@pytest.fixture(autouse=True)
def few_places(monkeypatch):
    monkeypatch.setattr(photograph_views, "PLACES", 3)


def test_views_are_the_same_again_wherever_one_starts(people):
    whole, late = PhotographViews(people, 3, range(6)), PhotographViews(people, 3, range(4, 6))
    assert len(late) == 2
    for n in range(2):
        for one, other in zip(whole[4 + n], late[n], strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(whole[0][0], whole[1][0])
    assert not np.array_equal(whole[0][0], PhotographViews(people, 4, range(6))[0][0])


def test_views_are_what_the_network_takes(people):
    views = PhotographViews(people, 1, range(24))
    for chips, parts in (views[n] for n in range(24)):
        assert chips.shape == (3, INPUT, INPUT)
        assert -1 <= chips.min() <= chips.max() <= 1
        assert parts.shape == (len(PARTS), INPUT, INPUT)
        np.testing.assert_allclose(parts.sum(0), 1, atol=1e-4)
        assert parts[FACE].mean() > 0.05


def test_chips_are_cut_as_the_job_cuts_them(people):
    chips, parts = people.chips()
    assert chips.shape == (2, INPUT, INPUT, 3)
    assert parts.shape == (2, INPUT, INPUT, len(PARTS))
    column, row = (
        photograph_views.frame(people.meshes[0])[:, :2] @ people.meshes[0, 4, :2]
        + photograph_views.frame(people.meshes[0])[:, 2]
    )
    assert parts[0, round(row), round(column), FACE] > 250


def test_parts_move_with_their_pixels(people):
    """Whatever the warp, hair stays dark, and the face light, where nothing else is changed."""
    rng = np.random.default_rng(0)
    mesh = people.meshes[0]
    for _ in range(8):
        move = photograph_views.placement(rng, mesh)
        x, y = photograph_views.lookup(rng, mesh[:, :2] @ move[:, :2].T + move[:, 2], mesh[:, 2], move)
        assert x.shape == y.shape == (INPUT, INPUT)
        inside = (x > 2) & (x < 509) & (y > 2) & (y < 509)
        columns, rows = x[inside].round().astype(int), y[inside].round().astype(int)
        shares, levels = people.parts[0][rows, columns], people.pictures[0][rows, columns].mean(-1)
        assert levels[shares[:, HAIR] > 250].mean() < 90 < levels[shares[:, FACE] > 250].mean()


def test_clothes_are_laid_on_what_is_clothes_alone(people, monkeypatch):
    monkeypatch.setattr(photograph_views, "DRESSED", 1.0)
    for name in ("DYED", "TANNED"):
        monkeypatch.setattr(photograph_views, name, 0.0)
    front, shares = (
        cv2.resize(given, (INPUT, INPUT)).astype(np.float32)
        for given in (people.pictures[0], people.parts[0] / np.float32(255))
    )
    places = np.full((1, INPUT, INPUT, 3), 10, np.uint8)
    made = photograph_views.coloured(np.random.default_rng(1), front, shares, places)
    changed = np.abs(made - front).max(-1) > 20
    assert changed[shares[..., OTHER] > 0.99].mean() > 0.9
    assert not changed[shares[..., OTHER] < 0.01].any()


def test_a_hat_is_other_and_a_mask_is_face(people, monkeypatch):
    chips, parts = people.chips()
    shares, pixels = (parts[0] / 255).astype(np.float32), chips[0].astype(np.float32)
    move = photograph_views.frame(people.meshes[0])
    points = people.meshes[0, :, :2] @ move[:, :2].T + move[:, 2]
    places = np.full((1, INPUT, INPUT, 3), 10, np.uint8)
    monkeypatch.setattr(photograph_views, "HATTED", 1.0)
    _, hat = photograph_views.worn(np.random.default_rng(1), pixels, shares, points, places)
    assert (hat - shares)[..., OTHER].sum() > 500
    assert hat[..., HAIR].sum() < shares[..., HAIR].sum()
    monkeypatch.setattr(photograph_views, "HATTED", 0.0)
    monkeypatch.setattr(photograph_views, "MASKED", 1.0)
    covered, mask = photograph_views.worn(np.random.default_rng(1), pixels, shares, points, places)
    np.testing.assert_array_equal(mask, shares)
    assert np.abs(covered - pixels)[shares[..., FACE] > 0.9].mean() > 3


def test_beyond_a_cut_the_border_is_repeated(people):
    chips, parts = people.chips()
    shares = (parts[0] / 255).astype(np.float32)
    made = [photograph_views.cut(np.random.default_rng(n), chips[0], shares) for n in range(12)]
    repeated = [(picture[0] == picture[1]).all() and (found[0] == found[1]).all() for picture, found in made]
    assert any(repeated)
    assert all(found[..., BACKGROUND].shape == (INPUT, INPUT) for _, found in made)
