"""The three networks: shapes, and that the weights fit them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from deid.models import mtcnn
from deid.models.store import default_store


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return default_store().files("mtcnn")


@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 30), (40, 25)])
def test_pnet_gives_one_window_for_each_two_pixels(height: int, width: int) -> None:
    scores, shifts = mtcnn.PNet()(torch.zeros(2, 3, height, width))
    rows, columns = (-(-(side - 2) // 2) - 4 for side in (height, width))
    assert scores.shape == (2, rows, columns)
    assert shifts.shape == (2, 4, rows, columns)


def test_rnet_and_onet_give_one_answer_a_window() -> None:
    scores, shifts = mtcnn.RNet()(torch.zeros(3, 3, mtcnn.R_SIDE, mtcnn.R_SIDE))
    assert (scores.shape, shifts.shape) == ((3,), (3, 4))
    scores, shifts, points = mtcnn.ONet()(torch.zeros(3, 3, mtcnn.O_SIDE, mtcnn.O_SIDE))
    assert (scores.shape, shifts.shape, points.shape) == ((3,), (3, 4), (3, 5, 2))
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize(
    ("make", "file"), [(mtcnn.PNet, "pnet.pt"), (mtcnn.RNet, "rnet.pt"), (mtcnn.ONet, "onet.pt")]
)
def test_the_weights_fill_every_parameter(make: type[nn.Module], file: str, files: dict[str, Path]) -> None:
    network = mtcnn.load(make(), files[file])
    assert not network.training
    state = torch.load(files[file], weights_only=True)
    assert set(state) == set(network.state_dict())
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


def test_dense_layers_read_columns_first() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert mtcnn._columns_first(x)[0].tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
