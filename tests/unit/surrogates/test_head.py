import cv2
import numpy as np
import pytest

from deid import config
from deid.errors import FaceError
from deid.faces import segment
from deid.faces.mesh import as_detection
from deid.faces.segment import BACKGROUND, FACE, HAIR, OTHER
from deid.interfaces import Face, Picture
from deid.surrogates import composite, head, head_paste, masks
from deid.surrogates.cover import COLOUR
from tests.unit.surrogates import drawn, generated

OPTIONS = config.Region(kind="head")
KEYED = {FACE: drawn.KEY, HAIR: drawn.KEY}
SIZE = (400, 420)


def portrait(
    centre: tuple[float, float] = (205, 190),
    height: float = 120,
    turn: float = 0.0,
    tones: dict[int, tuple[int, int, int]] | None = None,
) -> tuple[Picture, Face]:
    face = drawn.face(centre, height, turn)
    return drawn.with_head(drawn.texture(*SIZE, 2), face, tones), face


def head_of(face: Face, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels [H, W] of face and hair, as they were drawn."""
    assert face.mesh is not None
    return np.isin(drawn.labels(face.mesh, shape), (FACE, HAIR))


def emptied(place: head.Place, shape: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(shape[:2], np.bool_)
    found[place.region.window] = place.region.mask
    return found


@pytest.mark.parametrize("turn", [0.0, 0.5, -1.2, np.pi])
@pytest.mark.parametrize("height", [30, 120, 230])
def test_no_pixel_of_the_head_survives(turn, height):
    source, face = portrait((205, 190), height, turn, KEYED)
    where = head_of(face, source.shape)
    assert drawn.key_left(source, where) == where.sum()
    place = emptied(head.locate(source, face), source.shape)
    assert place[where].mean() > 0.99
    result = composite.composite_all(source, [face], OPTIONS)
    assert (face.status, face.failure) == ("replaced", "")
    assert face.surrogate_segments is not None, "replaced as a face"
    assert drawn.key_left(result, where | place) == 0


@pytest.mark.parametrize("centre", [(0, 0), (10, 200), (415, 150), (200, 20), (400, 395)])
def test_no_pixel_of_a_head_at_the_border_survives(centre):
    source, face = portrait(centre, 120, 0.0, KEYED)
    where = head_of(face, source.shape)
    result = composite.composite_all(source, [face], OPTIONS)
    assert face.status == "replaced"
    assert where.any()
    assert drawn.key_left(result, where) == 0


def test_the_result_in_the_emptied_region_does_not_depend_on_source_detail():
    source, face = portrait()
    rng = np.random.default_rng(0)
    where = cv2.erode(head_of(face, source.shape).astype(np.uint8), np.ones((5, 5))) > 0
    pattern = np.where(where[..., None], rng.integers(-8, 9, source.shape), 0)
    pattern = pattern + np.roll(pattern, 1, 0) + np.roll(pattern, 1, 1)
    detailed = np.clip(source + pattern, 0, 255).astype(np.uint8)
    place = head.locate(source, face).region
    results = [
        composite.composite_all(picture, [portrait()[1]], OPTIONS)[place.window][place.mask]
        for picture in (source, detailed)
    ]
    left = (results[1].astype(float) - results[0]).ravel()
    own = pattern[place.window][place.mask].astype(float).ravel()
    assert abs(np.corrcoef(left, own)[0, 1]) < 0.05


@pytest.mark.parametrize("crop", [SIZE, (84, 100), (170, 80), (60, 60)])
def test_paste_reads_nothing_of_the_region_from_the_result(crop):
    """Whatever is left in the emptied region, it does not come through, even where little else is in the picture."""
    source, face = portrait()
    low = np.maximum(np.array([205, 190]) - np.array(crop[::-1]) // 2, 0)
    source = source[low[1] :, low[0] :][: crop[0], : crop[1]].copy()
    face.mesh[:, :2] -= low
    face.points, face.box = face.points - low, face.box - np.tile(low, 2)
    place = head.locate(source, face)
    where, results = emptied(place, source.shape), []
    for noise in (0, 1):
        result, hidden = source.copy(), where.copy()
        result[where] = np.random.default_rng(noise).integers(0, 256, (where.sum(), 3))
        head_paste.paste(source, result, hidden, face, place)
        assert not hidden.any()
        results.append(result)
    assert np.array_equal(*results)


@pytest.mark.parametrize("share", [0.3, 0.45])
def test_what_may_stand_in_front_does_not_carry_the_source_s_detail(share):
    rng, results = np.random.default_rng(0), []
    source, face = portrait()
    hair = drawn.labels(face.mesh, source.shape) == HAIR
    hair = cv2.erode(hair.astype(np.uint8), np.ones((3, 3))) > 0
    pattern = np.where(hair[..., None], rng.integers(-40, 41, (*source.shape[:2], 1)), 0)
    places = []
    for sign in (1, -1):
        face = portrait()[1]
        face.segments[..., OTHER] = np.where(face.segments[..., HAIR] > 127, round(255 * share), 0)
        face.segments[..., HAIR] = (face.segments[..., HAIR] * (1 - share)).astype(np.uint8)
        picture = np.clip(source + sign * pattern, 0, 255).astype(np.uint8)
        places.append(emptied(head.locate(picture, face), source.shape))
        results.append(composite.composite_all(picture, [face], OPTIONS).astype(float))
        assert face.surrogate_segments is not None
    both = places[0] & places[1] & hair
    assert both.sum() > 1000
    left = (results[0] - results[1])[both].mean(1)
    assert abs(np.corrcoef(left, pattern[both][:, 0])[0, 1]) < 0.05


def test_pixels_away_from_the_head_stay_bit_exact():
    source, face = portrait()
    before, place = source.copy(), head.locate(source, face)
    result = composite.composite_all(source, [face], OPTIONS)
    away = np.ones(source.shape[:2], np.bool_)
    away[place.region.window] = False
    assert away.any()
    assert np.array_equal(result[away], source[away])
    assert np.array_equal(source, before)
    clear = ~drawn.inside(face, 2.2, source.shape) & ~emptied(place, source.shape)
    clear &= drawn.labels(face.mesh, source.shape) == BACKGROUND
    assert np.abs(result[clear].astype(int) - source[clear]).max() <= 2


def test_what_other_faces_emptied_stays_emptied():
    source, face = portrait()
    place = head.locate(source, face)
    own = emptied(place, source.shape)
    others = drawn.inside(drawn.face((260, 150), 90), 1.0, source.shape) & ~own
    assert others[place.region.window].any()
    result = source.copy()
    result[own | others] = COLOUR
    hidden = own | others
    head_paste.paste(source, result, hidden, face, place)
    assert (result[others] == COLOUR).all()
    assert np.array_equal(hidden, others)


@pytest.mark.parametrize("failure", ["", "generate_failed"])
def test_overlapping_heads_leave_nothing_of_each_other(failure):
    results = []
    for tone in (drawn.KEY, (0, 90, 20)):
        near, far = drawn.face((250, 200), 150, seed=1), drawn.face((115, 190), 90, seed=2)
        source = drawn.with_head(drawn.texture(*SIZE, 4), far)
        source = drawn.with_head(source, near, {FACE: tone, HAIR: tone, OTHER: (60, 90, 150)})
        near.failure = failure
        result = composite.composite_all(source, [near, far], OPTIONS)
        assert (near.status, far.status) == ("covered" if failure else "replaced", "replaced")
        near_head = head_of(near, source.shape)
        assert drawn.key_left(result, drawn.inside(near, 1.3, source.shape) if failure else near_head) == 0
        results.append(result)
    own = drawn.inside(far, 1.0, source.shape) & ~drawn.inside(near, 1.75, source.shape)
    assert own.any()
    assert np.abs(results[0][own].astype(int) - results[1][own]).max() <= 1


def test_the_surrogate_has_the_colours_of_the_source():
    for skin, hair in (((90, 62, 50), (25, 20, 18)), ((225, 190, 170), (120, 90, 60))):
        source, face = portrait(tones={FACE: skin, HAIR: hair})
        result = composite.composite_all(source, [face], OPTIONS)
        inner = drawn.inside(face, 0.7, source.shape)
        assert np.abs(np.median(result[inner], axis=0) - skin).max() < 15
        both = head_of(face, source.shape) & ~drawn.inside(face, 1.12, source.shape)
        both &= drawn.inside(face, 1.25, source.shape)
        assert np.abs(np.median(result[both], axis=0) - hair).max() < 25


def test_a_shaven_dark_head_that_shines_gets_no_light_hair():
    """Hair that is far lighter than dark skin would stand as a rim around the darkened face of a light surrogate."""
    levels = []
    for hair in ((40, 36, 34), (190, 180, 175)):
        source, face = portrait(tones={FACE: (60, 42, 34), HAIR: hair})
        result = composite.composite_all(source, [face], OPTIONS)
        both = head_of(face, source.shape) & ~drawn.inside(face, 1.12, source.shape)
        both &= drawn.inside(face, 1.25, source.shape)
        levels.append(float(np.median(result[both])))
    assert 25 < levels[0] < levels[1] < 90


def test_what_stands_in_front_of_the_hair_stays():
    source, face = portrait()
    hat = np.zeros(source.shape[:2], np.uint8)
    cv2.rectangle(hat, (130, 95), (280, 122), 1, -1)
    found = drawn.labels(face.mesh, source.shape)
    found[hat > 0], source[hat > 0] = OTHER, (30, 150, 60)
    face.segments = drawn.parts(found, segment.frame(face.mesh))
    result = composite.composite_all(source, [face], OPTIONS)
    assert face.surrogate_segments is not None
    inner = cv2.erode(hat, np.ones((9, 9))) > 0
    assert np.abs(result[inner].astype(int) - (30, 150, 60)).max() < 20


def test_where_hair_was_and_is_none_now_the_background_goes_on():
    source = np.full((*SIZE, 3), (90, 120, 150), np.uint8)
    face = drawn.face((205, 190), 120)
    source = drawn.with_head(source, face)
    found = drawn.labels(face.mesh, source.shape, hair=2.2)
    source[found == HAIR] = drawn.KEY
    face.segments = drawn.parts(found, segment.frame(face.mesh))
    result = composite.composite_all(source, [face], OPTIONS)
    beyond = (found == HAIR) & ~drawn.inside(face, 2.0, source.shape)
    beyond[200:] = False
    assert beyond.sum() > 500
    assert np.abs(result[beyond].astype(int) - (90, 120, 150)).max() < 12


def test_the_face_outline_is_emptied_beyond_its_chip():
    face = drawn.face((205, 190), 120)
    face.mesh[list(segment.ANCHORS), :2] = (205, 190) + (
        face.mesh[list(segment.ANCHORS), :2] - (205, 190)
    ) * 0.3
    source = drawn.with_head(drawn.texture(*SIZE, 2), face)
    face.segments[:] = 0
    face.segments[..., FACE] = 255
    place = emptied(head.locate(source, face), source.shape)
    assert place[drawn.inside(face, head.HULL, source.shape)].all()


def test_a_head_of_which_the_detector_saw_more_is_replaced_as_a_face():
    source, face = portrait((205, 190), 160)
    middle = face.mesh[:, :2].mean(0)
    face.mesh[:, :2] = (face.mesh[:, :2] - middle) * 0.76 + middle - (0, 8)
    face.segments = drawn.parts(drawn.labels(face.mesh, source.shape), segment.frame(face.mesh))
    assert masks.agrees(face)
    with pytest.raises(FaceError, match="composite_failed"):
        head.locate(source, face)
    composite.composite_all(source, [face], OPTIONS)
    assert (face.status, face.surrogate_segments) == ("replaced", None)


def all_background(face: Face) -> None:
    face.segments = np.zeros_like(face.segments)
    face.segments[..., BACKGROUND] = 255


def shifted(face: Face) -> None:
    face.segments = np.roll(face.segments, 50, axis=1)


def upside_down(face: Face) -> None:
    face.segments = face.segments[::-1].copy()
    face.segments[..., FACE] //= 2


@pytest.mark.parametrize("damage", [all_background, shifted, upside_down])
def test_parts_that_do_not_fit_are_not_believed(damage):
    source, face = portrait(tones={FACE: drawn.KEY})
    damage(face)
    with pytest.raises(FaceError, match="composite_failed"):
        head.locate(source, face)
    result = composite.composite_all(source, [face], OPTIONS)
    assert (face.status, face.failure, face.surrogate_segments) == ("replaced", "", None)
    as_face = portrait(tones={FACE: drawn.KEY})[1]
    assert np.array_equal(result, composite.composite_all(source, [as_face], config.Region(kind="face")))
    assert drawn.key_left(result, drawn.inside(face, 1.0, source.shape)) == 0


@pytest.mark.parametrize("lacking", ["segments", "surrogate_segments"])
def test_a_head_without_parts_is_replaced_as_a_face(lacking):
    source, face = portrait(tones={FACE: drawn.KEY})
    setattr(face, lacking, None)
    result = composite.composite_all(source, [face], OPTIONS)
    assert face.status == "replaced"
    as_face = composite.composite_all(source, [portrait()[1]], config.Region(kind="face"))
    assert np.array_equal(result, as_face)


def test_locate_and_paste_name_what_is_lacking():
    source, face = portrait()
    place = head.locate(source, face)
    for lacking in ("surrogate", "surrogate_mesh", "surrogate_segments"):
        bare = portrait()[1]
        setattr(bare, lacking, None)
        with pytest.raises(FaceError, match="composite_failed"):
            head_paste.paste(source, source.copy(), emptied(place, source.shape), bare, place)
    for lacking in ("mesh", "segments"):
        bare = portrait()[1]
        setattr(bare, lacking, None)
        with pytest.raises(FaceError, match="composite_failed"):
            head.locate(source, bare)


@pytest.mark.parametrize(
    "damage",
    [
        "nan_mesh",
        "flat_mesh",
        "mesh_elsewhere",
        "anchors_in_one_point",
        "outside",
        "short_segments",
        "nan_surrogate_mesh",
        "point_surrogate_mesh",
        "short_surrogate_segments",
    ],
)
def test_what_fails_is_covered_and_harms_no_other(damage):
    good, bad = drawn.face((100, 110), 90), drawn.face((280, 230), 110)
    source = drawn.with_head(drawn.texture(*SIZE, 2), good, KEYED)
    source = drawn.with_head(source, bad, {FACE: drawn.KEY})
    where, theirs = drawn.inside(bad, 1.0, source.shape), head_of(good, source.shape)
    status = "replaced" if damage in ("anchors_in_one_point", "short_segments") else "covered"  # as a face
    if damage == "nan_mesh":
        bad.mesh[7] = np.nan
    elif damage == "flat_mesh":
        bad.mesh[:, 1] = 230
    elif damage == "mesh_elsewhere":
        bad.mesh[:, 0] -= 190
    elif damage == "anchors_in_one_point":
        bad.mesh[list(segment.ANCHORS)] = bad.mesh[1]
    elif damage == "outside":
        bad.mesh[:, :2] += 1000
    elif damage == "short_segments":
        bad.segments = bad.segments[..., :3]
    elif damage == "nan_surrogate_mesh":
        bad.surrogate_mesh[33] = np.nan
    elif damage == "point_surrogate_mesh":
        bad.surrogate_mesh[:] = 5
    else:
        bad.surrogate_segments = bad.surrogate_segments[..., :3]
    result = composite.composite_all(source, [good, bad], OPTIONS)
    assert (good.status, good.failure) == ("replaced", "")
    assert (bad.status, bad.failure) == (status, "composite_failed" if status == "covered" else "")
    assert drawn.key_left(result, where) == 0
    assert drawn.key_left(result, theirs) == 0


def test_the_rest_of_the_ladder_is_replaced_as_faces():
    source, face = portrait()
    face.anonymizer, face.surrogate_segments = "simple", None
    composite.composite_all(source, [face], OPTIONS)
    assert (face.status, face.anonymizer) == ("replaced", "simple")


def test_same_input_same_result():
    source, _ = portrait()
    results = [composite.composite_all(source, [portrait()[1]], OPTIONS) for _ in range(2)]
    assert np.array_equal(*results)


def test_maps_of_points_undo_each_other():
    _, face = portrait(turn=0.4)
    chip = segment.frame(face.mesh)
    points = face.mesh[:20, :2].astype(np.float64)
    assert np.allclose(head.apply(head.inverse(chip), head.apply(chip, points)), points)
    units = head.apply(head.to_units(chip), face.mesh[list(segment.ANCHORS), :2])
    assert np.abs(units - segment.FRAME).max() < 0.15, "a drawn face stands nearly as a generated one"


def test_generated_heads_take_each_others_place():
    own, other = generated.head(1), generated.head(0)
    source = cv2.copyMakeBorder(own.picture, 40, 20, 60, 60, cv2.BORDER_REPLICATE)
    mesh = own.mesh + np.array([60, 40, 0], np.float32)
    face = Face(
        box=np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)]),
        score=0.9,
        points=mesh[[33, 263, 1, 61, 291], :2],
        mesh=mesh,
        mesh_score=0.9,
        segments=generated.segmenter().segment([source], [mesh])[0],
        surrogate=other.picture,
        surrogate_mesh=other.mesh,
        surrogate_segments=other.segments,
        k=5,
    )
    place = head.locate(source, face)
    hairy = drawn.inside(face, 1.35, source.shape) & ~drawn.inside(face, 1.06, source.shape)
    assert emptied(place, source.shape)[hairy].mean() > 0.5
    result = composite.composite_all(source, [face], OPTIONS)
    assert face.status == "replaced"
    assert face.surrogate_segments is not None
    inner = drawn.inside(face, 0.9, source.shape)
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(float) for p in (source, result)]
    fine = [g - cv2.GaussianBlur(g, (0, 0), 1.5) for g in grey]
    assert abs(np.corrcoef(fine[0][inner], fine[1][inner])[0, 1]) < 0.4
    meshes, scores = generated.mesher().mesh(result, as_detection(mesh))
    assert scores[0] > 0.9
    features = list(segment.ANCHORS)
    apart = np.linalg.norm((meshes[0] - mesh)[features, :2], axis=1)
    assert np.median(apart) < 0.08 * np.ptp(mesh[:, 1]), "the face is not where it was"
