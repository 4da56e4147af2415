import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from deid.faces.appearance import LOOKS
from deid.gallery import store

ROOT = Path(__file__).resolve().parents[2]


def build_gallery(folder: Path, accept: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    config = {
        "input": {"uri": str(folder / "raw")},
        "output": {"uri": str(folder / "out")},
        "state": str(folder / "state"),
        "models": {"accept": accept},
        "cluster": {"address": "local"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, ROOT / "jobs/build_gallery.py", folder / "config.yaml", *options]
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=400, check=False
    )


def test_the_job_builds_a_gallery(tmp_path):
    out = tmp_path / "gallery.parquet"
    done = build_gallery(
        tmp_path, ["clean", "permissive", "restricted"], "--out", str(out), "--n", "6", "--seed", "7"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "6 of 6 identities" in done.stdout
    gallery = store.load(str(out))
    assert len(gallery) == 6
    assert gallery.metadata["recipe.seed"] == "7"
    assert len({style.tobytes() for style in gallery.styles}) == 6
    assert {"sex", "age", "yaw", *LOOKS, "cut"} <= set(gallery.attributes)
    assert np.linalg.norm(gallery.embeddings, axis=1).min() > 0.5

    before = out.read_bytes()
    done = build_gallery(tmp_path, ["clean"], "--out", str(out), "--annotate")
    assert done.returncode == 3
    assert "models.accept" in done.stderr.splitlines()[-1]
    assert out.read_bytes() == before

    done = build_gallery(tmp_path, ["clean", "permissive", "restricted"], "--out", str(out), "--annotate")
    assert done.returncode == 0, done.stderr[-2000:]
    again = store.load(str(out))
    assert set(again.attributes) == set(gallery.attributes)
    usual = store.load(None).attributes  # looks are measured again, on pictures of half the side
    for name, values in gallery.attributes.items():
        tolerance = 0.35 * np.nanstd(usual[name]) if name in (*LOOKS, "cut", "hidden") else 0
        apart = np.abs(again.attributes[name] - values)
        assert np.nanmedian(apart) <= max(tolerance, 1e-6), name


@pytest.mark.parametrize(
    ("options", "code", "message"), [(["--n", "6"], 3, "models.accept"), (["--n", "0"], 2, "--n")]
)
def test_what_cannot_be_built_ends_with_one_line(tmp_path, options, code, message):
    done = build_gallery(tmp_path, ["clean"], "--out", str(tmp_path / "g.parquet"), *options)
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "g.parquet").exists()
