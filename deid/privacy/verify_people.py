"""What a checker looks at in people.json: the manifest's own words, numbers that follow from its histogram, k at least.

It is what `deid.pipeline.publish.people_of` writes, and nothing else can be carried along.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[int, Field(ge=0)]
_COUNT = {"k", "surrogates", "min", "median", "histogram", "across_attributes", "least_margin", "withheld"}
_TWO_PASSES = {"mode", "people_by", "pseudo_identities"}
_FIELDS = {"per-face": {"mode"}, "keyed-random": _TWO_PASSES, "k-same": _TWO_PASSES | _COUNT}  # by mode


class _People(BaseModel):
    """Every field that a run may write, in its shape."""

    model_config = ConfigDict(strict=True, extra="forbid")

    mode: Literal["per-face", "keyed-random", "k-same"]
    people_by: Literal["face", "subject"] = "face"
    pseudo_identities: Number = 0
    k: Number = 0
    surrogates: Number = 0
    min: Number = 0
    median: float = Field(0, ge=0, allow_inf_nan=False)
    histogram: dict[Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,8})$")], Annotated[int, Field(ge=1)]] = {}
    across_attributes: Number = 0
    least_margin: float = Field(0, allow_inf_nan=False)
    withheld: Number = 0


def faults(data: bytes | None, manifest: Mapping[str, Any], mode: str, k: int) -> Iterator[tuple[str, str]]:
    """Everything that is wrong with what a run says of people: name of the object, fault.

    Args:
        data: people.json; None where it is not there.
        mode: what the run's configuration promises: k-same, keyed-random or per-face.
        k: least number of people behind a surrogate under k-same.
    """
    stated = manifest["people"]
    if data != to_bytes(stated):  # whole: a name that stands there twice is no fault to a JSON parser
        yield "people.json", "is not what the manifest says of people"
    yield from (("people.json", fault) for fault in _faults(stated, manifest, mode, k))


def to_bytes(people: Mapping[str, Any]) -> bytes:
    """people.json as the job writes it."""
    return json.dumps(people, indent=2, sort_keys=True).encode()


def _faults(stated: dict[str, Any], manifest: Mapping[str, Any], mode: str, k: int) -> Iterator[str]:
    try:
        people = _People.model_validate(stated)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        yield f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        return
    if people.mode != mode:
        yield f"is of mode {people.mode}, the run was {mode}"
    wanted = _FIELDS[people.mode]
    counted = _COUNT if stated.get("surrogates") == 0 else set()  # a run of no picture counts in any mode
    for name in sorted(wanted - stated.keys()):
        yield f"{name} is missing"
    for name in sorted(stated.keys() - wanted - counted):
        yield f"{name} is nothing that a run of mode {people.mode} says"
    by = manifest["config"]["assignment"].get("people_by")
    if "people_by" in stated and people.people_by != by:
        yield f"counts people by {people.people_by}, the run did by {by}"
    yield from _count(people, manifest["counts"]["replaced"], mode == "k-same", k)


def _count(people: _People, replaced: int, promised: bool, k: int) -> Iterator[str]:
    """Faults of the histogram and of what follows from it; `promised`: each surrogate is shared by k people."""
    found = sorted((int(name), times) for name, times in people.histogram.items())
    derived = {
        "surrogates": sum(times for _, times in found),
        "min": found[0][0] if found else 0,
        "median": _median(found),
    }
    for name, value in derived.items():
        if getattr(people, name) != value:
            yield f"{name} is {getattr(people, name)}, its histogram gives {value}"
    if sum(number * times for number, times in found) > replaced:
        yield f"its histogram has more people than the {replaced} faces that were replaced"
    if not promised:
        return
    if people.k != k:
        yield f"is for k = {people.k}, the run was for {k}"
    if found and found[0][0] < k:
        yield f"a surrogate stands for {found[0][0]} people, fewer than {k}"
    if not found and replaced:
        yield f"has no surrogate, but {replaced} faces were replaced"


def _median(found: list[tuple[int, int]]) -> float:
    """Of a histogram (value, times) in ascending order; 0 of none."""
    total = sum(times for _, times in found)

    def at(place: int) -> int:
        for value, times in found:
            if place < times:
                return value
            place -= times
        return 0

    return (at((total - 1) // 2) + at(total // 2)) / 2 if total else 0.0
