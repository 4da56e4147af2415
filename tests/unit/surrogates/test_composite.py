from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from deid import config
from deid.errors import FaceError
from deid.surrogates import colour, composite, masks
from tests.unit.surrogates import drawn

SCALES = [1.0, 1.3, 1.5]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("turn", [0.0, 0.5, np.pi])
def test_no_source_pixel_survives_in_the_region(scale, turn):
    face = drawn.face((160, 170), 120, turn)
    source = drawn.painted(drawn.texture(320, 330, 2), [face], scale)
    where = drawn.inside(face, scale, source.shape)
    assert drawn.key_left(source, where) == where.sum()
    assert drawn.key_left(composite.composite(source, face, config.Region(scale=scale)), where) == 0


def test_result_in_the_region_does_not_depend_on_source_detail():
    face = drawn.face((160, 170), 120)
    plain = drawn.texture(320, 330, 2)
    rng = np.random.default_rng(0)
    pattern = np.where(drawn.inside(face, 1.0, plain.shape)[..., None], rng.integers(-8, 9, plain.shape), 0)
    pattern = pattern + np.roll(pattern, 1, 0) + np.roll(pattern, 1, 1)
    detailed = np.clip(plain + pattern, 0, 255).astype(np.uint8)
    options = config.Region(scale=1.3)
    region = masks.region(face, options, plain.shape)
    results = [composite.composite(p, face, options)[region.window][region.mask] for p in (plain, detailed)]
    left = (results[1].astype(float) - results[0]).ravel()
    source = pattern[region.window][region.mask].astype(float).ravel()
    assert abs(np.corrcoef(left, source)[0, 1]) < 0.05


@pytest.mark.parametrize("scale", SCALES)
def test_pixels_away_from_the_face_stay_bit_exact(scale):
    face = drawn.face((160, 170), 100)
    source = drawn.texture(320, 330, 2)
    before = source.copy()
    options = config.Region(scale=scale, feather=0.1)
    result = composite.composite(source, face, options)
    reach = scale + 0.1 * 2 / 0.8 + 0.1
    assert np.array_equal(
        result[~drawn.inside(face, reach, source.shape)], source[~drawn.inside(face, reach, source.shape)]
    )
    assert np.array_equal(source, before)
    assert (result != source)[drawn.inside(face, scale, source.shape)].any(1).mean() > 0.9


def test_overlapping_faces_leave_no_source_and_the_nearer_whole():
    faces = [
        drawn.face((200, 180), 160, seed=1),
        drawn.face((110, 170), 90, seed=2),
        drawn.face((290, 230), 70, seed=3),
    ]
    source = drawn.painted(drawn.texture(400, 400, 4), faces, 1.3)
    options = config.Region(scale=1.3)
    result = composite.composite_all(source, faces, options)
    assert [face.status for face in faces] == ["replaced"] * 3
    for face in faces:
        assert drawn.key_left(result, drawn.inside(face, 1.3, source.shape)) == 0
    near = masks.region(faces[0], options, source.shape)
    assert masks.region(faces[1], options, source.shape).mask.any()
    skin = result[near.window][near.mask].astype(int)
    assert (np.abs(skin - 128).max(1) == 0).mean() < 0.01, "another face's empty region shows through"
    alone = composite.composite_all(source, [faces[0]], options)
    inner = drawn.inside(faces[0], 0.9, source.shape)
    assert np.abs(result[inner].astype(int) - alone[inner]).max() <= 2


@pytest.mark.parametrize("failure", ["", "generate_failed"])
def test_a_face_takes_nothing_from_its_neighbours_source(failure):
    options, results = config.Region(scale=1.5), []
    for clothing in ((255, 0, 255), (0, 90, 20)):
        near, far = drawn.face((220, 180), 160, seed=1), drawn.face((78, 180), 90, seed=2)
        near.failure = failure
        source = drawn.texture(400, 400, 4)
        theirs = drawn.inside(near, 1.5, source.shape)
        source[theirs] = clothing
        results.append(composite.composite_all(source, [near, far], options))
        assert (near.status, far.status) == ("covered" if failure else "replaced", "replaced")
    own = drawn.inside(far, 1.5, source.shape)
    assert (own & theirs).any()
    reach = drawn.inside(near, 1.5 + 0.08 * 2 / 0.8 + 0.05, source.shape)
    assert np.array_equal(results[0][own & ~reach], results[1][own & ~reach])


