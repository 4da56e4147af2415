"""The mesh on the public-domain portrait of scikit-image (turned, cut, tiny, huge), and on generated faces."""

import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from deid.faces import align
from deid.faces.detect import CenterFaceDetector
from deid.faces.mesh import FaceMesher
from deid.gallery import store as gallery
from deid.interfaces import Detections, Picture
from deid.models.store import default_store
from deid.surrogates.generator import MobileStyleGANGenerator

BOX = np.array([183, 65, 271, 179], np.float32)  # what CenterFace finds in the portrait, px
POINTS = np.array([[206, 102], [248, 106], [225, 127], [205, 144], [241, 146]], np.float32)


@pytest.fixture(scope="module")
def mesher() -> FaceMesher:
    return FaceMesher(default_store().files("facemesh"))


@pytest.fixture(scope="module")
def portrait() -> Picture:
    picture: Picture = skimage.data.astronaut()
    return picture


@pytest.fixture(scope="module")
def upright(mesher: FaceMesher, portrait: Picture) -> NDArray[np.float32]:
    return one(mesher, portrait)[0]


def detections(box: NDArray[np.floating] = BOX, points: NDArray[np.floating] = POINTS) -> Detections:
    return Detections(box[None].astype(np.float32), np.ones(1, np.float32), points[None].astype(np.float32))


def one(
    mesher: FaceMesher,
    picture: Picture,
    box: NDArray[np.floating] = BOX,
    points: NDArray[np.floating] = POINTS,
) -> tuple[NDArray[np.float32], float]:
    meshes, scores = mesher.mesh(picture, detections(box, points))
    assert (meshes.shape, meshes.dtype) == ((1, 468, 3), np.float32)
    assert (scores.shape, scores.dtype) == ((1,), np.float32)
    assert np.isfinite(meshes).all()
    return meshes[0], float(scores[0])


def apart(mesh: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Mean distance of points, over the distance between the eyes."""
    eyes = align.five_points(other)[:2]
    return float(
        np.linalg.norm(mesh[:, :2] - other[:, :2], axis=1).mean() / np.linalg.norm(eyes[1] - eyes[0])
    )


def mapped(transform: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
    return points[:, :2] @ transform[:, :2].T + transform[:, 2]


def around(corners: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.concatenate([corners.min(0), corners.max(0)]).astype(np.float64)


def test_portrait(mesher: FaceMesher, portrait: Picture) -> None:
    mesh, score = one(mesher, portrait)
    assert score > 0.99
    assert np.abs(align.five_points(mesh) - POINTS).max() < 8
    assert mesh[4, 2] < mesh[[234, 454], 2].min()  # the nose is nearer than the sides


@pytest.mark.parametrize("roll", [-150, -90, -45, 20, 60, 120, 180])
@pytest.mark.parametrize("points", ["turned", "those of an upright face"])
def test_any_roll(
    roll: int, points: str, mesher: FaceMesher, portrait: Picture, upright: NDArray[np.float32]
) -> None:
    """With right points, and with points that miss the roll, as a detector's do for faces that hang."""
    turn = cv2.getRotationMatrix2D((227, 122), -roll, 1)
    turn[:, 2] += 100
    picture = np.asarray(cv2.warpAffine(portrait, turn, (600, 600)), np.uint8)
    box = around(mapped(turn, upright))
    middle = (box[:2] + box[2:]) / 2
    given = mapped(turn, POINTS) if points == "turned" else POINTS - POINTS.mean(0) + middle
    mesh, score = one(mesher, picture, box, given)
    assert score > 0.99
    assert apart(mesh, mapped(turn, upright)) < 0.06
    turned = align.pose(mesh)[2] - align.pose(upright)[2]
    assert abs((turned - roll + 180) % 360 - 180) < 4


def test_a_face_across_the_border(
    mesher: FaceMesher, portrait: Picture, upright: NDArray[np.float32]
) -> None:
    shift = np.array([190, 90])  # cuts away the face's right ear, cheek's edge and hair
    picture = np.ascontiguousarray(portrait[shift[1] :, shift[0] :])
    mesh, score = one(mesher, picture, BOX - np.tile(shift, 2), POINTS - shift)
    assert score > 0.5
    assert apart(mesh, upright[:, :2] - shift) < 0.15


@pytest.mark.parametrize(("scale", "most"), [(0.2, 0.08), (0.5, 0.05), (6.0, 0.04)])
def test_other_sizes(
    scale: float, most: float, mesher: FaceMesher, portrait: Picture, upright: NDArray[np.float32]
) -> None:
    """A face of 23 px, and one of 680 px, whose crop is reduced."""
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = np.asarray(cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=flags), np.uint8)
    mesh, score = one(mesher, picture, BOX * scale, POINTS * scale)
    assert score > 0.9
    assert apart(mesh, (upright + 0.5) * scale - 0.5) < most  # pixel centres


