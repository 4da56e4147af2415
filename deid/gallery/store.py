"""The gallery file: one Parquet table, one row an identity, with what made it in the key-value metadata."""

import base64
import hashlib
import io
from importlib import resources
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deid.config import Config
from deid.errors import DeidError, ModelError
from deid.interfaces import Gallery
from deid.shards import storage

VERSION = "1"
MESH_SHAPE = (468, 3)
_DEFAULT = "data/gallery.parquet"
_OWN = {
    "ksame_mesh": "data/mixtures.parquet",
    "ksame_net": "data/net_mixtures.parquet",
}  # default galleries of generators that have one of their own
_NAMES = {"ksame_mesh": "ksame_mesh", "ksame_net": "net_mixtures"}  # of these in the model registry
_ARRAYS = ("style", "embedding", "mesh")  # columns of fixed-size lists; the others are attributes


def load(path: str | None, generator: str = "") -> Gallery:
    """The gallery in a file (local or s3://); None: the default gallery of the package for this generator.

    Raises:
        ModelError: the file is missing, is no gallery, or holds values that cannot be.
    """
    name = path or "default gallery"
    try:
        table = pq.read_table(io.BytesIO(_read(path, generator)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ModelError(
            f"{name}: not a Parquet file ({type(error).__name__}); build the gallery again"
        ) from None
    return _from_table(table, name)


def of(config: Config) -> Gallery:
    """The gallery of a run; ModelError as in `load`."""
    return load(config.gallery, config.generator.name)


def packaged(generator: str) -> str:
    """Name in the model registry of the package's default gallery for a generator."""
    return _NAMES.get(generator, "default_gallery")


def digest(path: str | None, generator: str = "") -> str:
    """SHA-256 (hex) of the gallery's file."""
    return hashlib.sha256(_read(path, generator)).hexdigest()


def save(gallery: Gallery, path: str) -> None:
    """Write the gallery in one step, over what was there.

    Styles and meshes are rounded to float16: at most a quarter of a pixel of a 1024 px picture.

    Raises:
        ModelError: the gallery would not load again.
    """
    table = _to_table(gallery)
    _from_table(table, path)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    storage.write_bytes(path, buffer.getvalue(), overwrite=True)


def _read(path: str | None, generator: str) -> bytes:
    default = _OWN.get(generator, _DEFAULT)
    try:
        return storage.read_bytes(path) if path else (resources.files(__package__) / default).read_bytes()
    except OSError:
        raise ModelError("default gallery: it is not in the package; install deid again") from None
    except DeidError as error:
        raise ModelError(f"gallery {path}: cannot be read: {error}") from error


def _to_table(gallery: Gallery) -> pa.Table:
    if gallery.mean_style is None:
        raise ModelError("gallery: it has no mean style; build it with deid.gallery.build")
    n = len(gallery)
    columns: dict[str, Any] = {
        "style": _lists(gallery.styles, np.float16),
        "embedding": _lists(gallery.embeddings, np.float32),
        "mesh": _lists(gallery.meshes.reshape(n, -1), np.float16),
    }
    columns |= {name: pa.array(np.asarray(values)) for name, values in gallery.attributes.items()}
    columns |= {name: pa.array(encoded, pa.binary()) for name, encoded in gallery.textures.items()}
    mean_style = base64.b64encode(gallery.mean_style.astype("<f4").tobytes()).decode()
    return pa.table(columns).replace_schema_metadata(
        gallery.metadata | {"deid.gallery.version": VERSION, "mean_style": mean_style}
    )


def _from_table(table: pa.Table, name: str) -> Gallery:
    metadata = {
        k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items() if k != b"ARROW:schema"
    }
    version = metadata.pop("deid.gallery.version", None)
    if version != VERSION:
        raise ModelError(
            f"{name}: gallery version {version}, but this code reads {VERSION}; build the gallery again"
        )
    styles, embeddings, meshes = (_matrix(table, column, name) for column in _ARRAYS)
    mean_style = np.frombuffer(base64.b64decode(metadata.pop("mean_style", "")), "<f4").astype(np.float32)
    if not len(table):
        raise ModelError(f"{name}: the gallery is empty")
    if meshes.shape[1] != np.prod(MESH_SHAPE) or mean_style.shape != styles.shape[1:]:
        raise ModelError(f"{name}: lengths of meshes or of the mean style are wrong; build the gallery again")
    textures = {
        c: table[c].to_pylist() for c in table.column_names if pa.types.is_binary(table.schema.field(c).type)
    }
    attributes = {c: table[c].to_numpy() for c in table.column_names if c not in (*_ARRAYS, *textures)}
    arrays: dict[str, NDArray[Any]] = dict(zip(_ARRAYS, (styles, embeddings, meshes), strict=True))
    for column, values in (arrays | attributes | {"mean_style": mean_style}).items():
        lacking = np.isinf if column in attributes else lambda given: ~np.isfinite(given)  # NaN: it has none
        if not np.issubdtype(values.dtype, np.number) or lacking(values).any():
            raise ModelError(
                f"{name}: column {column} holds values that are no finite numbers; build the gallery again"
            )
    return Gallery(
        styles, embeddings, meshes.reshape(-1, *MESH_SHAPE), attributes, mean_style, metadata, textures
    )


def _lists(values: NDArray[np.floating], dtype: type[np.floating]) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(values, dtype).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _matrix(table: pa.Table, column: str, name: str) -> NDArray[np.float32]:
    kind = table.schema.field(column).type if column in table.column_names else None
    if kind is None or not (pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)):
        raise ModelError(f"{name}: no column {column} of fixed-size lists of floats; it is no gallery")
    array = table[column].combine_chunks()
    if array.null_count or array.values.null_count:
        raise ModelError(f"{name}: column {column} has missing values; build the gallery again")
    return np.asarray(array.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, kind.list_size)
