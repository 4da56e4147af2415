"""Geometry of meshes whose pose, expression and place are known: the gallery's mean face, moved on purpose."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deid.faces import align
from deid.gallery import store as gallery

Floats = NDArray[np.float64]
ANGLES = st.floats(-50, 50)


def neutral() -> Floats:
    """The mean mesh of the gallery, turned to the camera, 100 units wide."""
    mean = gallery.load(None).meshes.astype(np.float64).mean(0)
    head = (mean - mean.mean(0)) @ align.axes(mean)
    return np.asarray(head * 100 / np.ptp(head[:, 0]))


NEUTRAL = neutral()


def rotation(yaw: float, pitch: float, roll: float) -> Floats:
    """From the head to the picture: pitch first (up), then yaw (to the picture's right), then roll (clockwise)."""
    (cy, cp, cr), (sy, sp, sr) = (
        np.cos(np.radians([yaw, pitch, roll])),
        np.sin(np.radians([yaw, pitch, roll])),
    )
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def expressed(**moves: tuple[list[int], list[float]]) -> dict[str, float]:
    """Change of each measure of expression when points are moved, in units of the face's width."""
    mesh = NEUTRAL.copy()
    for indices, shift in moves.values():
        mesh[indices] += np.array(shift)
    change = align.expression(mesh) - align.expression(NEUTRAL)
    return dict(zip(align.EXPRESSION, change.tolist(), strict=True))


def test_a_frontal_face_has_no_angles() -> None:
    np.testing.assert_allclose(align.pose(NEUTRAL), [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(align.axes(NEUTRAL), np.eye(3), atol=1e-9)


def test_directions_of_the_angles() -> None:
    """Seen in the picture: the nose goes to the right, up; the eye on the right goes down."""
    nose, eye = NEUTRAL[4] - NEUTRAL[[234, 454]].mean(0), NEUTRAL[263]
    assert (rotation(30, 0, 0) @ nose)[0] > 0
    assert (rotation(0, 30, 0) @ nose)[1] < nose[1]
    assert (rotation(0, 0, 30) @ eye)[1] > eye[1]


@given(yaw=ANGLES, pitch=ANGLES, roll=st.floats(-179, 179))
def test_known_rotations_are_found(yaw: float, pitch: float, roll: float) -> None:
    turned = NEUTRAL @ rotation(yaw, pitch, roll).T * 3.7 + (400, 300, 5)
    np.testing.assert_allclose(align.pose(turned), [yaw, pitch, roll], atol=1e-6)


@given(yaw=ANGLES, pitch=ANGLES, roll=st.floats(-179, 179), scale=st.floats(0.1, 50))
def test_expression_does_not_depend_on_pose_place_or_size(
    yaw: float, pitch: float, roll: float, scale: float
) -> None:
    moved = NEUTRAL @ rotation(yaw, pitch, roll).T * scale + (10, -20, 30)
    np.testing.assert_allclose(align.expression(moved), align.expression(NEUTRAL), atol=1e-9)


def test_each_expression_moves_its_own_measure() -> None:
    opened = expressed(lower_lip=([14], [0, 10, 0]), upper_lip=([13], [0, -10, 0]))
    assert opened["mouth_opening"] > 0.1
    assert opened["smile"] == pytest.approx(0, abs=1e-9)
    smiling = expressed(corners=([61, 291], [0, -5, 0]))
    assert smiling["smile"] > 0.03
    assert smiling["mouth_opening"] == pytest.approx(0, abs=1e-9)
    wide = expressed(right=([61], [-5, 0, 0]), left=([291], [5, 0, 0]))
    assert wide["mouth_width"] == pytest.approx(10 / 100, rel=0.35)
    closed = expressed(upper_lids=([159, 386], [0, 2, 0]))
    assert closed["eye_opening"] < -0.01
    assert closed["brow_height"] == pytest.approx(0, abs=1e-9)
    raised = expressed(brows=([70, 63, 105, 66, 107, 300, 293, 334, 296, 336], [0, -4, 0]))
    assert raised["brow_height"] == pytest.approx(4 / 100, rel=0.35)
    assert raised["eye_opening"] == pytest.approx(0, abs=1e-9)


def test_measures_are_pose_and_expression_of_any_batch() -> None:
    turned = NEUTRAL @ rotation(20, -10, 5).T
    batch = align.measures(np.stack([[NEUTRAL, turned]] * 3))
    assert batch.shape == (3, 2, len(align.MEASURES))
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch[2, 1, :3], [20, -10, 5], atol=1e-4)
    np.testing.assert_allclose(batch[0, 0, 3:], align.expression(NEUTRAL), atol=1e-6)


def test_the_outline_runs_once_around_the_face() -> None:
    outline = align.outline(NEUTRAL)
    assert outline.shape == (36, 2)
    polygon = outline.astype(np.float32)
    area, hull = cv2.contourArea(polygon), cv2.contourArea(cv2.convexHull(polygon))
    assert area > 0.97 * hull  # one that crosses itself or skips to and fro has less
    steps = np.linalg.norm(np.roll(outline, -1, axis=0) - outline, axis=1)
    assert steps.max() < 0.2 * np.ptp(outline[:, 0])
    inside = [cv2.pointPolygonTest(polygon, (float(x), float(y)), False) for x, y in NEUTRAL[:, :2]]
    assert np.mean(np.array(inside) >= 0) > 0.97
    np.testing.assert_array_equal(outline[0], NEUTRAL[10, :2])  # it begins at the top


def test_five_points_stand_where_a_detector_puts_them() -> None:
    right_eye, left_eye, nose, right_corner, left_corner = align.five_points(NEUTRAL)
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_corner[0] < nose[0] < left_corner[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_corner[1], left_corner[1])
    assert align.five_points(np.stack([NEUTRAL] * 4)).shape == (4, 5, 2)


@given(
    scale=st.floats(0.05, 20),
    angle=st.floats(-180, 180),
    shift=st.tuples(st.floats(-1000, 1000), st.floats(-1000, 1000)),
    count=st.integers(2, 40),
)
def test_similarities_are_found_again(
    scale: float, angle: float, shift: tuple[float, float], count: int
) -> None:
    source = np.random.default_rng(count).normal(0, 10, (count, 2))
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    expected = np.array([[c, -s, shift[0]], [s, c, shift[1]]])
    found = align.similarity(source, source @ expected[:, :2].T + expected[:, 2])
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_no_similarity_fits_better() -> None:
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(2, 12, 2))
    best = align.similarity(source, target)

    def loss(matrix: Floats) -> float:
        return float(((source @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum())

    for _ in range(50):
        a, b, x, y = rng.normal(0, 0.05, 4)
        assert loss(best + np.array([[a, -b, x], [b, a, y]])) >= loss(best)


@pytest.mark.parametrize("bad", [np.ones((5, 2)), np.full((5, 2), np.nan)])
def test_points_without_a_similarity(bad: Floats) -> None:
    with pytest.raises(ValueError, match="the points"):
        align.similarity(bad, np.arange(10.0).reshape(5, 2))
    with pytest.raises(ValueError, match="the points"):
        align.similarity(np.arange(10.0).reshape(5, 2), bad)
