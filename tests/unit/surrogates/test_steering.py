from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deid.errors import ConfigError, FaceError
from deid.faces.align import MEASURES, measures
from deid.faces.appearance import LOOKS
from deid.faces.segment import head_chip
from deid.gallery import worn
from deid.interfaces import Face, Gallery
from deid.surrogates.steering import Seen, Steering, Style, log_odds
from tests.unit.surrogates import generated

SKIN = LOOKS.index("skin_l")
FACES = [(2, 50), (11, 3), (60, 70)]  # identities of the default gallery: who is steered, and to whom


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    """Identities of the default gallery with looks, whether it has them or not."""
    whole = generated.gallery()
    columns = {name: whole.attributes.get(name) for name in LOOKS}
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=len(whole)) if v is None else v for name, v in columns.items()}
    return replace(whole, attributes=whole.attributes | columns)


def face_of(mesh: NDArray[np.float32], looks: NDArray[np.float32] | None = None) -> Face:
    return Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), mesh, 0.9, looks=looks)


def values(head: generated.Drawn) -> NDArray[np.float32]:
    return np.array(list(generated.looks(head).values()), np.float32)


def see(style: Style) -> Seen:
    head = generated.drawn(style)
    return Seen(head.mesh, values(head))


def followed(steering: Steering, *given: Any) -> Style:
    return steering.follow(*given)[0]


def unseen(style: Style) -> Seen:
    raise AssertionError("no trial was asked for")


def all_of(head: generated.Drawn) -> dict[str, float]:
    return dict(zip(MEASURES, measures(head.mesh[None])[0].tolist(), strict=True)) | generated.looks(head)


def test_corrections_bring_pose_expression_and_looks_nearer() -> None:
    gallery, named = generated.gallery(), ("yaw", "smile", "skin_l")
    steering = Steering(gallery, 2)
    control = steering.control
    single, together = [], []
    for own, other in FACES:
        goal, start = generated.head(other), gallery.styles[own]
        face = face_of(goal.mesh, values(goal))
        made = [generated.head(own)]

        def render(style: Style, made: list[generated.Drawn] = made) -> Seen:
            made.append(generated.drawn(style))
            return Seen(made[-1].mesh, values(made[-1]))

        render(followed(steering, start, face, render, np.nan, np.nan))
        wanted, seen = (
            np.array([[all_of(head).get(name, np.nan) for name in control.names] for head in heads])
            for heads in ([goal], made)
        )
        low, high = (control.mean + end * control.deviation for end in (control.low, control.high))
        apart = np.abs(np.clip(wanted, low, high) - seen) / control.deviation
        apart[:, control.names.index("roll")] = np.nan  # not steered
        single.append([apart[:, control.names.index(name)] for name in named])
        together.append(np.sqrt(np.nanmean(apart**2, axis=1)))
    for name, (unsteered, *steered) in zip(named, np.mean(single, axis=0), strict=True):
        assert max(steered) < 0.6 * unsteered, name
    unsteered, steered, once, twice = np.mean(together, axis=0)
    assert steered < 0.8 * unsteered
    assert once < 0.95 * steered
    assert twice < once


def recorded(mesh: NDArray[np.float32], looks: NDArray[np.float32] | None) -> tuple[list[Style], Callable]:
    asked: list[Style] = []

    def record(style: Style) -> Seen:
        asked.append(style)
        return Seen(mesh, looks)

    return asked, record


@pytest.mark.parametrize("corrections", [0, 1, 3])
def test_as_many_trials_as_corrections(gallery: Gallery, corrections: int) -> None:
    steering = Steering(gallery, corrections)
    asked, record = recorded(gallery.meshes[3] * 256, None)
    style = followed(steering, gallery.styles[0], face_of(gallery.meshes[5]), record, 0.9, 30)
    assert len(asked) == corrections
    assert len({s.tobytes() for s in (*asked, style)}) == corrections + 1
    assert style.dtype == np.float32


def test_what_is_as_wanted_is_not_corrected(gallery: Gallery) -> None:
    steering = Steering(gallery, 2)
    looks = np.array([np.nanmedian(gallery.attributes[name]) for name in LOOKS], np.float32)
    looks[LOOKS.index("hair_top")] = min(looks[LOOKS.index("hair_top")], 0.1)
    typical = int(np.abs(gallery.attributes["yaw"]).argmin())
    mesh = gallery.meshes[typical] * 256
    target = steering.control.target(mesh, dict(zip(LOOKS, looks.tolist(), strict=True)))
    control = steering.control
    inside = np.clip((target - control.mean) / control.deviation, control.low, control.high)
    seen = control.mean + inside * control.deviation
    np.testing.assert_allclose(control.correct(gallery.styles[0], target, seen), gallery.styles[0], atol=1e-5)
    wrong = seen.copy()
    wrong[control.names.index("skin_l")] += 10
    assert np.abs(control.correct(gallery.styles[0], target, wrong) - gallery.styles[0]).max() > 1e-3


def test_targets_beyond_the_gallery_are_clipped(gallery: Gallery) -> None:
    steering = Steering(gallery, 1)
    styles = []
    for lightness in (150.0, 1500.0):
        looks = np.full(len(LOOKS), np.nan, np.float32)
        looks[SKIN] = lightness
        _, record = recorded(gallery.meshes[3] * 256, looks * 0 + 60)
        styles.append(
            followed(steering, gallery.styles[0], face_of(gallery.meshes[5], looks), record, 0.5, 30)
        )
    np.testing.assert_array_equal(*styles)