def test_a_box_that_is_a_little_off_changes_little(
    mesher: FaceMesher, portrait: Picture, upright: NDArray[np.float32]
) -> None:
    rng = np.random.default_rng(0)
    boxes = [BOX + rng.normal(0, 0.05 * 114, 4) for _ in range(6)]
    assert np.mean([apart(one(mesher, portrait, box)[0], upright) for box in boxes]) < 0.025


def test_grain_changes_little_in_a_large_face(mesher: FaceMesher, portrait: Picture) -> None:
    large = np.asarray(cv2.resize(portrait, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC), np.uint8)
    grain = np.random.default_rng(0).normal(0, 12, large.shape)
    noisy = np.clip(large + grain, 0, 255).astype(np.uint8)
    clean, _ = one(mesher, large, BOX * 6, POINTS * 6)
    assert apart(one(mesher, noisy, BOX * 6, POINTS * 6)[0], clean) < 0.01


def test_what_is_no_face_scores_low(mesher: FaceMesher, portrait: Picture) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    assert one(mesher, noise)[1] < 0.5
    assert one(mesher, np.full((300, 300, 3), 128, np.uint8))[1] < 0.5
    suit = np.array([150, 300])
    assert one(mesher, portrait, BOX + np.tile(suit, 2), POINTS + suit)[1] < 0.5


def test_generated_faces_with_the_detector(mesher: FaceMesher) -> None:
    detector = CenterFaceDetector(default_store().files("centerface"))
    generator = MobileStyleGANGenerator(default_store().files("mobilestylegan"))
    for picture in generator.generate(gallery.load(None).styles[:2]):
        found = detector.detect([picture])[0]
        meshes, scores = mesher.mesh(picture, found)
        assert scores[0] > 0.95
        eyes = np.linalg.norm(found.points[0, 1] - found.points[0, 0])
        assert np.abs(align.five_points(meshes[0]) - found.points[0]).max() < 0.25 * eyes


def test_several_faces_one_after_another(
    mesher: FaceMesher, portrait: Picture, upright: NDArray[np.float32]
) -> None:
    picture = np.concatenate([portrait, portrait[:, ::-1]], axis=1)
    mirror = np.array([1023, 0])
    both = Detections(
        np.stack([BOX, BOX[[2, 1, 0, 3]] * (-1, 1, -1, 1) + np.tile(mirror, 2)]).astype(np.float32),
        np.ones(2, np.float32),
        np.stack([POINTS, POINTS[[1, 0, 2, 4, 3]] * (-1, 1) + mirror]).astype(np.float32),
    )
    meshes, scores = mesher.mesh(picture, both)
    assert meshes.shape == (2, 468, 3)
    assert scores.min() > 0.99
    np.testing.assert_allclose(meshes[0], upright, atol=1)
    assert align.pose(meshes[1])[0] == pytest.approx(-align.pose(upright)[0], abs=3)


def test_no_faces(mesher: FaceMesher, portrait: Picture) -> None:
    none = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32))
    meshes, scores = mesher.mesh(portrait, none)
    assert (meshes.shape, scores.shape) == ((0, 468, 3), (0,))


@pytest.mark.parametrize(
    "box", [[0, 0, 1, 1], [0, 0, 0, 0], [-50, -50, -20, -20], [-9000, -9000, 9000, 9000]]
)
def test_boxes_that_make_no_sense(box: list[float], mesher: FaceMesher) -> None:
    picture = np.full((1, 1, 3), 200, np.uint8)
    assert one(mesher, picture, np.array(box, np.float32), np.zeros((5, 2)))[1] < 0.5
