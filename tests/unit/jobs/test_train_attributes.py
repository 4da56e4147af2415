import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from deid.faces.attributes import sex_class

SOURCE = Path(__file__).parents[3] / "jobs/train_attributes.py"


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("train_attributes", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def people():
    """Embeddings [600, 3, 128] in which sex and age are linear, with noise in each view, and their labels."""
    rng = np.random.default_rng(5)
    faces = rng.normal(0, 0.1, (600, 128))
    views = faces[:, None] + rng.normal(0, 0.01, (600, 3, 128)) + 0.05
    direction = rng.normal(size=(2, 128))
    male = 1 / (1 + np.exp(-4 * faces @ direction[0]))
    return views, male, 40 + 5 * faces @ direction[1]


def test_heads_find_what_is_linear_in_raw_embeddings(job, people):
    views, male, age = people
    heads, held_out = job.fit_heads(views, male, age)
    predicted = heads.predict(views[:, 0].astype(np.float32))
    assert ((predicted["sex"] > 0.5) == (male > 0.5)).mean() > 0.95
    assert np.abs(predicted["age"] - age).mean() < 1
    assert held_out["plain_sex_accuracy"] > 0.9
    assert held_out["plain_age_mean_absolute_error"] < 1.5
    assert held_out["faces"] == 600


def test_the_same_faces_give_the_same_heads(job, people, tmp_path):
    for name in ("a", "b"):
        job.fit_heads(*people)[0].save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_held_out_figures_are_of_faces_that_were_left_out(job):
    rng = np.random.default_rng(1)
    noise, labels = rng.normal(size=(200, 3, 128)), rng.integers(0, 2, 200).astype(float)
    fit = lambda x, y: job.logistic(x, y, 0.1)  # noqa: E731
    held_out = job.out_of_fold(noise, labels, fit)
    assert abs(((held_out[:, 0] > 0) == labels).mean() - 0.5) < 0.15  # nothing to learn, so chance


def test_logistic_regression_is_at_its_optimum(job):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(300, 4)), rng.uniform(size=300)
    w = job.logistic(x, y, 2.0)
    gradient = np.c_[x, np.ones(300)].T @ (job.sigmoid(x @ w[:-1] + w[-1]) - y) + 2.0 * np.r_[w[:-1], 0]
    assert np.abs(gradient).max() < 1e-6


def test_platt_scaling_calibrates_overconfident_log_odds(job):
    rng = np.random.default_rng(3)
    log_odds = rng.normal(0, 2, 20000)
    male = rng.uniform(size=20000) < job.sigmoid(log_odds)
    slope, offset = job.platt(3 * log_odds + 1, male)
    assert slope == pytest.approx(1 / 3, rel=0.05)
    assert offset == pytest.approx(-1 / 3, abs=0.05)
    calibrated = job.sigmoid(slope * (3 * log_odds + 1) + offset)
    assert (
        job.calibration_error(calibrated, male)
        < 0.01
        < job.calibration_error(job.sigmoid(3 * log_odds), male)
    )


def test_answers_outside_the_band_are_right_and_the_band_is_no_wider_than_needed(job):
    rng = np.random.default_rng(4)
    p = rng.uniform(size=5000)
    male = rng.uniform(size=5000) < p
    band = job.uncertain_band(p, male)
    answers = sex_class(p, band)
    assert (answers == male)[answers >= 0].mean() >= 0.99
    assert 0.5 - band[0] == pytest.approx(band[1] - 0.5)
    narrower = sex_class(p, band + np.array([0.01, -0.01]))
    assert (narrower == male)[narrower >= 0].mean() < 0.99


def test_labels_that_do_not_follow_from_the_embeddings_give_no_heads(job):
    p = np.full(100, 0.4)
    with pytest.raises(SystemExit, match="do not follow"):
        job.uncertain_band(p, np.ones(100, bool))


def test_three_views_of_one_portrait_are_one_person(job, tmp_path):
    cv2.imwrite(str(tmp_path / "astronaut.jpg"), data.astronaut()[..., ::-1])
    cv2.imwrite(str(tmp_path / "wall.jpg"), np.full((200, 200, 3), 128, np.uint8))
    rows = ("file,sex_probability,age", "astronaut.jpg,0.1,35", "wall.jpg,0.5,0", "none.jpg,0,0")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    job.embed(tmp_path, tmp_path / "faces.npz")
    views, sex, age = job.read_teacher(tmp_path / "faces.npz", tmp_path / "labels.csv")
    assert views.shape == (1, 3, 128)  # the wall has no face, and one label no picture
    assert (sex.tolist(), age.tolist()) == ([0.1], [35])
    distances = np.linalg.norm(views[0, 1:] - views[0, 0], axis=1)
    assert (distances > 0).all()
    assert (distances < 0.6).all()  # dlib's threshold for the same person
