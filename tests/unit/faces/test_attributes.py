from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deid.errors import ModelError
from deid.faces.attributes import AttributeHeads, sex_class
from deid.gallery import store

HEADS = AttributeHeads.load()


@pytest.fixture(scope="module")
def held_out():
    """48 generated faces that the heads were not fitted on: embeddings, the teacher's P(male) and age."""
    return load_file(Path(__file__).with_name("teacher.safetensors"))


def test_shapes_and_ranges():
    vectors = np.random.default_rng(0).normal(0, 3, (500, 128)).astype(np.float32)
    predicted = HEADS.predict(vectors)
    assert set(predicted) == {"sex", "age"}
    for values, greatest in ((predicted["sex"], 1), (predicted["age"], 100)):
        assert values.shape == (500,)
        assert values.dtype == np.float32
        assert 0 <= values.min() <= values.max() <= greatest


def test_no_faces():
    predicted = HEADS.predict(np.zeros((0, 128), np.float32))
    assert predicted["sex"].shape == predicted["age"].shape == (0,)
    assert sex_class(predicted["sex"]).shape == (0,)


def test_a_face_without_embedding_is_unknown_and_leaves_the_others_alone(held_out):
    vectors = held_out["embedding"].copy()
    vectors[3, 7] = np.nan
    predicted, alone = HEADS.predict(vectors), HEADS.predict(held_out["embedding"])
    assert np.isnan(predicted["sex"][3])
    assert np.isnan(predicted["age"][3])
    assert sex_class(predicted["sex"])[3] == -1
    rest = np.arange(len(vectors)) != 3
    assert np.array_equal(predicted["sex"][rest], alone["sex"][rest])


@pytest.mark.parametrize("shape", [(128,), (4, 4096), (2, 3, 128)])
def test_other_embeddings_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[N, 128\]"):
        HEADS.predict(np.zeros(shape, np.float32))


def test_agrees_with_the_teacher_on_faces_it_was_not_fitted_on(held_out):
    predicted = HEADS.predict(held_out["embedding"])
    male = held_out["sex"] > 0.5
    assert ((predicted["sex"] > 0.5) == male).mean() >= 0.85
    assert np.abs(predicted["age"] - held_out["age"]).mean() <= 6
    answers = sex_class(predicted["sex"])
    known = answers >= 0
    assert known.mean() >= 0.5
    assert (answers == male)[known].mean() >= 0.95


def test_the_gallery_has_both_sexes_and_many_ages():
    predicted = HEADS.predict(store.load(None).embeddings)
    assert 0.3 <= (predicted["sex"] > 0.5).mean() <= 0.7
    answers = sex_class(predicted["sex"])
    assert min((answers == 0).mean(), (answers == 1).mean()) >= 0.15
    assert np.percentile(predicted["age"], 90) - np.percentile(predicted["age"], 10) >= 20


def test_sex_class_is_silent_inside_the_band():
    answers = sex_class(np.array([0, 0.19, 0.2, 0.5, 0.7, 0.71, 1, np.nan]), np.array([0.2, 0.7]))
    assert answers.tolist() == [0, 0, -1, -1, -1, 1, 1, -1]
    assert answers.dtype == np.int8
    low, high = HEADS.sex_band
    assert 0 < low < 0.5 < high < 1
    assert sex_class(np.array([low - 1e-3, low, high, high + 1e-3], np.float32)).tolist() == [0, -1, -1, 1]


def test_the_same_embeddings_give_the_same_answers_alone_and_together(held_out):
    together = HEADS.predict(held_out["embedding"])
    alone = [HEADS.predict(row[None]) for row in held_out["embedding"]]
    for name, tolerance in (("sex", 1e-6), ("age", 1e-4)):
        assert np.allclose(together[name], [row[name][0] for row in alone], atol=tolerance)


def test_saved_heads_load_again_and_the_bytes_repeat(tmp_path):
    for name in ("a", "b"):
        HEADS.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = AttributeHeads.load(tmp_path / "a")
    for name, values in vars(HEADS).items():
        assert np.array_equal(getattr(loaded, name), values)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "heads.safetensors"
    with pytest.raises(ModelError, match=r"heads\.safetensors"):
        AttributeHeads.load(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot be read"):
        AttributeHeads.load(path)
    save_file({"sex_weight": np.zeros(64, np.float32)}, path)
    with pytest.raises(ModelError, match="no attribute heads"):
        AttributeHeads.load(path)
