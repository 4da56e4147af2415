"""k-Same over people: whatever the cells hold, each surrogate has k people behind it or the run refuses."""

import copy
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deid import config
from deid.errors import PromiseError
from deid.interfaces import Gallery
from deid.privacy import assign, tally
from deid.privacy.assign import Key
from deid.privacy.tally import Cell, Tally

DIM, SECRET = 8, b"s" * 32
People = dict[Key, list[int]]  # numbers of the people whose faces lie in a cell, one a face


def gallery(size: int) -> Gallery:
    rng = np.random.default_rng(size)
    vectors = rng.normal(size=(size, DIM)).astype(np.float32)
    attributes = {"sex": (np.arange(size) % 2).astype(np.float32), "age": rng.uniform(20, 60, size)}
    return Gallery(
        np.zeros((size, 4), np.float32), vectors, np.zeros((size, 468, 3), np.float32), dict(attributes)
    )


def face_of(person: int) -> NDArray[np.float32]:
    """People lie on axes of their own, far apart."""
    return (np.random.default_rng(person).normal(size=DIM) * 5).astype(np.float32)


def cells(people: People, entries: Gallery, options: config.Assignment) -> dict[Key, Cell]:
    return {key: cell(numbers, entries, options) for key, numbers in people.items()}


def cell(numbers: list[int], entries: Gallery, options: config.Assignment) -> Cell:
    how = assign.witnessing(options)
    vectors = np.array([face_of(number) for number in numbers], np.float32).reshape(-1, DIM)
    count = len(numbers)
    return Cell(
        Tally().add(np.array(numbers, np.int64)),
        tally.packed(vectors, how.apart, how.most),
        tally.least(vectors, entries.embeddings),
        count,
        np.zeros(17),
        np.zeros(17, np.int64),
        np.array([0.0, count]),
        np.array([30.0 * count, count]),
    )


keys = st.builds(Key, st.integers(0, 9), st.integers(-1, 1), st.integers(-1, 4))
corpora = st.dictionaries(keys, st.lists(st.integers(0, 60), min_size=1, max_size=40), max_size=12)


def one_cell_each(people: People) -> People:
    """Each person in one cell alone, as the gather makes sure."""
    seen: set[int] = set()
    kept = {}
    for key, numbers in people.items():
        own = [number for number in numbers if number not in seen]
        seen |= set(own)
        if own:
            kept[key] = own
    return kept


@settings(deadline=None, max_examples=200)
@given(corpora, st.integers(2, 50), st.integers(0, 3))
def test_every_surrogate_has_k_people_or_the_run_refuses(people: People, k: int, spare: int) -> None:
    people = one_cell_each(people)
    entries = gallery(max(10, k + spare))
    options, matching = config.Assignment(k=k), config.Match(k=k, margin=0.0)
    everyone = {number for numbers in people.values() for number in numbers}
    found = cells(people, entries, options)
    if people and len(everyone) < k:
        with pytest.raises(PromiseError, match=f"^assignment.k: {len(everyone)} distinct people"):
            assign.assign(found, entries, options, matching, SECRET)
        return
    made = assign.assign(found, entries, options, matching, SECRET)
    assert sorted(key for surrogate in made for key in surrogate.keys) == sorted(people)
    for surrogate in made:
        behind = {number for key in surrogate.keys for number in people[key]}
        assert len(behind) == surrogate.people >= k
        assert len(set(surrogate.identities)) == len(surrogate.identities) == k  # equal weights: each once
        assert max(surrogate.identities) < len(entries)
    again = assign.assign(found, entries, options, matching, SECRET)
    assert repr(made) == repr(again), "same secret, same plan"


def test_another_secret_gives_another_plan() -> None:
    entries, options = gallery(40), config.Assignment(k=2)
    people = {Key(n, 1, 1): [2 * n, 2 * n + 1] for n in range(9)}
    found = cells(people, entries, options)
    plans = [
        assign.assign(found, entries, options, config.Match(margin=0), secret)
        for secret in (SECRET, b"t" * 32)
    ]
    drawn = [{frozenset(s.keys): s.identities for s in plan} for plan in plans]
    assert drawn[0].keys() == drawn[1].keys()
    assert drawn[0] != drawn[1]
    assert [s.keys for s in plans[0]] != [s.keys for s in plans[1]], "their order says nothing"


