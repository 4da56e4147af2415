from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deid.errors import ModelError
from deid.gallery import store
from deid.interfaces import Gallery


def gallery(n: int = 3) -> Gallery:
    rng = np.random.default_rng(0)
    return Gallery(
        styles=rng.standard_normal((n, 512)).astype(np.float16).astype(np.float32),
        embeddings=rng.standard_normal((n, 128), np.float32),
        meshes=rng.random((n, 468, 3), np.float32),
        attributes={"yaw": np.arange(n, dtype=np.float32), "age": np.full(n, 30, np.float32)},
        mean_style=rng.standard_normal(512).astype(np.float32),
        metadata={"recipe.seed": "1"},
    )


def damaged(path: Path, column: str, values: pa.Array | None) -> None:
    table = pq.read_table(path)
    at = table.column_names.index(column)
    pq.write_table(table.remove_column(at) if values is None else table.set_column(at, column, values), path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store.save(gallery(), str(tmp_path / "g.parquet"))
    return tmp_path / "g.parquet"


def test_a_gallery_loads_as_it_was_saved(path):
    saved, loaded = gallery(), store.load(str(path))
    assert np.array_equal(loaded.styles, saved.styles)
    assert np.array_equal(loaded.embeddings, saved.embeddings)
    assert np.abs(loaded.meshes - saved.meshes).max() <= 0.25 / 1024
    assert np.array_equal(loaded.mean_style, saved.mean_style)
    assert {name: values.tolist() for name, values in loaded.attributes.items()} == {
        "yaw": [0, 1, 2],
        "age": [30, 30, 30],
    }
    assert loaded.metadata == {"recipe.seed": "1"}
    assert [a.dtype for a in (loaded.styles, loaded.embeddings, loaded.meshes)] == [np.float32] * 3


def test_the_same_gallery_gives_the_same_bytes(path, tmp_path):
    store.save(gallery(), str(tmp_path / "again.parquet"))
    assert store.digest(str(path)) == store.digest(str(tmp_path / "again.parquet"))


def test_a_missing_file_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        store.load(str(tmp_path / "none.parquet"))


@pytest.mark.parametrize("content", [b"", b"PAR1 is only how it begins"])
def test_a_file_that_is_no_parquet_is_refused(tmp_path, content):
    (tmp_path / "g.parquet").write_bytes(content)
    with pytest.raises(ModelError, match="not a Parquet file"):
        store.load(str(tmp_path / "g.parquet"))


@pytest.mark.parametrize("column", ["style", "embedding", "mesh"])
def test_a_missing_column_is_refused(path, column):
    damaged(path, column, None)
    with pytest.raises(ModelError, match=f"no column {column}"):
        store.load(str(path))


def test_an_attribute_that_an_identity_has_not_is_nan(path):
    damaged(path, "age", pa.array([1.0, float("nan"), 2.0], pa.float32()))
    loaded = store.load(str(path)).attributes["age"]
    assert np.array_equal(loaded, [1, np.nan, 2], equal_nan=True)


def test_infinite_attributes_are_refused(path):
    damaged(path, "age", pa.array([1.0, float("inf"), 2.0], pa.float32()))
    with pytest.raises(ModelError, match="age"):
        store.load(str(path))


@pytest.mark.parametrize("column", ["style", "embedding", "mesh"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_arrays_that_are_not_finite_are_refused(path, column, value):
    kind = pq.read_schema(path).field(column).type
    values = np.zeros((3, kind.list_size), np.float16 if kind.value_type == pa.float16() else np.float32)
    values[1, 2] = value
    damaged(path, column, pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), kind.list_size))
    with pytest.raises(ModelError, match=column):
        store.load(str(path))


def test_missing_values_are_refused(path):
    kind = pq.read_schema(path).field("embedding").type
    damaged(path, "embedding", pa.array([[0.0] * 128, None, [0.0] * 128], kind))
    with pytest.raises(ModelError, match="missing values"):
        store.load(str(path))


def test_lengths_that_do_not_fit_are_refused(path):
    damaged(path, "style", pa.array([[0.0] * 100] * 3, pa.list_(pa.float16(), 100)))
    with pytest.raises(ModelError, match="lengths"):
        store.load(str(path))


def test_another_version_is_refused(path):
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"deid.gallery.version": "0"}), path)
    with pytest.raises(ModelError, match="version 0"):
        store.load(str(path))


def test_a_gallery_that_would_not_load_is_not_saved(tmp_path):
    bad = gallery()
    bad.embeddings[1, 0] = np.inf
    with pytest.raises(ModelError, match="embedding"):
        store.save(bad, str(tmp_path / "g.parquet"))
    assert not (tmp_path / "g.parquet").exists()


def test_the_default_gallery():
    default = store.load(None)
    size = len(default)
    assert size > 1024
    assert default.styles.shape == (size, 512)
    assert default.embeddings.shape == (size, 128)
    assert {"yaw", "pitch", "roll", "skin_l", "sex", "age"} <= set(default.attributes)
    assert np.abs(default.attributes["yaw"]).max() <= 30
    assert ((default.meshes[:, :, :2] > -0.2) & (default.meshes[:, :, :2] < 1.2)).all()
    distances = np.linalg.norm(default.embeddings[:, None] - default.embeddings[None], axis=2)
    assert distances[~np.eye(size, dtype=bool)].min() >= 0.35
    assert default.metadata["recipe.seed"] == "1"
    assert any(name.startswith("model.mobilestylegan.") for name in default.metadata)
