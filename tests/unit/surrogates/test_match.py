import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deid import config
from deid.errors import ConfigError, FaceError
from deid.faces.appearance import LOOKS
from deid.interfaces import Gallery
from deid.surrogates import match

DIM = 8
VALUES = st.floats(-1, 1, width=32)
EMBEDDINGS = st.integers(1, 40).flatmap(lambda n: arrays.arrays(np.float32, (n, DIM), elements=VALUES))
PERSON = arrays.arrays(np.float32, DIM, elements=VALUES)


def gallery(embeddings, sex=None) -> Gallery:
    n = len(embeddings)
    attributes = {} if sex is None else {"sex": np.asarray(sex, np.float32)}
    return Gallery(
        np.zeros((n, 4), np.float32),
        np.asarray(embeddings, np.float32),
        np.zeros((n, 468, 3), np.float32),
        attributes,
    )


def expected(person, embeddings):
    return np.linalg.norm(embeddings.astype(float) - person.astype(float), axis=1)


@settings(deadline=None)
@given(EMBEDDINGS, PERSON, st.data())
def test_nearest_are_the_k_nearest_in_order(embeddings, person, data):
    k = data.draw(st.integers(1, len(embeddings)))
    found = match.nearest(person, gallery(embeddings), k)
    distance = expected(person, embeddings)
    assert found.shape == (k,)
    assert len(set(found.tolist())) == k
    assert np.allclose(distance[found], np.sort(distance)[:k])


def test_ties_go_by_gallery_order():
    embeddings = np.ones((20, DIM))
    assert match.nearest(np.zeros(DIM, np.float32), gallery(embeddings), 7).tolist() == list(range(7))


@settings(deadline=None)
@given(EMBEDDINGS, arrays.arrays(np.float32, (3, DIM), elements=VALUES))
def test_a_batch_gives_what_each_alone_gives(embeddings, people):
    entries = gallery(embeddings)
    k = min(3, len(embeddings))
    assert np.array_equal(
        match.nearest(people, entries, k), [match.nearest(person, entries, k) for person in people]
    )


@settings(deadline=None)
@given(
    EMBEDDINGS, PERSON, st.integers(1, 6), st.floats(0, 3), st.integers(0, 2**32), st.sampled_from([-1, 0, 1])
)
def test_distant_never_breaks_the_margin_nor_k(embeddings, person, k, margin, seed, sex):
    classes = np.arange(len(embeddings)) % 2
    beyond = match.distances(person, gallery(embeddings)) >= margin
    entries = gallery(embeddings, classes)
    if beyond.sum() < k:
        with pytest.raises(FaceError, match="match_failed"):
            match.distant(person, entries, k, margin, np.random.default_rng(seed), sex)
        return
    found = match.distant(person, entries, k, margin, np.random.default_rng(seed), sex)
    assert len(set(found.tolist())) == len(found) == k
    assert beyond[found].all()
    if sex != -1 and (beyond & (classes == sex)).sum() >= k:
        assert (classes[found] == sex).all()
    assert np.array_equal(found, match.distant(person, entries, k, margin, np.random.default_rng(seed), sex))


def test_too_few_of_the_sex_drops_the_sex_and_not_the_margin():
    embeddings = np.concatenate([np.zeros((10, DIM)), np.ones((4, DIM))])
    entries = gallery(embeddings, [0.9] * 12 + [0.1] * 2)
    found = match.distant(np.zeros(DIM, np.float32), entries, 3, 1.0, np.random.default_rng(0), 0)
    assert set(found.tolist()) <= {10, 11, 12, 13}
    assert len(found) == 3


def test_distant_draws_every_candidate_equally_often():
    entries = gallery(np.eye(DIM))
    counts = np.zeros(DIM)
    for seed in range(800):
        counts[match.distant(np.zeros(DIM, np.float32), entries, 2, 0.5, np.random.default_rng(seed))] += 1
    assert abs(counts - 200).max() < 60


