import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from deid.evaluation.gaze import CORNERS, SIDE, Gaze
from deid.faces.align import RIGHT_EYE
from deid.faces.detect import CenterFaceDetector
from deid.faces.mesh import FaceMesher
from deid.models.store import default_store


@pytest.fixture(scope="module")
def gaze():
    return Gaze(default_store().files("iris"))


@pytest.fixture(scope="module")
def meshed():
    detector = CenterFaceDetector(default_store().files("centerface"))
    mesher = FaceMesher(default_store().files("facemesh"))
    return lambda picture: mesher.mesh(picture, detector.detect([picture])[0])[0][0]


@pytest.fixture(scope="module")
def picture():
    return cv2.resize(astronaut(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def test_a_mirrored_face_looks_to_the_other_side(gaze, meshed, picture):
    plain = gaze.of(picture, meshed(picture))
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    other = gaze.of(mirrored, meshed(mirrored))
    assert abs(plain[0] + other[0]) < 0.02
    assert abs(plain[1] - other[1]) < 0.02
    assert np.abs(plain).max() < 0.15


def test_the_outer_corner_is_on_the_left_of_a_right_eye(gaze, meshed, picture):
    contour, iris = gaze.points(picture, meshed(picture)[list(RIGHT_EYE), :2], False)
    assert contour[CORNERS[0], 0] < iris[0, 0] < contour[CORNERS[1], 0]
    assert np.abs(iris[0] - SIDE / 2).max() < 8


@pytest.mark.parametrize(("shift", "axis", "sign"), [(5, 0, 1), (-5, 0, -1)])
def test_eyes_that_move_are_seen_to_move(gaze, meshed, picture, shift, axis, sign):
    """Each iris is moved within its eye by the same pixels of the picture."""
    mesh, moved = meshed(picture), picture.copy()
    for corners in ((33, 133), (362, 263)):
        (x, y), width = mesh[list(corners), :2].mean(0), np.ptp(mesh[list(corners), 0])
        half = round(width * 0.42), round(width * 0.16)
        rows, columns = slice(round(y) - half[1], round(y) + half[1]), np.arange(-half[0], half[0])
        weight = np.cos(columns / half[0] * np.pi / 2)  # nothing moves at the corners
        source = np.clip(round(x) + columns - shift * weight, 0, picture.shape[1] - 1)
        grid = np.meshgrid(source, np.arange(rows.start, rows.stop))
        moved[rows, round(x) - half[0] : round(x) + half[0]] = cv2.remap(
            picture, *(part.astype(np.float32) for part in grid), cv2.INTER_LINEAR
        )
    change = gaze.of(moved, mesh) - gaze.of(picture, mesh)
    assert sign * change[axis] > 0.03
    assert abs(change[1]) < 0.05


def test_a_rolled_head_looks_where_it_looked(gaze, meshed, picture):
    turn = cv2.getRotationMatrix2D((450, 250), 25, 1)
    rolled = cv2.warpAffine(picture, turn, picture.shape[1::-1])
    assert np.abs(gaze.of(rolled, meshed(rolled)) - gaze.of(picture, meshed(picture))).max() < 0.03


def test_small_eyes_say_nothing(gaze, meshed, picture):
    mesh = meshed(picture)
    small = cv2.resize(picture, None, fx=0.1, fy=0.1, interpolation=cv2.INTER_AREA)
    assert np.isnan(gaze.of(small, mesh * 0.1)).all()


def test_closed_eyes_say_nothing(gaze, meshed, picture):
    """Eyes without height: each is squeezed to its line of lashes, under the skin above it."""
    mesh, closed = meshed(picture), picture.copy()
    for corners in ((33, 133), (362, 263)):
        (x, y), width = mesh[list(corners), :2].mean(0), np.ptp(mesh[list(corners), 0])
        w, h = round(width * 0.7), round(width * 0.35)
        x, y = round(x), round(y)
        skin = picture[y + h : y + h + 4, x - w : x + w].mean(axis=(0, 1))
        closed[y - h : y + h, x - w : x + w] = skin
        closed[y + 2 : y + 5, x - w // 2 : x + w // 2] = skin * 0.4
    found = gaze.of(closed, mesh)
    assert np.isnan(found).all()
