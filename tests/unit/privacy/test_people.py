"""People told apart by their faces: repeated, chained, jittered, named by a subject, without an embedding."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deid.privacy import clusters, people
from deid.privacy.people import Settings, find

SAME = 0.4
DIM, LOOKS = 16, 2
CENTRES = np.random.default_rng(7).normal(0, 0.2, (60, DIM)).astype(np.float32)


class Folder:
    """Scratch store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, data: bytes, overwrite: bool = False) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb" if overwrite else "xb") as file:
            file.write(data)

    def get(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def names(self, prefix: str) -> list[str]:
        found = (str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())
        return sorted(name for name in found if name.startswith(prefix))


def nearest_cells(vectors: np.ndarray) -> np.ndarray:
    return ((vectors[:, None] - CENTRES) ** 2).sum(2).argmin(1).astype(np.int32)


def table(vectors: np.ndarray, **given: Any) -> pa.Table:
    """A block with a row a vector; NaN vectors have no cell."""
    n = len(vectors)
    known = np.isfinite(vectors).all(1) & (vectors.shape[1] == DIM)
    cells = np.where(known, nearest_cells(np.nan_to_num(vectors[:, :DIM])), -1)
    columns: dict[str, Any] = {
        "unit": np.zeros(n, np.int32),
        "position": np.arange(n, dtype=np.int32),
        "number": np.zeros(n, np.int32),
        "cell": cells.astype(np.int32),
        "embedding": list(vectors.astype(np.float16)),
        "male": np.full(n, 0.5, np.float32),
        "age": np.full(n, 30, np.float32),
        "counts": np.ones(n, np.bool_),
        "subject": [b""] * n,
        "looks": list(np.zeros((n, LOOKS), np.float32)),
    }
    return pa.table(columns | given, people.schema(vectors.shape[1], LOOKS))


def stored(folder: Path, blocks: dict[str, pa.Table]) -> Folder:
    scratch = Folder(folder)
    for name, block in blocks.items():
        buffer = io.BytesIO()
        pq.write_table(block, buffer)
        scratch.put(name, buffer.getvalue())
    return scratch


def answered(scratch: Folder, names: Sequence[str]) -> pa.Table:
    return pa.concat_tables([pq.read_table(io.BytesIO(scratch.get(f"person/{name}"))) for name in names])


def told(folder: Path, *blocks: pa.Table, **settings: Any) -> tuple[np.ndarray, people.People, pa.Table]:
    """Person of each row, in order; the summary; the whole answer."""
    names = [f"faces/{number:03d}" for number in range(len(blocks))]
    scratch = stored(folder, dict(zip(names, blocks, strict=True)))
    found = find(names, scratch, CENTRES, Settings(SAME, **{"bins": 5, "batch": 2, **settings}))
    answer = answered(scratch, names)
    return answer["person"].to_numpy(), found, answer


def crowd(rng: np.random.Generator, persons: int, faces: int, noise: float = 0.03) -> tuple[Any, Any]:
    """Vectors [persons * faces, DIM] in random order, people at least 3 * SAME apart, and who each is."""
    centres: list[np.ndarray] = []
    while len(centres) < persons:
        drawn = rng.normal(0, 0.5, DIM)
        if all(np.linalg.norm(drawn - other) > 3 * SAME for other in centres):
            centres.append(drawn)
    who = rng.permutation(np.repeat(np.arange(persons), faces))
    return np.array(centres)[who] + rng.normal(0, noise, (len(who), DIM)), who


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = len(set(zip(first.tolist(), second.tolist(), strict=True)))
    return pairs == len(set(first.tolist())) == len(set(second.tolist()))


def test_repeated_people_in_many_pictures_get_one_number_each(tmp_path: Path) -> None:
    vectors, who = crowd(np.random.default_rng(0), 40, 25)
    blocks = [table(part) for part in np.array_split(vectors, 7)]
    person, found, answer = told(tmp_path, *blocks)
    assert same_partition(person, who)
    assert sorted(set(person)) == list(range(40))
    assert (found.persons, found.faces, found.without, found.largest) == (40, 1000, 0, 25)
    means = np.array([vectors[person == number].mean(0) for number in range(40)])
    assert (answer["cell"].to_numpy() == nearest_cells(means)[person]).all()


def test_small_tasks_give_the_same_people(tmp_path: Path) -> None:
    vectors, who = crowd(np.random.default_rng(1), 20, 20)
    blocks = [table(part) for part in np.array_split(vectors, 9)]
    person, _, _ = told(tmp_path, *blocks, rows=50, bins=3, batch=4)
    assert same_partition(person, who)


def test_crowds_that_are_halved_give_the_same_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CROWD", 16)
    vectors, who = crowd(np.random.default_rng(2), 6, 100)
    person, found, _ = told(tmp_path, table(vectors), bins=1)
    assert same_partition(person, who)
    assert found.groups > 6


def test_the_order_in_which_blocks_are_named_does_not_matter(tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).normal(0, 0.12, (600, DIM))  # with no gaps between people
    blocks = {f"faces/{n}": table(part) for n, part in enumerate(np.array_split(vectors, 6))}
    answers = []
    for place, order in enumerate([list(blocks), list(blocks)[::-1]]):
        scratch = stored(tmp_path / str(place), blocks)
        find(order, scratch, CENTRES, Settings(SAME, bins=4, batch=2, rows=150))
        answers.append(answered(scratch, list(blocks)))
    assert answers[0].equals(answers[1])
    assert 1 < len(set(answers[0]["person"].to_pylist())) < 600


def test_another_way_to_run_gives_the_same_answer(tmp_path: Path) -> None:
    def pickled(function: Any, jobs: Any) -> Any:
        import pickle

        return [pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(job))))) for job in jobs]

    vectors = np.random.default_rng(4).normal(0, 0.12, (300, DIM))
    scratch = stored(tmp_path, {"a": table(vectors)})
    find(["a"], scratch, CENTRES, Settings(SAME))
    first = answered(scratch, ["a"])
    find(["a"], scratch, CENTRES, Settings(SAME), pickled)
    assert answered(scratch, ["a"]).equals(first)