def test_k_larger_than_the_gallery_stops_the_run():
    entries = gallery(np.eye(DIM))
    match.check(config.Match(k=DIM), entries)
    with pytest.raises(ConfigError, match=r"match\.k is 9, but the gallery holds 8"):
        match.check(config.Match(k=DIM + 1), entries)
    with pytest.raises(FaceError):
        match.nearest(np.zeros(DIM, np.float32), entries, DIM + 1)


@pytest.mark.parametrize(
    "person", [np.full(DIM, np.nan), np.full(DIM, np.inf), np.zeros(DIM + 1), np.zeros(0)]
)
def test_embeddings_that_cannot_be_used(person):
    entries = gallery(np.eye(DIM))
    with pytest.raises(FaceError):
        match.nearest(person.astype(np.float32), entries, 2)
    with pytest.raises(FaceError):
        match.distant(person.astype(np.float32), entries, 2, 0.1, np.random.default_rng(0))


def test_age_is_kept_where_it_can_be_and_gives_way_before_sex_and_margin():
    embeddings = np.concatenate([np.zeros((4, DIM)), np.ones((8, DIM))])
    entries = gallery(embeddings, [0.9] * 8 + [0.1] * 4)
    entries.attributes["age"] = np.array([30] * 4 + [30, 31, 60, 61, 30, 31, 60, 61], np.float32)
    person, rng = np.zeros(DIM, np.float32), np.random.default_rng(0)
    assert match.distant(person, entries, 2, 1.0, rng, 1, 32.0, 5.0).tolist() == [4, 5]
    assert set(match.distant(person, entries, 3, 1.0, rng, 1, 32.0, 5.0).tolist()) <= {4, 5, 6, 7}
    assert set(match.distant(person, entries, 4, 1.0, rng, match.UNKNOWN, 30.0, 1.0).tolist()) == {4, 5, 8, 9}
    assert len(match.distant(person, entries, 8, 1.0, rng, 1, 32.0, 5.0)) == 8


def test_alike_turned_are_the_nearest_shapes_of_those_allowed() -> None:
    face = np.array([[-1, 0], [1, 0], [0, 1], [-0.7, 2], [0.7, 2]], np.float32)
    noses = np.linspace(-0.9, 0.9, 10)
    others = np.repeat(face[None], 10, 0)
    others[:, 2, 0] = noses
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]], np.float32)
    face[2, 0] = 0.5
    among = np.ones(10, np.bool_)
    among[7] = False  # the nearest of all
    found = match.alike_turned(face @ turn * 30 + 7, others, among, 3)
    assert set(np.flatnonzero(found)) == {6, 8, 9} or set(np.flatnonzero(found)) == {6, 8, 5}
    assert match.alike_turned(face, others, among, 50).sum() == 9
    assert not match.alike_turned(face, others, among & False, 3).any()


def looking(embeddings, looks: dict[str, list[float]], sex=None) -> Gallery:
    entries = gallery(embeddings, sex)
    entries.attributes |= {name: np.asarray(values, np.float32) for name, values in looks.items()}
    return entries


def seen(**values: float) -> np.ndarray:
    return np.array([values.get(name, np.nan) for name in LOOKS], np.float32)


MAYBE = st.one_of(st.just(float("nan")), st.floats(-100, 100, width=32))


