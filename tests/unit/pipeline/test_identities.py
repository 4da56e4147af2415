import numpy as np
import pytest

from deid import config
from deid.faces.appearance import LOOKS
from deid.interfaces import Face, Gallery
from deid.pipeline.identities import Identities
from deid.surrogates import match

SECRET = b"s" * 32
N, DIM, ALIKE = 60, 128, 12


def gallery() -> Gallery:
    rng = np.random.default_rng(0)
    return Gallery(
        np.zeros((N, 4), np.float32),
        rng.normal(size=(N, DIM)).astype(np.float32),
        rng.random((N, 468, 3), np.float32),
        {"skin_l": np.linspace(20, 90, N).astype(np.float32)},
    )


def face(rung: str = "surrogate", skin: float | None = None) -> Face:
    looks = None
    if skin is not None:
        looks = np.full(len(LOOKS), np.nan, np.float32)
        looks[LOOKS.index("skin_l")] = skin
    points = np.random.default_rng(1).random((5, 2), np.float32)
    embedding = np.zeros(DIM, np.float32)
    box = np.array([0, 0, 9, 9], np.float32)
    return Face(box, 0.9, points, embedding=embedding, looks=looks, anonymizer=rung)


def drawn(identities: Identities, of: Face) -> set[int]:
    """Identities of many draws for one face."""
    return {int(n) for unit in range(200) for n in identities.of(of, unit, 0, 0)}


@pytest.mark.parametrize(("skin", "ends"), [(0.0, range(ALIKE)), (200.0, range(N - ALIKE, N))])
def test_a_surrogate_is_drawn_among_those_who_look_alike(skin: float, ends: range) -> None:
    identities = Identities(gallery(), config.Match(k=5, alike=ALIKE, margin=0.1), SECRET)
    assert drawn(identities, face(skin=skin)) == set(ends)


def test_without_looks_or_pool_it_is_drawn_among_all() -> None:
    everyone = set(range(N))
    identities = Identities(gallery(), config.Match(k=5, alike=ALIKE, margin=0.1), SECRET)
    assert drawn(identities, face()) == everyone
    without = Identities(gallery(), config.Match(k=5, alike=0, margin=0.1), SECRET)
    assert drawn(without, face(skin=0.0)) == everyone


@pytest.mark.parametrize("rung", ["simple", "ksame-pixel"])
def test_looks_have_no_part_in_lower_rungs(rung: str) -> None:
    identities = Identities(gallery(), config.Match(k=5, alike=ALIKE, margin=0.1), SECRET)
    plain, looking = (drawn(identities, face(rung, skin)) for skin in (None, 0.0))
    assert plain == looking
    assert len(plain) > ALIKE


def test_looks_do_not_bring_anybody_within_the_margin() -> None:
    entries = gallery()
    person = face(skin=0.0)
    person.embedding = entries.embeddings[0].copy()
    identities = Identities(entries, config.Match(k=5, alike=ALIKE, margin=14.0), SECRET)
    assert person.embedding is not None
    distance = match.distances(person.embedding, entries)
    assert (distance[1:ALIKE] < 14).any()
    assert (distance[sorted(drawn(identities, person))] >= 14).all()


def test_the_draw_is_the_runs_own_and_repeats_within_it() -> None:
    options = config.Match(k=5, alike=ALIKE, margin=0.1)
    one, same, other = (Identities(gallery(), options, secret) for secret in (SECRET, SECRET, b"t" * 32))
    drawn = [
        [tuple(identities.of(face(skin=50.0), unit, 0, 0).tolist()) for unit in range(20)]
        for identities in (one, same, other)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
