"""Counts that merge: exact and estimated tallies, witnesses, and classes gathered from blocks."""

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deid.privacy import people, tally
from deid.privacy.tally import EXACT, Cell, Settings, Tally, gather, packed
from tests.unit.privacy.test_people import CENTRES, DIM, Folder, nearest_cells, stored, table


def ids(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)


def test_a_tally_is_exact_up_to_its_size() -> None:
    found = Tally().add(np.arange(EXACT)).add(np.arange(EXACT))
    assert (found.exact, found.count, found.lower) == (True, EXACT, EXACT)
    found.add(np.array([-1]))
    assert not found.exact
    assert found.count == pytest.approx(EXACT + 1, rel=0.05)
    assert EXACT < found.lower <= EXACT * 1.05


@pytest.mark.parametrize("count", [1500, 20_000, 300_000])
def test_an_estimate_is_near_and_its_lower_bound_below(count: int) -> None:
    found = Tally().add(ids(0, count))
    assert found.count == pytest.approx(count, rel=0.06)
    assert 0.88 * count < found.lower < count


@pytest.mark.parametrize(
    "sizes", [(3, 5, 700), (900, 900, 3), (5000, 2, 1023), (2000, 3000, 4000), (0, 1500, 0)]
)
def test_tallies_merge_in_any_order(sizes: tuple[int, ...]) -> None:
    parts = [ids(seed, size) for seed, size in enumerate(sizes)]
    parts.append(np.concatenate(parts)[::3])  # seen twice
    at_once = Tally().add(np.concatenate(parts))
    for order in itertools.permutations(parts):
        left = Tally()
        for part in order:
            left.merge(Tally().add(part))
        right = Tally()
        for part in order:
            right = Tally().add(part).merge(right)
        mixed = Tally().add(order[0]).merge(Tally().add(order[1]).merge(Tally().add(order[2]).add(order[3])))
        for found in (left, right, mixed):
            assert (found.exact, found.count, found.lower) == (at_once.exact, at_once.count, at_once.lower)


@pytest.mark.parametrize("count", [0, 7, EXACT, EXACT + 1, 50_000])
def test_a_tally_survives_bytes_and_pickle(count: int) -> None:
    given = Tally().add(ids(1, count))
    for found in (Tally.from_bytes(given.to_bytes()), pickle.loads(pickle.dumps(given))):
        assert (found.count, found.lower) == (given.count, given.lower)
        more = [of.merge(Tally().add(ids(2, 3000))) for of in (found, Tally.from_bytes(given.to_bytes()))]
        assert more[0].count == more[1].count
    with pytest.raises(ValueError, match="no tally"):
        Tally.from_bytes(b"x")


def test_merging_leaves_the_other_as_it_is() -> None:
    other = Tally().add(ids(3, 5000))
    before = other.to_bytes()
    Tally().add(ids(4, 10)).merge(other).add(ids(5, 2000))
    assert other.to_bytes() == before


def test_witnesses_are_apart_and_as_many_as_asked_for() -> None:
    vectors = np.random.default_rng(0).normal(0, 0.2, (300, DIM)).astype(np.float32)
    found = packed(vectors, 0.6, 16)
    assert len(found) == 16
    apart = np.linalg.norm(found[:, None] - found, axis=2) + 9 * np.eye(len(found))
    assert apart.min() >= 0.6
    assert len(packed(vectors, 0.6, 1000)) > 16
    assert len(packed(vectors[:0], 0.6, 16)) == 0


def test_one_person_many_times_is_one_witness() -> None:
    vectors = np.random.default_rng(0).normal(0, 0.03, (500, DIM)).astype(np.float32)
    assert len(packed(vectors, 0.6, 16)) == 1


def named(folder: Path, *blocks: pa.Table) -> tuple[list[str], Folder]:
    names = [f"b{number}" for number in range(len(blocks))]
    scratch = stored(folder, dict(zip(names, blocks, strict=True)))
    people.find(names, scratch, CENTRES, people.Settings(0.4, bins=3))
    return names, scratch


def by_cell(cell: int, male: float, age: float) -> Any:
    return cell


