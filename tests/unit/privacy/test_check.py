"""The independent count of people behind each surrogate, against what was really put in."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deid.privacy import check
from tests.unit.privacy.released import Scratch

DIM = 6
Row = tuple[int, int, int, str]  # person, picture of his, surrogate, status


def face_of(person: int, picture: int) -> np.ndarray:
    """People are at least 1 apart, pictures of one of them at most .3."""
    centre = np.zeros(DIM)
    centre[person % DIM] = 1 + person // DIM
    jitter = np.random.default_rng([person, picture]).normal(size=DIM)
    return (centre + 0.15 * jitter / np.linalg.norm(jitter)).astype(np.float32)


def unit(
    rows: list[Row], counts: bool = True, subjects: bool = False, persons: int | None = None
) -> check.Unit:
    numbers = pa.array(range(len(rows)), pa.int32())
    vectors = np.array([face_of(person, picture) for person, picture, _, _ in rows], np.float16)
    worn = pa.table(
        {
            "position": numbers,
            "number": pa.array([0] * len(rows), pa.int32()),
            "surrogate_id": pa.array([surrogate for _, _, surrogate, _ in rows], pa.int64()),
            "status": pa.array([status for *_, status in rows], pa.string()),
        }
    )
    seen = pa.table(
        {
            "position": numbers,
            "number": pa.array([0] * len(rows), pa.int32()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
            "counts": pa.array([counts] * len(rows), pa.bool_()),
            "person": pa.array([person if persons is None else persons for person, *_ in rows], pa.int64()),
            "subject": pa.array([str(p).encode() if subjects else b"" for p, *_ in rows], pa.binary()),
        }
    )
    return worn, seen


def counted(*units: check.Unit, k: int = 2, by_subject: bool = False) -> check.Count:
    scratch = Scratch()
    faces = [len(worn) for worn, _ in units]
    found = check.count(scratch, units.__getitem__, range(len(units)), faces, k, 0.6, by_subject)
    assert not scratch, "nothing is left in the scratch store"
    return found


rows = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(0, 5), st.integers(0, 4), st.sampled_from(["replaced", "covered"])
    ),
    min_size=1,
    max_size=80,
)


@settings(deadline=None)
@given(rows, st.integers(1, 4))
def test_it_counts_the_people_whose_faces_were_replaced(given: list[Row], units: int) -> None:
    expected: dict[int, set[int]] = {}
    for person, _, surrogate, status in given:
        if status == "replaced":
            expected.setdefault(surrogate, set()).add(person)
    parts = [given[n::units] for n in range(units)]
    found = counted(*(unit(part) for part in parts), k=7)
    assert found.people == {surrogate: len(people) for surrogate, people in expected.items()}
    assert found.short == {surrogate for surrogate, people in expected.items() if len(people) < 7}
    named = counted(*(unit(part, subjects=True) for part in parts), by_subject=True)
    assert named.people == found.people


def test_many_pictures_of_one_person_are_one() -> None:
    found = counted(unit([(3, picture, 0, "replaced") for picture in range(200)]))
    assert found.people == {0: 1}
    assert found.short == {0}


def test_faces_that_cannot_be_told_apart_count_for_nobody() -> None:
    found = counted(unit([(person, 0, 0, "replaced") for person in range(5)], counts=False))
    assert found.people == {0: 0}


def test_a_face_that_was_covered_in_the_end_is_not_behind_the_surrogate() -> None:
    found = counted(unit([(0, 0, 9, "replaced"), (1, 0, 9, "covered")]))
    assert found.people == {9: 1}


@pytest.mark.parametrize("by_subject", [False, True])
def test_faces_are_gathered_in_batches_and_counted_in_ranges(
    monkeypatch: pytest.MonkeyPatch, by_subject: bool
) -> None:
    """Each unit is a batch, and the surrogates lie in several ranges; people show up in several units."""
    given = [(person, picture, person % 7 << 60, "replaced") for picture in (0, 1) for person in range(28)]
    units = [unit(given[start : start + 8], subjects=by_subject) for start in range(0, 56, 8)]
    whole = counted(*units, by_subject=by_subject, k=4)
    assert whole.people == {number << 60: 4 for number in range(7)}
    monkeypatch.setattr(check, "ROWS", 8)
    assert counted(*units, by_subject=by_subject, k=4) == whole


def test_a_run_that_is_lost_stops_the_count() -> None:
    class Losing(Scratch):
        def put(self, name: str, data: bytes, overwrite: bool = False) -> None:
            pass

    units = [unit([(0, 0, 1, "replaced")])]
    with pytest.raises(RuntimeError, match="read 0 lines of the 1"):
        check.count(Losing(), units.__getitem__, [0], [1], 2, 0.6, False)


def test_summary() -> None:
    assert check.Count(2, {5: 2, 6: 2, 7: 9}).summary() == {
        "k": 2,
        "surrogates": 3,
        "min": 2,
        "median": 2.0,
        "histogram": {"2": 2, "9": 1},
    }
    assert check.Count(2, {}).summary()["surrogates"] == 0


def test_packing_is_a_proof() -> None:
    """As many points as it says lie pairwise apart; a chain of close points proves fewer than its length."""
    chain = [np.array([0.3 * n, 0], np.float32) for n in range(10)]
    assert check.packing(chain, 0.6, 100) == 5
    assert check.packing(chain, 0.6, 3) == 3
    assert check.packing([], 0.6, 3) == 0


def test_no_more_than_there_are_pseudo_identities() -> None:
    """Pictures of one person that lie far apart, and were taken for one all the same."""
    assert counted(unit([(person, 0, 0, "replaced") for person in range(5)], persons=3)).people == {0: 1}