@pytest.mark.parametrize("copies", [1, 5, 500])
def test_pictures_of_one_person_are_one_person(copies: int) -> None:
    """Also where clustering took each of them for a person of its own."""
    entries, options = gallery(20), config.Assignment(k=5)
    split = cell([7] * copies, entries, options)
    split.people = Tally().add(np.arange(copies))
    with pytest.raises(PromiseError, match=r"^assignment\.k: 1 distinct people"):
        assign.assign({Key(0, 1, 1): split}, entries, options, config.Match(), SECRET)


def test_by_subject_people_need_not_look_apart() -> None:
    entries, options = gallery(20), config.Assignment(k=3, subject="name")
    twins = cell([7, 7, 7], entries, options)
    twins.people = Tally().add(np.arange(3))
    assert [
        s.people for s in assign.assign({Key(0, 1, 1): twins}, entries, options, config.Match(), SECRET)
    ] == [3]


def crossing(made: list[assign.Surrogate]) -> Mapping[tuple[Key, ...], int]:
    return {surrogate.keys: surrogate.across for surrogate in made}


def test_small_cells_go_to_their_own_kind_first() -> None:
    entries, options = gallery(20), config.Assignment(k=2)
    people = {
        Key(0, 1, 1): [1],
        Key(1, 1, 1): [2],
        Key(0, 0, 1): [3, 4],
        Key(0, 1, 3): [5, 6],
    }
    made = assign.assign(cells(people, entries, options), entries, options, config.Match(margin=0), SECRET)
    assert crossing(made) == {
        (Key(0, 1, 1), Key(1, 1, 1)): 0,
        (Key(0, 0, 1),): 0,
        (Key(0, 1, 3),): 0,
    }


def test_who_has_none_of_his_kind_goes_to_his_sex_and_is_counted() -> None:
    entries, options = gallery(20), config.Assignment(k=2)
    people = {Key(0, 1, 0): [1], Key(3, 1, 4): [5, 6], Key(0, 0, 0): [3, 4]}
    made = assign.assign(cells(people, entries, options), entries, options, config.Match(margin=0), SECRET)
    assert crossing(made) == {(Key(0, 1, 0), Key(3, 1, 4)): 1, (Key(0, 0, 0),): 0}


def test_the_cells_given_stay_as_they_are() -> None:
    entries, options = gallery(20), config.Assignment(k=2)
    found = cells({Key(0, 1, 0): [1], Key(1, 1, 0): [2]}, entries, options)
    before = copy.deepcopy(found)
    assign.assign(found, entries, options, config.Match(margin=0), SECRET)
    assert all(found[key].people.count == before[key].people.count for key in found)
    assert all(np.array_equal(found[key].nearest, before[key].nearest) for key in found)


def test_identities_lie_beyond_the_margin_from_every_member() -> None:
    entries, options = gallery(60), config.Assignment(k=3)
    found = cells({Key(0, 1, 1): [1, 2, 3, 4]}, entries, options)
    nearest = found[Key(0, 1, 1)].nearest
    limit = float(np.quantile(nearest, 0.5))
    matching = config.Match(k=3, margin=limit, alike=0, age_band=100)
    for number in range(20):
        (made,) = assign.assign(found, entries, options, matching, bytes([number]) * 32)
        assert nearest[list(made.identities)].min() >= min(limit, made.draws[0].margin) > 0


def test_the_margin_gives_way_to_its_floor_and_no_further() -> None:
    entries = gallery(60)
    rng = np.random.default_rng(0)
    near = np.full(60, 0.7)
    identities, margin = assign.draw(near, entries, config.Match(), 0.6, rng, 1, 30.0, None)
    assert len(identities) == 5
    assert margin == pytest.approx(0.7)
    nearer = np.full(60, 0.59)
    assert assign.draw(nearer, entries, config.Match(), 0.6, rng, 1, 30.0, None)[0] == ()


def test_classes() -> None:
    bands = (18, 30, 45, 60)
    assert assign.key(4, 0.9, 17.9, bands) == Key(4, 1, 0)
    assert assign.key(4, 0.1, 60, bands) == Key(4, 0, 4)
    assert assign.key(4, float("nan"), float("nan"), bands) == Key(4, -1, -1)


def test_a_subject_that_no_sample_names_is_a_wrong_setting() -> None:
    entries, options = gallery(20), config.Assignment(k=2, subject="name")
    nameless = cell([1, 2, 3], entries, options)
    nameless.people = Tally()
    with pytest.raises(PromiseError, match=r"^assignment\.subject: no sample"):
        assign.assign({Key(0, 1, 1): nameless}, entries, options, config.Match(), SECRET)
