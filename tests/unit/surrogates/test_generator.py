from pathlib import Path

import numpy as np
import pytest
import torch

from deid.errors import ConfigError
from deid.models.store import default_store
from deid.surrogates.generator import MobileStyleGANGenerator


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return default_store().files("mobilestylegan")


@pytest.fixture(scope="module")
def exact(files: dict[str, Path]) -> MobileStyleGANGenerator:
    return MobileStyleGANGenerator(files, precision="float32")


@pytest.fixture(scope="module")
def styles(exact: MobileStyleGANGenerator) -> np.ndarray:
    return exact.map(np.random.default_rng(3).standard_normal((2, exact.latent_dim), np.float32))


def test_pictures_of_styles(exact, styles):
    pictures = exact.generate(styles)
    assert pictures.shape == (2, 1024, 1024, 3)
    assert pictures.dtype == np.uint8
    assert np.ptp(pictures) > 200
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 10
    assert np.array_equal(pictures[1:], exact.generate(styles[1:]))


def test_no_styles_give_no_pictures(exact):
    assert exact.generate(np.empty((0, 512), np.float32)).shape == (0, 1024, 1024, 3)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_engines_agree_to_one_level(files, exact, styles, engine):
    pictures = MobileStyleGANGenerator(files, engine=engine, precision="float32").generate(styles[:1])
    assert np.abs(pictures.astype(int) - exact.generate(styles[:1])).max() <= 1


def test_bfloat16_stays_close(files, exact, styles):
    pictures = MobileStyleGANGenerator(files, precision="bfloat16").generate(styles[:1])
    difference = np.abs(pictures.astype(int) - exact.generate(styles[:1]))
    assert 0 < difference.mean() < 1
    assert np.percentile(difference, 99) <= 5


def test_smaller_pictures_are_area_averages(files, exact, styles):
    small = MobileStyleGANGenerator(files, precision="float32", size=256).generate(styles[:1])
    means = exact.generate(styles[:1]).reshape(1, 256, 4, 256, 4, 3).mean((2, 4))
    assert small.shape == (1, 256, 256, 3)
    assert np.abs(small - means).max() <= 1


@pytest.mark.parametrize(
    "options",
    [{"engine": "tensorrt"}, {"engine": "openvino", "device": "cuda"}, {"precision": "int8"}, {"size": 2048}],
)
def test_unknown_options_are_refused(files, options):
    with pytest.raises(ConfigError, match="generator"):
        MobileStyleGANGenerator(files, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu(files, exact, styles):
    pictures = MobileStyleGANGenerator(files, device="cuda", precision="float32").generate(styles)
    assert np.abs(pictures.astype(int) - exact.generate(styles)).mean() < 1
