import cv2
import numpy as np
import pytest

from deid import config
from deid.errors import FaceError
from deid.faces.align import five_points
from deid.gallery import store
from deid.interfaces import Detections, Gallery
from deid.surrogates import composite, ksame, masks
from tests.unit.surrogates import drawn

SIDE = 128


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return store.load(None)


@pytest.fixture(scope="module")
def warp(gallery: Gallery) -> ksame.Warp:
    return ksame.Warp.fit(gallery.meshes)


def turned(mesh: np.ndarray, yaw: float) -> np.ndarray:
    """The mesh as it looks when its head turns by yaw degrees."""
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    middle = mesh.mean(0)
    return ((mesh - middle) @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + middle).astype(np.float32)


def coordinates(mesh: np.ndarray) -> np.ndarray:
    """A picture that holds, in red and green, the coordinates of the mean face under a mesh that stands elsewhere."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([x * 2, y * 2, np.zeros_like(x)], -1).clip(0, 255).astype(np.uint8)


def test_triangles_tile_the_mesh(warp: ksame.Warp) -> None:
    assert len(np.unique(warp.triangles)) == 468
    hull = cv2.contourArea(cv2.convexHull(warp.mean[:, :2].astype(np.float32)))
    assert abs(warp.areas).sum() / 2 == pytest.approx(hull, rel=0.01)
    assert (np.sign(warp.areas) == np.sign(warp.areas[0])).all()


def test_a_face_warped_to_its_own_mesh_stays(warp: ksame.Warp, gallery: Gallery) -> None:
    picture = drawn.texture(SIDE, SIDE, 1)
    mesh = gallery.meshes[3] * SIDE
    result = warp.average([picture], mesh[None], mesh)
    assert np.abs(result.astype(int) - picture)[20:-20, 20:-20].max() <= 2


def test_features_land_on_the_target(warp: ksame.Warp, gallery: Gallery) -> None:
    source, target = gallery.meshes[3] * SIDE, gallery.meshes[8] * SIDE
    warped = warp.average([coordinates(source)], source[None], target)
    at = target[masks.ANCHORS, :2].round().astype(int)
    found = warped[at[:, 1], at[:, 0], :2] / 2.0
    assert np.abs(found - source[masks.ANCHORS, :2]).max() < 2


def test_weights_are_equal(warp: ksame.Warp, gallery: Gallery) -> None:
    levels = (30, 60, 210)
    pictures = [np.full((SIDE, SIDE, 3), level, np.uint8) for level in levels]
    assert (warp.average(pictures, gallery.meshes[:3] * SIDE, gallery.meshes[9] * SIDE) == 100).all()


@pytest.mark.parametrize("yaw", [-70, -40, 40, 70])
def test_turned_targets_leave_no_hole(warp: ksame.Warp, gallery: Gallery, yaw: float) -> None:
    source = gallery.meshes[3] * SIDE
    picture = np.full((SIDE, SIDE, 3), 7, np.uint8)
    picture[source[:, 1].astype(int), source[:, 0].astype(int)] = 9
    result = warp.average([picture], source[None], turned(source, yaw))
    assert set(np.unique(result)) <= {7, 8, 9}


def test_a_mesh_seen_from_behind_fails(warp: ksame.Warp, gallery: Gallery) -> None:
    mesh = gallery.meshes[3] * SIDE
    mirrored = mesh * [-1, 1, 1] + [SIDE, 0, 0]
    with pytest.raises(FaceError):
        warp.average([drawn.texture(SIDE, SIDE, 1)], mesh[None], mirrored.astype(np.float32))


def test_frame_takes_out_place_size_and_roll(warp: ksame.Warp) -> None:
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    mesh = np.hstack([warp.mean[:, :2] @ turn * 300 + [50, -90], warp.mean[:, 2:] * 300]).astype(np.float32)
    assert np.allclose(warp.frame(mesh, SIDE), warp.mean * SIDE, atol=0.05)


@pytest.mark.parametrize("roll", [0.0, 0.7, 3.1])
def test_lay_follows_the_points(warp: ksame.Warp, roll: float) -> None:
    c, s = np.cos(roll), np.sin(roll)
    placed = (warp.mean[:, :2] @ np.array([[c, s], [-s, c]]) * 90 + [200, 100]).astype(np.float32)
    box = np.concatenate([placed.min(0), placed.max(0)])
    points = five_points(np.hstack([placed, warp.mean[:, 2:] * 90]))
    assert np.abs(ksame.lay(warp.mean, points, box)[:, :2] - placed).max() < 0.05


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.eye(5, 2) * 2 + 50])
def test_points_that_make_no_face_leave_the_box(warp: ksame.Warp, points: np.ndarray) -> None:
    box = np.array([40, 30, 100, 110], np.float32)
    laid = ksame.lay(warp.mean, points.astype(np.float32), box)[:, :2]
    assert np.allclose((laid[:, 1].min(), laid[:, 1].max()), (30, 110), atol=0.01)
    assert np.allclose((laid.min(0) + laid.max(0)) / 2, (70, 70), atol=0.01)
    with pytest.raises(FaceError):
        ksame.lay(warp.mean, points.astype(np.float32), box * np.nan)


class Flat:
    """Portraits of one colour each, and a mesher that sees the gallery's face in it, or sees it elsewhere."""

    def __init__(self, gallery: Gallery, off: float = 0.0, score: float = 0.9) -> None:
        self.gallery, self.off, self.score, self.rendered = gallery, off, score, 0

    def portrait(self, index: int, side: int) -> np.ndarray:
        self.rendered += 1
        return np.full((256, 256, 3), index, np.uint8)

    def mesh(self, picture: np.ndarray, detections: Detections) -> tuple[np.ndarray, np.ndarray]:
        number = int(picture[0, 0, 0])
        mesh = (self.gallery.meshes[number] + self.off) * picture.shape[0]
        return mesh[None].astype(np.float32), np.array([self.score], np.float32)


