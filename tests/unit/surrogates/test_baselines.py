import numpy as np
import pytest

from deid import config
from deid.interfaces import Face
from deid.surrogates import baselines, composite, cover
from tests.unit.surrogates import drawn

REGION, CLASSIC = config.Region(scale=1.0), config.Classic()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def treated(source: np.ndarray, face: Face, anonymizer: str, classic: config.Classic = CLASSIC) -> np.ndarray:
    face.anonymizer, face.failure = anonymizer, "policy"
    result = composite.composite_all(source, [face], REGION, classic)
    assert (face.status, face.anonymizer, face.failure) == ("covered", anonymizer, "policy")
    return result


@pytest.mark.parametrize("anonymizer", ["blur", "pixelate"])
@pytest.mark.parametrize("height", [8, 60, 180])
def test_all_of_the_covered_shape_changes_and_nothing_else(anonymizer: str, height: int) -> None:
    source, face = noise(320, 330), drawn.face((160, 170), height)
    result = treated(source, face, anonymizer)
    where = (cover.cover(np.zeros_like(source), face, REGION) != 0).any(2)
    assert where[drawn.inside(face, 1.3, source.shape)].all()
    assert (result[where] != source[where]).any(1).mean() > 0.97
    assert np.array_equal(result[~where], source[~where])


@pytest.mark.parametrize("anonymizer", ["blur", "pixelate"])
def test_no_detail_of_the_face_is_left(anonymizer: str) -> None:
    source, face = noise(320, 330), drawn.face((160, 170), 120)
    inner = drawn.inside(face, 1.0, source.shape)
    left = treated(source, face, anonymizer)[inner].astype(float).std(0)
    assert (left < 0.1 * source[inner].astype(float).std(0)).all()


def test_blur_is_a_mean_and_takes_nothing_from_beyond_its_border() -> None:
    source, face = np.full((200, 200, 3), (10, 250, 10), np.uint8), drawn.face((100, 100), 80)
    where = (cover.cover(np.zeros_like(source), face, REGION) != 0).any(2)
    source[where] = (90, 60, 120)
    assert np.abs(treated(source, face, "blur")[where].astype(int) - (90, 60, 120)).max() <= 1


def test_blocks_are_mean_colours() -> None:
    source = noise(40, 50)
    blocks = baselines.pixelated(source, np.ones((40, 50), np.bool_), 10)
    means = source.reshape(4, 10, 5, 10, 3).mean((1, 3))
    assert np.abs(blocks[::10, ::10] - means).max() <= 0.5
    assert np.array_equal(blocks[:10, :10], np.broadcast_to(blocks[0, 0], (10, 10, 3)))


@pytest.mark.parametrize(
    ("anonymizer", "strong"), [("blur", {"blur_sigma": 0.5}), ("pixelate", {"pixelate_blocks": 2})]
)
def test_options_are_in_face_heights(anonymizer: str, strong: dict[str, float]) -> None:
    source = drawn.texture(320, 330, 3)
    inner = drawn.inside(drawn.face((160, 170), 120), 1.0, source.shape)
    spreads = [
        treated(source, drawn.face((160, 170), 120), anonymizer, classic)[inner].std()
        for classic in (CLASSIC, config.Classic(**strong))
    ]
    assert spreads[1] < spreads[0]


def test_a_baseline_that_raises_ends_in_solid(monkeypatch: pytest.MonkeyPatch) -> None:
    face = drawn.face((160, 170), 120)
    face.anonymizer, face.failure = "blur", "policy"
    monkeypatch.setattr(baselines, "blurred", lambda *_: 1 / 0)
    source = drawn.painted(drawn.texture(320, 330, 2), [face], 1.3)
    result = composite.composite_all(source, [face], REGION)
    assert (face.status, face.anonymizer) == ("covered", "solid")
    assert (result[drawn.inside(face, 1.3, source.shape)] == cover.COLOUR).all()


@pytest.mark.parametrize("anonymizer", ["blur", "pixelate"])
def test_faces_at_the_border_and_outside(anonymizer: str) -> None:
    source = noise(100, 100)
    treated(source, drawn.face((0, 0), 60), anonymizer)
    assert np.array_equal(treated(source, drawn.face((400, 400), 60), anonymizer), source)
