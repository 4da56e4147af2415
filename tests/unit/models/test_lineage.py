"""A model's class is no better than that of what it was made from."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest

from deid.models import lineage, registry
from deid.models.lineage import Origin

CONSENTED, COLLECTED = (
    Origin(kind="data", licence="x", licence_class=kind, reason="x", source="x")  # type: ignore[arg-type]
    for kind in ("clean", "restricted")
)
ROLES = ("attributes", "segmenter")  # with a restricted and a clean model
ORIGINS = {"consented": CONSENTED, "collected": COLLECTED}


def made(licence_class: str, **made_from: str) -> Any:
    return SimpleNamespace(licence_class=licence_class, made_from=made_from)


OTHERS = {
    "mesh": made("permissive", collected="pictures"),
    "generator": made("restricted", collected="pictures"),
}


def faults(own: Mapping[str, Any], others: Mapping[str, Any] = OTHERS) -> list[str]:
    return lineage.faults(own, others, ORIGINS)


@pytest.mark.parametrize(
    ("licence_class", "made_from", "fine"),
    [
        ("clean", {"consented": "pictures"}, True),
        ("clean", {"consented": "pictures", "mesh": "measures"}, True),
        ("clean", {"consented": "pictures", "mesh": "labels"}, False),
        ("clean", {"consented": "pictures", "mesh": "weights"}, False),
        ("permissive", {"consented": "pictures", "mesh": "labels"}, True),
        ("clean", {"consented": "pictures", "generator": "measures"}, False),
        ("permissive", {"generator": "measures"}, False),
        ("permissive", {"generator": "pictures"}, False),
        ("restricted", {"generator": "pictures"}, True),
        ("clean", {"collected": "pictures"}, False),
        ("permissive", {"collected": "pictures"}, False),  # own weights: what is in them is ours to clear
        ("clean", {}, False),
        ("clean", {"unheard_of": "pictures"}, False),
    ],
)
def test_the_rule(licence_class: str, made_from: dict[str, str], fine: bool) -> None:
    found = faults({"own": made(licence_class, **made_from)})
    assert (found == []) == fine
    assert all(line.startswith("own ") for line in found)


def test_data_of_others_keeps_from_clean_alone() -> None:
    assert faults({}, {"theirs": made("permissive", collected="pictures")}) == []
    assert faults({}, {"theirs": made("clean", collected="pictures")})
    assert faults({}, {"theirs": made("permissive", teacher="weights"), "teacher": made("restricted")})


def test_a_class_cannot_be_washed_by_a_step_between() -> None:
    steps = {"first": made("restricted", generator="pictures"), "second": made("clean", first="pictures")}
    assert faults(steps) == ["second is clean, but restricted by its pictures from first"]
    assert lineage.ancestors("second", steps | OTHERS) == {"first", "generator", "collected"}


def test_a_circle_is_named() -> None:
    circle = {"a": made("restricted", b="weights"), "b": made("restricted", a="weights")}
    assert faults(circle) == ["a was made from itself", "b was made from itself"]


def test_the_packaged_registry_keeps_the_rule_and_says_where_everything_comes_from() -> None:
    known = registry.load()
    every = {**known.models, **known.packaged}
    assert lineage.faults(known.packaged, known.models, known.origins) == []
    for name, model in every.items():
        assert model.made_from, name
    for name in known.origins:
        assert any(name in model.made_from for model in every.values()), name
    for name, model in known.packaged.items():
        descends = "mobilestylegan" in lineage.ancestors(name, every)
        assert descends == (model.licence_class == "restricted"), name


def test_a_registry_whose_classes_are_too_good_is_refused() -> None:
    given = registry.load().model_dump()
    given["packaged"]["segmenter"]["licence_class"] = "clean"
    with pytest.raises(
        pydantic.ValidationError, match="segmenter is clean, but restricted by its pictures from"
    ):
        registry.Registry.model_validate(given)


def test_the_first_accepted_model_is_chosen_for_a_role() -> None:
    known = registry.load()
    for role in ROLES:
        assert known.choose(role, ["clean", "permissive", "restricted"]) == role
        assert known.choose(role, ["clean", "permissive"]) == f"{role}_clean"
        assert known.choose(role, []) == role
