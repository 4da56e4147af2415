import numpy as np
import pytest

from deid.errors import FaceError
from deid.faces import align
from deid.gallery import store
from deid.surrogates import shapes
from deid.surrogates.shapefree import Frame
from deid.surrogates.shapes import Pose, Shapes

SMILE = align.EXPRESSION.index("smile")


@pytest.fixture(scope="module")
def meshes() -> np.ndarray:
    """Faces of the gallery that look about straight on."""
    found = store.load(None).meshes
    return np.asarray(found[np.abs(align.pose(found)).max(1) < 12][:60], np.float64)


@pytest.fixture(scope="module")
def fitted(meshes: np.ndarray) -> Shapes:
    """Of made people: gallery faces, and the same with higher and wider corners of the mouth."""
    mean = Frame.fit(meshes.astype(np.float32)).mean.astype(np.float64)
    neutral = np.stack([shapes.placed(mesh, mean) for mesh in meshes])
    smiling = neutral.copy()
    rng = np.random.default_rng(3)
    for mesh in smiling:
        apart = np.linalg.norm(mesh[:, None, :2] - mesh[None, [61, 291], :2], axis=2)
        near = np.exp(-((apart / 0.05) ** 2)) * rng.uniform(0.6, 1.4)
        mesh[:, 0] += near @ [-0.015, 0.015]
        mesh[:, 1] -= near.sum(1) * 0.012
    return Shapes.fit(mean, neutral, smiling)


def posed(yaw: float) -> Pose:
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    return Pose(300.0, np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]), np.array([40.0, 90.0, 5.0]))


def test_modes_are_named(fitted: Shapes) -> None:
    assert len(fitted.expressions) == len(shapes.MODES) == len(shapes.SPREAD)


@pytest.mark.parametrize("yaw", [-30, 0, 20])
@pytest.mark.parametrize("mode", ["smile", "jaw"])
def test_pose_and_expression_come_back(fitted: Shapes, yaw: float, mode: str) -> None:
    given = np.zeros(len(shapes.MODES))
    given[shapes.MODES.index(mode)] = 1.5
    mesh = fitted.mesh_of(fitted.mean, given, posed(yaw))
    pose, expression = fitted.pose_and_expression(mesh)
    drawn = fitted.mesh_of(fitted.mean, expression, pose)
    assert align.expression(drawn) == pytest.approx(align.expression(mesh), abs=0.012)
    assert pose.scale == pytest.approx(300, rel=0.02)
    assert pose.rotation == pytest.approx(posed(yaw).rotation, abs=0.03)


def test_a_face_keeps_its_pose_when_its_shape_changes(fitted: Shapes, meshes: np.ndarray) -> None:
    other = shapes.placed(meshes[7], fitted.mean)
    for mesh in meshes[20:30]:
        pose, expression = fitted.pose_and_expression(mesh)
        drawn = fitted.mesh_of(other, expression, pose)
        off = np.abs(align.pose(drawn) - align.pose(mesh))
        assert off.max() < 6
        assert np.linalg.norm(drawn[4, :2] - mesh[4, :2]) < 0.08 * np.ptp(mesh[:, 1])


def test_measures_that_are_asked_for_are_reached(fitted: Shapes, meshes: np.ndarray) -> None:
    shape = shapes.placed(meshes[7], fitted.mean)
    for wanted in ([0.011, 0.015, 0.35, 0.055, 0.14], [0.03, 0.05, 0.42, 0.05, 0.15]):
        found = fitted.towards(shape, np.array(wanted))
        mesh = fitted.mesh_of(shape, found, posed(15))
        assert align.expression(mesh) == pytest.approx(wanted, abs=0.008)


def test_more_of_a_smile_is_asked_for_in_steps(fitted: Shapes) -> None:
    own = align.expression(fitted.mean)
    steps = []
    for more in np.linspace(0, 0.02, 5):
        wanted = own.copy()
        wanted[SMILE] += more
        steps.append(fitted.smile(fitted.towards(fitted.mean, wanted)))
    assert steps[0] == pytest.approx(0, abs=0.02)
    assert (np.diff(steps) > 0).all()


def test_what_is_no_face_is_refused(fitted: Shapes) -> None:
    for mesh in (np.zeros((468, 3)), np.full((468, 3), np.nan)):
        with pytest.raises(FaceError):
            fitted.pose_and_expression(mesh)
