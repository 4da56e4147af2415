import cv2
import numpy as np
import pytest

from deid.faces import appearance, segment
from deid.faces.appearance import LOOKS
from deid.faces.segment import BACKGROUND, FACE, HAIR, PARTS, SIDE
from deid.interfaces import Picture
from tests.unit.surrogates import drawn, generated

CENTRE, HEIGHT = (200.0, 210.0), 150.0
TONES = {FACE: (205, 160, 135), HAIR: (70, 50, 40), BACKGROUND: (90, 120, 150)}
TINY = 1e-3


def lab(colour: tuple[int, int, int]) -> np.ndarray:
    return cv2.cvtColor(np.float32([[colour]]) / 255, cv2.COLOR_RGB2LAB)[0, 0]


def mesh() -> np.ndarray:
    """A drawn face with cheeks, forehead, chin and upper lip where they are on faces."""
    found = drawn.mesh(CENTRE, HEIGHT)
    half = HEIGHT / 2 * np.array([0.8, 1.0])
    for polygon, middle, size in (
        (appearance.CHEEKS[0], (-0.45, 0.2), 0.15),
        (appearance.CHEEKS[1], (0.45, 0.2), 0.15),
        (appearance.FOREHEAD, (0.0, -0.55), 0.2),
        (appearance.CHIN, (0.0, 0.75), 0.1),
        (appearance.MOUSTACHE, (0.0, 0.37), 0.08),
    ):
        free = [index for index in polygon if index not in (*appearance.OVAL, 2)]
        turns = np.linspace(0, 2 * np.pi, len(free), endpoint=False)
        ring = np.stack([np.cos(turns), np.sin(turns)], 1) * size + middle
        found[free, :2] = ring * half + CENTRE
    found[13, :2] = np.array([0.0, 0.5]) * half + CENTRE
    return found


def head(
    hair: float = 1.35, tones: dict[int, tuple[int, int, int]] | None = None
) -> tuple[Picture, np.ndarray]:
    """A drawn head and its labels; without hair where that is 0."""
    found = drawn.labels(mesh(), (400, 400), hair or 1.35)
    if not hair:
        found[found == HAIR] = BACKGROUND
    picture = np.full((400, 400, 3), 128, np.uint8)
    for part, colour in (TONES | (tones or {})).items():
        picture[found == part] = colour
    return picture, found


def looks(picture: Picture, labels: np.ndarray) -> dict[str, float]:
    parts = drawn.parts(labels, segment.frame(mesh()))
    values = appearance.looks(segment.head_chip(picture, mesh()), parts, mesh())
    assert values.shape == (len(LOOKS),)
    assert values.dtype == np.float32
    return dict(zip(LOOKS, values.tolist(), strict=True))


@pytest.mark.parametrize(
    ("skin", "hair", "back"),
    [
        ((205, 160, 135), (70, 50, 40), (90, 120, 150)),
        ((80, 55, 45), (20, 18, 18), (240, 240, 235)),
        ((235, 205, 190), (210, 180, 120), (20, 60, 30)),
    ],
)
def test_colours_are_those_that_were_painted(skin, hair, back):
    found = looks(*head(tones={FACE: skin, HAIR: hair, BACKGROUND: back}))
    for part, colour in (("skin", skin), ("hair", hair), ("back", back)):
        values = [found[f"{part}_{channel}"] for channel in "lab"]
        assert np.abs(values - lab(colour)).max() < 1.5, part


def test_even_light_is_even():
    found = looks(*head())
    assert abs(found["light_x"]) < 0.02
    assert abs(found["light_y"]) < 0.02
    assert abs(found["beard"]) < 0.5