def persons(count: int, faces: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [count * faces, DIM] around so many of the centres, and who each is."""
    rng = np.random.default_rng(seed)
    who = rng.permutation(np.repeat(np.arange(count), faces))
    return CENTRES[who] + rng.normal(0, 0.02, (len(who), DIM)), who


def test_classes_count_people_not_faces(tmp_path: Path) -> None:
    vectors, who = persons(12, 30)
    looks = np.full((len(vectors), 2), 2.0, np.float32)
    looks[::2, 1] = np.nan
    blocks = [
        table(v, looks=list(w))
        for v, w in zip(np.array_split(vectors, 5), np.array_split(looks, 5), strict=True)
    ]
    names, scratch = named(tmp_path, *blocks)
    found = gather(
        names, scratch, CENTRES, lambda cell, male, age: cell % 2, Settings(most=4, batch=2, rows=100)
    )
    assert set(found) == {0, 1}
    for parity, cell in found.items():
        mine = vectors[who % 2 == parity].astype(np.float16).astype(np.float32)
        assert cell.people.count == 6
        assert cell.faces == 180
        assert len(cell.witnesses) == 4
        expected = np.linalg.norm(mine[:, None] - CENTRES, axis=2).min(0)
        np.testing.assert_allclose(cell.nearest, expected, atol=1e-3)
        np.testing.assert_allclose(cell.male, [3, 6])
        np.testing.assert_allclose(cell.age, [180, 6])
    assert sum(cell.looks[0] for cell in found.values()) == pytest.approx(24)  # 12 people, each 2.0
    assert sum(cell.knows[1] for cell in found.values()) == pytest.approx(6)


def test_how_blocks_are_cut_changes_no_count(tmp_path: Path) -> None:
    vectors, _ = persons(20, 40, seed=1)
    answers = []
    for cuts in (1, 7):
        names, scratch = named(tmp_path / str(cuts), *map(table, np.array_split(vectors, cuts)))
        found = gather(names, scratch, CENTRES, by_cell, Settings(batch=3))
        answers.append({key: (cell.people.count, cell.faces) for key, cell in found.items()})
        assert set(found) == set(range(20))
    assert answers[0] == answers[1]


def test_a_face_that_does_not_count_is_no_person_and_no_witness(tmp_path: Path) -> None:
    vectors, who = persons(3, 10)
    names, scratch = named(tmp_path, table(vectors, counts=who == 1))
    found = gather(names, scratch, CENTRES, lambda *_: "all", Settings())["all"]
    assert (found.people.count, len(found.witnesses), found.faces) == (1, 1, 30)
    assert (found.nearest[:3] < 0.1).all()  # every face keeps its distance


def test_copies_of_one_person_are_no_k_people(tmp_path: Path) -> None:
    vectors = CENTRES[:1] + np.random.default_rng(0).normal(0, 0.02, (400, DIM))
    names, scratch = named(tmp_path, *map(table, np.array_split(vectors, 4)))
    found = gather(names, scratch, CENTRES, by_cell, Settings())
    assert {key: (cell.people.count, len(cell.witnesses)) for key, cell in found.items()} == {0: (1, 1)}


def test_with_subjects_only_they_count(tmp_path: Path) -> None:
    vectors, who = persons(4, 10)
    names_of = [b"a" * 16, b"b" * 16, b"", b"c" * 16]
    names, scratch = named(tmp_path, table(vectors, subject=[names_of[n] for n in who]))
    found = gather(names, scratch, CENTRES, lambda *_: 0, Settings(subjects=True))[0]
    assert (found.people.count, len(found.witnesses), found.faces) == (3, 0, 40)


def test_no_blocks_and_faces_without_an_embedding(tmp_path: Path) -> None:
    assert gather([], Folder(tmp_path), CENTRES, by_cell, Settings()) == {}
    names, scratch = named(tmp_path, table(np.full((2, DIM), np.nan)), table(np.zeros((0, DIM))))
    found = gather(names, scratch, CENTRES, by_cell, Settings())
    assert set(found) == {-1}
    assert (found[-1].people.count, found[-1].faces, len(found[-1].witnesses)) == (0, 2, 0)
    assert np.isinf(found[-1].nearest).all()


def test_a_key_of_none_leaves_a_face_out(tmp_path: Path) -> None:
    vectors, _ = persons(2, 5)
    names, scratch = named(tmp_path, table(vectors))
    found = gather(names, scratch, CENTRES, lambda cell, *_: cell or None, Settings())
    assert set(found) == {1}


def part(seed: int) -> Cell:
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, 9, (4, 2)).astype(float)
    vectors = rng.normal(0, 0.2, (3, DIM)).astype(np.float32)
    return Cell(
        Tally().add(rng.integers(0, 50, 20)), packed(vectors, 0.6, 9), rng.random(5).astype(np.float32), 3,
        whole[0], whole[1].astype(int), whole[2], whole[3],
    )  # fmt: skip


def test_classes_merge_alike_in_any_order() -> None:
    def figures(cell: Cell) -> list[Any]:
        sums = (cell.looks, cell.knows, cell.male, cell.age, cell.nearest)
        return [cell.people.to_bytes(), cell.faces, *(of.tobytes() for of in sums)]

    expected = figures(part(0).merge(part(1).merge(part(2), 0.6, 9), 0.6, 9))
    for a, b, c in itertools.permutations(range(3)):
        found = part(a).merge(part(b), 0.6, 9).merge(part(c), 0.6, 9)
        assert figures(found) == expected
        apart = np.linalg.norm(found.witnesses[:, None] - found.witnesses, axis=2)
        assert (apart + 9 * np.eye(len(apart))).min() >= 0.6


def test_least_distance_to_gallery() -> None:
    vectors = np.random.default_rng(1).normal(0, 0.2, (3000, DIM)).astype(np.float32)
    expected = np.sqrt(((vectors[:, None] - CENTRES) ** 2).sum(2)).min(0)
    np.testing.assert_allclose(tally.least(vectors, CENTRES), expected, atol=1e-4)
    assert (nearest_cells(CENTRES) == np.arange(len(CENTRES))).all()
