import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from deid.errors import ModelError
from deid.gallery import mixtures, people, store
from deid.gallery.people import Person
from deid.surrogates.shapefree import Frame

SIDE = 128


@pytest.fixture(scope="module")
def meshes() -> np.ndarray:
    return store.load(None).meshes[:30]


@pytest.fixture(scope="module")
def frame(meshes: np.ndarray) -> Frame:
    return Frame.fit(meshes)


def drawn(skin: float, radius: float, hair: float = 40.0) -> np.ndarray:
    """A head in the frame: an oval of skin with hair around it, as far as `radius` (sides) from its middle."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    inside = np.hypot(x / 0.17, (y - 0.04) / 0.22) < 1
    head = np.hypot(x, y) < radius
    grey = np.where(inside, skin, hair)
    return np.dstack([grey, grey * 0.8, grey * 0.7, head]).astype(np.float32)


def person(mesh: np.ndarray, number: int, male: bool, skin: float, radius: float) -> Person:
    texture = drawn(skin, radius)
    vector = np.random.default_rng(number).normal(size=(2, 8)).astype(np.float32)
    pair = np.stack([mesh, mesh]) * 100
    return Person(f"{number:03d}", male, 30.0, "", pair, vector, np.stack([texture, texture]))


@pytest.fixture(scope="module")
def given(meshes: np.ndarray) -> list[Person]:
    """Twelve men and twelve women, one half of each light and the other dark."""
    rows = [(n < 12, 230.0 if n % 2 else 40.0, 0.3 + 0.02 * (n % 3)) for n in range(24)]
    return [person(meshes[n], n, *row) for n, row in enumerate(rows)]


@pytest.fixture(scope="module")
def drawn_sets(frame: Frame, given: Sequence[Person]) -> list[tuple[int, ...]]:
    apart = mixtures.Looks.of(frame, given).apart()
    male = np.array([one.male for one in given])
    return mixtures.draw(apart, male, 20, np.random.default_rng(1))


def test_a_mixture_is_of_at_least_three_people_of_one_sex_who_look_alike(
    given: Sequence[Person], drawn_sets: list[tuple[int, ...]]
) -> None:
    assert len(drawn_sets) > 12
    for members in drawn_sets:
        assert len(set(members)) == len(members) >= mixtures.LEAST
        assert len({given[n].male for n in members}) == 1
        assert len({n % 2 for n in members}) == 1  # of one skin


def test_mixtures_differ_and_nobody_dominates(drawn_sets: list[tuple[int, ...]]) -> None:
    for n, one in enumerate(drawn_sets):
        for other in drawn_sets[:n]:
            assert len(set(one) & set(other)) <= mixtures.SHARED * max(len(one), len(other))
    assert np.bincount(np.concatenate(drawn_sets)).max() <= 14


def test_too_few_people_give_no_mixture(frame: Frame, given: Sequence[Person]) -> None:
    two = [given[0], given[2]]
    apart = mixtures.Looks.of(frame, two).apart()
    assert mixtures.draw(apart, np.array([True, True]), 5, np.random.default_rng(1)) == []


def test_heads_are_brought_to_one_outline_before_they_are_averaged(frame: Frame, meshes: np.ndarray) -> None:
    mixed = [person(meshes[n], n, True, 200.0, radius) for n, radius in enumerate((0.3, 0.34, 0.38))]
    heads = np.array([[people.head_outline(frame, one[..., 3]) for one in each.textures] for each in mixed])
    result = mixtures.mixed(frame, mixed, heads)
    plain = people.average([each.textures[0] for each in mixed])
    assert result.shape == (2, SIDE, SIDE, 4)
    assert mixtures.ghosts(result[0]) < 0.5 * mixtures.ghosts(plain)
    top = people.head_outline(frame, result[0][..., 3])[0]
    assert top == pytest.approx(0.34, abs=0.01)


def test_nobody_weighs_more_than_another(frame: Frame) -> None:
    textures = [drawn(skin, 0.35) for skin in (90.0, 120.0, 210.0)]
    assert people.average(textures)[70, 64, 0] == pytest.approx(140, abs=0.5)


def test_detail_that_averaging_took_is_given_back() -> None:
    rng = np.random.default_rng(5)
    members = [drawn(150.0, 0.4) for _ in range(4)]
    shared = rng.normal(size=(SIDE, SIDE, 1)) * 6
    for one in members:
        one[..., :3] += shared + rng.normal(size=(SIDE, SIDE, 1)) * 6
    average = people.average(members)

    def detail(layers: np.ndarray) -> float:
        part = layers[50:80, 50:78, 0]
        return float((part - cv2.GaussianBlur(part, (0, 0), 2)).std())

    assert detail(average) < 0.85 * detail(members[0])
    assert detail(mixtures.crisp(average, members)) == pytest.approx(detail(members[0]), rel=0.15)


def test_the_person_is_cut_from_a_plain_background(meshes: np.ndarray) -> None:
    side = 320
    y, x = np.mgrid[:side, :side]
    picture = np.dstack([200 - 0.1 * np.abs(x - 160)] * 3)
    mesh = meshes[0] * (side * 0.6) + np.array([64, 60, 0], np.float32)
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    middle, half = (low + high) / 2, (high - low) / 2
    head = np.hypot((x - middle[0]) / (1.25 * half[0]), (y - middle[1]) / (1.2 * half[1])) < 1
    body = (np.abs(x - middle[0]) < 90) & (y > high[1])
    picture[head | body] = (150, 100, 80)
    picture += np.random.default_rng(2).normal(size=picture.shape) * 2
    found = people.cut_out(picture.clip(0, 255).astype(np.uint8), mesh.astype(np.float32))
    assert (found[head] > 0.5).mean() > 0.98
    assert (found[~(head | body)] > 0.5).mean() < 0.02


def test_teeth_are_those_of_at_least_three_people(frame: Frame, given: Sequence[Person]) -> None:
    openings = np.zeros(len(given))
    openings[:2] = 0.08
    with pytest.raises(ModelError, match="2 people show teeth"):
        mixtures.mouth(frame, given, openings)
    openings[2] = 0.08
    mouth = mixtures.mouth(frame, given, openings)
    where = mouth[..., 3] > 0.9
    assert where.any()
    assert where.mean() < 0.02
    assert (mouth[mouth[..., 3] == 0] == 0).all()


def test_a_mixture_too_near_to_a_photograph_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's own rule, on made embeddings."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "jobs"))
    import build_mixtures

    apart = build_mixtures.strangers_apart(
        [person(np.zeros((468, 3)), n, n % 2 == 0, 100.0, 0.3) for n in range(6)]
    )
    assert len(apart) == 6 * 5 / 2 * 4
    one_sex = build_mixtures.strangers_apart(
        [person(np.zeros((468, 3)), n, n % 2 == 0, 100.0, 0.3) for n in range(6)], one_sex=True
    )
    assert len(one_sex) == 2 * 3 * 4
    assert "build_mixtures" in sys.modules
