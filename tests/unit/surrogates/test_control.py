import numpy as np
import pytest
from numpy.typing import NDArray

from deid.faces.align import MEASURES, five_points, measures
from deid.faces.mesh import FaceMesher
from deid.gallery import store as gallery_store
from deid.interfaces import Detections, Gallery
from deid.models.store import default_store
from deid.surrogates.control import Control, held_out_r2
from deid.surrogates.generator import MobileStyleGANGenerator

YAW = MEASURES.index("yaw")
SIDE = 256


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return gallery_store.load(None)


@pytest.fixture(scope="module")
def control(gallery: Gallery) -> Control:
    return Control.fit(gallery.styles, gallery.meshes, gallery.embeddings)


def test_styles_explain_pose_and_expression_of_faces_not_fitted_on(gallery: Gallery) -> None:
    explained = held_out_r2(gallery.styles, gallery.meshes)
    least = {"yaw": 0.9, "pitch": 0.75, "smile": 0.65, "mouth_opening": 0.5, "mouth_width": 0.65}
    least |= {"eye_opening": 0.65, "brow_height": 0.55}
    assert {name: explained[name] >= value for name, value in least.items()} == dict.fromkeys(least, True)


def test_steering_moves_every_expected_measure_most_of_the_way(gallery: Gallery, control: Control) -> None:
    rng = np.random.default_rng(1)
    start, goal = (gallery.styles[rng.integers(len(gallery), size=40)] for _ in range(2))
    target = np.clip((control.measures(goal) - control.mean) / control.deviation, control.low, control.high)
    before, after = (
        (control.measures(s) - control.mean) / control.deviation
        for s in (start, control.steer(start, control.measures(goal)))
    )
    names = [n for n, name in enumerate(MEASURES) if name != "roll"]  # generated faces are aligned
    left = np.abs(after - target).mean(0)[names] / np.abs(before - target).mean(0)[names]
    assert (left < 0.6).all()


def test_measures_without_a_target_and_strength_zero_leave_the_style(
    gallery: Gallery, control: Control
) -> None:
    style = gallery.styles[:3]
    np.testing.assert_array_equal(control.steer(style, np.full(len(MEASURES), np.nan)), style)
    np.testing.assert_array_equal(control.steer(style, control.mean + control.deviation, strength=0), style)


def test_targets_end_at_what_the_gallery_has(gallery: Gallery, control: Control) -> None:
    far, farther = np.full(len(MEASURES), np.nan), np.full(len(MEASURES), np.nan)
    far[YAW], farther[YAW] = 80, 8000
    np.testing.assert_array_equal(
        control.steer(gallery.styles[0], far), control.steer(gallery.styles[0], farther)
    )


def test_following_takes_no_part_in_roll_size_and_place(gallery: Gallery, control: Control) -> None:
    mesh = gallery.meshes[5]
    cosine, sine = np.cos(0.5), np.sin(0.5)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], np.float32)
    moved = (700 * mesh @ turn.T + [300, 40, 0]).astype(np.float32)
    ours, theirs = control.follow(gallery.styles[0], mesh), control.follow(gallery.styles[0], moved)
    assert np.linalg.norm(ours - gallery.styles[0]) > 1
    assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(ours - gallery.styles[0])


def test_a_blend_is_the_mean_pushed_out_to_the_distance_of_its_parts(
    gallery: Gallery, control: Control
) -> None:
    parts, mean = gallery.styles[:5], gallery.mean_style
    assert mean is not None
    blend = control.blend(parts, mean)
    distance = np.linalg.norm(parts - mean, axis=1).mean()
    assert np.linalg.norm(blend - mean) == pytest.approx(distance, rel=1e-4)
    away, centre = blend - mean, parts.mean(0) - mean
    assert away @ centre == pytest.approx(np.linalg.norm(away) * np.linalg.norm(centre), rel=1e-4)
    np.testing.assert_allclose(control.blend(parts[::-1], mean), blend, atol=1e-4)
    np.testing.assert_allclose(control.blend(parts[:1], mean), parts[0], atol=1e-4)


def test_held_features_stay_where_they_are() -> None:
    """Styles of which one part makes the pose and another the identity, with both correlated among the faces."""
    gallery = gallery_store.load(None)
    rng = np.random.default_rng(2)
    pose = measures(gallery.meshes)
    identity = rng.normal(size=(len(pose), 4)) + (pose[:, :1] - pose[:, :1].mean()) / pose[:, :1].std()
    styles = np.hstack([pose / pose.std(0), identity]).astype(np.float32)
    target = np.full(len(MEASURES), np.nan)
    target[YAW] = pose[:, YAW].mean() + pose[:, YAW].std()
    moved = {
        name: np.abs(
            (Control.fit(styles, gallery.meshes, held).steer(styles[:9], target) - styles[:9])[:, -4:]
        )
        for name, held in (("free", None), ("held", identity))
    }
    assert moved["free"].mean() > 0.3
    assert moved["held"].mean() < 0.02 * moved["free"].mean()


@pytest.fixture(scope="module")
def wider(gallery: Gallery) -> Control:
    """A control with another value that is a linear function of the style, and one without meaning."""
    rng = np.random.default_rng(4)
    value = gallery.styles @ rng.standard_normal(gallery.styles.shape[1])
    value = 50 + 10 * (value - value.mean()) / value.std()
    value[::50] = np.nan
    return Control.fit(
        gallery.styles, gallery.meshes, others={"light": value, "one": np.full(len(value), 7.0)}
    )


