"""Columns of a source's Parquet file: which hold pictures and masks, and what of the others becomes a text."""

import datetime
import decimal
import json
import math
import re
import uuid
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from deid.errors import InputError
from deid.shards.formats import Layout

_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
_NUMBERED = re.compile(r"image_[1-9][0-9]*")
_NONE = (
    "input: a Parquet file has no column of pictures that can be found: a column that Hugging Face features call an "
    "Image, or one with a common name of type binary or struct{bytes: binary, path: string}; set input.image_columns"
)
_NOT_THERE = (
    "input.image_columns: a Parquet file lacks it, or it is neither binary nor struct{bytes: binary, …}"
)
_TEXTS = {
    "cls": pa.types.is_integer,
    "txt": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
}


@dataclass(frozen=True)
class Columns:
    """The columns of one file by their use, each by its name."""

    pictures: tuple[str, ...]  # the first is the main one
    masks: dict[str, str]  # column of each mask, by the mask's name
    texts: tuple[str, ...]  # cls, txt
    others: tuple[str, ...]  # what becomes the .json

    @property
    def sidecars(self) -> list[str]:
        return [*(["json"] if self.others else []), *self.texts, *self.masks]


def find(schema: pa.Schema, layout: Layout) -> Columns:
    """The columns of a file with this schema.

    Raises:
        InputError: no column of pictures, or not those that the layout names.
    """
    once = [name for name in schema.names if schema.names.count(name) == 1]
    able = [name for name in once if _holds_picture(schema.field(name).type)]
    given = layout.image_columns
    if any(name not in able for name in given):
        raise InputError(_NOT_THERE)
    masks = {mask: mask.removesuffix(".png") for mask in layout.masks}
    masks = {mask: name if name in able else mask for mask, name in masks.items()}
    masks = {mask: name for mask, name in masks.items() if name in able and name not in given}
    free = [name for name in able if name not in masks.values()]
    pictures = given or tuple(_pictures(schema, free, layout))
    if not pictures:
        raise InputError(_NONE)
    texts = tuple(name for name, fits in _TEXTS.items() if name in once and fits(schema.field(name).type))
    taken = {*pictures, *masks.values(), *texts}
    others = [name for name in once if name not in taken and not _holds_bytes(schema.field(name).type)]
    return Columns(pictures, masks, texts, tuple(others))


def values(column: pa.Array) -> pa.Array:
    """The bytes of a column of pictures, one a row, null where it has none."""
    if pa.types.is_struct(column.type):
        return column.flatten()[column.type.get_field_index("bytes")]
    return column


def leaf(schema: pa.Schema, name: str) -> str:
    """Path of the bytes of a column of pictures, as Parquet has it."""
    return f"{name}.bytes" if pa.types.is_struct(schema.field(name).type) else name


def text(row: dict[str, Any]) -> bytes:
    """A row's other columns as a JSON object in UTF-8: no nulls, no NaN, times as ISO 8601."""
    fields = {name: _plain(value) for name, value in row.items()}
    kept = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(kept, ensure_ascii=False).encode()


def value(scalar: pa.Scalar) -> Any:
    """The value; None for one that Python cannot hold (a time far off, text that is no UTF-8)."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return None


def _pictures(schema: pa.Schema, able: list[str], layout: Layout) -> list[str]:
    features = _features(schema)
    if features is not None:
        return [name for name in able if features.get(name) == "Image"]
    common = [name for name in _NAMES if name in able]
    further = [name for name in able if name in layout.pictures or _NUMBERED.fullmatch(name)]
    return common[:1] + [name for name in further if name not in common[:1]]


def _features(schema: pa.Schema) -> dict[str, str] | None:
    """Kinds of the features that Hugging Face's metadata gives; None where it gives none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["_type"] for name, feature in features.items() if "_type" in feature}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _binary(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    return any(test(kind) for test in tests)


def _holds_picture(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return _binary(kind)
    at = kind.get_field_index("bytes")
    return at >= 0 and _binary(kind.field(at).type)


def _holds_bytes(kind: pa.DataType) -> bool:
    return _binary(kind) or any(_holds_bytes(kind.field(n).type) for n in range(kind.num_fields))


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case decimal.Decimal():
            return float(value) if value.is_finite() else None
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
        case uuid.UUID():
            return str(value)
        case dict():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
    return None
