"""The detector that misses least, on a public-domain portrait, and how its three networks add up."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from deid.errors import ConfigError
from deid.faces import strict
from deid.faces.detect import CenterFaceDetector
from deid.faces.merge import overlaps
from deid.faces.strict import StrictDetector
from deid.interfaces import Detections, Picture
from deid.models.store import default_store

BOX = np.array([183, 65, 271, 179], np.float32)  # of the face in the portrait, px
POINTS = np.array([[206, 102], [248, 106], [225, 127], [205, 144], [241, 146]], np.float32)
HEAD = (slice(20, 230), slice(120, 340))  # rows and columns of the portrait


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    store = default_store()
    return store.files("centerface") | store.files("blazeface") | store.files("mtcnn")


@pytest.fixture(scope="module")
def detector(files: dict[str, Path]) -> StrictDetector:
    return StrictDetector(files)


@pytest.fixture(scope="module")
def portrait() -> Picture:
    picture: Picture = skimage.data.astronaut()
    return picture


def one(detector: StrictDetector | CenterFaceDetector, picture: Picture) -> Detections:
    return detector.detect([picture])[0]


def test_portrait_has_one_face_with_its_points(detector: StrictDetector, portrait: Picture) -> None:
    found = one(detector, portrait)
    assert len(found) == 1
    assert overlaps(BOX, found.boxes)[0][0] > 0.85
    assert found.scores[0] > 0.95
    assert np.abs(found.points[0] - POINTS).max() < 6
    assert (found.boxes.dtype, found.scores.dtype, found.points.dtype) == (np.float32,) * 3


def test_every_face_of_a_crowd_once_and_more_than_the_default_finds(
    detector: StrictDetector, files: dict[str, Path], portrait: Picture
) -> None:
    """Heads of 9 px, dim, blurred and noisy: the default detector misses some of the 24."""
    head = cv2.resize(portrait[HEAD], None, fx=0.08, fy=0.08, interpolation=cv2.INTER_AREA)
    crowd = cv2.GaussianBlur(np.tile(head, (4, 6, 1)), (0, 0), 0.7) * 0.6
    noise = np.random.default_rng(0).normal(0, 7, crowd.shape)
    picture = np.full((150, 200, 3), 80.0)
    picture[40 : 40 + crowd.shape[0], 40 : 40 + crowd.shape[1]] = crowd + noise
    pixels = np.clip(picture, 0, 255).astype(np.uint8)
    first = (BOX - (HEAD[1].start, HEAD[0].start) * 2) * 0.08 + 40
    places = [
        first + np.array([x * head.shape[1], y * head.shape[0]] * 2) for y in range(4) for x in range(6)
    ]

    def seen(found: Detections) -> int:
        return sum(overlaps(place, found.boxes)[0].max(initial=0) > 0.3 for place in places)

    assert seen(one(detector, pixels)) == 24
    assert seen(one(CenterFaceDetector(files), pixels)) < 22


def test_mirrored_pictures_give_mirrored_faces(detector: StrictDetector, portrait: Picture) -> None:
    found, other = one(detector, portrait), one(detector, portrait[:, ::-1])
    width = portrait.shape[1]
    np.testing.assert_allclose(
        other.boxes[0], width - found.boxes[0, [2, 1, 0, 3]] * (1, -1, 1, -1) - (0, width, 0, width), atol=2
    )
    assert other.points[0, 0, 0] < other.points[0, 1, 0]


def test_what_centerface_does_not_see_needs_both_others(
    detector: StrictDetector, portrait: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(picture: Picture, every: bool = False) -> tuple[np.ndarray, ...]:
        return tuple(np.empty(shape, np.float32) for shape in ((0, 4), (0,), (0, 5, 2), (0,)))

    monkeypatch.setattr(detector.centerface, "candidates", blind)
    found = one(detector, portrait)
    assert len(found) == 1
    assert overlaps(BOX, found.boxes)[0][0] > 0.7
    monkeypatch.setattr(detector.judge, "judge", lambda picture, boxes: np.zeros(len(boxes), np.float32))
    assert len(one(detector, portrait)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 3000), (31, 33), (64, 64)])
def test_nothing_is_found_where_nothing_is(shape: tuple[int, int], detector: StrictDetector) -> None:
    ramp = np.linspace(0, 255, shape[0] * shape[1] * 3).reshape(*shape, 3).astype(np.uint8)
    found = one(detector, ramp)
    assert (len(found), found.boxes.shape, found.points.shape) == (0, (0, 4), (0, 5, 2))


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=9), st.integers(0, 2))
def test_a_higher_score_of_any_network_never_lowers_the_probability(
    rows: list[tuple[float, float, float]], which: int
) -> None:
    scores = np.array(rows, np.float32)
    higher = scores.copy()
    higher[:, which] = np.minimum(higher[:, which] + 0.1, 1)
    before, after = strict.probability(scores), strict.probability(higher)
    assert ((before > 0) & (before < 1)).all()
    assert (after >= before - 1e-6).all()


def test_probability_of_no_faces() -> None:
    assert strict.probability(np.empty((0, 3), np.float32)).shape == (0,)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"threshold": 0}, "threshold"), ({"threshold": 1}, "threshold"), ({"enlarge": 0.5}, "enlarge")],
)
def test_wrong_options_are_named(options: dict[str, object], name: str, files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=f"detector.options.{name}"):
        StrictDetector(files, **options)  # type: ignore[arg-type]
