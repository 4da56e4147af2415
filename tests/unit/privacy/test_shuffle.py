"""Rows of many units, by batches, to ranges of a random key and back."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deid.privacy import shuffle
from tests.unit.privacy.released import Scratch


@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 20))
def test_batches_hold_every_unit_once_and_no_more_rows_than_asked(rows: list[int], most: int) -> None:
    units = [100 + n for n in range(len(rows))]
    made = [list(batch) for batch in shuffle.batches(units, rows, most)]
    assert [unit for batch in made for unit in batch] == units
    sizes = [[rows[unit - 100] for unit in batch] for batch in made]
    assert all(len([n for n in of if n]) == 1 or sum(of) <= most for of in sizes)
    pairs = itertools.pairwise(sizes)
    assert all(sum(of) + after[0] > most for of, after in pairs), "none is smaller than it must be"


@pytest.mark.parametrize(("rows", "number"), [(0, 1), (1, 1), (10, 1), (11, 2), (95, 10)])
def test_ranges(rows: int, number: int) -> None:
    assert shuffle.ranges(rows, 10) == number


def test_rows_meet_by_their_keys_and_are_gone_when_cleared() -> None:
    scratch, rng = Scratch(), np.random.default_rng(0)
    keys = rng.integers(0, 1 << shuffle.BITS, 2000)
    for batch in range(4):
        part = keys[500 * batch : 500 * batch + 500]
        assert shuffle.write(scratch, "x/y", batch, part, pa.table({"key": part}), 3) == 500
    scratch.put("x/other", b"")
    read = [[n for table in shuffle.read(scratch, "x/y", number) for n in table["key"].to_pylist()]
            for number in range(3)]  # fmt: skip
    assert sorted(read[0] + read[1] + read[2]) == sorted(keys.tolist())
    assert max(read[0]) < min(read[1]) <= max(read[1]) < min(read[2])
    assert min(map(len, read)) > 500
    for number in range(3):
        shuffle.clear((scratch, "x/y", number))
    assert scratch.names() == ["x/other"]


def test_a_repeated_task_writes_the_same_again() -> None:
    """No row twice, as when a task has written and is lost before it says so."""
    scratch, keys = Scratch(), np.array([1, 2], np.int64)
    for _ in range(2):
        shuffle.write(scratch, "x", 7, keys, pa.table({"key": keys}), 1)
    assert [table["key"].to_pylist() for table in shuffle.read(scratch, "x", 0)] == [[1, 2]]


def test_the_ends_of_the_keys_have_a_range() -> None:
    scratch, keys = Scratch(), np.array([0, (1 << shuffle.BITS) - 1], np.int64)
    shuffle.write(scratch, "x", 0, keys, pa.table({"key": keys}), 1000)
    assert scratch.names() == ["x/0/0", "x/999/0"]
