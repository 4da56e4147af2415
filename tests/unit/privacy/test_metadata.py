"""Only listed fields of the declared type pass, whatever the sidecar holds."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deid.config import Metadata
from deid.privacy.metadata import keep, subject

POLICY = Metadata(
    sidecar_fields={
        "number": "int",
        "weight": "float",
        "flag": "bool",
        "word": {"type": "str", "free": True},
    },
    members={"cls": "int"},
)
TYPES = {"number": int, "weight": float, "flag": bool, "word": str, "cls": int}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def kept_of(
    sidecar: bytes | None, cls: bytes | None, policy: Metadata
) -> tuple[dict[str, object], dict[str, int]]:
    given = {"json": sidecar, "cls": cls}
    return keep({name: data for name, data in given.items() if data is not None}, policy)


names = st.sampled_from(["number", "weight", "flag", "word", "cls", "name", "caption"])


@given(st.dictionaries(names | st.text(max_size=8), values), st.none() | st.binary(max_size=30))
def test_nothing_passes_but_listed_fields_of_their_type(fields: dict[str, object], cls: bytes | None) -> None:
    kept, dropped = kept_of(json.dumps(fields).encode(), cls, POLICY)
    assert set(kept) <= set(TYPES)
    assert all(type(value) is TYPES[name] for name, value in kept.items())
    assert all(math.isfinite(value) for value in kept.values() if isinstance(value, float))
    assert all(value == fields[name] for name, value in kept.items() if name != "cls")
    json.dumps(kept, ensure_ascii=False).encode()
    assert set(dropped) <= {*TYPES, "other"}
    assert sum(dropped.values()) + len(kept) == len(fields) + (cls is not None)


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_any_bytes_are_survived(sidecar: bytes, cls: bytes) -> None:
    kept, dropped = kept_of(sidecar, cls, POLICY)
    assert set(kept) <= set(TYPES)
    assert set(dropped) <= {*TYPES, "other"}


@given(st.dictionaries(st.text(max_size=8), values))
def test_without_a_list_nothing_passes(fields: dict[str, object]) -> None:
    assert kept_of(json.dumps(fields).encode(), b"7", Metadata()) == ({}, {"other": len(fields) + 1})


def test_what_is_right_passes() -> None:
    fields = {"number": -3, "weight": 2, "flag": False, "word": "tree", "name": "nobody"}
    assert kept_of(json.dumps(fields).encode(), b" 12\n", POLICY) == (
        {"number": -3, "weight": 2.0, "flag": False, "word": "tree", "cls": 12},
        {"other": 1},
    )


@pytest.mark.parametrize(
    "sidecar",
    [
        b'{"number": true}',
        b'{"number": 3.0}',
        b'{"number": "3"}',
        b'{"number": 99999999999999999999}',
        b'{"weight": NaN}',
        b'{"weight": 1e999}',
        b'{"weight": false}',
        b'{"flag": 1}',
        b'{"word": 5}',
        b'{"word": "\\ud800"}',
        b'{"word": ["tree"]}',
        b'{"word": "tree"',
        b'{"word": "tree"} {}',
        b'[{"word": "tree"}]',
        b"[" * 100_000,
        b'{"number": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe",
        b"",
        None,
    ],
)
def test_what_is_wrong_is_dropped(sidecar: bytes | None) -> None:
    kept, dropped = kept_of(sidecar, None, POLICY)
    assert kept == {}
    assert sum(dropped.values()) == bool(sidecar)


@pytest.mark.parametrize("cls", [b"", b"cat", b"1.5", b"1 2", b"9" * 19, "٣".encode(), b"\xff"])
def test_a_class_that_is_no_integer_is_dropped(cls: bytes) -> None:
    assert kept_of(b'{"cls": 5}', cls, POLICY) == ({}, {"other": 1, "cls": 1})


def test_what_was_dropped_is_named_only_where_the_list_names_it() -> None:
    fields = {"number": "ten", "jane_doe": 1, "john_doe": {"deep": [1, 2]}}
    assert kept_of(json.dumps(fields).encode(), b"x", POLICY) == ({}, {"number": 1, "cls": 1, "other": 2})
    assert kept_of(None, None, POLICY) == ({}, {})


@pytest.mark.parametrize(
    ("rule", "given", "passed"),
    [
        ({"type": "float", "round": 0.05}, 0.1517, 0.15),
        ({"type": "float", "round": 0.05}, 0.1749, 0.15),
        ({"type": "float", "round": 0.05}, 3, 3.0),
        ({"type": "float", "round": 0.5}, 1e300, 1e300),
        ({"type": "float", "round": 1000}, -4711.5, -5000.0),
        ({"type": "int", "round": 10}, 1987, 1990),
        ({"type": "int", "round": 10}, -1984, -1980),
        ({"type": "int", "round": 5.0}, 7, 5),
        ({"type": "int", "round": 10}, 2**63 - 1, None),
        ({"type": "float", "round": 1e308}, 1.79e308, None),
        ({"type": "int", "round": 10}, 1987.0, None),
        ({"type": "str", "values": ["day", "night"]}, "night", "night"),
        ({"type": "str", "values": ["day", "night"]}, "Night", None),
        ({"type": "str", "values": ["day", "night"]}, "Jane", None),
    ],
)
def test_numbers_are_rounded_and_texts_are_listed(rule: object, given: object, passed: object) -> None:
    kept, dropped = kept_of(
        json.dumps({"field": given}).encode(), None, Metadata(sidecar_fields={"field": rule})
    )
    assert (kept, dropped) == (({}, {"field": 1}) if passed is None else ({"field": passed}, {}))
    assert type(kept.get("field")) is type(passed)


def test_no_negative_zero_tells_the_sign() -> None:
    policy = Metadata(sidecar_fields={"x": {"type": "float", "round": 1}})
    assert json.dumps(kept_of(b'{"x": -0.2}', None, policy)[0]) == '{"x": 0.0}'


@given(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9),
    st.sampled_from([0.001, 0.05, 0.25, 1.0, 7.0, 1000.0]),
)
def test_a_rounded_number_is_a_multiple_near_by(value: float, step: float) -> None:
    policy = Metadata(sidecar_fields={"x": {"type": "float", "round": step}})
    passed = kept_of(json.dumps({"x": value}).encode(), None, policy)[0]["x"]
    assert abs(passed - value) <= step / 2 * (1 + 1e-9) + abs(value) * 1e-15
    assert passed == float(f"{round(passed / step) * step:.6f}")


@pytest.mark.parametrize(
    ("sidecar", "value"),
    [
        (b'{"who": "Jane"}', "Jane"),
        (b'{"who": 17}', 17),
        (b'{"who": 1.5}', 1.5),
        (b'{"who": false}', False),
        (b'{"who": 0}', 0),
        (b'{"who": null}', None),
        (b'{"who": " "}', None),
        (b'{"who": NaN}', None),
        (b'{"who": ["Jane"]}', None),
        (b'{"who": {"name": "Jane"}}', None),
        (b'{"name": "Jane"}', None),
        (b'"who"', None),
        (b"\xff", None),
        (b"", None),
        (None, None),
    ],
)
def test_the_person_is_any_scalar_of_the_named_field(sidecar: bytes | None, value: object) -> None:
    assert subject(sidecar, "who") == value
    assert type(subject(sidecar, "who")) is type(value)


def passed(value: object, rule: object) -> object:
    kept, dropped = keep({"json": json.dumps({"x": value}).encode()}, Metadata(sidecar_fields={"x": rule}))
    assert dropped == ({} if "x" in kept else {"x": 1})
    return kept.get("x")


DEEP = [[[[1, 2]]]]


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("boxes", [1, 2, 3.5, 4], [[1.0, 2.0, 3.5, 4.0]]),
        ("boxes", [[1, 2, 3, 4], [5, 6, 7, 8]], [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]),
        ("boxes", [], []),
        ({"type": "boxes", "depth": 1}, [1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0]),
        ({"type": "boxes", "depth": 1}, [[1, 2, 3, 4]], None),
        ({"type": "boxes", "depth": 3}, [[1, 2, 3, 4]], [[[1.0, 2.0, 3.0, 4.0]]]),
        ("boxes", [1, 2, 3], None),
        ("boxes", [[1, 2, 3, 4], []], None),
        ("boxes", [[1, 2, 3, "Jane"]], None),
        ("boxes", [1, 2, 3, [4]], None),
        ("points", [[1, 2], [3, 4, 5]], [[1.0, 2.0], [3.0, 4.0, 5.0]]),
        ("points", [[], []], [[], []]),
        ("points", [[1, 2], 3], None),
        ({"type": "points", "depth": 3}, [[1, 2]], [[[1.0, 2.0]]]),
        ({"type": "points", "round": 0.5}, [[1.3, -0.1]], [[1.5, 0.0]]),
        ("numbers", [1, 2, 3], [1.0, 2.0, 3.0]),
        ("numbers", [1, float("nan")], None),
        ("numbers", [1, True], None),
        ("numbers", [1, None], None),
        ("numbers", 7, None),
        ("numbers", {"a": 1}, None),
        ("numbers", [2**70], None),
        ({"type": "numbers", "depth": 4}, DEEP, [[[[1.0, 2.0]]]]),
        ({"type": "numbers", "depth": 4}, [DEEP], None),
        ("numbers", [0] * 100_000, [0.0] * 100_000),
        ("numbers", [0] * 100_001, None),
        ({"type": "numbers", "depth": 2}, [[]] * 100_001, None),
    ],
)
def test_lists_of_numbers_pass_as_deep_as_they_are_declared(
    rule: object, value: object, expected: object
) -> None:
    assert passed(value, rule) == expected
    if expected is not None:
        assert json.dumps(passed(expected, rule)) == json.dumps(expected)


@given(values, st.sampled_from(["numbers", "points", "boxes"]), st.none() | st.integers(1, 4))
def test_a_list_of_numbers_holds_nothing_else(value: object, kind: str, depth: int | None) -> None:
    found = passed(value, {"type": kind} if depth is None else {"type": kind, "depth": depth})
    for _ in range(depth or {"numbers": 1}.get(kind, 2)):
        if found is None:
            return
        assert isinstance(found, list)
        assert all(isinstance(inner, list | float) for inner in found)
        found = next((inner for inner in found if inner != []), None)
    assert found is None or (type(found) is float and math.isfinite(found))


def test_a_deep_value_is_no_bomb() -> None:
    deep = b'{"x": ' + b"[" * 900 + b"]" * 900 + b"}"
    policy = Metadata(sidecar_fields={"x": {"type": "numbers", "depth": 4}})
    assert keep({"json": deep}, policy)[1] in ({"x": 1}, {"other": 1})


def test_a_text_passes_only_where_it_is_set_free() -> None:
    assert keep({"txt": "a dög\n".encode()}, Metadata(members={"txt": "free"})) == ({"txt": "a dög\n"}, {})
    assert keep({"txt": b"a dog"}, POLICY) == ({}, {"other": 1})
    assert keep({"txt": b"\xff"}, Metadata(members={"txt": "free"})) == ({}, {"txt": 1})


def test_a_field_of_the_name_of_a_member_does_not_pass() -> None:
    policy = Metadata(members={"txt": "free", "cls": "int"})
    assert keep({"json": b'{"txt": "Jane", "cls": 3}'}, policy) == ({}, {"other": 2})
