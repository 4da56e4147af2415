"""The face index between the passes, and what the second pass makes of it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deid import config, records
from deid.faces.align import five_points
from deid.faces.appearance import LOOKS
from deid.gallery import store as gallery_store
from deid.interfaces import Face
from deid.pipeline import index, rows
from deid.pipeline.appoint import OF_A_PERSON, KeyedRandom, KSame, Recall
from deid.pipeline.rows import Row
from deid.privacy import assign, keys, people, tally
from deid.privacy.vault import Vault
from deid.shards import tables

SECRET = b"s" * 32
BASE = {
    "input": {"uri": "raw"},
    "output": {"uri": "out"},
    "state": "state",
    "models": {"accept": ["clean", "permissive", "restricted"]},
}


def face(embedding: np.ndarray | None, height: float = 80, mesh: bool = True) -> Face:
    shape = gallery_store.load(None).meshes.mean(0)
    shape = ((shape - shape.min(0)) / np.ptp(shape[:, 1]) * height + 10).astype(np.float32)
    box = np.concatenate([shape[:, :2].min(0), shape[:, :2].max(0)])
    return Face(
        box,
        0.9,
        five_points(shape),
        mesh=shape if mesh else None,
        mesh_score=0.9 if mesh else 0.0,
        embedding=embedding,
        looks=np.arange(len(LOOKS), dtype=np.float32),
    )


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(str(tmp_path / "state"), b"k" * 32)


def people_of(count: int) -> np.ndarray:
    """Embeddings of that many people: gallery identities, which lie far apart."""
    gallery = gallery_store.load(None)
    return gallery.embeddings[:: len(gallery) // count][:count].astype(np.float32)


def whole(items: list[Row]) -> pa.Table:
    """All pictures of a unit."""
    for row in items:
        row.planned = len(items)
    return rows.to_table(items)


def indexed(vault: Vault, units: list[list[Row]], **changes: object) -> config.Config:
    settings = config.parse(BASE | changes)
    stage = index.WriteIndex(settings, vault)
    for items in units:
        stage(whole(items))
    return settings


def picture(unit: int, position: int, *faces: Face, subject: bytes = b"") -> Row:
    return Row(unit, position, 0, b"source bytes", "jpg", faces=list(faces), subject=subject)


def test_the_index_holds_the_faces_and_no_picture(vault: Vault) -> None:
    small, without = face(people_of(3)[1], height=5), face(None)
    broken = picture(0, 1)
    broken.fail("truncated_image")
    settings = config.parse(BASE)
    table = index.WriteIndex(settings, vault)(
        whole([picture(0, 0, face(people_of(3)[0]), small, without), broken])
    )
    assert table.schema == records.INDEXED
    assert table.to_pylist() == [{"unit": 0, "pictures": 2, "sound": 1, "faces": 3, "embedded": 1}]
    stored = rows.from_table(tables.from_bytes(vault.get(index.index_name(0))))
    assert [len(row.faces) for row in stored] == [3, 0]
    assert [row.reason for row in stored] == ["", "truncated_image"]
    assert all(row.image == b"" for row in stored)
    faces = tables.from_bytes(vault.get(index.faces_name(0)))
    assert faces.schema == people.schema(128, len(LOOKS))
    assert faces.select(["position", "number", "counts"]).to_pylist() == [
        {"position": 0, "number": 0, "counts": True}
    ]
    gallery = gallery_store.load(None)
    assert faces["cell"][0].as_py() == int(
        np.argmin(np.linalg.norm(gallery.embeddings - people_of(3)[0], axis=1))
    )


def test_small_faces_and_faces_without_a_mesh_have_a_cell_and_do_not_count(vault: Vault) -> None:
    one, two, three = people_of(3)
    elsewhere = face(three)
    elsewhere.mesh = None if elsewhere.mesh is None else elsewhere.mesh + 300
    indexed(vault, [[picture(0, 0, face(one, 39), face(two, 41), face(three, mesh=False), elsewhere)]])
    counts = tables.from_bytes(vault.get(index.faces_name(0)))["counts"].to_pylist()
    assert counts == [False, True, False, False]


def test_the_subject_is_that_of_the_largest_face(vault: Vault) -> None:
    one, two, _ = people_of(3)
    indexed(vault, [[picture(0, 0, face(one, 50), face(two, 90), subject=b"x" * 16)]])
    assert tables.from_bytes(vault.get(index.faces_name(0)))["subject"].to_pylist() == [b"", b"x" * 16]


def shared(vault: Vault, settings: config.Config, units: int) -> list[assign.Surrogate]:
    gallery, names = gallery_store.load(None), [index.faces_name(unit) for unit in range(units)]
    options = settings.assignment
    people.find(names, vault, gallery.embeddings, people.Settings(0.4, means=options.mode == "keyed-random"))
    if options.mode == "keyed-random":
        return []
    cells = tally.gather(
        names,
        vault,
        gallery.embeddings,
        lambda cell, male, age: assign.key(cell, male, age, options.age_bands),
        assign.witnessing(options),
    )
    return assign.assign(cells, gallery, options, settings.match, SECRET)


def corpus(takes: int = 2) -> list[list[Row]]:
    """Six people in two units, each in both."""
    vectors, rng = people_of(6), np.random.default_rng(0)
    return [
        [
            picture(unit, n, face(vector + rng.normal(0, 0.005, 128).astype(np.float32)))
            for n, vector in enumerate(vectors)
        ]
        for unit in range(takes)
    ]


def test_faces_of_one_person_get_one_surrogate_and_its_looks(vault: Vault) -> None:
    settings = indexed(vault, corpus(), assignment={"k": 3})
    made = shared(vault, settings, 2)
    recall = Recall(vault, KSame(made, settings), SECRET)
    found = []
    for unit in range(2):
        items = [picture(unit, n) for n in range(6)]
        recall(unit, items)
        found.append([row.faces[0] for row in items])
    sets = [
        [tuple(face.identities.tolist()) for face in faces if face.identities is not None] for faces in found
    ]
    assert sets[0] == sets[1]
    assert len(sets[0]) == 6
    assert set(sets[0]) == {surrogate.identities for surrogate in made}
    for identities in set(sets[0]):
        assert sets[0].count(identities) >= 3
    of = {surrogate.identities: surrogate for surrogate in made}
    for one, identities in zip(found[0], sets[0], strict=True):
        assert one.sex == of[identities].sex
        assert one.age == pytest.approx(of[identities].age)
        assert one.looks is not None
        np.testing.assert_allclose(
            one.looks[OF_A_PERSON], np.array(of[identities].looks)[OF_A_PERSON], rtol=1e-5
        )


def test_own_looks_stay_where_they_are_not_shared(vault: Vault) -> None:
    units = corpus(1)
    for n, row in enumerate(units[0]):
        row.faces[0].looks = np.full(len(LOOKS), n, np.float32)
    settings = indexed(vault, units, assignment={"k": 3, "looks": "own"})
    items = [picture(0, n) for n in range(6)]
    Recall(vault, KSame(shared(vault, settings, 1), settings), SECRET)(0, items)
    assert [row.faces[0].looks[0] for row in items if row.faces[0].looks is not None] == [0, 1, 2, 3, 4, 5]


def test_withheld_surrogates_are_appointed_to_nobody(vault: Vault) -> None:
    settings = indexed(vault, corpus(1), assignment={"k": 3})
    made = shared(vault, settings, 1)
    withheld = {keys.surrogate_id(SECRET, 0, made[0].identities)}
    items = [picture(0, n) for n in range(6)]
    Recall(vault, KSame(made, settings), SECRET, withheld)(0, items)
    given = [row.faces[0].identities for row in items]
    assert sum(identities is None for identities in given) >= 3
    assert all(tuple(i.tolist()) != made[0].identities for i in given if i is not None)


def test_keyed_random_is_a_persons_own_and_another_secrets_another(vault: Vault) -> None:
    settings = indexed(vault, corpus(), assignment={"mode": "keyed-random"})
    shared(vault, settings, 2)

    def drawn(secret: bytes) -> list[list[tuple[int, ...]]]:
        found = []
        for unit in range(2):
            items = [picture(unit, n) for n in range(6)]
            Recall(vault, KeyedRandom(settings, secret), secret)(unit, items)
            found.append([tuple(row.faces[0].identities.tolist()) for row in items])  # type: ignore[union-attr]
        return found

    one, other = drawn(SECRET), drawn(b"t" * 32)
    assert one[0] == one[1]
    assert len(set(one[0])) == 6
    assert not set(one[0]) & set(other[0])


def test_a_picture_that_failed_in_either_pass_stays_failed(vault: Vault) -> None:
    units = corpus(1)
    units[0][2].fail("detector_failed")
    settings = indexed(vault, units, assignment={"k": 3})
    items = [picture(0, n) for n in range(6)]
    items[4].fail("record_changed")
    Recall(vault, KSame(shared(vault, settings, 1), settings), SECRET)(0, items)
    assert [row.reason for row in items] == ["", "", "detector_failed", "", "record_changed", ""]
    assert [len(row.faces) for row in items] == [1, 1, 0, 1, 0, 1]


def test_a_person_with_many_pictures_weighs_no_more_than_another(vault: Vault) -> None:
    vectors, rng = people_of(3), np.random.default_rng(0)

    def of(person: int) -> Face:
        made = face(vectors[person] + rng.normal(0, 0.003, 128).astype(np.float32))
        made.looks = np.full(len(LOOKS), float(person == 0), np.float32)
        return made

    units = [[picture(0, n, of(0)) for n in range(30)] + [picture(0, 30 + n, of(1 + n)) for n in range(2)]]
    settings = indexed(vault, units, assignment={"k": 3})
    (made,) = shared(vault, settings, 1)
    np.testing.assert_allclose(made.looks, 1 / 3, rtol=1e-5)
