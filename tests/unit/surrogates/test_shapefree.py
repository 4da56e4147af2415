import numpy as np
import pytest

from deid.errors import FaceError
from deid.faces import align
from deid.gallery import store
from deid.interfaces import Gallery
from deid.surrogates import masks, shapefree
from deid.surrogates.shapefree import Frame
from tests.unit.surrogates import drawn
from tests.unit.surrogates.test_ksame import turned

SIDE = 256


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return store.load(None)


@pytest.fixture(scope="module")
def frame(gallery: Gallery) -> Frame:
    return Frame.fit(gallery.meshes[:64])


def ramp(side: int, channels: int = 3) -> np.ndarray:
    """A smooth picture [side, side, channels] in which every place has a colour of its own."""
    y, x = np.mgrid[:side, :side] * (200 / side)
    return np.stack([x, y, (x + y) / 2, 200 - x, 200 - y][:channels], -1).astype(np.float32)


def test_the_frame_holds_an_upright_face_of_its_size_with_room_between_the_lips(frame: Frame) -> None:
    yaw, _, roll = align.pose(frame.mean)
    assert np.abs([yaw, roll]).max() < 0.1
    assert np.ptp(frame.mean[:, 1]) == pytest.approx(shapefree.FACE, abs=1e-4)
    assert frame.mean[14, 1] - frame.mean[13, 1] > 0.8 * shapefree.PARTED * shapefree.FACE


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_a_picture_comes_back_from_the_frame(frame: Frame, gallery: Gallery, channels: int) -> None:
    """But for a few pixels beside the nose and between closed lips, which the frame does not see."""
    picture, mesh = ramp(SIDE, channels), turned(gallery.meshes[3] * SIDE, 15)
    there = frame.to_frame(picture, mesh, SIDE)
    back = frame.from_frame(there, mesh, SIDE)
    assert there.shape == back.shape == picture.shape
    assert back.dtype == np.float32
    off = np.abs(back - picture)[40:-40, 40:-40]
    assert np.quantile(off, 0.98) < 1
    assert off.mean() < 0.3


def test_textures_keep_their_type_and_the_picture_may_have_any_shape(frame: Frame, gallery: Gallery) -> None:
    picture = drawn.texture(200, 300, 1)
    mesh = gallery.meshes[3] * 200
    texture = frame.to_frame(picture, mesh, SIDE)
    assert texture.dtype == np.uint8
    assert texture.shape == (SIDE, SIDE, 3)
    assert frame.from_frame(texture, mesh, picture.shape).shape == picture.shape


def test_features_stand_still_in_the_frame_whatever_the_mesh(frame: Frame, gallery: Gallery) -> None:
    still = (frame.mean[masks.ANCHORS, :2] * SIDE).round().astype(int)
    for n in (3, 8):
        mesh = gallery.meshes[n] * 2 * SIDE
        found = frame.to_frame(ramp(2 * SIDE), mesh, SIDE)[still[:, 1], still[:, 0], :2]
        assert np.abs(found * (2 * SIDE / 200) - mesh[masks.ANCHORS, :2]).max() < 5


@pytest.mark.parametrize("yaw", [-70, -45, 45, 70])
def test_a_turned_head_has_no_tears(frame: Frame, gallery: Gallery, yaw: float) -> None:
    """Every pixel has a colour of its texture, and triangles that are turned away show nothing."""
    mesh = turned(gallery.meshes[3] * SIDE, yaw)
    texture = np.full((SIDE, SIDE, 3), 90, np.uint8)
    assert (frame.from_frame(texture, mesh, SIDE) == 90).all()
    assert 0.02 < 1 - frame.facing(mesh, SIDE).mean() < 0.3


def test_hair_follows_the_head_when_it_leans(frame: Frame) -> None:
    """A mark above the forehead, outside the mesh, turns with it."""
    texture = np.zeros((SIDE, SIDE, 1), np.uint8)
    texture[10:30, 118:138] = 255
    angle = np.radians(40)
    lean = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    mesh = frame.mean * np.float32(SIDE)
    mesh[:, :2] = (mesh[:, :2] - SIDE / 2) @ lean + SIDE / 2
    y, x = np.nonzero(frame.from_frame(texture, mesh, SIDE)[..., 0] > 127)
    wanted = (np.array([127.5, 19.5]) - SIDE / 2) @ lean + SIDE / 2
    assert np.abs([x.mean() - wanted[0], y.mean() - wanted[1]]).max() < 1.5


def test_what_is_no_face_is_refused(frame: Frame, gallery: Gallery) -> None:
    texture = np.zeros((SIDE, SIDE, 3), np.uint8)
    away = gallery.meshes[3] * SIDE * np.array([-1, 1, 1], np.float32) + np.array([SIDE, 0, 0], np.float32)
    for mesh in (np.zeros((468, 3), np.float32), np.full((468, 3), np.nan, np.float32), away):
        with pytest.raises(FaceError):
            frame.from_frame(texture, mesh, SIDE)
