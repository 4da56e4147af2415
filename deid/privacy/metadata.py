"""What of a sample's sidecar members passes: fields on the allow-list whose value has the declared type."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from deid.config import FieldType, Metadata

_INT64 = range(-(2**63), 2**63)
_INTEGER = re.compile(rb"\s*[+-]?[0-9]{1,18}\s*")


def keep(sidecar_json: bytes | None, cls: bytes | None, policy: Metadata) -> dict[str, Any]:
    """The fields that pass, by name; "cls" is the member .cls as an int.

    What is not listed, has another type, is no finite number or does not parse is dropped without a word, since a
    message could repeat it. An int stands for a float, a bool never for a number.
    """
    fields = _parse(sidecar_json)
    kept = {
        name: float(fields[name]) if kind == "float" else fields[name]
        for name, kind in policy.sidecar_fields.items()
        if name in fields and _FITS[kind](fields[name])
    }
    if cls is not None and "cls" in policy.members:
        kept.pop("cls", None)
        if _INTEGER.fullmatch(cls):
            kept["cls"] = int(cls)
    return kept


def _parse(data: bytes | None) -> dict[str, Any]:
    try:
        fields = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


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