def test_light_from_the_side_and_from_above():
    picture, labels = head()
    y, x = np.mgrid[:400, :400]
    for name, ramp in (("light_x", x - CENTRE[0]), ("light_y", CENTRE[1] - y)):
        lit = np.clip(picture * (1 + 0.5 * ramp / HEIGHT)[..., None], 0, 255).astype(np.uint8)
        assert looks(lit, labels)[name] > 0.1
        lit = np.clip(picture * (1 - 0.5 * ramp / HEIGHT)[..., None], 0, 255).astype(np.uint8)
        assert looks(lit, labels)[name] < -0.1


def test_a_beard_is_darker_than_the_cheeks():
    picture, labels = head()
    bearded = picture.copy()
    bearded[(np.mgrid[:400, :400][0] > CENTRE[1] + 0.3 * HEIGHT / 2) & (labels == FACE)] = (90, 70, 60)
    assert looks(bearded, labels)["beard"] == pytest.approx(lab(TONES[FACE])[0] - lab((90, 70, 60))[0], abs=2)


def test_hair_is_as_thick_as_it_was_drawn():
    values = {scale: looks(*head(scale)) for scale in (1.2, 1.35, 1.6)}
    for scale, found in values.items():
        top = ((scale - 1) / 2 + 0.05) * HEIGHT  # the hair's oval stands a twentieth of the height higher
        assert found["hair_top"] == pytest.approx(top / HEIGHT, abs=0.05)
        assert found["bald"] < 0.1
    assert values[1.2]["hair_side"] < values[1.35]["hair_side"] < values[1.6]["hair_side"]


def test_a_bald_head_has_no_hair_to_measure():
    found = looks(*head(0))
    assert np.isnan([found["hair_l"], found["hair_a"], found["hair_b"]]).all()
    assert np.isfinite([found[name] for name in LOOKS if not name.startswith("hair_")]).all()
    assert found["hair_top"] < 0.05
    assert found["hair_low"] == found["fringe"] == 0
    labels = head(1.35)[1]
    labels[labels == HAIR] = FACE
    skin = looks(head()[0], labels)
    assert skin["bald"] > 0.9
    assert skin["hair_top"] == pytest.approx(looks(*head())["hair_top"], abs=0.02)


def test_a_few_pixels_taken_for_hair_have_no_colour():
    picture, labels = head(0)
    labels[100:112, 190:202] = HAIR
    assert np.isnan(looks(picture, labels)["hair_l"])


def test_long_hair_and_fringes_are_seen():
    picture, labels = head()
    y, x = np.mgrid[:400, :400]
    short = looks(picture, labels)
    long = labels.copy()
    aside = (labels != FACE) & (np.abs(x - CENTRE[0]) > 0.3 * HEIGHT) & (np.abs(x - CENTRE[0]) < 0.6 * HEIGHT)
    long[aside & (y > CENTRE[1]) & (y < CENTRE[1] + HEIGHT)] = HAIR
    assert short["hair_low"] < 0.2 < 0.7 < looks(picture, long)["hair_low"]
    fringe = labels.copy()
    fringe[(labels == FACE) & (y < CENTRE[1] - 0.3 * HEIGHT / 2)] = HAIR
    assert short["fringe"] < 0.2 < 0.8 < looks(picture, fringe)["fringe"]


def test_looks_do_not_depend_on_place_size_and_roll():
    picture, labels = head()
    plain = looks(picture, labels)
    matrix = cv2.getRotationMatrix2D(CENTRE, 30, 1.6) + np.array([[0, 0, 150], [0, 0, 120]])
    moved = cv2.warpAffine(picture, matrix, (700, 700), borderMode=cv2.BORDER_REPLICATE)
    found = cv2.warpAffine(labels, matrix, (700, 700), flags=cv2.INTER_NEAREST)
    points = mesh()
    points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    parts = drawn.parts(found, segment.frame(points))
    values = appearance.looks(segment.head_chip(np.asarray(moved, np.uint8), points), parts, points)
    for name, value in zip(LOOKS, values, strict=True):
        assert value == pytest.approx(plain[name], abs=2 if name in appearance.COLOURS else 0.06), name


