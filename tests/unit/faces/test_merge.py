"""Merging: properties that hold for any boxes, and cases worked out by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deid.faces import merge
from deid.faces.detect import INSIDE, IOU, suppress
from deid.faces.merge import View


def view(boxes: list[list[float]], scores: list[float]) -> View:
    """Points that span their box, so that the means of points can be told from those of boxes."""
    array = np.array(boxes, np.float32).reshape(-1, 4)
    corner, size = array[:, None, :2], (array[:, 2:] - array[:, :2])[:, None]
    shape = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    marks = np.array(scores, np.float32)
    return View(array, marks, (corner + shape * size).astype(np.float32), marks)


@st.composite
def views(draw: st.DrawFn) -> list[View]:
    made = []
    for _ in range(draw(st.integers(1, 3))):
        boxes, scores = [], []
        for _ in range(draw(st.integers(0, 8))):
            x, y = draw(st.integers(0, 60)), draw(st.integers(0, 60))
            boxes.append([x, y, x + draw(st.integers(1, 40)), y + draw(st.integers(1, 40))])
            scores.append(draw(st.floats(0.05, 1)))
        made.append(view(boxes, scores))
    return made


@given(views())
def test_every_box_is_accounted_for_and_no_face_twice(given_views: list[View]) -> None:
    found = merge.vote(given_views)
    boxes = np.concatenate([one.boxes for one in given_views])
    ranks = np.concatenate([one.ranks for one in given_views])
    assert len(found) == len(suppress(boxes, ranks))
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores <= ranks.max(initial=0) + 1e-6).all()
    seeds = boxes[suppress(boxes, ranks)]
    for box in boxes:  # each is a face of its own, or the same as one by the rule of suppression
        overlap, inside = merge.overlaps(box, seeds)
        assert ((overlap > IOU) | (inside > INSIDE) | (seeds == box).all(axis=1)).any()


@given(views())
def test_means_stay_within_what_they_are_means_of(given_views: list[View]) -> None:
    found = merge.vote(given_views)
    if not len(found):
        return
    boxes = np.concatenate([one.boxes for one in given_views])
    assert (found.boxes >= boxes.min(0) - 1e-3).all()
    assert (found.boxes <= boxes.max(0) + 1e-3).all()
    assert (found.points >= np.tile(found.boxes[:, None, :2], (1, 5, 1)) - 1e-3).all()
    assert (found.points <= np.tile(found.boxes[:, None, 2:], (1, 5, 1)) + 1e-3).all()


@given(views(), st.integers(100, 200))
def test_mirroring_twice_changes_nothing(given_views: list[View], width: int) -> None:
    for one in given_views:
        twice = one.mirrored(width).mirrored(width)
        np.testing.assert_allclose(twice.boxes, one.boxes, atol=1e-3)
        np.testing.assert_allclose(twice.points, one.points, atol=1e-3)


@given(views())
def test_the_order_of_the_views_does_not_matter(given_views: list[View]) -> None:
    scores = merge.vote(given_views).scores
    ranks = np.concatenate([one.ranks for one in given_views])
    if len(np.unique(ranks)) == len(ranks):  # ties may be seeds in either order
        np.testing.assert_allclose(merge.vote(given_views[::-1]).scores, scores, rtol=1e-5)


def test_a_mirrored_face_keeps_its_right_on_the_left() -> None:
    one = view([[10, 20, 30, 50]], [0.9]).mirrored(100)
    np.testing.assert_allclose(one.boxes, [[70, 20, 90, 50]])
    right, left, _, mouth_right, mouth_left = one.points[0]
    assert right[0] < left[0]
    assert mouth_right[0] < mouth_left[0]


def test_a_face_that_one_view_sees_has_half_the_score() -> None:
    first = view([[0, 0, 10, 10], [50, 50, 60, 60]], [0.8, 0.6])
    found = merge.vote([first, view([[0, 0, 10, 10]], [0.4])])
    np.testing.assert_allclose(found.scores, [0.6, 0.3])


def test_boxes_are_means_by_rank_and_overlap() -> None:
    found = merge.vote([view([[0, 0, 10, 10]], [0.8]), view([[0, 0, 10, 8]], [0.4])])
    expected = (0.8 * 10 + 0.4 * 0.8 * 8) / (0.8 + 0.4 * 0.8)
    np.testing.assert_allclose(found.boxes, [[0, 0, 10, expected]], rtol=1e-6)


def test_badly_placed_boxes_give_a_face_but_hardly_move_one() -> None:
    poor = view([[0, 0, 10, 8]], [0.9])
    poor.ranks = poor.ranks - 1
    alone = merge.vote([poor])
    np.testing.assert_allclose(alone.boxes, [[0, 0, 10, 8]])
    np.testing.assert_allclose(alone.scores, [0.9])
    found = merge.vote([view([[0, 0, 10, 10]], [0.3]), poor])
    np.testing.assert_allclose(found.boxes, [[0, 0, 10, 10]], atol=0.01)
    np.testing.assert_allclose(found.scores, [0.6])


def test_no_views_of_a_face_give_no_face() -> None:
    found = merge.vote([view([], []), view([], [])])
    assert (found.boxes.shape, found.scores.shape, found.points.shape) == ((0, 4), (0,), (0, 5, 2))
