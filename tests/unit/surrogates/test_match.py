import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deid import config
from deid.errors import ConfigError, FaceError
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
