import numpy as np
import pytest

from deid.errors import FaceError
from deid.evaluation import occlude
from deid.evaluation.contribution import Shown
from deid.interfaces import Face
from deid.surrogates import masks
from tests.unit.surrogates import generated


@pytest.fixture(scope="module")
def shown() -> Shown:
    """A generated head on its own background, with its parts as the job sees them."""
    head = generated.head(4)
    picture, mesh = head.picture, head.mesh
    wide = np.pad(picture, ((60, 60), (60, 60), (0, 0)), mode="edge")
    mesh = mesh + np.array([60, 60, 0], np.float32)
    chip = occlude.segment.head_chip(wide, mesh)
    segments = generated.segmenter().parts([chip])[0]
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    box = np.concatenate([low, high]).astype(np.float32)
    points = occlude.segment.FRAME[:5].astype(np.float32)
    return Shown(wide, Face(box, 1.0, points, mesh=mesh, mesh_score=1.0, segments=segments))


def test_regions_are_apart_and_make_up_the_face(shown: Shown) -> None:
    found = occlude.regions(shown.mesh, shown.picture.shape)
    assert tuple(found) == occlude.REGIONS
    assert all(mask.any() for mask in found.values())
    assert np.sum(list(found.values()), axis=0).max() == 1
    face = masks.fill(masks.outline(shown.mesh), shown.picture.shape[:2], np.zeros(2))
    inside = np.logical_or.reduce([found[name] for name in occlude.INSIDE])
    assert (inside & face).sum() / face.sum() > 0.95
    assert not (inside & ~face).any()


def test_regions_are_where_their_names_say(shown: Shown) -> None:
    found, mesh = occlude.regions(shown.mesh, shown.picture.shape), shown.mesh
    where = {
        "nose": 4,
        "mouth": 13,
        "jaw and chin": 199,
        "forehead": 151,
        "eyes": 159,
        "brows": 105,
        "cheeks": 50,
    }
    for name, point in where.items():
        x, y = np.round(mesh[point, :2]).astype(int)
        assert found[name][y, x], name
    middle = {name: np.argwhere(mask).mean(0) for name, mask in found.items()}
    assert middle["hair above"][0] < middle["forehead"][0] < middle["eyes"][0] < middle["mouth"][0]
    sides = np.argwhere(found["ears and sides"])[:, 1]
    face = np.argwhere(found["cheeks"])[:, 1]
    assert sides.min() < face.min()
    assert sides.max() > face.max()


def test_a_picture_without_a_region_is_the_same_elsewhere(shown: Shown) -> None:
    height = float(np.ptp(shown.mesh[:, 1]))
    near = np.ones((3, 3), np.uint8)
    for name, mask in shown.masks.items():
        changed = (shown.without[name] != shown.picture).any(2)
        grown = occlude.cv2.dilate(mask.astype(np.uint8), near, iterations=round(0.06 * height)).astype(bool)
        assert not (changed & ~grown).any(), name
    eyes = shown.masks["eyes"]
    assert (shown.without["eyes"] != shown.picture).any(2)[eyes].mean() > 0.8


def test_a_filling_makes_no_edge(shown: Shown) -> None:
    """Along the border of what was taken away, steps are no steeper than those that were there."""
    for name in ("cheeks", "forehead", "jaw and chin"):
        mask = shown.masks[name]
        border = mask & ~occlude.cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        before, after = (_steps(p)[border].mean() for p in (shown.picture, shown.without[name]))
        assert after < 1.2 * before, name


def _steps(picture: np.ndarray) -> np.ndarray:
    grey = picture.astype(np.float32).mean(2)
    down, across = np.gradient(grey)
    return np.hypot(down, across)


def test_eyes_taken_away_leave_skin(shown: Shown) -> None:
    eyes = shown.masks["eyes"]
    skin = shown.picture[shown.masks["cheeks"]].astype(float).mean(0)
    before, after = (
        np.abs(p[eyes].astype(float) - skin).mean() for p in (shown.picture, shown.without["eyes"])
    )
    assert after < 0.6 * before


def test_the_control_is_background_of_the_mean_area(shown: Shown) -> None:
    mask = shown.masks[occlude.CONTROL]
    area = np.mean([shown.masks[name].sum() for name in occlude.REGIONS])
    assert mask.sum() == pytest.approx(area, rel=0.05)
    assert not any((mask & shown.masks[name]).any() for name in occlude.REGIONS)


def test_there_is_no_control_without_parts_or_background(shown: Shown) -> None:
    face = Face(shown.face.box, 1.0, shown.face.points, mesh=shown.mesh)
    assert occlude.background(face, shown.mesh, shown.picture.shape, 10) is None
    assert occlude.background(shown.face, shown.mesh, shown.picture.shape, 10**7) is None


def test_a_region_that_is_not_there_takes_nothing_away(shown: Shown) -> None:
    nothing = np.zeros(shown.picture.shape[:2], np.bool_)
    np.testing.assert_array_equal(occlude.without(shown.picture, nothing, 100.0), shown.picture)


def test_no_face_has_no_regions() -> None:
    with pytest.raises(FaceError):
        occlude.regions(np.zeros((468, 3), np.float32), (50, 50, 3))
