"""What of a sample's sidecar members passes: fields on the allow-list whose value has the declared shape.

The field that names the person (`assignment.subject`) is read here too, to be hashed at once; it never passes.
"""

import collections
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from deid.config import FieldType, Metadata, SidecarField
from deid.privacy.keys import Scalar

OTHER = "other"  # in `dropped`: fields that are not listed, and what does not parse
_MOST = 100_000  # numbers and lists in one field
_INT64 = range(-(2**63), 2**63)
_INTEGER = re.compile(rb"\s*[+-]?[0-9]{1,18}\s*")


def keep(sidecars: Mapping[str, bytes], policy: Metadata) -> tuple[dict[str, Any], dict[str, int]]:
    """The fields that pass, by name, and how many did not.

    What is not listed, has another type or value, is no finite number or does not parse is dropped without a word,
    since a message could repeat it. It is counted under its name when that stands on the list, else as "other": names
    of other fields may be anything. An int stands for a float, a bool never for a number.

    Args:
        sidecars: "json" (an object), "cls" (becomes the field "cls", an int), "txt" (becomes the field "txt", UTF-8);
            others are not looked at.
    """
    fields, dropped = _parse(sidecars.get("json")), collections.Counter[str]()
    kept: dict[str, Any] = {}
    if fields is None:
        fields, dropped[OTHER] = {}, 1
    for name, value in fields.items():
        rule = policy.sidecar_fields.get(name)
        passed = None if rule is None else shaped(value, rule)
        if passed is None:
            dropped[name if rule is not None else OTHER] += 1
        else:
            kept[name] = passed
    for name, parse in _MEMBERS.items():
        if name not in sidecars:
            continue
        listed = name in policy.members
        passed = parse(sidecars[name]) if listed else None
        if passed is None:
            dropped[name if listed else OTHER] += 1
        else:
            kept[name] = passed
    return kept, dict(dropped)


def subject(sidecar_json: bytes | None, name: str) -> Scalar | None:
    """The value of the field that names the person, for `keys.subject`; None where there is none, it is null, empty,
    no finite number or no scalar."""
    value = (_parse(sidecar_json) or {}).get(name)
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else None


def _parse(data: bytes | None) -> dict[str, Any] | None:
    """The object; None for what is none."""
    try:
        fields = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def shaped(value: object, rule: SidecarField) -> Any:
    """The value as it passes; None when it does not. What it gives passes as it is."""
    if rule.levels:
        return _nested(value, rule)
    if not _FITS[rule.type](value) or (rule.values is not None and value not in rule.values):
        return None
    return _number(value, rule) if rule.type in ("int", "float") else value


def is_shaped(value: object, rule: SidecarField) -> bool:
    """Whether `shaped` gives just this value: it went through the policy."""
    passed = shaped(value, rule)
    return passed is not None and bool(passed == value)


def _number(value: Any, rule: SidecarField) -> Any:
    if rule.type != "int":
        value = float(value)
    if rule.round is None:
        return value
    number = _rounded(value, rule.round)
    if rule.type == "int":
        return int(number) if int(number) in _INT64 else None
    return float(number) if math.isfinite(float(number)) else None


def _nested(value: Any, rule: SidecarField) -> list[Any] | None:
    """Lists as deep as the rule says, with floats in them; None where they are not."""
    levels = _levels(value, rule.levels)
    if not levels or value == []:
        return [] if value == [] else None
    for _ in range(rule.levels - levels):
        value = [value]
    try:
        return _copied(value, rule, rule.levels, itertools.count(1))
    except _Unfit:
        return None


class _Unfit(Exception):
    """A list is not as the rule says."""


def _levels(value: Any, most: int) -> int:
    """Lists in one another, 0 for what is no list; not counted beyond `most`."""
    if not isinstance(value, list) or not most:
        return 0
    return 1 + max((_levels(inner, most - 1) for inner in value), default=0)


def _copied(value: Any, rule: SidecarField, levels: int, seen: Iterator[int]) -> list[Any]:
    if not isinstance(value, list):
        raise _Unfit
    if levels > 1:
        if any(next(seen) > _MOST for _ in value):
            raise _Unfit
        return [_copied(inner, rule, levels - 1, seen) for inner in value]
    if rule.type == "boxes" and len(value) != 4:
        raise _Unfit
    numbers = [_number(inner, rule) if _is_float(inner) and next(seen) <= _MOST else None for inner in value]
    if any(number is None for number in numbers):
        raise _Unfit
    return numbers


def _rounded(value: int | float, step: float) -> Decimal:
    """The nearest multiple of the step, halves to the even one, without the dust of binary fractions."""
    unit = Decimal(repr(step))
    return (
        Decimal(value) / unit
    ).to_integral_value() * unit + 0  # + 0: no negative zero, which would tell the sign


def _is_int(value: object) -> bool:
    return type(value) is int and value in _INT64


def _is_float(value: object) -> bool:
    return _is_int(value) or (type(value) is float and math.isfinite(value))


def _is_text(value: object) -> bool:
    """Lone surrogates, which JSON can hold and UTF-8 cannot, do not fit."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _cls(data: bytes) -> int | None:
    return int(data) if _INTEGER.fullmatch(data) else None


def _txt(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


_MEMBERS: dict[str, Callable[[bytes], Any]] = {"cls": _cls, "txt": _txt}
_FITS: dict[FieldType, Callable[[object], bool]] = {
    "int": _is_int,
    "float": _is_float,
    "bool": lambda value: isinstance(value, bool),
    "str": _is_text,
}
