from pathlib import Path

import numpy as np
import openvino
import pytest
import torch

from deid.errors import ModelError
from deid.models import mobilestylegan
from deid.models.store import default_store

REFERENCE = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return default_store().files("mobilestylegan")


@pytest.fixture(scope="module")
def synthesis(files: dict[str, Path]) -> mobilestylegan.SynthesisNetwork:
    return mobilestylegan.load_synthesis(files)


@pytest.fixture(scope="module")
def styles(files: dict[str, Path]) -> torch.Tensor:
    latents = np.random.default_rng(0).standard_normal((16, 512), np.float32)
    with torch.inference_mode():
        return mobilestylegan.load_mapping(files)(torch.from_numpy(latents))


def test_mapping_agrees_with_openvino(files, styles):
    model = openvino.Core().read_model(files["MappingNetwork.xml"])
    model.reshape([16, 512])
    latents = np.random.default_rng(0).standard_normal((16, 512), np.float32)
    expected = openvino.compile_model(model, "CPU", REFERENCE)(latents)[0]
    assert np.abs(styles.numpy() - expected).max() < 1e-4


def test_synthesis_agrees_with_openvino(files, synthesis, styles):
    reference = openvino.compile_model(files["SynthesisNetwork.xml"], "CPU", REFERENCE)
    for style in styles.split(1):
        with torch.inference_mode():
            picture = synthesis(style).numpy()
        assert picture.shape == (1, 3, 1024, 1024)
        assert np.abs(picture - reference(style.numpy())[0]).max() < 2e-3


def test_a_batch_gives_what_single_styles_give(synthesis, styles):
    with torch.inference_mode():
        batch = synthesis(styles[:2])
        single = torch.cat([synthesis(style) for style in styles[:2].split(1)])
    assert (batch - single).abs().max() < 2e-3


def test_a_style_of_each_place_moves_what_comes_after_it_only(synthesis, styles):
    assert len(synthesis.layers) + 2 == mobilestylegan.STYLES
    same = styles[:1].unsqueeze(1).repeat(1, mobilestylegan.STYLES, 1)
    mixed = same.clone()
    mixed[:, 4:] = styles[1]  # blocks 3 and up, and the head
    with torch.inference_mode():
        plain, finer = list(synthesis.blocks(same)), list(synthesis.blocks(mixed))
        head = same.clone()
        head[:, -1] = styles[1]
        moved = (synthesis(head) - synthesis(same)).abs().mean()
        assert torch.equal(synthesis(same), synthesis(styles[:1]))
    assert [torch.equal(a, b) for a, b in zip(plain, finer, strict=True)] == [True] * 3 + [False] * 4
    assert moved > 0.001


def test_block_features_have_the_stated_shapes(synthesis, styles):
    with torch.inference_mode():
        features = [x for x, _ in zip(synthesis.blocks(styles[:2]), range(4), strict=False)]
    assert [tuple(x.shape) for x in features] == [(2, 512, side, side) for side in (8, 16, 32, 64)]
    assert all(torch.isfinite(x).all() and x.std() > 0 for x in features)


def test_inverse_haar_of_known_bands():
    kernel = mobilestylegan.haar_kernel(8)[:, :, 0, 0]
    bands = torch.tensor(
        [2.0, 20.0, 0.4, 0.2, 0.1, 0.0, 0.0, 0.0]
    )  # means of two channels, then their details
    pixels = (kernel @ bands).reshape(2, 2, 2)
    assert torch.allclose(pixels[0], torch.tensor([[1.35, 1.05], [0.85, 0.75]]))
    assert torch.allclose(pixels[1], torch.full((2, 2), 10.0))


def test_loading_bfloat16_keeps_styles_and_head_in_float32(files):
    network = mobilestylegan.load_synthesis(files, torch.bfloat16)
    assert network.layers[0].conv1.conv.weight.dtype == torch.bfloat16
    assert network.layers[0].up.modulation.weight.dtype == torch.float32
    assert network.layers[-1].to_img.bias.dtype == torch.float32


@pytest.mark.parametrize("damage", ["missing", "cut", "no_xml", "other"])
def test_damaged_files_are_refused(files, tmp_path, damage):
    given = dict(files)
    if damage == "missing":
        del given["SynthesisNetwork.bin"]
    elif damage == "other":
        given["SynthesisNetwork.xml"] = files["MappingNetwork.xml"]
    else:
        name = "SynthesisNetwork.bin" if damage == "cut" else "SynthesisNetwork.xml"
        given[name] = tmp_path / name
        given[name].write_bytes(files[name].read_bytes()[:1000])
    with pytest.raises(ModelError, match="SynthesisNetwork"):
        mobilestylegan.load_synthesis(given)