@pytest.mark.parametrize("centre", [(0, 0), (5, 150), (299, 150), (150, 10), (295, 299), (-30, 150)])
def test_faces_at_the_border(centre):
    face = drawn.face(centre, 120)
    source = drawn.painted(drawn.texture(300, 300, 2), [face], 1.3)
    result = composite.composite_all(source, [face], config.Region(scale=1.3))
    where = drawn.inside(face, 1.3, source.shape)
    assert face.status == "replaced"
    assert where.any()
    assert drawn.key_left(result, where) == 0


def test_region_larger_than_the_picture_and_than_the_surrogate():
    face = drawn.face((60, 60), 120)
    source = np.full((120, 120, 3), drawn.KEY, np.uint8)
    result = composite.composite_all(source, [face], config.Region(scale=3))
    assert face.status == "replaced"
    assert drawn.key_left(result, np.ones((120, 120), np.bool_)) == 0
    assert (result.max(2) > 15).mean() > 0.95, "black corners"


@pytest.mark.parametrize("height", [8, 16, 24])
def test_tiny_faces(height):
    face = drawn.face((30, 30), height)
    source = drawn.painted(drawn.texture(60, 60, 2), [face], 1.3)
    result = composite.composite_all(source, [face], config.Region(scale=1.3))
    assert face.status == "replaced"
    assert drawn.key_left(result, drawn.inside(face, 1.3, source.shape)) == 0


def test_grey_pictures_stay_grey():
    face = drawn.face((160, 170), 120)
    source = np.repeat(drawn.texture(320, 330, 2)[..., :1], 3, axis=2)
    result = composite.composite(source, face, config.Region()).astype(int)
    assert np.ptp(result, axis=2).max() <= 1


def test_colour_follows_the_source_skin():
    means = {}
    for name, skin in {"dark": (90, 62, 50), "light": (225, 190, 170)}.items():
        face = drawn.face((160, 170), 120)
        source = drawn.texture(320, 330, 2)
        source[drawn.inside(face, 1.05, source.shape)] = skin
        result = composite.composite(source, face, config.Region(scale=1.0))
        means[name] = np.median(result[drawn.inside(face, 0.8, source.shape)], axis=0)
        assert np.abs(means[name] - skin).max() < 12
    assert means["light"].mean() > means["dark"].mean() + 80


@pytest.mark.parametrize("worn", [(90, 200, 210), (15, 15, 18), (250, 250, 250)])
def test_a_medical_mask_does_not_colour_the_skin(worn):
    face = drawn.face((160, 170), 120)
    source = drawn.texture(320, 330, 2)
    where = drawn.inside(face, 1.05, source.shape)
    source[where] = (205, 160, 135)
    where[:158] = False  # up to the lower lids
    source[where] = worn
    result = composite.composite(source, face, config.Region(scale=1.0))
    skin = np.median(result[drawn.inside(face, 0.8, source.shape)], axis=0)
    assert np.abs(skin - (205, 160, 135)).max() < 20


def test_a_mesh_that_holds_only_part_of_the_box_is_not_trusted():
    face = drawn.face((160, 170), 100)
    face.box[3] += 80
    result = composite.composite_all(drawn.texture(320, 330, 2), [face], config.Region(scale=1.3))
    assert (face.status, face.failure) == ("covered", "composite_failed")
    assert (result[int(face.box[3]) - 2, 160] == 128).all()


