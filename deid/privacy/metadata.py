"""What of a sample's sidecar members passes: fields on the allow-list whose value has the declared shape.

The field that names the person (`assignment.subject`) is read here too, to be hashed at once; it never passes.
"""

import collections
import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from deid.config import FieldType, Metadata, SidecarField
from deid.privacy.keys import Scalar

OTHER = "other"  # in `dropped`: fields that are not listed, and what does not parse
_INT64 = range(-(2**63), 2**63)
_INTEGER = re.compile(rb"\s*[+-]?[0-9]{1,18}\s*")


def keep(
    sidecar_json: bytes | None, cls: bytes | None, policy: Metadata
) -> tuple[dict[str, Any], dict[str, int]]:
    """The fields that pass, by name, and how many did not; "cls" is the member .cls as an int.

    What is not listed, has another type or value, is no finite number or does not parse is dropped without a word,
    since a message could repeat it. It is counted under its name when that stands on the list, else as "other": names
    of other fields may be anything. An int stands for a float, a bool never for a number.
    """
    fields, dropped = _parse(sidecar_json), collections.Counter[str]()
    kept: dict[str, Any] = {}
    if fields is None:
        fields, dropped[OTHER] = {}, 1
    for name, value in fields.items():
        rule = policy.sidecar_fields.get(name)
        passed = None if rule is None else _shaped(value, rule)
        if passed is None:
            dropped[name if rule is not None else OTHER] += 1
        else:
            kept[name] = passed
    if cls is not None:
        listed = "cls" in policy.members
        if listed:
            kept.pop("cls", None)
        if listed and _INTEGER.fullmatch(cls):
            kept["cls"] = int(cls)
        else:
            dropped["cls" if listed else OTHER] += 1
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


def _shaped(value: object, rule: SidecarField) -> Any:
    """The value as it passes; None when it does not."""
    if not _FITS[rule.type](value) or (rule.values is not None and value not in rule.values):
        return None
    if rule.type == "float":
        value = float(value)  # type: ignore[arg-type]
    if rule.round is None:
        return value
    number = _rounded(value, rule.round)  # type: ignore[arg-type]
    if rule.type == "int":
        return int(number) if int(number) in _INT64 else None
    return float(number) if math.isfinite(float(number)) else None


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


_FITS: dict[FieldType, Callable[[object], bool]] = {
    "int": _is_int,
    "float": _is_float,
    "bool": lambda value: isinstance(value, bool),
    "str": _is_text,
}
