"""What a signed run says of people: each number that contradicts another, or breaks the promise of k, is found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deid.privacy import verify_people
from deid.privacy.check import Count
from tests.unit.privacy.sealed import FACES, PICTURES, SHARDS, Sealed

REPLACED = SHARDS * PICTURES * FACES * 5 // 6
ANOTHER = "is not what the manifest says of people"


@pytest.fixture
def run(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path / "run").make()


def said(run: Sealed, people: dict[str, Any], **changes: Any) -> list[str]:
    """Faults of people.json where the manifest says the same."""
    run.reseal({"people.json": verify_people.to_bytes(people)}, people=people, **changes)
    found = run.faults()
    assert found.keys() <= {"people.json"}
    return found.get("people.json", [])


def configured(run: Sealed, **changes: Any) -> dict[str, Any]:
    """The manifest's configuration with changes of its assignment."""
    config: dict[str, Any] = run.manifest["config"]
    return config | {"assignment": config["assignment"] | changes}


def test_the_file_and_the_manifest_say_the_same(run: Sealed) -> None:
    people, data = run.manifest["people"], run.objects["people.json"]
    run.reseal(people=people | {"withheld": 6})
    assert run.faults() == {"people.json": [ANOTHER]}
    twice = data.replace(b"{", b'{"k": "Anna",', 1)
    assert json.loads(twice) == people
    for content in (b"", b"[]", b"[" * 9999, twice, data + b" ", json.dumps(people).encode()):
        run.reseal({"people.json": content}, people=people)
        assert run.faults() == {"people.json": [ANOTHER]}


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"min": 4}, ["min is 4, its histogram gives 5"]),
        ({"min": 6}, ["min is 6, its histogram gives 5"]),
        ({"median": 6.0}, ["median is 6.0, its histogram gives 7.0"]),
        ({"surrogates": 8}, ["surrogates is 8, its histogram gives 9"]),
        ({"k": 3}, ["is for k = 3, the run was for 5"]),
        ({"histogram": {"4": 4, "7": 5}, "min": 4}, ["a surrogate stands for 4 people, fewer than 5"]),
        ({"histogram": {"7": 5, "0": 4}, "min": 0}, ["a surrogate stands for 0 people, fewer than 5"]),
        ({"histogram": {"10": 4, "9": 5}, "min": 9, "median": 9.0}, [
            f"its histogram has more people than the {REPLACED} faces that were replaced"]),
        ({"histogram": {}, "surrogates": 0, "min": 0, "median": 0.0}, [
            f"has no surrogate, but {REPLACED} faces were replaced"]),
        ({"people_by": "subject"}, ["counts people by subject, the run did by face"]),
        ({"mode": "per-face", "surrogates": 9}, None),
    ],
)  # fmt: skip
def test_numbers_follow_from_the_histogram(
    run: Sealed, change: dict[str, Any], faults: list[str] | None
) -> None:
    found = said(run, run.manifest["people"] | change)
    assert found == faults if faults else "is of mode per-face, the run was k-same" in found


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"names": ["Anna"]}, "names"), ({"min": None}, "min"), ({"min": "5"}, "min"), ({"k": True}, "k"),
        ({"withheld": -1}, "withheld"), ({"mode": "Anna"}, "mode"), ({"people_by": "Anna"}, "people_by"),
        ({"least_margin": "Anna"}, "least_margin"), ({"histogram": {"Anna": 9}}, "histogram.Anna"),
        ({"histogram": {"05": 9}}, "histogram.05"), ({"histogram": {"5": 0}}, "histogram.5"),
        ({"histogram": {"5\n": 9}}, "histogram.5"), ({"histogram": {"9" * 5000: 9}}, "histogram.9"),
    ],
)  # fmt: skip
def test_fields_are_known_and_have_their_shape(run: Sealed, change: dict[str, Any], place: str) -> None:
    (fault,) = said(run, run.manifest["people"] | change)
    assert fault.startswith(place)


def test_every_field_is_there(run: Sealed) -> None:
    people = run.manifest["people"]
    for name in people:
        found = said(run, {field: value for field, value in people.items() if field != name})
        assert found
        assert name == "mode" or f"{name} is missing" in found


def test_other_modes_promise_no_number(run: Sealed) -> None:
    people, config = run.manifest["people"], run.manifest["config"]
    random = {name: people[name] for name in ("people_by", "pseudo_identities")} | {"mode": "keyed-random"}
    assert said(run, random, config=configured(run, mode="keyed-random")) == []
    assert "min is nothing that a run of mode keyed-random says" in said(
        run, people | {"mode": "keyed-random"}
    )
    assert said(run, people) == ["is of mode k-same, the run was keyed-random"]
    assert said(run, {"mode": "per-face"}, config=configured(run, mode="per-face")) == []
    assert said(run, {"mode": "per-face"}, config=config | {"anonymizer": "solid"}) == []
    assert said(run, {"mode": "per-face"}, config=config) != []


def test_a_run_of_no_picture_counts_nobody() -> None:
    """Its count is there in any mode, and empty."""
    manifest = {"config": {"assignment": {"people_by": "face"}}, "counts": {"replaced": 0}}
    count = Count(5, {}).summary() | {"across_attributes": 0, "least_margin": 0.0, "withheld": 0}
    both = {"mode": "k-same", "people_by": "face", "pseudo_identities": 0} | count
    for mode, people in (("k-same", both), ("per-face", {"mode": "per-face"} | count)):
        stated = manifest | {"people": people}
        assert list(verify_people.faults(verify_people.to_bytes(people), stated, mode, 5)) == []


@given(st.dictionaries(st.integers(0, 99), st.integers(5, 40), max_size=30))
def test_what_the_count_says_of_itself_has_no_fault(behind: dict[int, int]) -> None:
    summary = Count(5, behind).summary()
    rest = {"across_attributes": 0, "least_margin": 0.0, "withheld": 0}
    people = {"mode": "k-same", "people_by": "face", "pseudo_identities": 9} | summary | rest
    manifest = {
        "people": people,
        "config": {"assignment": {"people_by": "face"}},
        "counts": {"replaced": int(np.sum(list(behind.values()), dtype=int))},
    }
    assert list(verify_people.faults(verify_people.to_bytes(people), manifest, "k-same", 5)) == []
