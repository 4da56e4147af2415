import cv2
import numpy as np
import pytest

from deid.faces.segment import BACKGROUND, FACE, HAIR, PARTS
from deid.training import photographs
from deid.training.photographs import SIDE
from deid.training.segmenter import overlap, ratio
from tests.unit.training import drawn


@pytest.fixture(scope="module")
def labelled():
    picture, mesh, part = drawn.person()
    return picture, mesh, part, photographs.label(picture, mesh)


def test_parts_of_a_drawn_person_are_found(labelled):
    _, _, part, parts = labelled
    assert parts.shape == (SIDE, SIDE, len(PARTS))
    np.testing.assert_allclose(parts.sum(-1), 1, atol=1e-4)
    assert (ratio(overlap(parts.argmax(-1), part)) > 0.9).all()


def test_edges_are_soft_and_the_wall_is_sure(labelled):
    _, _, part, parts = labelled
    far = cv2.erode((part == BACKGROUND).astype(np.uint8), np.ones((15, 15))) > 0
    assert parts[far, BACKGROUND].min() > 0.99
    assert ((parts.max(-1) < 0.9) & ~far).any()


def test_a_bald_head_has_no_hair_where_a_person_said_so(labelled):
    picture, mesh, part = drawn.person(bald=True)
    parts = photographs.label(picture, mesh, bald=True)
    assert parts[..., HAIR].max() < 0.01
    assert ratio(overlap(parts.argmax(-1), part))[FACE] > 0.9


def test_the_wall_is_found_through_uneven_light(labelled):
    picture, _, part, _ = labelled
    lab = photographs.to_lab(picture)
    away = np.linalg.norm(photographs.wall(lab) - lab, axis=-1)
    seen = part == BACKGROUND
    seen[SIDE // 2 :] = False
    assert np.percentile(away[seen], 99) < 2.5
    assert np.median(away[part == HAIR]) > 30


def test_pieces_away_from_home_are_stray():
    mask = np.zeros((20, 20), bool)
    mask[2:5, 2:5] = mask[10:18, 10:18] = True
    home = np.zeros_like(mask)
    home[2, 2] = True
    assert photographs.stray(mask, home).sum() == 64
    assert photographs.stray(mask, home, large=50).sum() == 0
