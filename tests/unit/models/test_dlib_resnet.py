"""Our copy of dlib's network against dlib itself."""

from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray

from deid.errors import ModelError
from deid.models import dlib_resnet
from deid.models.store import default_store


@pytest.fixture(scope="module")
def weights() -> Path:
    return default_store().files("dlib_resnet")["dlib_face_recognition_resnet_model_v1.dat"]


def chips() -> NDArray[np.uint8]:
    """[6, 150, 150, 3]: a face, the same turned, dark and mirrored, a place without a face, and noise."""
    portrait = skimage.data.astronaut()
    face = cv2.resize(portrait[50:215, 140:305], (150, 150), interpolation=cv2.INTER_AREA)
    turned = cv2.warpAffine(face, cv2.getRotationMatrix2D((75, 75), 15, 1.1), (150, 150))
    dark = (face * 0.4).astype(np.uint8)
    noise = np.random.default_rng(5).integers(0, 256, face.shape, dtype=np.uint8)
    return np.stack([face, turned, dark, face[:, ::-1], portrait[300:450, 300:450], noise])


def embed(network: dlib_resnet.DlibResNet, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.inference_mode():
        output: NDArray[np.float32] = network(torch.from_numpy(pictures).permute(0, 3, 1, 2).float()).numpy()
    return output


def test_agrees_with_dlib_on_the_same_chips(weights: Path) -> None:
    reference = dlib.face_recognition_model_v1(str(weights))
    pictures = chips()
    expected = [
        np.array(reference.compute_face_descriptor(np.ascontiguousarray(picture))) for picture in pictures
    ]
    distances = np.linalg.norm(embed(dlib_resnet.load(weights), pictures) - np.array(expected), axis=1)
    assert distances.max() < 1e-4
    assert np.linalg.norm(expected[0] - expected[5]) > 0.5  # the chips are told apart at all


def test_a_batch_gives_what_single_chips_give(weights: Path) -> None:
    network, pictures = dlib_resnet.load(weights), chips()
    single = np.concatenate([embed(network, picture[None]) for picture in pictures])
    np.testing.assert_allclose(embed(network, pictures), single, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(weights: Path) -> None:
    network, pictures = dlib_resnet.load(weights), chips()
    expected = embed(network, pictures)
    with torch.inference_mode():
        pixels = torch.from_numpy(pictures).cuda().permute(0, 3, 1, 2).float()
        got = network.cuda()(pixels).cpu().numpy()
    assert np.linalg.norm(got - expected, axis=1).max() < 1e-2  # TF32 convolutions


def test_another_dlib_file_is_refused() -> None:
    other = default_store().files("dlib_mmod")["mmod_human_face_detector.dat"]
    with pytest.raises(ModelError, match="not dlib's face recognition network"):
        dlib_resnet.load(other)


@pytest.mark.parametrize("kept", [0, 1_000, 20_000_000])
def test_a_file_cut_short_is_refused(weights: Path, kept: int, tmp_path: Path) -> None:
    short = tmp_path / "short.dat"
    short.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match="not dlib's face recognition network"):
        dlib_resnet.load(short)