def test_a_morph_between_two_people_does_not_make_them_one(tmp_path: Path) -> None:
    ends = np.zeros((2, DIM))
    ends[1, 0] = 2.0
    path = np.linspace(ends[0], ends[1], 60)  # steps of .034, far below `same`
    vectors = np.concatenate([np.repeat(ends, 30, 0), path])
    person, _, _ = told(tmp_path, table(vectors))
    assert len(set(person[:30])) == len(set(person[30:60])) == 1
    assert person[0] != person[30]
    for number in set(person):  # nobody's faces reach farther than two radii
        spread = vectors[person == number]
        assert np.linalg.norm(spread - spread.mean(0), axis=1).max() < 2 * SAME


@pytest.mark.parametrize("jitter", [0.0, 1e-4, 0.01, 0.05])
def test_copies_of_one_person_are_one(tmp_path: Path, jitter: float) -> None:
    rng = np.random.default_rng(5)
    vectors = CENTRES[:4].mean(0) + rng.normal(0, jitter, (3000, DIM)) if jitter else np.zeros((3000, DIM))
    person, found, _ = told(tmp_path, table(vectors))
    assert found.persons == 1
    assert set(person) == {0}


def test_many_people_do_not_fall_into_one_in_the_middle_of_all(tmp_path: Path) -> None:
    # Half of them lie within `same` of the middle, but hardly any two within `same` of each other.
    vectors = np.random.default_rng(8).normal(0, SAME / np.sqrt(60), (1500, 60))
    cells = np.zeros(len(vectors), np.int32)
    names = ["a"]
    scratch = stored(tmp_path, {"a": table(vectors, cell=cells)})
    find(names, scratch, np.zeros((1, 60), np.float32), Settings(SAME))
    person = answered(scratch, names)["person"].to_numpy()
    assert (np.linalg.norm(vectors, axis=1) < SAME).mean() > 0.4
    assert np.bincount(person).max() <= 5


def test_no_blocks_and_empty_blocks(tmp_path: Path) -> None:
    assert find([], Folder(tmp_path), CENTRES, Settings(SAME)).persons == 0
    empty = table(np.zeros((0, DIM)))
    person, found, _ = told(tmp_path, empty, table(np.zeros((1, DIM))), empty)
    assert list(person) == [0]
    assert found.persons == found.groups == 1


def test_faces_without_an_embedding_are_nobody(tmp_path: Path) -> None:
    vectors = np.zeros((4, DIM))
    vectors[[1, 3]] = np.nan
    age = np.array([20, 50, 30, np.nan], np.float32)
    person, found, answer = told(tmp_path, table(vectors, age=age))
    assert list(person) == [0, -1, 0, -1]
    assert answer["cell"].to_pylist()[1::2] == [-1, -1]
    np.testing.assert_array_equal(answer["age"].to_numpy(), np.array([25, 50, 25, np.nan], np.float32))
    assert (found.faces, found.without) == (2, 2)


