"""Tables of the output: one schema a release, typed by the metadata policy, and the same bytes for the same rows."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deid.config import Metadata, SidecarField
from deid.errors import ConfigError

ID = pa.field("id", pa.string(), nullable=False)
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# Hugging Face takes files and folders with such a word in their names for a split, and leaves out what is in none.
SPLIT = re.compile(
    "(?<![A-Za-z])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?![A-Za-z])"
)
_PLAIN_KEY = re.compile("[A-Za-z0-9_-]+")
_TYPES = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}
_MEMBERS = {"cls": pa.int64(), "txt": pa.string()}
_HF_NAMES = {"double": "float64"}  # where Hugging Face has other names of types than pyarrow
_PAGE_ROWS = 64  # after so many rows it is seen whether a page is full: a page is decoded whole


def schema(policy: Metadata, names: tuple[str, ...], extra: int, struct: bool) -> pa.Schema:
    """Columns of an output shard: `id`; `image`; further pictures by the names that pass; `image_1`, ...; masks; then
    what the policy lets pass (`typed`).

    With `struct` the metadata has the features of Hugging Face `datasets`.

    Raises:
        ConfigError: two columns would have one name.
    """
    pictures = ["image", *names, *(column(str(number + 1)) for number in range(extra))]
    masks = [name.removesuffix(".png") for name in policy.masks]
    kind = PICTURE if struct else pa.binary()
    made = pa.schema([ID, *(pa.field(name, kind) for name in pictures + masks), *typed(policy)])
    _check(made)
    return made.with_metadata(_features(made)) if struct else made


def files_schema(policy: Metadata, names: tuple[str, ...], extra: int) -> pa.Schema:
    """Columns of the table beside the files of an image folder: `file_name`, `left_file_name`, ... of the pictures,
    `id`, then what the policy lets pass.

    Raises:
        ConfigError: two columns would have one name, or files a name that `datasets` takes for a split.
    """
    if any(SPLIT.search(name) for name in (*names, *policy.masks)):
        raise ConfigError(
            "a further picture or mask is called like a split (train, test, ...): rename it in the source"
        )
    columns = [file_column(name) for name in ("", *names, *(str(number + 1) for number in range(extra)))]
    made = pa.schema([*(pa.field(name, pa.string()) for name in columns), ID, *typed(policy)])
    _check(made)
    return made


def typed(policy: Metadata) -> list[pa.Field]:
    """Columns of what passes: `cls` (int64), `txt`, and the fields by name, each of its type, or null."""
    members = [pa.field(name, kind) for name, kind in _MEMBERS.items() if name in policy.members]
    fields = [pa.field(name, _type(rule)) for name, rule in sorted(policy.sidecar_fields.items())]
    return members + fields


def column(name: str) -> str:
    """Column of a picture: of the main one (""), of a number, of a name."""
    return {"": "image"}.get(name, f"image_{name}" if name.isdigit() else name)


def file_column(name: str) -> str:
    """Column with the file name of a picture, as Hugging Face's imagefolder has it."""
    return f"{column(name)}_file_name" if name else "file_name"


def file_name(key: str, name: str, extension: str) -> str:
    """What a picture is called."""
    return f"{key}.{name}.{extension}" if name else f"{key}.{extension}"


def cell(key: str, name: str, extension: str, data: bytes, struct: bool) -> Any:
    """Value of a column of pictures."""
    return {"bytes": data, "path": file_name(key, name, extension)} if struct else data


def held(value: Any) -> bytes:
    """The bytes in a cell; none for what is no picture."""
    if isinstance(value, dict):
        value = value["bytes"]
    return value if isinstance(value, bytes) else b""


def fields(given: Mapping[str, Any], policy: Metadata) -> dict[str, Any]:
    """What passed, by column.

    Raises:
        ValueError: something that has none.
    """
    known = {*policy.sidecar_fields, *policy.members}
    if given.keys() - known:
        raise ValueError("a sample has a field that the policy does not know")
    return dict(given)


def check_key(key: str, seen: set[str]) -> None:
    """Add a key to those that were seen.

    Raises:
        ValueError: it is empty, not plain (letters, digits, "-", "_") or given twice.
    """
    if not _PLAIN_KEY.fullmatch(key):
        raise ValueError("a sample key is not plain")
    if key in seen:
        raise ValueError("a sample key is given twice")
    seen.add(key)


def to_bytes(groups: Iterable[list[dict[str, Any]]], schema: pa.Schema) -> bytes:
    """A Parquet file with one row group for each list of rows, and no metadata but that of the schema."""
    sink = pa.BufferOutputStream()
    plain = schema.remove_metadata()
    with pq.ParquetWriter(
        sink,
        plain,
        compression="zstd",
        use_dictionary=False,
        store_schema=False,
        write_page_checksum=True,
        write_batch_size=_PAGE_ROWS,
    ) as writer:
        for rows in groups:
            arrays = [
                pa.array([row.get(name) for row in rows], kind)
                for name, kind in zip(plain.names, plain.types, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=plain))
        if schema.metadata:
            writer.add_key_value_metadata(schema.metadata)
    return sink.getvalue().to_pybytes()


def _type(rule: SidecarField) -> pa.DataType:
    kind = _TYPES.get(rule.type, pa.float64())
    for _ in range(rule.levels):
        kind = pa.list_(kind)
    return kind


def _check(made: pa.Schema) -> None:
    twice = sorted({name for name in made.names if made.names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"metadata: {', '.join(twice)}: the output has a column of this name already; rename the field, the mask "
            "or the picture in the source, or leave it out"
        )


def _features(made: pa.Schema) -> dict[str, str]:
    features = {field.name: _feature(field.type) for field in made}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """As `datasets.Features.to_dict`; lists by the name that all its versions know."""
    if kind == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    return {"dtype": _HF_NAMES.get(str(kind), str(kind)), "_type": "Value"}
