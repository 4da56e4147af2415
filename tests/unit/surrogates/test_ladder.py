import numpy as np
import pytest

from deid import config, records
from deid.interfaces import Face
from deid.surrogates import ladder
from tests.unit.surrogates import drawn

OPTIONS = config.Ladder()


def face(anonymizer: str = "", height: float = 50) -> Face:
    box = np.array([0, 0, 40, height], np.float32)
    return Face(box, 0.9, np.zeros((5, 2), np.float32), anonymizer=anonymizer, k=5)


@pytest.mark.parametrize(
    ("anonymizer", "height", "mesh_score", "yaw", "pitch", "expected"),
    [
        ("surrogate", 60, 0.9, 10, -5, ("surrogate", "")),
        ("surrogate", 60, 0.9, -70, 0, ("ksame-pixel", "turned")),
        ("surrogate", 60, 0.9, 0, 55, ("ksame-pixel", "turned")),
        ("surrogate", 60, 0.0, 0, 0, ("ksame-pixel", "mesh_failed")),
        ("surrogate", 18, 0.9, 80, 0, ("simple", "too_small")),
        ("surrogate", 18, 0.0, 0, 0, ("simple", "mesh_failed")),
        ("surrogate", 7, 0.9, 0, 0, ("solid", "too_small")),
        ("surrogate", float("nan"), 0.9, 0, 0, ("solid", "too_small")),
        ("ksame-pixel", 60, 0.9, 0, 0, ("ksame-pixel", "policy")),
        ("ksame-pixel", 7, 0.9, 0, 0, ("solid", "too_small")),
        ("solid", 60, 0.9, 0, 0, ("solid", "policy")),
        ("blur", 7, 0.0, 0, 0, ("blur", "policy")),
        ("pixelate", 60, 0.9, 0, 0, ("pixelate", "policy")),
    ],
)
def test_where_a_face_starts(anonymizer, height, mesh_score, yaw, pitch, expected) -> None:
    assert ladder.start(anonymizer, OPTIONS, height, mesh_score, yaw, pitch) == expected
    assert expected[0] in records.ANONYMIZERS


def test_limits_come_from_the_configuration() -> None:
    options = config.Ladder(smallest=0, simple_below=0, turned=90)
    assert ladder.start("surrogate", options, 2, 0.9, 89, 0) == ("surrogate", "")


@pytest.mark.parametrize("height", [20, 50, 300])
def test_every_way_down_ends_at_solid(height: float) -> None:
    one = face("surrogate", height)
    passed = [one.anonymizer]
    while passed[-1] != "solid":
        passed.append(ladder.lower(one, "generate_failed"))
    wanted = (
        list(ladder.RUNGS) if height <= ladder.SIMPLE_LIMIT else [r for r in ladder.RUNGS if r != "simple"]
    )
    assert passed == wanted
    with pytest.raises(ValueError, match="nothing below"):
        ladder.lower(one, "generate_failed")


def test_lowering_takes_what_was_rendered_and_keeps_the_first_reason() -> None:
    one = drawn.face((50, 50), 40)
    one.anonymizer = "surrogate"
    assert ladder.lower(one, "match_failed") == "simple"
    assert (one.surrogate, one.surrogate_mesh, one.k) == (None, None, 0)
    ladder.lower(one, "generate_failed")
    assert (one.anonymizer, one.failure) == ("ksame-pixel", "match_failed")
    with pytest.raises(ValueError, match="no code"):
        ladder.lower(one, "bad luck")


@pytest.mark.parametrize("anonymizer", ladder.BASELINES)
def test_a_baseline_that_fails_is_solid(anonymizer: str) -> None:
    assert ladder.lower(face(anonymizer), "composite_failed") == "solid"


@pytest.mark.parametrize(
    ("anonymizer", "failure", "expected"),
    [
        ("", "", True),
        ("surrogate", "", True),
        ("surrogate", "match_failed", False),
        ("", "match_failed", False),
        ("simple", "match_failed", True),
        ("ksame-pixel", "mesh_failed", True),
        ("solid", "", False),
        ("blur", "", False),
    ],
)
def test_what_may_go_in(anonymizer: str, failure: str, expected: bool) -> None:
    one = drawn.face((50, 50), 40)
    one.anonymizer, one.failure = anonymizer, failure
    assert ladder.fills(one) is expected
    one.surrogate = None
    assert not ladder.fills(one)
