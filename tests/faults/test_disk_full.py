"""Ray's spill directory on a disk that is full."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from deid.errors import StorageError
from deid.pipeline.foreseen import foreseen


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.timeout(300)
def test_a_full_spill_directory_is_one_line(small_disk: Path) -> None:
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        object_spilling_directory=str(small_disk),
    )
    try:
        make = ray.remote(max_retries=0)(lambda: np.ones(20 * 2**20, np.uint8))
        with pytest.raises(ray.exceptions.RayError) as caught:
            [ray.get(make.remote(), timeout=120) for _ in range(12)]  # the list holds what came before
    finally:
        ray.shutdown()
    failure = foreseen(caught.value)
    assert isinstance(failure, StorageError)
    assert str(failure).startswith("Ray's spill directory is full")
    assert "\n" not in str(failure)
