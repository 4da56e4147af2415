import dataclasses
import json

import numpy as np
import pytest

from deid.evaluation import inversion as module
from deid.evaluation.inversion import inversion
from deid.evaluation.sections import as_dict
from deid.evaluation.settings import Evaluation, Source
from tests.unit.evaluation import faking

SETTINGS = Evaluation(source=Source(uri="a"), output="b", baselines=("solid",), resamples=100)


def run(faces, effort=0.15, seed=3):
    return inversion(faces, SETTINGS, np.random.default_rng(seed), effort)


@pytest.fixture(scope="module")
def section():
    return run(faking.faces(people=24))


def rows(section, id):
    return next(table for table in section.tables if table.id == id).rows


def test_what_holds_the_face_is_restored_and_strangers_are_not(section):
    assert [table.id for table in section.tables] == ["inversion.own", "inversion.other", "inversion.pixels"]
    for table in section.tables:
        assert table.valid, table.problems
        assert table.rows["clear"]["gain"].value > 0.9
        assert table.rows["identity"]["gain"].value > 0.9
        assert abs(table.rows["shuffled pairs"]["gain"].value) < 0.1
    for id in ("inversion.own", "inversion.other"):
        found = rows(section, id)
        for name in ("random heads", "one head", "grey head", "gone"):
            assert abs(found[name]["gain"].value) < 0.15
            assert found[name]["rank1"].value < 0.35
        assert found["identity"]["rank1"].value > 0.9
        assert found["identity"]["auc"].value > 0.95
        assert (
            found["identity"]["gain"].low <= found["identity"]["gain"].value <= found["identity"]["gain"].high
        )


def test_a_treatment_without_pictures_says_so(section):
    cell = rows(section, "inversion.own")["missing"]["gain"]
    assert np.isnan(cell.value)
    assert cell.text
    assert rows(section, "inversion.pixels")["gone"]["gain"].text


def test_the_number_of_people_and_the_limits_are_said(section):
    assert "12 people" in section.intro[0]
    assert "stronger" in section.intro[1]
    assert section.tables[0].about["learned from"] == "12 people"
    json.dumps(as_dict(section), allow_nan=False)
    assert [plot.png[:4] for plot in section.plots] == [b"\x89PNG"]


def test_the_same_seed_gives_the_same_section():
    one, again = (as_dict(run(faking.faces(people=10), effort=0.02)) for _ in range(2))
    assert json.dumps(one) == json.dumps(again)


def test_clear_pictures_that_cannot_be_restored_make_the_tables_invalid():
    faces = faking.faces(people=12)
    rng = np.random.default_rng(0)
    noise = [faking.observation(rng.normal(size=faking.SIZE), rng, True, 0) for _ in faces.clear]
    truth = module._truth(faces, module.learning.halves(faces.persons, rng))
    row = module._row("clear", noise, truth, False)  # the control's input is somebody else's
    attempts = module._attempts(truth, [row, dataclasses.replace(row, name="shuffled pairs")], [0, 1], 1)
    draws = np.ones((100, len(faces)))
    table = module.embedding_table(faces.attackers[0], attempts, lambda _: None, draws)
    assert not table.valid
    assert "not trained" in table.problems[0]


def test_shuffled_pairs_that_restore_make_the_tables_invalid():
    faces = faking.faces(people=12)
    truth = module._truth(faces, module.learning.halves(faces.persons, np.random.default_rng(0)))
    row = module._row("clear", faces.clear, truth, False)
    attempts = module._attempts(truth, [row], [0, 1], 1)
    leak = {"clear": attempts["clear"], "shuffled pairs": attempts["clear"]}
    table = module.embedding_table(faces.attackers[0], leak, lambda _: None, np.ones((100, len(faces))))
    assert "more than the pairs" in table.problems[0]


def test_too_few_people_make_the_tables_invalid():
    section = run(faking.faces(people=4))
    assert not any(table.valid for table in section.tables)
    assert any("too few" in problem for problem in section.tables[0].problems)


def test_shuffled_pairs_are_of_different_people():
    persons = np.repeat(np.arange(9), [1, 2, 3, 4, 1, 2, 3, 4, 1])
    train = np.flatnonzero(persons % 2 == 0)
    source = module._shuffled(persons, train, 4)
    assert sorted(source) == sorted(train)
    assert (persons[source] != persons[train]).all()


def test_people_are_drawn_where_there_are_too_many_faces(monkeypatch):
    monkeypatch.setattr(module, "MOST_FACES", 20)
    faces = faking.faces(people=24)
    few = module._some(faces, np.random.default_rng(0))
    assert len(few) == 20
    assert len(set(few.persons)) == 10
    assert few.treated["identity"][0] is few.clear[0]


def test_the_face_lies_within_the_grey_head():
    grey = np.zeros((64, 64, 3), np.uint8)
    grey[10:60, 10:55] = 127
    mask = module._mask(grey)
    rows, columns = np.nonzero(mask)
    assert mask.sum() == pytest.approx(50 * 45 / 1.5**2, rel=0.1)
    assert (rows.mean(), columns.mean()) == pytest.approx((34.5, 32), abs=1)
    assert module._mask(np.zeros((0, 0, 3), np.uint8)).sum() > 500
