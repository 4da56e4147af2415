import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deid.faces.appearance import CENTRE, RAYS, Silhouette, angles
from deid.surrogates import reshape

FACE = 0.25 + 0.03 * np.cos(2 * angles())


def head(up: float, down: float = 1.02) -> Silhouette:
    """A head whose outline is `up` times that of its face at the top, and `down` times below."""
    share = (1 + np.cos(angles())) / 2
    return Silhouette(FACE, FACE * (down + (up - down) * share))


def along(ray: int, radii: np.ndarray) -> np.ndarray:
    direction = np.array([np.sin(angles()[ray]), -np.cos(angles()[ray])])
    return CENTRE + radii[:, None] * direction


def moved(ray: int, radii: np.ndarray, source: Silhouette, surrogate: Silhouette) -> np.ndarray:
    """Radii that the content at `radii` comes from; the direction must not change."""
    places, _ = reshape.warp(along(ray, radii), source, surrogate)
    arm = places - CENTRE
    turn = along(ray, np.ones(1))[0] - CENTRE
    assert np.abs(arm[:, 0] * turn[1] - arm[:, 1] * turn[0]).max() < 1e-9
    return arm @ turn


def test_heads_alike_stay():
    points = np.random.default_rng(0).random((400, 2))
    places, _ = reshape.warp(points, head(1.5), head(1.5))
    assert np.abs(places - points).max() < 5e-3


@pytest.mark.parametrize(("source", "surrogate"), [(1.3, 1.7), (1.7, 1.3), (1.2, 2.5)])
def test_nothing_moves_in_the_middle(source, surrogate):
    rng = np.random.default_rng(0)
    turns, reach = rng.uniform(0, 2 * np.pi, 300), 0.5 * FACE.min() * rng.random(300)
    points = CENTRE + reach[:, None] * np.stack([np.sin(turns), -np.cos(turns)], -1)
    places, outside = reshape.warp(points, head(source), head(surrogate))
    assert np.abs(places - points).max() < 1e-9
    assert (outside < 0).all()


@pytest.mark.parametrize(("source", "surrogate"), [(1.6, 1.5), (1.4, 1.55), (1.35, 1.3)])
def test_the_outline_of_the_surrogates_head_lands_on_the_sources(source, surrogate):
    goal, own = head(source), head(surrogate)
    for ray in (0, 5, RAYS - 8):
        found = moved(ray, goal.head[[ray]], goal, own)
        assert found[0] == pytest.approx(own.head[ray], abs=0.01)
        assert moved(ray, FACE[[ray]], goal, own)[0] == pytest.approx(FACE[ray], abs=0.005)
        _, outside = reshape.warp(along(ray, goal.head[[ray]] + np.array([-0.03, 0, 0.03])), goal, own)
        assert np.abs(outside - [-0.03, 0, 0.03]).max() < 0.012


@pytest.mark.parametrize(("source", "surrogate"), [(3.0, 1.2), (1.02, 2.2)])
def test_hair_is_stretched_and_shrunk_within_bounds(source, surrogate):
    goal, own = head(source), head(surrogate)
    thick = own.head[0] - FACE[0]
    radii = np.linspace(0.1, 1.2, 2000)
    outline = np.interp(own.head[0], moved(0, radii, goal, own), radii)
    factor = (outline - FACE[0]) / thick
    least, greatest = reshape.STRETCH
    assert 1 / greatest - 0.05 < factor < 1 / least + 0.05
    assert (factor > 1.2) if source > surrogate else (factor < 0.8)


@pytest.mark.parametrize("factor", [0.7, 0.95, 1.05, 1.4])
def test_the_jaw_is_drawn_to_the_sources_a_little_and_the_forehead_not(factor):
    own = head(1.4)
    goal = Silhouette(FACE * factor, np.maximum(head(1.4).head, FACE * factor))
    chin, radii = RAYS // 2, np.linspace(0.05, 0.6, 2000)
    landed = np.interp(FACE[chin], moved(chin, radii, goal, own), radii) / FACE[chin]
    assert landed == pytest.approx(np.clip(factor, *reshape.JAW), abs=0.01)
    top = np.interp(FACE[0], moved(0, radii, goal, own), radii) / FACE[0]
    assert top == pytest.approx(1, abs=0.01)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(1.0, 2.5), min_size=6, max_size=6),
    st.lists(st.floats(1.0, 2.5), min_size=6, max_size=6),
    st.floats(0.7, 1.4),
    st.integers(0, RAYS - 1),
)
def test_the_order_along_every_ray_stays(source, surrogate, size, ray):
    def drawn(knots: list[float], face: np.ndarray) -> Silhouette:
        at = np.arange(6) * np.pi / 3
        return Silhouette(face, face * np.interp(angles(), at, knots, period=2 * np.pi))

    radii = np.linspace(0, 1, 400)
    found = moved(ray, radii, drawn(source, FACE * size), drawn(surrogate, FACE))
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    assert np.abs(np.diff(found)).max() < 5 * (radii[1] - radii[0]), "it tears"


def test_far_outside_only_moves_along():
    goal, own = head(1.8), head(1.3)
    found = moved(0, np.array([2.0, 3.0]), goal, own)
    assert found[1] - found[0] == pytest.approx(1.0, abs=1e-6)