def disk(radius: float) -> np.ndarray:
    """Parts of a disk of hair about `CENTRE`, in sides of a generated picture."""
    at = appearance.from_chip(np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2))
    inside = (np.hypot(*(at - appearance.CENTRE).T) < radius).reshape(SIDE, SIDE)
    parts = np.zeros((SIDE, SIDE, len(PARTS)), np.uint8)
    parts[..., HAIR], parts[..., BACKGROUND] = inside * 255, ~inside * 255
    return parts


@pytest.mark.parametrize("radius", [0.4, 0.45, 0.5])
def test_the_silhouette_of_a_disk_is_round(radius):
    found = appearance.silhouette(disk(radius), mesh())
    assert found.head.shape == found.face.shape == (appearance.RAYS,)
    step = appearance.REACH / appearance.STEPS
    free = found.face < radius - 0.02
    assert free.mean() > 0.9
    assert np.abs(found.head - radius)[free].max() < 1.5 * step
    assert (found.head >= found.face).all()


def test_a_silhouette_is_never_within_the_face():
    found = appearance.silhouette(disk(0.05), mesh())
    assert np.abs(found.head - found.face).max() < 0.05
    empty = appearance.silhouette(np.zeros((SIDE, SIDE, len(PARTS)), np.uint8), mesh())
    assert (empty.head >= empty.face).all()


def test_the_face_of_a_silhouette_is_the_oval_of_the_mesh():
    found = appearance.silhouette(disk(0.45), mesh())
    height = found.face[0] + found.face[appearance.RAYS // 2]
    width = found.face[appearance.RAYS // 4] + found.face[3 * appearance.RAYS // 4]
    units = appearance.from_chip(appearance.on_chip(mesh(), segment.frame(mesh())))
    assert height == pytest.approx(np.ptp(units[:, 1]), rel=0.03)
    assert width == pytest.approx(np.ptp(units[:, 0]), rel=0.06)


def test_parts_of_a_whole_picture_give_the_silhouette_of_its_chip():
    """A generated head has the same outline, whether its parts are of its chip or of its picture."""
    head = generated.head(1)
    chip = generated.segmenter().segment([head.picture], [head.mesh])[0]
    ours = appearance.silhouette(chip, head.mesh)
    theirs = appearance.silhouette(head.segments, head.mesh, segment.whole(len(head.picture)))
    assert np.array_equal(ours.face, theirs.face)
    up = np.abs((appearance.angles() + np.pi) % (2 * np.pi) - np.pi) < 1.2
    assert np.median(np.abs(ours.head - theirs.head)[up]) < 0.03


def test_maps_between_chip_and_units_undo_each_other():
    points = np.random.default_rng(0).random((50, 2))
    assert np.allclose(appearance.from_chip(appearance.to_chip(points)), points)
    on_chip = appearance.on_chip(mesh(), segment.frame(mesh()))
    smaller = appearance.half(segment.frame(mesh()))
    assert np.allclose(on_chip, mesh()[:, :2] @ smaller[:, :2].T + smaller[:, 2], atol=TINY)


def test_looks_of_generated_heads_are_possible():
    for number in range(4):
        found = generated.looks(generated.head(number))
        assert 10 < found["skin_l"] < 98
        assert 0 < found["skin_b"] < 45
        assert 0.0 <= found["hair_top"] < 1.2
        for name in ("bald", "hair_low", "fringe"):
            assert 0 <= found[name] <= 1
        assert abs(found["light_x"]) < 1.5


def test_what_covers_a_face_is_measured():
    _, labels = head()
    plain = appearance.hidden(drawn.parts(labels, segment.frame(mesh())), mesh())
    x, y = (round(value) for value in CENTRE)
    reach = round(HEIGHT / 6)
    labels[y : y + 2 * reach, x - reach : x + reach] = segment.OTHER
    covered = appearance.hidden(drawn.parts(labels, segment.frame(mesh())), mesh())
    assert plain < 0.03
    assert 0.1 < covered < 0.3