def test_outlying_identities_do_not_widen_the_range(gallery: Gallery) -> None:
    skin = gallery.attributes["skin_l"].astype(float).copy()
    skin[:2] = (9000, -9000)
    control = Steering(replace(gallery, attributes=gallery.attributes | {"skin_l": skin}), 0).control
    at = control.names.index("skin_l")
    assert control.mean[at] + control.high[at] * control.deviation[at] < 110
    assert control.mean[at] + control.low[at] * control.deviation[at] > -10
    assert control.deviation[at] < 1.1 * Steering(gallery, 0).control.deviation[at]


def test_a_trial_without_a_face_ends_the_corrections(gallery: Gallery) -> None:
    def fail(style: Style) -> Seen:
        raise FaceError("generate_failed")

    face = face_of(gallery.meshes[5])
    steered = followed(Steering(gallery, 2), gallery.styles[0], face, fail, 0.9, 30)
    plain = followed(Steering(gallery, 0), gallery.styles[0], face, unseen, 0.9, 30)
    np.testing.assert_array_equal(steered, plain)


def test_a_face_without_mesh_is_not_steered(gallery: Gallery) -> None:
    face = face_of(gallery.meshes[5])
    face.mesh = None
    with pytest.raises(FaceError, match="match_failed"):
        followed(Steering(gallery, 1), gallery.styles[0], face, see, 0.9, 30)


def test_wanted_is_a_whole_bare_head_of_the_persons_looks(gallery: Gallery) -> None:
    steering = Steering(gallery, 0)
    looks = np.arange(len(LOOKS), dtype=np.float32) / 100
    found = steering.wanted(face_of(gallery.meshes[0], looks), 0.97, 41.0)
    assert found["cut"] == 0
    assert {found[kind] for kind in worn.KINDS} == {-1.0}
    assert found["age"] == 41
    assert found["sex"] > 0
    assert found["skin_l"] == looks[SKIN]
    plain = steering.wanted(face_of(gallery.meshes[0]), np.nan, np.nan)
    assert not set(LOOKS) & set(plain)
    assert "sex" not in plain


@pytest.mark.parametrize(("male", "sign"), [(0.0, -1), (0.45, -1), (0.55, 1), (1.0, 1)])
def test_the_surrogates_sex_is_plain(gallery: Gallery, male: float, sign: int) -> None:
    odds = Steering(gallery, 0).wanted(face_of(gallery.meshes[0]), male, 30)["sex"]
    assert np.sign(odds) == sign
    assert 2 < abs(odds) < 10


@pytest.mark.parametrize(("bald", "coloured"), [(0.1, True), (0.95, False), (np.nan, True)])
def test_a_bald_head_has_no_hair_colour_to_follow(gallery: Gallery, bald: float, coloured: bool) -> None:
    looks = np.full(len(LOOKS), 20, np.float32)
    looks[LOOKS.index("bald")] = bald
    found = Steering(gallery, 0).wanted(face_of(gallery.meshes[0], looks), 0.9, 30)
    assert [np.isfinite(found[name]) for name in ("hair_l", "hair_a", "hair_b")] == [coloured] * 3
    assert np.isfinite(found["skin_l"])


def test_a_gallery_without_looks_steers_pose_and_expression(gallery: Gallery) -> None:
    bare = replace(gallery, attributes={})
    steering = Steering(bare, 1)
    assert steering.control.names == MEASURES
    _, record = recorded(gallery.meshes[3] * 256, np.full(len(LOOKS), 50, np.float32))
    looks = np.full(len(LOOKS), 20, np.float32)
    style = followed(steering, gallery.styles[0], face_of(gallery.meshes[5], looks), record, 0.9, 30)
    assert np.isfinite(style).all()
    assert np.abs(style - gallery.styles[0]).max() > 0.01


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_what_all_or_none_of_the_gallery_have_is_no_direction(gallery: Gallery, value: float) -> None:
    """Galleries of another generator have no score of glasses: -1 for every identity."""
    same = np.full(len(gallery), value, np.float32)
    steering = Steering(replace(gallery, attributes=gallery.attributes | {"glasses": same}), 0)
    without = {name: v for name, v in gallery.attributes.items() if name != "glasses"}
    plain = Steering(replace(gallery, attributes=without), 0)
    face = face_of(gallery.meshes[5], np.full(len(LOOKS), 20, np.float32))
    styles = [followed(s, gallery.styles[0], face, unseen, 0.9, 30) for s in (steering, plain)]
    assert np.isfinite(styles[0]).all()
    np.testing.assert_allclose(*styles, atol=1e-3)


def test_log_odds_are_bounded() -> None:
    odds = log_odds(np.array([0, 0.1, 0.5, 0.9, 1]))
    assert np.isfinite(odds).all()
    assert (np.diff(odds) > 0).all()
    assert odds[2] == pytest.approx(0)
    assert odds[3] == pytest.approx(np.log(9))


def test_looks_on_a_chip_are_what_the_trial_sees() -> None:
    head = generated.head(FACES[0][0])
    assert head_chip(head.picture, head.mesh).shape == (256, 256, 3)
    found = see(generated.gallery().styles[FACES[0][0]])
    mesh, looks = found.mesh, found.looks
    assert np.array_equal(mesh, head.mesh)
    assert looks is not None
    assert np.isfinite(looks[SKIN])


def first(gallery: Gallery, count: int) -> Gallery:
    attributes = {name: values[:count] for name, values in gallery.attributes.items()}
    return Gallery(
        gallery.styles[:count],
        gallery.embeddings[:count],
        gallery.meshes[:count],
        attributes,
        gallery.mean_style,
    )


def test_a_small_gallery_steers_pose_and_expression_and_a_tiny_one_is_refused(gallery: Gallery) -> None:
    assert Steering(first(gallery, 40), 0).control.names == MEASURES
    with pytest.raises(ConfigError, match=r"gallery: 8 faces are too few.*build a larger one"):
        Steering(first(gallery, 8), 0)
