import pytest

from deid import config
from deid.pipeline import plan

MINIMAL = {"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state"}


@pytest.mark.parametrize(
    ("anonymizer", "text"),
    [
        ("surrogate", "surrogate"),
        ("solid", "solid"),
        ("blur", "blur, sigma 0.15 face heights: a baseline, people may stay recognizable"),
        ("pixelate", "pixelate, 8 blocks a face height: a baseline, people may stay recognizable"),
    ],
)
def test_a_baseline_is_called_one(anonymizer: str, text: str) -> None:
    assert plan.anonymizer(config.parse(MINIMAL | {"anonymizer": anonymizer})) == text
