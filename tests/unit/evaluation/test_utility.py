import numpy as np
import pytest

from deid.evaluation.utility import agreement, iou, landmark_error, match, pose_error, recall


def test_iou():
    a = np.array([[0, 0, 10, 10]])
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [10, 0, 20, 10], [3, 3, 3, 3]])
    assert iou(a, b).tolist() == [[1.0, pytest.approx(1 / 3), 0.0, 0.0, 0.0]]


def test_a_true_box_is_found_once():
    truth = np.array([[0, 0, 10, 10], [100, 0, 110, 10]])
    predicted = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
    assert match(truth, predicted, 0.5) == [(0, 0)]
    assert match(truth, np.zeros((0, 4)), 0.5) == []


def test_recall_by_height_band():
    truth = [np.array([[0, 0, 10, 10], [20, 0, 50, 30], [100, 0, 400, 200]]), np.array([[0, 0, 12, 12]])]
    predicted = [np.array([[21, 0, 51, 30], [100, 0, 400, 190], [600, 600, 700, 700]]), np.zeros((0, 4))]
    result = recall(truth, predicted, 0.4)
    assert (result.total.truth, result.total.found, result.total.recall) == (4, 2, 0.5)
    assert {band: c.recall for band, c in result.bands.items()} == {"<20": 0.0, "20-39": 1.0, ">=160": 1.0}
    assert result.precision == pytest.approx(2 / 3)
    assert np.isnan(recall([], []).total.recall)


def test_agreement_of_boxes():
    before = np.array([[0, 0, 10, 10], [50, 50, 60, 60]])
    assert agreement(before, np.array([[0, 0, 10, 5]])).tolist() == [0.5, 0.0]
    assert agreement(before, np.zeros((0, 4))).tolist() == [0.0, 0.0]


def test_landmark_error_is_in_eye_distances():
    truth = np.array([[[0, 0], [50, 0], [25, 30], [5, 60], [45, 60]]], float)
    assert landmark_error(truth, truth + np.array([3, 4])).tolist() == [pytest.approx(0.1)]
    assert landmark_error(truth * 4, (truth + np.array([3, 4])) * 4).tolist() == [pytest.approx(0.1)]
    mesh = np.concatenate([truth, np.full((1, 5, 1), 9.0)], axis=2)
    moved = mesh + np.array([3, 4, 100])
    assert landmark_error(mesh, moved, eyes=((0, 0), (1, 1))).tolist() == [pytest.approx(0.1)]


def test_pose_error_goes_the_short_way_round():
    assert pose_error(np.array([[179, 0, -10]]), np.array([[-179, 5, 10]])).tolist() == [[2, 5, 20]]
