import dataclasses

import cv2
import numpy as np
import pytest

from deid.evaluation import keeping, plots
from deid.evaluation.settings import Evaluation
from deid.evaluation.surrogates import METRICS
from tests.unit.evaluation import faking


def evaluation(**given):
    return Evaluation(source={"uri": "pictures"}, output="report", resamples=100, **given)


@pytest.fixture(scope="module")
def faces():
    return faking.faces()


@pytest.fixture(scope="module")
def section(faces):
    return keeping.utility(faces, evaluation(), np.random.default_rng(0))


def cells(section, treatment):
    return {id: found for table in section.tables for id, found in table.rows[treatment].items()}


def test_every_figure_of_every_treatment_is_in_one_table(section, faces):
    ids = [column.id for table in section.tables for column in table.columns]
    assert len(ids) == len(set(ids))
    assert set(METRICS) - set(ids) == {"sex_teacher", "age_teacher", "seam", "seam_worst"}
    assert all(list(table.rows) == list(faces.treated) for table in section.tables)
    assert len({table.id for table in section.tables}) == len(section.tables)


def test_the_source_itself_keeps_everything(section):
    found = cells(section, "identity")
    assert {found[id].value for id in found if METRICS[id].at_least} == {1.0}
    assert {found[id].value for id in found if not METRICS[id].at_least} == {0.0}
    assert all(cell.met is not False and cell.measured == cell.of == 48 for cell in found.values())


def test_somebody_else_keeps_what_was_made_to_be_kept(section):
    found = cells(section, "random heads")
    assert (found["found_again"].value, found["sex"].value, found["smile_mesh"].value) == (1, 1, 1)
    assert found["gaze_side"].value < 0.8
    assert found["gaze_side"].low < found["gaze_side"].value < found["gaze_side"].high
    assert found["age"].value > 0.5


@pytest.mark.parametrize("treatment", ["gone", "missing"])
def test_without_a_face_every_share_fails_and_no_mean_is_made_up(section, treatment):
    found = cells(section, treatment)
    for id in (
        "found_again",
        "found_by_own",
        "gaze_side",
        "smile_mesh",
        "smile_network",
        "expression",
        "sex",
    ):
        assert (found[id].value, found[id].measured, found[id].of) == (0, 48, 48)
    assert found["found_again"].met is False
    assert found["score_fell"].value == 1
    for id in ("landmarks", "yaw", "gaze", "age", "skin"):
        assert np.isnan(found[id].value)
        assert (found[id].measured, found[id].of, found[id].text) == (0, 48, "not measured in any face")


def test_how_many_faces_a_mean_is_over(faces):
    half = [o if n % 2 else faking.Observation() for n, o in enumerate(faces.clear)]
    some = dataclasses.replace(faces, treated={"half": half}, seams={"half": faces.seams["gone"]})
    found = cells(keeping.utility(some, evaluation(), np.random.default_rng(0)), "half")
    assert (found["landmarks"].measured, found["landmarks"].of, found["landmarks"].value) == (24, 48, 0)
    assert (found["found_again"].value, found["found_again"].met) == (0.5, False)


def test_the_thresholds_of_the_evaluation_go_first(faces):
    asked = evaluation(thresholds={"found_again": 0.4, "expression": 0.3})
    columns = {
        c.id: c for t in keeping.utility(faces, asked, np.random.default_rng(0)).tables for c in t.columns
    }
    assert (columns["found_again"].limit, columns["smile_mesh"].limit, columns["smile_network"].limit) == (
        0.4,
        0.3,
        0.3,
    )
    assert columns["sex"].limit == METRICS["sex"].limit
    assert (columns["found_again"].better, columns["landmarks"].better) == ("higher", "lower")


def test_notes_say_which_estimators_the_steering_uses(section):
    notes = {table.id: " ".join(table.notes) for table in section.tables}
    assert "BlazeFace, which no part of the pipeline uses" in notes["utility.detection"]
    assert (
        "(fer) was trained by other people on other pictures; no steering uses it"
        in notes["utility.expression"]
    )
    for id in ("utility.geometry", "utility.expression", "utility.attributes"):
        assert keeping.STEERED in notes[id]


def test_the_plot_says_its_numbers(section):
    (plot,) = section.plots
    picture = cv2.imdecode(np.frombuffer(plot.png, np.uint8), cv2.IMREAD_COLOR)
    assert min(picture.shape[:2]) > 300
    assert "identity 1.00, 1.00, 1.00, 1.00, 1.00" in plot.alt
    assert "gone 0.00, 0.00, 0.00, 0.00, 0.00" in plot.alt


def test_the_seed_decides(faces):
    twice = [keeping.utility(faces, evaluation(), np.random.default_rng(3)).tables for _ in range(2)]
    assert repr(twice[0]) == repr(twice[1])


def test_a_row_of_nothing_does_not_look_like_0(section):
    columns = [c for c in section.tables[1].columns if c.id in ("landmarks", "gaze")]
    assert plots._labels(section.tables[1], columns)[3:] == [
        "gone (not measured)",
        "missing (not measured)",
    ]
    assert plots._labels(section.tables[0], section.tables[0].columns) == list(section.tables[0].rows)
