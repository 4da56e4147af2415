import numpy as np
import pytest

from deid.errors import ModelError
from deid.faces.segment import BACKGROUND, FACE, HAIR, PARTS
from deid.training.labels import EDGE, GRID, Cells, share_edges


def test_the_cells_in_the_package_name_every_part():
    cells = Cells.load()
    assert set(cells.names) == {*PARTS, EDGE}
    assert cells.centres.shape == (len(cells.names), 80)


def test_cells_survive_the_file(tmp_path):
    cells = Cells.load()
    cells.save(tmp_path / "cells.safetensors")
    again = Cells.load(tmp_path / "cells.safetensors")
    assert again.names == cells.names
    np.testing.assert_array_equal(again.components[1], cells.components[1])


def test_another_file_is_refused(tmp_path):
    (tmp_path / "cells.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="no cells"):
        Cells.load(tmp_path / "cells.safetensors")


def test_features_at_a_centre_belong_to_its_part():
    cells = Cells.load()
    components = np.zeros((80, GRID, GRID), np.float32)
    components[:] = cells.centres[cells.names.index("hair")][:, None, None]
    shares, edge = cells.memberships(components)
    assert (shares[..., HAIR] > 0.8).all()
    np.testing.assert_allclose(shares.sum(-1) + edge, 1, atol=1e-5)


def test_features_are_averaged_over_each_cell():
    cells = Cells.load()
    rng = np.random.default_rng(1)
    coarse = [rng.normal(size=(n, GRID, GRID)).astype(np.float32) for n in (512, 256)]
    fine = coarse[1].repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(cells.project([coarse[0], fine]), cells.project(coarse), rtol=1e-3, atol=1e-3)


def test_an_edge_is_shared_only_beside_a_head():
    shares = np.zeros((9, 9, len(PARTS)), np.float32)
    edge = np.zeros((9, 9), np.float32)
    shares[..., BACKGROUND] = 1
    shares[:, :3] = np.eye(len(PARTS))[FACE]
    shares[:, [3, 7]], edge[:, [3, 7]] = 0, 1
    parts = share_edges(shares, edge)
    np.testing.assert_allclose(parts.sum(-1), 1, atol=1e-5)
    assert parts[4, 3, FACE] == pytest.approx(0.4, abs=0.01)
    assert parts[4, 7, BACKGROUND] == pytest.approx(1)