def test_other_values_are_steered_beside_the_measures(gallery: Gallery, wider: Control) -> None:
    assert wider.names == (*MEASURES, "light", "one")
    target = np.full(len(wider.names), np.nan)
    target[wider.names.index("light")] = 60
    steered = wider.steer(gallery.styles[:20], target)
    before, after = (wider.measures(s)[:, wider.names.index("light")] for s in (gallery.styles[:20], steered))
    assert np.abs(after - 60).mean() < 0.5 * np.abs(before - 60).mean()


def test_a_value_that_all_faces_share_moves_nothing(gallery: Gallery, wider: Control) -> None:
    assert np.isfinite(wider.steps).all()
    target = np.full(len(wider.names), np.nan)
    target[wider.names.index("one")] = 900
    np.testing.assert_allclose(wider.steer(gallery.styles[:3], target), gallery.styles[:3], atol=1e-6)
    assert wider.measures(gallery.styles[0])[wider.names.index("one")] == pytest.approx(7)


def test_a_target_has_a_value_for_each_name_and_no_roll(gallery: Gallery, wider: Control) -> None:
    mesh = gallery.meshes[5] * SIDE
    found = dict(zip(wider.names, wider.target(mesh, {"light": 40.0, "unknown": 3.0}), strict=True))
    own = dict(zip(MEASURES, measures(mesh[None])[0].tolist(), strict=True))
    assert found["light"] == 40
    assert np.isnan([found["roll"], found["one"]]).all()
    assert all(found[name] == pytest.approx(own[name]) for name in MEASURES if name != "roll")
    assert np.isnan(wider.target(mesh)[len(MEASURES) :]).all()


def test_a_correction_goes_by_what_was_seen(gallery: Gallery, wider: Control) -> None:
    style, yaw = gallery.styles[0], wider.names.index("yaw")
    target, seen = (np.full(len(wider.names), np.nan) for _ in range(2))
    target[yaw] = 5
    np.testing.assert_array_equal(wider.correct(style, target, seen), style)  # not seen: nothing is lacking
    seen[yaw] = 5
    np.testing.assert_allclose(wider.correct(style, target, seen), style, atol=1e-6)
    steps = []
    for value in (-5, 0, 10):
        seen[yaw] = value
        corrected = wider.correct(style, target, seen)
        steps.append((wider.measures(corrected) - wider.measures(style))[yaw])
    assert steps[0] > steps[1] > 0 > steps[2]
    seen[yaw] = 0
    half = wider.correct(style, target, seen, 0.5) - style
    np.testing.assert_allclose(2 * half, wider.correct(style, target, seen) - style, atol=1e-4)


def test_steering_is_a_correction_of_what_is_expected(gallery: Gallery, wider: Control) -> None:
    style, target = gallery.styles[:4], wider.mean + wider.deviation
    expected = wider.correct(style, target, wider.measures(style))
    np.testing.assert_array_equal(wider.steer(style, target), expected)


@pytest.mark.parametrize("sign", [-1, 1])
def test_corrections_too_end_at_what_the_gallery_has(gallery: Gallery, wider: Control, sign: int) -> None:
    seen = wider.mean.copy()
    far, farther = (np.full(len(wider.names), np.nan) for _ in range(2))
    far[YAW], farther[YAW] = sign * 80, sign * 8000
    step = wider.correct(gallery.styles[0], far, seen)
    np.testing.assert_array_equal(step, wider.correct(gallery.styles[0], farther, seen))
    inside = np.abs(measures(gallery.meshes)[:, YAW] - wider.mean[YAW]).max() / wider.deviation[YAW]
    assert max(-wider.low[YAW], wider.high[YAW]) < inside


def test_too_few_faces_are_refused(gallery: Gallery) -> None:
    with pytest.raises(ValueError, match="too few"):
        Control.fit(gallery.styles[:10], gallery.meshes[:10])


def test_generated_faces_turn_and_move_as_they_are_told(gallery: Gallery, control: Control) -> None:
    generator = MobileStyleGANGenerator(default_store().files("mobilestylegan"), threads=2, size=SIDE)
    mesher = FaceMesher(default_store().files("facemesh"))
    points = (five_points(gallery.meshes.mean(0)) * SIDE).astype(np.float32)
    box = np.concatenate([points.min(0) - 40, points.max(0) + 40]).astype(np.float32)

    def seen(style: NDArray[np.float32]) -> dict[str, float]:
        picture = generator.generate(style[None])[0]
        meshes, scores = mesher.mesh(picture, Detections(box[None], np.ones(1, np.float32), points[None]))
        assert scores[0] > 0.9
        return dict(zip(MEASURES, measures(meshes)[0].tolist(), strict=True))

    for name, least in (("yaw", 0.6), ("pitch", 0.4), ("mouth_width", 0.15)):
        index, shares = MEASURES.index(name), []
        for style in gallery.styles[:2]:
            target = np.full((2, len(MEASURES)), np.nan)
            target[:, index] = control.mean[index] + np.array([-1.3, 1.3]) * control.deviation[index]
            low, high = (seen(control.steer(style, goal))[name] for goal in target)
            shares.append((high - low) / np.ptp(target[:, index]))
        assert least < np.mean(shares) < 1.4, name
