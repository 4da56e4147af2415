import hashlib
import hmac
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deid.privacy import keys

SECRET, OTHER = b"s" * 32, b"t" * 32
NUMBER = st.integers(0, 2**40)


def every(secret: bytes, unit: int, position: int, face: int) -> list[str]:
    return [
        keys.output_id(secret, unit, position),
        keys.face_id(secret, unit, position, face),
        keys.shard_name(secret, unit, b"content"),
    ]


@settings(deadline=None)
@given(NUMBER, NUMBER, NUMBER)
def test_ids_are_128_bit_hex_repeatable_and_apart(unit, position, face):
    ids = every(SECRET, unit, position, face)
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in ids)
    assert ids == every(SECRET, unit, position, face)
    assert len({*ids, *every(OTHER, unit, position, face)}) == 6


def test_no_two_places_share_an_id():
    outputs = {keys.output_id(SECRET, unit, position) for unit in range(60) for position in range(60)}
    faces = {
        keys.face_id(SECRET, unit, position, face)
        for unit in range(15)
        for position in range(15)
        for face in range(15)
    }
    shards = {keys.shard_name(SECRET, unit, b"content") for unit in range(500)}
    assert (len(outputs), len(faces), len(shards)) == (3600, 3375, 500)
    assert len(outputs | faces | shards) == 3600 + 3375 + 500


def test_known_values():
    """Ids of a seeded run stay the same over releases: measurements refer to them."""
    import hashlib
    import hmac

    message = b"deid/output-id\0" + (3).to_bytes(8, "big") + (7).to_bytes(8, "big")
    assert keys.output_id(SECRET, 3, 7) == hmac.new(SECRET, message, hashlib.sha256).hexdigest()[:32]


def test_ids_order_tells_nothing_of_positions():
    ids = [keys.output_id(SECRET, 0, position) for position in range(2000)]
    assert abs(np.corrcoef(np.argsort(np.argsort(ids)), np.arange(2000))[0, 1]) < 0.1


def test_generators_repeat_and_differ():
    draws = {
        (secret, name): tuple(keys.rng_for(secret, name).integers(0, 2**63, 4).tolist())
        for secret in (SECRET, OTHER)
        for name in (b"a", b"b", b"")
    }
    assert len(set(draws.values())) == 6
    assert draws[SECRET, b"a"] == tuple(keys.rng_for(SECRET, b"a").integers(0, 2**63, 4).tolist())


@settings(deadline=None)
@given(st.integers(0, 3000))
def test_permutation_holds_every_record_once(n):
    order = keys.permutation(SECRET, n)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(n))


def test_permutation_is_keyed_and_uncorrelated_with_the_input():
    order = keys.permutation(SECRET, 5000)
    assert np.array_equal(order, keys.permutation(SECRET, 5000))
    assert not np.array_equal(order, keys.permutation(OTHER, 5000))
    assert abs(np.corrcoef(order, np.arange(5000))[0, 1]) < 0.05


def test_permutation_places_are_even():
    places = np.array([keys.permutation(bytes([a, b]), 6)[0] for a in range(40) for b in range(40)])
    assert abs(np.bincount(places, minlength=6) - 1600 / 6).max() < 70


@pytest.mark.parametrize(
    "call",
    [lambda: keys.output_id(b"", 0, 0), lambda: keys.permutation(b"", 3), lambda: keys.rng_for(b"", b"a")],
)
def test_an_empty_secret_is_refused(call):
    with pytest.raises(ValueError, match="secret is empty"):
        call()


def test_negative_numbers_are_refused():
    with pytest.raises(OverflowError):
        keys.output_id(SECRET, -1, 0)
    with pytest.raises(ValueError, match="negative length"):
        keys.permutation(SECRET, -1)


def test_a_persons_name_becomes_16_bytes_under_the_secret() -> None:
    made = keys.subject(SECRET, "Jane Doe")
    assert len(made) == 16
    assert made != keys.subject(bytes(32), "Jane Doe")
    assert made != keys.subject(SECRET, "Jane Do")
    assert made not in (
        hashlib.sha256(b"Jane Doe").digest()[:16],
        hmac.new(SECRET, b"Jane Doe", hashlib.sha256).digest()[:16],
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (17, "17"),
        (17, 17.0),
        ("17", " 17\n"),
        ("Zo\u00eb", "Zoe\u0308"),
        (True, "True"),
        (17, "017"),
        ("Jane Doe", "jane\u00a0 DOE"),
        ("Jane", "Ja\u200bne"),
        ("Jane", "\uff2aane"),
    ],
)
def test_one_person_is_not_taken_for_two(one: keys.Scalar, other: keys.Scalar) -> None:
    assert keys.subject(SECRET, one) == keys.subject(SECRET, other)


@pytest.mark.parametrize("value", ["\ud800", 1e308, -(10**300), 0.1, False])
def test_any_scalar_can_name_a_person(value: keys.Scalar) -> None:
    assert len(keys.subject(SECRET, value)) == 16


def test_zero_is_one_person_however_it_is_signed():
    spellings = ("0", "-0", 0, 0.0, -0.0, "-0.000", "+0")
    assert len({keys.subject(SECRET, value) for value in spellings}) == 1
    assert keys.subject(SECRET, "0") != keys.subject(SECRET, "1")
