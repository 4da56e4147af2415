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


def test_without_heads_smaller_pictures_are_area_averages(files, exact, styles):
    small = MobileStyleGANGenerator(files, precision="float32", size=256, heads=False).generate(styles[:1])
    means = exact.generate(styles[:1]).reshape(1, 256, 4, 256, 4, 3).mean((2, 4))
    assert small.shape == (1, 256, 256, 3)
    assert np.abs(small - means).max() <= 1


def test_heads_draw_smaller_pictures_alike(files, exact, styles):
    whole = MobileStyleGANGenerator(files, precision="float32", heads=False)
    for side, most in ((512, 0.1), (256, 4), (64, 6)):
        difference = exact.generate(styles[:1], side).astype(float) - whole.generate(styles[:1], side)
        assert np.abs(difference).mean() < most


def test_side_is_that_of_the_pictures_whatever_the_size(files, exact, styles):
    small = MobileStyleGANGenerator(files, precision="float32", size=256)
    assert small.generate(styles[:1]).shape == (1, 256, 256, 3)
    assert np.array_equal(small.generate(styles[:1]), exact.generate(styles[:1], side=256))
    assert exact.generate(styles[:1], side=300).shape == (1, 300, 300, 3)
    assert np.array_equal(small.generate(styles[:1], side=1024), exact.generate(styles[:1]))


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_sides_that_cannot_be_drawn_are_refused(files, styles, engine):
    generator = MobileStyleGANGenerator(files, engine=engine)
    for side in (0, 1025):
        with pytest.raises(ValueError, match="side"):
            generator.generate(styles[:1], side=side)


def test_one_style_equals_the_same_style_for_every_block(exact, styles):
    by_block = np.repeat(styles[:, None], 9, axis=1)
    assert np.array_equal(exact.generate(by_block), exact.generate(styles))


def test_upper_styles_move_colours_and_not_the_face(exact, styles):
    by_block = np.repeat(styles[:1, None], 9, axis=1)
    upper, lower = by_block.copy(), by_block.copy()
    upper[:, 6:] = styles[1]
    lower[:, :4] = styles[1]
    plain = exact.generate(by_block, side=128).astype(float)
    edges = [np.diff(exact.generate(s, side=128).mean(3), axis=1).ravel() for s in (by_block, upper, lower)]
    assert np.abs(exact.generate(upper, side=128) - plain).mean() > 3
    assert np.corrcoef(edges[0], edges[1])[0, 1] > 2 * np.corrcoef(edges[0], edges[2])[0, 1]


@pytest.mark.parametrize("shape", [(512,), (1, 511), (1, 8, 512), (1, 1, 9, 512)])
def test_styles_of_another_shape_are_refused(exact, shape):
    with pytest.raises(ValueError, match="styles"):
        exact.generate(np.zeros(shape, np.float32))


def test_openvino_refuses_styles_by_block(files, styles):
    generator = MobileStyleGANGenerator(files, engine="openvino")
    with pytest.raises(ConfigError, match="engine: torch"):
        generator.generate(np.repeat(styles[:1, None], 9, axis=1))


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
