import importlib.util
from pathlib import Path

import pytest
import torch

from deid.models import mobilestylegan
from deid.models.store import default_store

SOURCE = Path(__file__).parents[3] / "jobs/fit_image_heads.py"


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("fit_image_heads", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mapping() -> mobilestylegan.MappingNetwork:
    return mobilestylegan.load_mapping(default_store().files("mobilestylegan"))


def test_styles_are_mixed_from_a_block_on(job, mapping):
    styles = job.draw(mapping, 40, seed=5)
    assert styles.shape == (40, 9, 512)
    changes = (styles.diff(dim=1).abs().amax(2) > 0).int()
    assert set(changes.sum(1).tolist()) == {0, 1}
    assert 5 <= int(changes.sum()) <= 30
    assert set((changes.argmax(1)[changes.any(1)]).tolist()) <= {3, 4, 5, 6}
    assert torch.equal(styles, job.draw(mapping, 40, seed=5))
    assert job.draw(mapping, 40, 5, mixed=0).diff(dim=1).abs().max() == 0


def test_fitting_lowers_the_loss_and_repeats(job, mapping, monkeypatch, tmp_path):
    monkeypatch.setattr(job, "BLOCKS", {128: 4})  # the cheapest level is enough
    files = default_store().files("mobilestylegan")
    network = mobilestylegan.load_synthesis(files)
    styles = job.draw(mapping, 1, seed=5, mixed=0).repeat(4, 1, 1)
    for name in ("a", "b"):
        heads = job.ImageHeads(mobilestylegan.load_synthesis(files))
        before = {n: p.detach().clone() for n, p in heads.fitted().items()}
        losses = [loss[128] for loss in job.fit_heads(network, heads, styles)]
        assert losses[-1] < 0.95 * losses[0]
        moved = {n.partition(".")[0] for n, p in heads.fitted().items() if not torch.equal(p, before[n])}
        assert moved == {"128"}
        heads.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
