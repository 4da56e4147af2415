"""VGG-Face with weights drawn at random, in both formats and both namings."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from deid.errors import ConfigError
from deid.interfaces import Face
from deid.models.vgg_face import VGGFaceEmbedder, load

LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: pooling


def reference(state: dict[str, Tensor]) -> nn.Sequential:
    """VGG-16 as torchvision lays it out (`features.N`, `classifier.N`), up to the ReLU after fc7."""
    layers: list[nn.Module] = []
    before = 3
    for filters in LAYOUT:
        if filters:
            layers += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU()]
            before = filters
        else:
            layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*layers))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Sequential(*head))
    network.load_state_dict(state, assign=True)
    return network.eval()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights, torchvision's keys. Rows of the two large layers overlap, so that the file is small."""
    draw = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for index, filters in zip(
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), filter(None, LAYOUT), strict=True
    ):
        shapes[f"features.{index}"] = (filters, before, 3, 3)
        before = filters
    state = {}
    for name, shape in shapes.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5
        state[f"{name}.weight"] = torch.randn(shape, generator=draw) * scale
        state[f"{name}.bias"] = torch.randn(shape[0], generator=draw) * 0.1
    for name, width in (("classifier.0", 25088), ("classifier.3", 4096)):
        row = torch.randn(width + 7 * 4095, generator=draw) * (2 / width) ** 0.5
        state[f"{name}.weight"] = row.as_strided((4096, width), (7, 1))
        state[f"{name}.bias"] = torch.randn(4096, generator=draw)
    return state


@pytest.fixture(scope="module")
def weights(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def embedder(weights: Path) -> VGGFaceEmbedder:
    return VGGFaceEmbedder({}, weights=str(weights))


def test_computes_vgg_16(embedder: VGGFaceEmbedder, state: dict[str, Tensor]) -> None:
    chips = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    got = embedder.embed_chips(chips)
    mean = torch.tensor([129.1863, 104.7624, 93.5940]).view(1, 3, 1, 1)
    with torch.inference_mode():
        raw = reference(state)(torch.from_numpy(chips).permute(0, 3, 1, 2).float() - mean).numpy()
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert got.shape == (2, 4096)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.linalg.norm(got[0] - got[1]) > 0.01


def test_embeds_the_faces_of_each_picture(embedder: VGGFaceEmbedder) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    points = np.array([[60, 50], [90, 50], [75, 65], [63, 80], [87, 80]], np.float32)
    face = Face(box=np.array([50, 30, 100, 100], np.float32), score=0.9, points=points)
    none, one = embedder.embed([picture, picture], [[], [face]])
    assert none.shape == (0, 4096)
    assert one.shape == (1, 4096)
    assert np.linalg.norm(one[0]) == pytest.approx(1, abs=1e-5)


@pytest.fixture
def named_weights(state: dict[str, Tensor], tmp_path: Path) -> Iterator[Path]:
    """The same weights with the keys of VGG-Face, half precision, safetensors; 270 MB, removed afterwards."""
    convolutions = [f"conv{b}_{n}" for b, count in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, count + 1)]
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    names = dict(zip(modules, [*convolutions, "fc6", "fc7"], strict=True))
    renamed = {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": state[key] for key in state}
    path = tmp_path / "vgg_face.safetensors"
    safetensors.torch.save_file({key: value.half().contiguous() for key, value in renamed.items()}, path)
    yield path
    path.unlink()


def test_reads_safetensors_with_the_keys_of_vgg_face(named_weights: Path, state: dict[str, Tensor]) -> None:
    network = load(str(named_weights))
    assert torch.equal(network.get_submodule("conv5_3").weight, state["features.28.weight"].half().float())
    assert torch.equal(network.fc6.weight, state["classifier.0.weight"].half().float())
    assert torch.equal(network.fc7.bias, state["classifier.3.bias"].half().float())


def test_no_weights_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match=r"embedder\.options\.weights: give the path of VGG-Face weights"):
        VGGFaceEmbedder({})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.pth cannot be read \(FileNotFoundError\)"):
        VGGFaceEmbedder({}, weights=str(tmp_path / "none.pth"))


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
def test_not_a_state_dict(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("no weights in here")
    with pytest.raises(ConfigError, match=rf"{name} cannot be read"):
        VGGFaceEmbedder({}, weights=str(tmp_path / name))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1_1.weight": Path("anything")}, tmp_path / "code.pth")
    with pytest.raises(ConfigError, match=r"code\.pth cannot be read \(UnpicklingError\)"):
        VGGFaceEmbedder({}, weights=str(tmp_path / "code.pth"))


def test_another_network_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    few = {key: value for key, value in state.items() if not key.startswith("classifier")}
    torch.save(few, tmp_path / "few.pth")
    with pytest.raises(ConfigError, match=r"no VGG-16: it has no fc6\.weight"):
        VGGFaceEmbedder({}, weights=str(tmp_path / "few.pth"))
    torch.save(state | {"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "grey.pth")
    with pytest.raises(ConfigError, match=r"wrong shape of conv1_1\.weight"):
        VGGFaceEmbedder({}, weights=str(tmp_path / "grey.pth"))
