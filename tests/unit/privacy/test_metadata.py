"""Only listed fields of the declared type pass, whatever the sidecar holds."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deid.config import Metadata
from deid.privacy.metadata import keep

POLICY = Metadata(
    sidecar_fields={"number": "int", "weight": "float", "flag": "bool", "word": "str"}, members={"cls": "int"}
)
TYPES = {"number": int, "weight": float, "flag": bool, "word": str, "cls": int}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["number", "weight", "flag", "word", "cls", "name", "caption"])


@given(st.dictionaries(names | st.text(max_size=8), values), st.none() | st.binary(max_size=30))
def test_nothing_passes_but_listed_fields_of_their_type(fields: dict[str, object], cls: bytes | None) -> None:
    kept = keep(json.dumps(fields).encode(), cls, POLICY)
    assert set(kept) <= set(TYPES)
    assert all(type(value) is TYPES[name] for name, value in kept.items())
    assert all(math.isfinite(value) for value in kept.values() if isinstance(value, float))
    assert all(value == fields[name] for name, value in kept.items() if name != "cls")
    json.dumps(kept, ensure_ascii=False).encode()


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_any_bytes_are_survived(sidecar: bytes, cls: bytes) -> None:
    assert set(keep(sidecar, cls, POLICY)) <= set(TYPES)


@given(st.dictionaries(st.text(max_size=8), values))
def test_without_a_list_nothing_passes(fields: dict[str, object]) -> None:
    assert keep(json.dumps(fields).encode(), b"7", Metadata()) == {}


def test_what_is_right_passes() -> None:
    fields = {"number": -3, "weight": 2, "flag": False, "word": "tree", "name": "nobody"}
    assert keep(json.dumps(fields).encode(), b" 12\n", POLICY) == {
        "number": -3,
        "weight": 2.0,
        "flag": False,
        "word": "tree",
        "cls": 12,
    }


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
    assert keep(sidecar, None, POLICY) == {}


@pytest.mark.parametrize("cls", [b"", b"cat", b"1.5", b"1 2", b"9" * 19, "٣".encode(), b"\xff"])
def test_a_class_that_is_no_integer_is_dropped(cls: bytes) -> None:
    assert keep(b'{"cls": 5}', cls, POLICY) == {}