def test_surrogate_is_placed_on_the_face():
    face = drawn.face((160, 170), 120, turn=0.3)
    _, matrix = composite.similarity(face.mesh, face.surrogate_mesh)
    placed = face.mesh[masks.ANCHORS, :2] @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(placed - face.surrogate_mesh[masks.ANCHORS, :2]).max() < 0.5


def test_surrogate_is_no_sharper_than_a_blurred_source():
    sharp, _ = drawn.surrogate(256, 3)
    face = drawn.face((130, 140), 140, size=256)
    face.surrogate = np.clip(sharp + np.random.default_rng(0).normal(0, 12, sharp.shape), 0, 255).astype(
        np.uint8
    )
    blurred = cv2.GaussianBlur(astronaut()[:300, 100:400].copy(), (0, 0), 4)
    result = composite.composite(blurred, face, config.Region(scale=1.0))
    inner = drawn.inside(face, 0.7, blurred.shape)

    def detail(picture):
        grey = picture.astype(np.float32).mean(2)
        return float(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1))[inner].mean())

    pasted, _ = composite.similarity(face.mesh, face.surrogate_mesh)
    assert detail(result) < 0.5 * 12 / max(pasted, 1)


@pytest.mark.parametrize(
    "damage",
    [
        "no_mesh",
        "nan_mesh",
        "flat_mesh",
        "mesh_elsewhere",
        "no_surrogate",
        "nan_surrogate_mesh",
        "point_surrogate_mesh",
    ],
)
def test_what_fails_is_covered(damage):
    good, bad = drawn.face((90, 100), 90), drawn.face((230, 200), 100)
    source = drawn.painted(drawn.texture(320, 330, 2), [good, bad], 1.3)
    where = drawn.inside(bad, 1.3, source.shape)
    if damage == "no_mesh":
        bad.mesh = None
    elif damage == "nan_mesh":
        bad.mesh[7] = np.nan
    elif damage == "flat_mesh":
        bad.mesh[:, 1] = 200
    elif damage == "mesh_elsewhere":
        bad.mesh[:, 0] -= 150
    elif damage == "no_surrogate":
        bad.surrogate = None
    elif damage == "nan_surrogate_mesh":
        bad.surrogate_mesh[33] = np.nan
    else:
        bad.surrogate_mesh[:] = 5
    result = composite.composite_all(source, [good, bad], config.Region(scale=1.3))
    assert (good.status, good.failure) == ("replaced", "")
    assert (bad.status, bad.failure) == ("covered", "composite_failed")
    assert drawn.key_left(result, where) == 0
    assert drawn.key_left(result, drawn.inside(good, 1.3, source.shape)) == 0


@pytest.mark.parametrize("laid", [False, True])
def test_a_face_without_bounds_is_covered(laid):
    """OpenCV fills nothing where coordinates leave its range."""
    face, far = drawn.face((100, 100), 60), 1e9
    if laid:
        face.mesh_score, face.box = 0.0, np.array([-far, -far, far, far], np.float32)
    else:
        face.mesh[[0, 2, 3, 4], :2] = np.array([[-1, -1], [1, 1], [1, -1], [-1, 1]]) * far
    result = composite.composite_all(np.full((200, 200, 3), drawn.KEY, np.uint8), [face], config.Region())
    assert (face.status, face.failure) == ("covered", "composite_failed")
    assert drawn.key_left(result, drawn.inside(drawn.face((100, 100), 60), 1.0, result.shape)) == 0


def test_an_earlier_failure_keeps_its_code():
    face = drawn.face((160, 170), 100)
    face.failure = "generate_failed"
    source = drawn.painted(drawn.texture(320, 330, 2), [face], 1.3)
    result = composite.composite_all(source, [face], config.Region())
    assert (face.status, face.failure) == ("covered", "generate_failed")
    assert drawn.key_left(result, drawn.inside(face, 1.3, source.shape)) == 0


