"""BlazeFace: its anchors and outputs as the networks mean them, views, and a public-domain portrait."""

import numpy as np
import pytest
import skimage.data

from deid.faces import blazeface
from deid.faces.blazeface import BlazeFace
from deid.faces.merge import overlaps
from deid.interfaces import Picture
from deid.models.store import default_store

BOX = np.array([183, 65, 271, 179], np.float32)  # of the face in the portrait, px
POINTS = np.array([[206, 102], [248, 106], [225, 127], [205, 144], [241, 146]], np.float32)
KINDS = sorted(blazeface.NETWORKS)


@pytest.fixture(scope="module")
def networks() -> dict[str, BlazeFace]:
    files = default_store().files("blazeface")
    return {kind: BlazeFace(files, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def portrait() -> Picture:
    picture: Picture = skimage.data.astronaut()
    return picture


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [300, 500])
def test_a_view_of_the_face(
    kind: str, side: float, networks: dict[str, BlazeFace], portrait: Picture
) -> None:
    """Off the centre of the view, so that a wrong scale or shift would show."""
    found = networks[kind].look(portrait, np.array([250.0, 150.0]), side, 0.5)
    best = found.scores.argmax()
    assert found.scores[best] > 0.8
    assert overlaps(BOX, found.boxes)[0][best] > 0.7
    assert np.abs(found.points[best] - POINTS).max() < 12


def test_judging_tells_a_face_from_its_surroundings(
    networks: dict[str, BlazeFace], portrait: Picture
) -> None:
    boxes = np.array([BOX, [380, 330, 480, 430], [0, 0, 0, 0]], np.float32)
    scores = networks["short"].judge(portrait, boxes)
    assert scores[0] > 0.8
    assert scores[1:].max() < 0.4
    assert networks["short"].judge(portrait, boxes[:0]).shape == (0,)


def test_a_scan_finds_small_and_large_faces(networks: dict[str, BlazeFace], portrait: Picture) -> None:
    picture = np.tile(portrait[20:230, 120:340], (2, 3, 1))
    found = networks["full"].scan(picture, 0.5)
    first = BOX - (120, 20) * 2
    for x in range(3):
        for y in range(2):
            place = first + np.array([220 * x, 210 * y] * 2)
            assert overlaps(place, found.boxes)[0].max() > 0.6
    assert len(networks["full"].scan(np.zeros((1, 900, 3), np.uint8), 0.5)) == 0


def test_anchors_lie_in_the_middle_of_their_cells() -> None:
    np.testing.assert_allclose(
        blazeface.anchors(((2, 1), (1, 2))),
        [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75], [0.5, 0.5], [0.5, 0.5]],
    )
    for kind, count in {"full": 2304, "short": 896}.items():
        assert blazeface.anchors(blazeface.NETWORKS[kind][2]).shape == (count, 2)


def test_decode_reads_the_outputs_as_the_networks_mean_them() -> None:
    centres = np.array([[0.5, 0.5], [0.1, 0.9]], np.float32)
    places = np.zeros((2, 16), np.float32)
    places[0, :12] = 0.1, 0, 0.2, 0.4, -0.05, -0.1, 0.15, -0.1, 0.05, 0, 0.05, 0.1
    found = blazeface.decode(places, np.array([0.0, -3.0]), centres, 0.5)
    assert len(found) == 1
    np.testing.assert_allclose(found.scores, [0.5])
    box = np.array([0.5, 0.3, 0.7, 0.7]) + np.array([0.2, 0.4] * 2) * blazeface.MARGINS
    np.testing.assert_allclose(found.boxes, [box], rtol=1e-6)
    lip = 0.2 * blazeface.MOUTH / 2
    points = [[0.45, 0.4], [0.65, 0.4], [0.55, 0.5], [0.55 - lip, 0.6], [0.55 + lip, 0.6]]
    np.testing.assert_allclose(found.points, [points], rtol=1e-6)


def test_extreme_logits_are_probabilities() -> None:
    found = blazeface.decode(
        np.zeros((2, 16), np.float32), np.array([-1e6, 1e6]), np.zeros((2, 2), np.float32), 0
    )
    np.testing.assert_allclose(found.scores, [0, 1], atol=1e-6)
