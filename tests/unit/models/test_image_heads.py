import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deid.errors import ModelError
from deid.models import image_heads, mobilestylegan
from deid.models.image_heads import ImageHeads
from deid.models.store import default_store


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return default_store().files("mobilestylegan")


@pytest.fixture(scope="module")
def network(files: dict[str, Path]) -> mobilestylegan.SynthesisNetwork:
    return mobilestylegan.load_synthesis(files)


@pytest.fixture(scope="module")
def heads(network) -> ImageHeads:
    return ImageHeads.load(network)


@pytest.fixture(scope="module")
def styles(files: dict[str, Path]) -> torch.Tensor:
    """Three styles [3, 512], truncated as the gallery's are."""
    mapping = mobilestylegan.load_mapping(files)
    drawn = torch.from_numpy(np.random.default_rng(8).standard_normal((1003, 512), np.float32))
    with torch.inference_mode():
        found = mapping(drawn)
    return found.mean(0) + 0.8 * (found[:3] - found.mean(0))


@pytest.fixture(scope="module")
def full(network, styles) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([network(style) for style in styles.split(1)]).clamp(-1, 1)


@pytest.mark.parametrize(
    ("side", "level"), [(1, 128), (128, 128), (129, 256), (300, 512), (512, 512), (513, 1024), (1024, 1024)]
)
def test_the_least_level_that_covers_a_side(side, level):
    assert image_heads.level_of(side) == level


@pytest.mark.parametrize(("level", "most"), [(128, 6.0), (256, 4.0), (512, 0.1)])
def test_heads_draw_what_averaging_the_full_picture_gives(heads, styles, full, level, most):
    with torch.inference_mode():
        early = torch.cat([heads(style, level) for style in styles.split(1)]).clamp(-1, 1)
    assert early.shape == (3, 3, level, level)
    difference = 127.5 * (early - F.interpolate(full, size=(level, level), mode="area"))
    assert difference.abs().mean() < most
    assert difference.mean((0, 2, 3)).abs().max() < 2  # no colour cast


def test_no_block_beyond_the_needed_one_is_computed(heads, network, styles):
    asked = []
    handles = [
        layer.register_forward_hook(lambda *_, n=n: asked.append(n)) for n, layer in enumerate(network.layers)
    ]
    with torch.inference_mode():
        for level in (128, 256):
            heads(styles[:1], level)
    for handle in handles:
        handle.remove()
    assert asked == [*range(5), *range(6)]


def test_the_largest_level_is_the_network_itself(heads, styles, full):
    with torch.inference_mode():
        assert torch.equal(heads(styles[:1], 1024).clamp(-1, 1), full[:1])


def test_a_batch_gives_what_single_styles_give(heads, styles):
    with torch.inference_mode():
        single = torch.cat([heads(style, 128) for style in styles.split(1)])
        assert (heads(styles, 128) - single).abs().max() < 2e-3


def test_styles_of_later_blocks_move_the_picture(heads, styles):
    each = styles[:1, None].repeat(1, 9, 1)
    with torch.inference_mode():
        one = heads(styles[:1], 128)
        assert (one - heads(each, 128)).abs().max() < 1e-4
        for place in (6, 7, 8):
            other = each.clone()
            other[:, place] = styles[1]
            assert (one - heads(other, 128)).abs().mean() > 1e-3


def test_averaging_a_convolution_is_exact_where_areas_are_even(network):
    """Before the activation; and away from the border, which the two pad differently."""
    fine = copy.deepcopy(network.layers[6].conv1)
    fine.noise.data.zero_()
    coarse = image_heads.averaged(fine, 4)
    x = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    wide = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
    with torch.inference_mode():
        expected = F.avg_pool2d(F.conv2d(wide, fine.conv.weight_dw, padding=1, groups=32), 4)
        found = F.conv2d(x, coarse.conv.weight_dw, padding=1, groups=32)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("times", [2, 4])
def test_kernels_of_bands_are_exact_where_bands_are_even(network, times):
    """The inverse transform, the convolution and the average in one, away from the border."""
    kernels = network.layers[6].conv1.conv.weight_dw[:8]
    bands = torch.randn(1, 32, 6, 6, generator=torch.Generator().manual_seed(1))
    wide = bands.repeat_interleave(times // 2, 2).repeat_interleave(times // 2, 3)
    with torch.inference_mode():
        features = F.pixel_shuffle(F.conv2d(wide, mobilestylegan.haar_kernel(32)), 2)
        expected = F.avg_pool2d(F.conv2d(features, kernels, padding=1, groups=8), times)
        found = F.conv2d(bands, image_heads.band_kernels(kernels, times), padding=1, groups=32)
        found = found[:, :8] + found[:, 8:].view(1, 8, 3, 6, 6).sum(2)
    assert torch.allclose(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-3, atol=1e-3)


def test_fitting_leaves_modulations_and_the_network_alone(heads, network):
    shared = {parameter.data_ptr() for parameter in network.parameters()}
    assert not shared & {parameter.data_ptr() for parameter in heads.fitted().values()}
    assert not any("modulation" in name for name in heads.fitted())
    assert heads.fitted(512) == {}


def test_saved_heads_are_read_again(heads, network, tmp_path):
    for name in ("a", "b"):
        heads.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = ImageHeads.load(network, tmp_path / "a").fitted()
    assert all(torch.equal(value, again[name]) for name, value in heads.fitted().items())


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_damaged_heads_are_refused(heads, network, tmp_path, damage):
    file = tmp_path / "heads.safetensors"
    if damage == "other":
        file.write_bytes(
            (Path(image_heads.__file__).parents[1] / "faces/data/attributes.safetensors").read_bytes()
        )
    elif damage == "cut":
        heads.save(file)
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"heads\.safetensors"):
        ImageHeads.load(network, file)
