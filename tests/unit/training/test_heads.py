import numpy as np
import pytest

from deid.faces.attributes import sex_class
from deid.training import heads as fitting


@pytest.fixture(scope="module")
def people():
    """Embeddings [600, 3, 128] in which sex and age are linear, with noise in each view, and their labels."""
    rng = np.random.default_rng(5)
    faces = rng.normal(0, 0.1, (600, 128))
    views = faces[:, None] + rng.normal(0, 0.01, (600, 3, 128)) + 0.05
    direction = rng.normal(size=(2, 128))
    male = 1 / (1 + np.exp(-4 * faces @ direction[0]))
    return views, male, 40 + 5 * faces @ direction[1]


def test_heads_find_what_is_linear_in_raw_embeddings(people):
    views, male, age = people
    heads, held_out = fitting.fit_heads(views, male, age)
    predicted = heads.predict(views[:, 0].astype(np.float32))
    assert ((predicted["sex"] > 0.5) == (male > 0.5)).mean() > 0.95
    assert np.abs(predicted["age"] - age).mean() < 1
    assert held_out["plain_sex_accuracy"] > 0.9
    assert held_out["plain_age_mean_absolute_error"] < 1.5
    assert held_out["faces"] == 600


def test_the_same_faces_give_the_same_heads(people, tmp_path):
    for name in ("a", "b"):
        fitting.fit_heads(*people)[0].save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_held_out_figures_are_of_faces_that_were_left_out():
    rng = np.random.default_rng(1)
    noise, labels = rng.normal(size=(200, 3, 128)), rng.integers(0, 2, 200).astype(float)
    fit = lambda x, y: fitting.logistic(x.reshape(-1, 128), np.repeat(y, 3), 0.1)  # noqa: E731
    held_out = fitting.out_of_fold(noise, labels, np.arange(200) % 5, fit)
    assert abs(((held_out[:, 0] > 0) == labels).mean() - 0.5) < 0.15  # nothing to learn, so chance


def test_logistic_regression_is_at_its_optimum():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(300, 4)), rng.uniform(size=300)
    w = fitting.logistic(x, y, 2.0)
    gradient = np.c_[x, np.ones(300)].T @ (fitting.sigmoid(x @ w[:-1] + w[-1]) - y) + 2.0 * np.r_[w[:-1], 0]
    assert np.abs(gradient).max() < 1e-6


def test_platt_scaling_calibrates_overconfident_log_odds():
    rng = np.random.default_rng(3)
    log_odds = rng.normal(0, 2, 20000)
    male = rng.uniform(size=20000) < fitting.sigmoid(log_odds)
    slope, offset = fitting.platt(3 * log_odds + 1, male)
    assert slope == pytest.approx(1 / 3, rel=0.05)
    assert offset == pytest.approx(-1 / 3, abs=0.05)
    calibrated = fitting.sigmoid(slope * (3 * log_odds + 1) + offset)
    assert (
        fitting.calibration_error(calibrated, male)
        < 0.01
        < fitting.calibration_error(fitting.sigmoid(3 * log_odds), male)
    )


def test_answers_outside_the_band_are_right_and_the_band_is_no_wider_than_needed():
    rng = np.random.default_rng(4)
    p = rng.uniform(size=5000)
    male = rng.uniform(size=5000) < p
    band = fitting.uncertain_band(p, male)
    answers = sex_class(p, band)
    assert (answers == male)[answers >= 0].mean() >= 0.99
    assert 0.5 - band[0] == pytest.approx(band[1] - 0.5)
    narrower = sex_class(p, band + np.array([0.01, -0.01]))
    assert (narrower == male)[narrower >= 0].mean() < 0.99


def test_labels_that_do_not_follow_from_the_embeddings_give_no_heads():
    p = np.full(100, 0.4)
    with pytest.raises(SystemExit, match="do not follow"):
        fitting.uncertain_band(p, np.ones(100, bool))


def test_who_is_left_out_is_the_person_not_the_picture():
    rng = np.random.default_rng(3)
    person = np.repeat(np.arange(60), 4)
    faces = rng.normal(size=(60, 128))[person][:, None] + rng.normal(0, 0.01, (240, 3, 128))
    male = rng.integers(0, 2, 60).astype(float)[person]  # of the person, and of nothing in the face
    age = np.where(person < 3, np.nan, 40.0)
    by_picture = fitting.fit_heads(faces, male, age)[1]["plain_sex_accuracy"]
    heads, held_out = fitting.fit_heads(faces, male, age, person)
    assert by_picture > 0.9
    assert held_out["plain_sex_accuracy"] < 0.7
    assert held_out["plain_age_mean_absolute_error"] < 0.1  # of those whose age is known
    assert np.isfinite(heads.age_weight).all()