@settings(deadline=None)
@given(
    EMBEDDINGS,
    PERSON,
    st.integers(1, 6),
    st.floats(0, 3),
    st.integers(0, 12),
    st.sampled_from([-1, 0, 1]),
    arrays.arrays(np.float32, len(LOOKS), elements=MAYBE),
    st.data(),
)
def test_looks_never_break_the_margin_nor_k_nor_sex(
    embeddings, person, k, margin, alike, sex, looks, data
) -> None:
    n = len(embeddings)
    classes = np.arange(n) % 2
    columns = {
        name: data.draw(arrays.arrays(np.float32, n, elements=MAYBE)) for name in ("skin_l", "hair_l", "bald")
    }
    entries = looking(embeddings, columns | {"cut": np.linspace(0, 1, n)}, classes)
    beyond = match.distances(person, entries) >= margin

    def draw(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return match.distant(person, entries, k, margin, rng, sex, looks=looks, alike=alike)

    if beyond.sum() < k:
        with pytest.raises(FaceError, match="match_failed"):
            draw(0)
        return
    found = [draw(seed) for seed in range(4)]
    for each in found:
        assert len(set(each.tolist())) == len(each) == k
        assert beyond[each].all()
        if sex != -1 and (beyond & (classes == sex)).sum() >= k:
            assert (classes[each] == sex).all()
    assert np.array_equal(found[0], draw(0))
    if alike:
        assert len(set(np.concatenate(found).tolist())) <= max(alike, k)


def test_looks_narrow_the_pool_to_those_most_alike_beyond_the_margin() -> None:
    embeddings = np.concatenate([np.zeros((4, DIM)), np.ones((16, DIM))])
    entries = looking(embeddings, {"skin_l": [*[50.0] * 4, *range(40, 72, 2)]})
    drawn = [
        match.distant(
            np.zeros(DIM, np.float32),
            entries,
            3,
            1.0,
            np.random.default_rng(seed),
            looks=seen(skin_l=51),
            alike=6,
        )
        for seed in range(40)
    ]
    assert set(np.concatenate(drawn).tolist()) == {
        7,
        8,
        9,
        10,
        11,
        12,
    }  # of 46 to 56; the alike within the margin not
    assert len({tuple(each) for each in drawn}) > 8, "the draw is no longer random"


def test_without_looks_or_pool_the_draw_is_as_before() -> None:
    entries = looking(np.eye(DIM), {"skin_l": list(range(DIM))})
    person = np.zeros(DIM, np.float32)
    plain = match.distant(person, entries, 2, 0.5, np.random.default_rng(3))
    for looks, alike in ((None, 3), (seen(skin_l=2), 0), (seen(), DIM)):
        found = match.distant(person, entries, 2, 0.5, np.random.default_rng(3), looks=looks, alike=alike)
        assert np.array_equal(found, plain)


def test_a_pool_is_never_smaller_than_k() -> None:
    entries = looking(np.eye(DIM), {"skin_l": list(range(DIM))})
    found = match.distant(
        np.zeros(DIM, np.float32), entries, 5, 0.5, np.random.default_rng(0), looks=seen(skin_l=0), alike=1
    )
    assert found.tolist() == [0, 1, 2, 3, 4]


def test_what_has_no_value_does_not_count() -> None:
    entries = looking(np.eye(4, DIM), {"skin_l": [10, 20, np.nan, 40], "hair_l": [np.nan] * 3 + [50]})
    cost = match.unlikeness(seen(skin_l=20), entries)
    assert np.isfinite(cost).all()
    assert cost[1] == cost[2] == 0
    assert cost[3] > cost[0] > 0
    assert (match.unlikeness(seen(), entries) == 0).all()
    assert (match.unlikeness(seen(hair_l=50), entries) == 0).all()


@pytest.mark.filterwarnings("ignore:Degrees of freedom")
def test_a_gallery_without_looks_or_values_gives_no_preference() -> None:
    assert (match.unlikeness(seen(skin_l=20), gallery(np.eye(4))) == 0).all()
    bare = looking(np.eye(4), {"skin_l": [np.nan] * 4})
    assert (match.unlikeness(seen(skin_l=20), bare) == 0).all()


def test_a_head_cut_off_by_its_picture_is_less_alike() -> None:
    entries = looking(np.eye(3, DIM), {"skin_l": [20, 20, 30], "cut": [0.0, 0.8, 0.0]})
    cost = match.unlikeness(seen(skin_l=20), entries)
    assert cost[0] == 0 < cost[1]


def test_a_difference_counts_by_the_spread_of_the_gallery() -> None:
    narrow = looking(np.eye(4), {"skin_l": [49, 50, 50, 51]})
    wide = looking(np.eye(4), {"skin_l": [20, 50, 50, 80]})
    assert match.unlikeness(seen(skin_l=51), narrow)[1] > match.unlikeness(seen(skin_l=51), wide)[1]
