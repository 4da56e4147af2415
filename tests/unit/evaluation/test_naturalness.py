import dataclasses

import numpy as np
import pytest

from deid.evaluation import naturalness
from deid.evaluation.naturalness import HALVES
from deid.evaluation.seam import Seam
from deid.evaluation.settings import Evaluation
from tests.unit.evaluation import faking

EVALUATION = Evaluation(source={"uri": "pictures"}, output="report", resamples=200)


@pytest.fixture(scope="module")
def faces():
    made = faking.faces()
    odd = [
        dataclasses.replace(
            o, score=o.score / 2, mesh_score=0.0, sharpness=o.sharpness - 3, features=o.features + 2
        )
        for o in made.clear
    ]
    return dataclasses.replace(
        made,
        treated=made.treated | {"odd": odd},
        seams=made.seams | {"odd": [Seam(1.5, 2.0), Seam()] * 24},
    )


@pytest.fixture(scope="module")
def section(faces):
    return naturalness.naturalness(faces, EVALUATION, np.random.default_rng(0))


def test_the_source_is_as_it_is(section):
    signs = section.tables[0].rows["identity"]
    assert [signs[c].value for c in ("score", "mesh_score", "seam", "sharpness", "sharpness_off")] == [
        1,
        1,
        1,
        0,
        0,
    ]
    assert section.tables[1].rows["identity"]["distance"].value == pytest.approx(0, abs=1e-12)


def test_an_odd_face_shows_in_every_figure(section):
    signs = section.tables[0].rows["odd"]
    assert [signs[c].value for c in ("score", "mesh_score", "seam", "seam_worst")] == pytest.approx(
        [0.5, 0, 1.5, 2]
    )
    assert [signs[c].value for c in ("sharpness", "sharpness_off")] == pytest.approx([-3, 3])
    assert (signs["seam"].measured, signs["seam"].of, signs["seam"].met) == (24, 48, False)
    distances = {name: row["distance"] for name, row in section.tables[1].rows.items()}
    assert distances["odd"].low > distances[HALVES].high
    assert distances["random heads"].low < distances[HALVES].high


@pytest.mark.parametrize("treatment", ["gone", "missing"])
def test_faces_that_are_not_found_have_no_confidence_and_no_features(section, treatment):
    signs, distance = section.tables[0].rows[treatment], section.tables[1].rows[treatment]["distance"]
    assert (signs["score"].value, signs["score"].measured) == (0, 48)
    assert (signs["sharpness"].measured, signs["sharpness"].text) == (0, "not measured in any face")
    assert np.isnan(distance.value)
    assert (distance.measured, distance.of, distance.text) == (0, 48, "too few faces found")


def test_some_faces_that_are_not_found_are_counted(faces):
    seen = [o if n % 3 else faking.Observation() for n, o in enumerate(faces.treated["random heads"])]
    some = dataclasses.replace(faces, treated={"some": seen}, seams={"some": faces.seams["gone"]})
    tables = naturalness.naturalness(some, EVALUATION, np.random.default_rng(0)).tables
    distance = tables[1].rows["some"]["distance"]
    assert (distance.measured, distance.of, np.isfinite(distance.value)) == (32, 48, True)
    assert tables[0].rows["some"]["score"].value == pytest.approx(2 / 3)


def test_of_many_faces_as_many_are_drawn_as_are_needed(faces, monkeypatch):
    monkeypatch.setattr(naturalness, "MOST", 20)
    table = naturalness.naturalness(faces, EVALUATION, np.random.default_rng(0)).tables[1]
    assert table.about["faces"] == "20"
    assert {row["distance"].of for row in table.rows.values()} == {20}


def test_it_never_calls_itself_by_another_distance_s_name(section):
    words = " ".join(
        [*section.intro, *(n for t in section.tables for n in (t.title, *t.notes)), section.plots[0].alt]
    )
    assert "KID" not in words
    assert "FID" not in words
    assert "O-Net" in words
    assert "too few faces found" in section.plots[0].alt


def test_the_seed_decides(faces):
    made = [naturalness.naturalness(faces, EVALUATION, np.random.default_rng(3)).tables for _ in range(2)]
    assert repr(made[0]) == repr(made[1])
