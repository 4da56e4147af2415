from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deid.errors import ModelError
from deid.faces import segment
from deid.faces.segment import BACKGROUND, FACE, HAIR, PARTS, SIDE
from deid.faces.segmenter import HeadSegmenter, SegmenterNetwork
from tests.unit.surrogates import generated

NUMBERS = (0, 1, 2, 6)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [generated.head(number).picture for number in NUMBERS]


@pytest.fixture(scope="module")
def packaged() -> Path:
    return Path(segment.__file__).parent / "data" / "segmenter.safetensors"


@pytest.fixture(scope="module")
def clean() -> HeadSegmenter:
    return HeadSegmenter(Path(segment.__file__).parent / "data" / "segmenter_clean.safetensors")


def test_parts_of_generated_heads_are_where_they_stand(pictures):
    for parts in generated.segmenter().parts(pictures):
        assert parts.shape == (SIDE, SIDE, len(PARTS))
        assert parts.dtype == np.uint8
        largest = parts.argmax(-1)
        assert (largest[70:90, 54:74] == FACE).mean() > 0.95, "the middle is no face"
        assert (largest[:5, :5] == BACKGROUND).mean() > 0.9
        assert (largest[:5, -5:] == BACKGROUND).mean() > 0.9
        assert (largest[5:30, 54:74] == HAIR).mean() > 0.3
        assert 0.1 < (largest == FACE).mean() < 0.5


def test_the_clean_weights_find_the_same_heads(pictures, clean):
    """On generated heads, of which they have seen none. They are the weaker ones: docs/models/segmenter_clean.md."""
    agreed = []
    for parts, ours in zip(clean.parts(pictures), generated.segmenter().parts(pictures), strict=True):
        assert (parts.argmax(-1)[70:90, 54:74] == FACE).mean() > 0.9, "the middle is no face"
        head, wanted = (np.isin(p.argmax(-1), (FACE, HAIR)) for p in (parts, ours))
        agreed.append((head & wanted).sum() / (head | wanted).sum())
    assert min(agreed) > 0.6
    assert np.mean(agreed) > 0.7


def test_both_weights_are_told_apart(pictures, clean):
    assert not np.array_equal(clean.parts(pictures[:1])[0], generated.segmenter().parts(pictures[:1])[0])


def test_parts_of_a_pixel_add_up(pictures):
    sums = np.stack(generated.segmenter().parts(pictures)).sum(-1, dtype=int)
    assert np.abs(sums - 255).max() <= 2
    assert abs(sums.mean() - 255) < 0.5


def test_the_same_chips_give_the_same_parts_alone_and_together(pictures):
    segmenter = generated.segmenter()
    together = segmenter.parts(pictures)
    for chip, parts, again in zip(pictures, together, segmenter.parts(pictures), strict=True):
        assert np.array_equal(parts, again)
        assert np.abs(segmenter.parts([chip])[0].astype(int) - parts).max() <= 1
    assert np.array_equal(HeadSegmenter().parts(pictures[:1])[0], segmenter.parts(pictures[:1])[0])


def test_no_chips_no_parts():
    assert generated.segmenter().parts([]) == []
    assert generated.segmenter().segment([], []) == []


def test_the_parts_follow_the_face_where_it_stands(pictures):
    """Shifted, turned and larger in a picture, a head has nearly the same parts on its chip."""
    head = generated.head(NUMBERS[1])
    here = generated.segmenter().segment([head.picture], [head.mesh])[0]
    matrix = cv2.getRotationMatrix2D((128, 128), 25, 1.3) + np.array([[0, 0, 100], [0, 0, 90]])
    moved = cv2.warpAffine(head.picture, matrix, (460, 440), borderMode=cv2.BORDER_REPLICATE)
    mesh = head.mesh.copy()
    mesh[:, :2] = head.mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    there = generated.segmenter().segment([np.asarray(moved, np.uint8)], [mesh])[0]
    inner = slice(30, 100), slice(30, 98)
    assert (here.argmax(-1)[inner] == there.argmax(-1)[inner]).mean() > 0.95


@pytest.mark.parametrize("side", [64, 128, 512])
def test_chips_of_any_side(pictures, side):
    size = (side, side)
    resized = [np.asarray(cv2.resize(p, size, interpolation=cv2.INTER_AREA), np.uint8) for p in pictures[:2]]
    plain = generated.segmenter().parts(pictures[:2])
    for parts, expected in zip(generated.segmenter().parts(resized), plain, strict=True):
        assert (parts.argmax(-1) == expected.argmax(-1)).mean() > 0.9


def damage(kind: str, packaged: Path, path: Path) -> None:
    if kind == "text":
        path.write_bytes(b"no tensors at all")
    elif kind == "cut":
        path.write_bytes(packaged.read_bytes()[:100_000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "other":
        save_file({"weight": torch.zeros(3)}, path)
    elif kind == "shape":
        tensors = load_file(packaged)
        name = "head.weight"
        save_file(tensors | {name: torch.zeros(7, *tensors[name].shape[1:])}, path)


@pytest.mark.parametrize("kind", ["missing", "text", "cut", "empty", "other", "shape"])
def test_weights_that_are_not_the_networks_are_one_line(packaged, tmp_path, kind):
    damage(kind, packaged, tmp_path / "own.safetensors")
    with pytest.raises(ModelError) as raised:
        HeadSegmenter(tmp_path / "own.safetensors")
    message = str(raised.value)
    assert message.startswith("own.safetensors: no segmenter")
    assert "\n" not in message
    assert str(tmp_path) not in message
    assert raised.value.__suppress_context__


def test_a_file_of_ones_own_is_used(packaged, pictures, tmp_path):
    tensors = load_file(packaged)
    tensors["head.weight"] = torch.zeros_like(tensors["head.weight"])
    tensors["head.bias"] = torch.tensor([0.0, 0, 0, 0, 30])
    save_file(tensors, tmp_path / "own.safetensors")
    parts = HeadSegmenter(tmp_path / "own.safetensors").parts(pictures[:1])[0]
    assert (parts[..., 4] == 255).all()


def test_the_network_gives_logits_at_its_own_resolution():
    network = SegmenterNetwork().eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 256, 256)).shape == (2, len(PARTS), 256, 256)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu(pictures):
    found = HeadSegmenter(device="cuda").parts(pictures)
    for ours, theirs in zip(generated.segmenter().parts(pictures), found, strict=True):
        assert (ours.argmax(-1) == theirs.argmax(-1)).mean() > 0.99