def test_only_faces_without_an_embedding(tmp_path: Path) -> None:
    person, found, _ = told(tmp_path, table(np.full((3, DIM), np.nan)))
    assert list(person) == [-1, -1, -1]
    assert (found.persons, found.without) == (0, 3)


def test_male_and_age_are_the_persons(tmp_path: Path) -> None:
    vectors = np.zeros((4, DIM))
    vectors[3] = 1
    male = np.array([0.2, np.nan, 0.6, np.nan], np.float32)
    _, _, answer = told(tmp_path, table(vectors, male=male))
    np.testing.assert_allclose(answer["male"].to_numpy(), [0.4, 0.4, 0.4, np.nan], rtol=1e-6)


def test_a_subject_is_one_person_whatever_the_faces_look_like(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    vectors = rng.normal(0, 1, (12, DIM))
    vectors[10] = np.nan
    subjects = [b"a" * 16, b"b" * 16] * 6
    person, found, answer = told(tmp_path, table(vectors, subject=subjects))
    assert same_partition(person, np.arange(12) % 2)
    assert (found.subjects, found.without) == (2, 0)
    assert len(set(answer["cell"].to_pylist())) <= 2


def test_two_subjects_never_unite_and_a_face_without_one_joins(tmp_path: Path) -> None:
    vectors = np.zeros((9, DIM))
    vectors[:4, 0], vectors[4:8, 0], vectors[8, 0] = 0, 0.1, 0.01
    subjects = [b"a" * 16] * 4 + [b"b" * 16] * 4 + [b""]
    person, found, _ = told(tmp_path, table(vectors, subject=subjects))
    assert found.persons == 2
    assert person[0] != person[4]
    assert person[8] == person[0]


def test_a_subject_without_any_embedding_is_a_person_without_a_cell(tmp_path: Path) -> None:
    vectors = np.full((2, DIM), np.nan)
    person, _, answer = told(tmp_path, table(vectors, subject=[b"a" * 16] * 2))
    assert list(person) == [0, 0]
    assert answer["cell"].to_pylist() == [-1, -1]


def test_a_null_embedding_is_refused(tmp_path: Path) -> None:
    block = table(np.zeros((2, DIM)))
    values = pa.array([None, [0.0] * DIM], pa.list_(pa.float16(), DIM))
    block = block.set_column(4, block.schema.field("embedding"), values)
    with pytest.raises(ValueError, match="null"):
        told(tmp_path, block)


def rms(first: np.ndarray, second: np.ndarray) -> float:
    """Root of the mean squared distance of a vector of one from a vector of the other."""
    return float(np.sqrt(((first[:, None] - second) ** 2).sum(2).mean()))


def brute(vectors: np.ndarray, radius: float) -> np.ndarray:
    """All with all, one pair at a time: the closest two unite while they are closer than the radius."""
    members = [[n] for n in range(len(vectors))]
    while len(members) > 1:
        means = np.array([vectors[of].mean(0) for of in members])
        spread = np.array([((vectors[of] - vectors[of].mean(0)) ** 2).sum(1).mean() for of in members])
        apart = np.sqrt(((means[:, None] - means) ** 2).sum(2) + spread[:, None] + spread)
        np.fill_diagonal(apart, np.inf)
        a, b = np.unravel_index(apart.argmin(), apart.shape)
        if apart[a, b] >= radius:
            break
        members[min(a, b)] += members.pop(max(a, b))
    labels = np.zeros(len(vectors), int)
    for number, of in enumerate(members):
        labels[of] = number
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_as_brute_force_where_people_are_noisy_but_apart(tmp_path: Path, seed: int) -> None:
    vectors, who = crowd(
        np.random.default_rng(seed), 12, 15, noise=0.05
    )  # pictures differ by .28, .7 of `same`
    person, _, _ = told(tmp_path, table(vectors), cells=60)
    assert same_partition(person, brute(vectors, SAME))
    assert same_partition(person, who)


@pytest.mark.parametrize("seed", range(5))
def test_about_as_brute_force_where_people_are_not_apart(tmp_path: Path, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(0, 0.1, (200, DIM))
    person, found, _ = told(tmp_path, table(vectors), cells=60)
    expected = len(set(brute(vectors, SAME)))
    assert 0.75 * expected <= found.persons <= 1.33 * expected
    parts = [vectors[person == number] for number in range(found.persons)]
    assert min(rms(a, b) for a, b in itertools.combinations(parts, 2)) >= SAME - 1e-3


def test_same_is_calibrated_as_the_gate_is() -> None:
    from deid.gallery import store

    gallery = store.load(None)
    assert 0.4 < people.calibrated(gallery, 0.001) < people.calibrated(gallery, 0.01) < 0.52