def test_a_face_of_unknown_place_lets_nothing_out():
    face = drawn.face((160, 170), 100)
    face.mesh, face.box[0] = None, np.nan
    with pytest.raises(FaceError):
        composite.composite_all(drawn.texture(320, 330, 2), [face], config.Region())


def test_no_faces_no_change():
    source = drawn.texture(50, 60, 2)
    assert np.array_equal(composite.composite_all(source, [], config.Region()), source)


def test_same_input_same_result():
    source = astronaut()
    results = [composite.composite(source, drawn.face((225, 110), 130), config.Region()) for _ in range(2)]
    assert np.array_equal(*results)


@pytest.mark.parametrize(("height", "expected"), [(20, 64), (60, 128), (110, 256), (900, 256)])
def test_fit_size_is_the_least_that_the_place_needs(height, expected):
    face = drawn.face((500, 500), height)
    picture, mesh = drawn.surrogate(256)
    small, small_mesh = composite.fit_size(picture, mesh, face, (64, 128, 256))
    assert small.shape == (expected, expected, 3)
    assert np.allclose(small_mesh, mesh * expected / 256)


@pytest.mark.parametrize("height", [10, 16, 40, 120])
def test_a_face_laid_on_points_fades_into_its_surroundings(height):
    face = drawn.face((100, 100), height)
    face.anonymizer, face.failure, face.mesh_score = "simple", "mesh_failed", 0.0
    face.surrogate[drawn.inside(face, 0, (128, 128)) | (face.surrogate[..., 0] < 120)] = (20, 230, 40)
    source = np.full((200, 200, 3), (120, 90, 80), np.uint8)
    region = masks.region(face, config.Region(), source.shape)
    source[region.window][region.mask] = drawn.KEY
    source[drawn.inside(face, 1.0, source.shape)] = (200, 150, 120)
    result = composite.composite_all(source, [face], config.Region())
    assert (face.status, face.anonymizer) == ("replaced", "simple")
    edge = region.mask & (cv2.erode(region.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    assert np.abs(result[region.window][edge].astype(int) - (120, 90, 80)).max() < 25
    assert drawn.key_left(result[region.window], region.mask) == 0


@pytest.mark.parametrize("box", [(60, 60, 140, 140), (40, 80, 150, 130), (80, 20, 120, 170)])
def test_the_region_of_a_laid_mesh_holds_the_whole_box(box):
    face = drawn.face((100, 100), 60)
    face.mesh_score, face.box = 0.0, np.array(box, np.float32)
    region = masks.region(face, config.Region(scale=1.0), (220, 220))
    whole = np.zeros((220, 220), np.bool_)
    whole[region.window] = region.mask
    assert whole[box[1] : box[3], box[0] : box[2]].all()
    assert whole[drawn.inside(face, 1.3, whole.shape)].all()


@pytest.mark.parametrize("worn", [(120, 220, 235), (5, 5, 8), (250, 250, 250)])
def test_light_of_a_laid_face_stays_near_where_no_skin_is_seen(worn):
    face = drawn.face((160, 170), 120)
    region = masks.region(face, config.Region(), (320, 330))
    points = np.tile(np.array(worn, np.float32), (300, 1))
    gain = colour.level_gain(region, points, np.full((300, 3), (200, 150, 120), np.float32))
    assert np.ptp(gain, axis=1).max() < 1e-5
    assert np.exp(-0.71) < gain.min() <= gain.max() < np.exp(0.71)


@pytest.mark.parametrize(("height", "expected"), [(20, 64), (60, 128), (900, 256)])
def test_least_size_is_known_before_rendering(height, expected):
    face = drawn.face((500, 500), height)
    mesh = drawn.surrogate(256)[1] / 256
    size = composite.least_size(mesh, face, (64, 128, 256))
    assert size == expected
    assert (
        size == 256 or composite.similarity(face.mesh, mesh)[0] * size >= 1
    )  # no pixel of the place is made up
    with pytest.raises(FaceError):
        composite.least_size(mesh, replace(face, mesh=None), (64,))
