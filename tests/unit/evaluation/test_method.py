import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deid.errors import ModelError
from deid.evaluation import method
from deid.evaluation.method_canvas import HEIGHT, WIDTH


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32)


def test_the_packaged_picture_is_one_that_a_report_can_hold() -> None:
    data = method.packaged()
    assert len(data) < 900_000
    shown = pixels(data)
    assert shown.shape == (HEIGHT, WIDTH, 3)
    assert shown.std() > 40
    assert WIDTH >= 1200


def test_a_package_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method, "_PACKAGED", "data/none.png")
    with pytest.raises(ModelError, match="picture of the method"):
        method.packaged()


def test_a_picture_too_large_for_a_report_gets_a_palette() -> None:
    rng = np.random.default_rng(0)
    sink = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (800, 800, 3), np.uint8)).save(sink, "png")
    reduced = method._reduced(sink.getvalue())
    assert Image.open(io.BytesIO(reduced)).mode == "P"
    assert len(reduced) < len(sink.getvalue()) / 2


@pytest.mark.slow
def test_the_command_makes_the_packaged_picture_again(tmp_path: Path) -> None:
    method.main([str(tmp_path / "made.png")])
    made = (tmp_path / "made.png").read_bytes()
    assert len(made) < 900_000
    assert np.abs(pixels(made) - pixels(method.packaged())).mean() < 5