@pytest.mark.parametrize(("height", "side"), [(20, 128), (90, 128), (170, 256), (900, 512)])
def test_the_average_is_as_large_as_its_place_needs(gallery: Gallery, height: float, side: int) -> None:
    flat = Flat(gallery)
    faces = ksame.Faces(gallery, flat.portrait, flat, 0.5)
    picture, mesh = faces.average([10, 20, 30], gallery.meshes[3] * 77, height)
    assert len(picture) == min(side, 256)  # of a generator of 256 px
    assert (picture == 20).all()
    assert np.ptp(mesh[:, 1]) == pytest.approx(np.ptp(faces.warp.mean[:, 1]) * len(picture), rel=0.1)
    faces.average([10, 20, 31], gallery.meshes[3] * 77, height)
    assert flat.rendered == 4


@pytest.mark.parametrize("flaw", [{"off": 0.1}, {"score": 0.2}, {"score": float("nan")}])
def test_a_rendering_that_is_not_the_gallerys_face_fails(gallery: Gallery, flaw: dict[str, float]) -> None:
    flat = Flat(gallery, **flaw)
    with pytest.raises(FaceError):
        ksame.Faces(gallery, flat.portrait, flat, 0.5).picture(5, 128)


def test_the_cache_has_an_end(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = Flat(gallery)
    faces = ksame.Faces(gallery, flat.portrait, flat, 0.5)
    monkeypatch.setattr(ksame, "CACHE_BYTES", 3 * 128 * 128 * 3)
    for index in range(10):
        faces.picture(index, 128)
    assert len(faces._kept) == 3


@pytest.mark.parametrize("laid", [False, True])
def test_no_source_pixel_survives(gallery: Gallery, laid: bool) -> None:
    flat = Flat(gallery)
    face = drawn.face((160, 170), 120)
    face.anonymizer, face.failure = "ksame-pixel", "turned"
    if laid:
        face.mesh, face.mesh_score = ksame.lay(gallery.meshes[:5].mean(0), face.points, face.box), 0.0
    face.surrogate, face.surrogate_mesh = ksame.Faces(gallery, flat.portrait, flat, 0.5).average(
        range(80, 85), face.mesh, face.height
    )
    source = drawn.texture(320, 330, 2)
    where = masks.region(face, config.Region(), source.shape)
    source[where.window][where.mask] = drawn.KEY
    result = composite.composite_all(source, [face], config.Region())
    assert (face.status, face.anonymizer, face.failure) == ("replaced", "ksame-pixel", "turned")
    assert drawn.key_left(result[where.window], where.mask) == 0
    if laid:
        x0, y0, x1, y1 = face.box.astype(int)
        assert (result[y0:y1, x0:x1] != drawn.KEY).any(2).all(), "the whole box belongs to the region"
