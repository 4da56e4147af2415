import dataclasses

import numpy as np
import pytest

from deid.evaluation import surrogates
from deid.evaluation.observe import Observation
from deid.evaluation.seam import Seam
from deid.faces import align


def face(rng, at=(100.0, 100.0)):
    """A mesh with two eyes, a nose and a mouth where they belong, roughly; 100 px between the eyes' sides."""
    mesh = rng.normal(0, 3, (468, 3))
    mesh[:, :2] += at
    for index, place in {
        (33, 133): (-30, -20),
        (362, 263): (30, -20),
        (234,): (-60, 0),
        (454,): (60, 0),
        (10,): (0, -70),
        (2,): (0, 10),
    }.items():
        mesh[list(index), :2] = np.add(at, place)
    mesh[[13, 14], 1], mesh[[61, 291], 1] = at[1] + 30, at[1] + 25
    return mesh


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def people(rng, count=20):
    """Two pictures of each, every person elsewhere and of another kind."""
    return [
        Observation(
            score=0.9,
            face_box=np.array([5, 5, 95, 115.0]) + 5 * n,
            box=np.array([0, 0, 100, 120.0]) + 5 * n,
            mesh=face(rng, (100 + 7 * n, 100)),
            mesh_score=1.0,
            lab=np.array([50 + 2 * n, 10, 15.0]),
            gaze=np.array([0.2 if n % 2 else 0.0, 0.01]),
            expression=np.eye(7)[3 if n % 2 else 6],
            sex=float(n // 2 % 2),
            age=20.0 + n,
        )
        for n in range(2 * count)
    ]


def figures(before, after, rng, seams=None):
    seams = [Seam(1.0, 1.0)] * len(before) if seams is None else seams
    values = surrogates.compare(before, after, seams, 0.0)
    return surrogates.summarize(values, np.arange(len(before)) // 2, rng, resamples=100)


def test_the_same_pictures_keep_everything(rng):
    seen = people(rng)
    made = figures(seen, seen, rng)
    assert set(made) == set(surrogates.METRICS) - {"sex_teacher", "age_teacher"}
    kept = {name for name, metric in surrogates.METRICS.items() if metric.at_least} - {"sex_teacher"}
    assert {"found_by_own", "own_iou", "gaze_side", "expression"} < kept
    assert {made[name].estimate.value for name in kept} == {1.0}
    still = ("landmarks", "yaw", "pitch", "roll", "gaze", "age", "skin", "seam_shows", "score_fell")
    assert {made[name].estimate.value for name in still} == {0.0}
    assert made["seam"].estimate.value == 1.0
    assert all(figure.met in (True, None) and figure.measured == figure.of == 40 for figure in made.values())


def test_other_people_s_pictures_keep_little(rng):
    before = people(rng)
    after = before[6:] + before[:6]
    made = figures(before, after, rng)
    missed = {name for name, figure in made.items() if figure.met is False}
    assert {"found_again", "landmarks", "sex", "age"} <= missed
    assert made["landmarks"].estimate.value > 0.2


def test_results_without_a_face_fail_every_share_and_no_mean(rng):
    before = people(rng)
    made = figures(before, [Observation() for _ in before], rng, [Seam()] * len(before))
    for name in ("gaze_side", "expression"):
        assert (made[name].estimate.value, made[name].measured) == (0.0, 40)
    for name in ("found_again", "found_by_own", "smile_mesh", "smile_network", "sex"):
        assert made[name].estimate.value == 0.0
        assert made[name].met is False
    assert made["score_fell"].estimate.value == 1.0
    assert made["landmarks"].measured == 0
    assert made["landmarks"].met is None
    assert np.isnan(made["landmarks"].estimate.value)


def test_sources_without_a_face_are_left_out(rng):
    before = [Observation(), *people(rng)[1:]]
    made = figures(before, before, rng)
    assert (made["sex"].measured, made["sex"].of, made["sex"].estimate.value) == (39, 40, 1.0)


def test_each_value_is_that_of_its_picture(rng):
    before = people(rng, 2)
    moved = before[1].mesh.copy()
    moved[:, 0] += 6  # of 60 px between the eyes
    after = [
        dataclasses.replace(before[0], score=0.7, sex=1.0 - before[0].sex, age=before[0].age + 4),
        dataclasses.replace(before[1], mesh=moved, box=before[1].box + np.array([30, 0, 30, 0])),
        dataclasses.replace(before[2], expression=np.eye(7)[3], mesh_score=0.8, gaze=np.array([0.04, 0.05])),
        dataclasses.replace(before[3], lab=before[3].lab * [1, 1, -1], gaze=np.array([-0.2, 0.01])),
    ]
    values = surrogates.compare(before, after, [Seam(1.0, 1.1), Seam(1.3, 2.0), Seam(), Seam(0.5, 1.5)], 0.0)
    assert values["score_fell"].tolist() == [1, 0, 1, 0]
    assert values["sex"].tolist() == [0, 1, 1, 1]
    assert values["age"].tolist() == [4, 0, 0, 0]
    assert values["found_again"].tolist() == [1, 0, 1, 1]
    assert values["landmarks"] == pytest.approx([0, 0.1, 0, 0], abs=1e-9)
    assert values["smile_network"].tolist() == [1, 1, 0, 1]
    assert values["expression"].tolist() == [1, 1, 0, 1]
    assert values["gaze"] == pytest.approx([0, 0, 0.0566, 0.4], abs=1e-3)
    assert values["gaze_side"].tolist() == [1, 1, 1, 0]
    assert values["own_iou"][1] == 1.0
    assert values["skin"][3] > 90
    np.testing.assert_array_equal(values["seam_shows"], [0, 1, np.nan, 0])
    np.testing.assert_array_equal(values["seam_worst"], [1.1, 2.0, np.nan, 1.5])


def test_a_head_that_leans_is_off_by_its_angle(rng):
    before = people(rng, 1)
    angle = np.radians(10)
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    after = [dataclasses.replace(seen, mesh=seen.mesh @ turn) for seen in before]
    values = surrogates.compare(before, after, [Seam()] * 2, 0.0)
    assert values["roll"] == pytest.approx([10, 10], abs=0.1)
    assert align.POSE == ("yaw", "pitch", "roll")


def test_of_seven_expressions_the_likeliest_counts(rng):
    before = people(rng, 1)
    sad = dataclasses.replace(before[0], expression=np.array([0, 0, 0, 0.1, 0.6, 0, 0.3]))
    values = surrogates.compare(before, [sad, before[1]], [Seam()] * 2, 0.0)
    assert values["expression"].tolist() == [0, 1]
    assert values["smile_network"].tolist() == [1, 1]


@pytest.mark.parametrize(("statistic", "reduce"), [("mean", np.mean), ("median", np.median)])
def test_intervals_are_those_of_resampled_people_put_together(statistic, reduce):
    rng = np.random.default_rng(1)
    subjects = rng.integers(12, size=31)
    values = np.where(rng.random(31) < 0.2, np.nan, rng.normal(size=31))
    found = surrogates.bootstrap(values, subjects, statistic, np.random.default_rng(5), 300)
    known = np.isfinite(values)
    parts = [values[known & (subjects == person)] for person in np.unique(subjects[known])]
    draws = np.random.default_rng(5).integers(len(parts), size=(300, len(parts)))
    samples = [reduce(np.concatenate([parts[number] for number in draw])) for draw in draws]
    assert found.value == pytest.approx(reduce(values[known]))
    assert [found.low, found.high] == pytest.approx(np.percentile(samples, [2.5, 97.5]))


def test_intervals_are_over_people(rng):
    values = np.repeat(rng.normal(size=30), 2)
    together = surrogates.bootstrap(values, np.arange(60) // 2, "mean", rng, 400)
    apart = surrogates.bootstrap(values, np.arange(60), "mean", rng, 400)
    assert together.low < together.value < together.high
    assert together.high - together.low > 1.2 * (apart.high - apart.low)


def test_a_share_of_nobody_has_an_interval():
    rng = np.random.default_rng(0)
    none = surrogates.bootstrap(np.zeros(60), np.arange(60) // 2, "share", rng)
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(0.1))
    everybody = surrogates.bootstrap(np.ones(60), np.arange(60) // 2, "share", rng)
    assert (everybody.low, everybody.high) == (pytest.approx(0.9), 1)
