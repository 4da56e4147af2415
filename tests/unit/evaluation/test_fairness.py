import dataclasses
import json

import numpy as np
import pytest

from deid.evaluation import gaps, sections
from deid.evaluation.fairness import fairness
from deid.evaluation.gaps import Area, Kind, OfFaces
from deid.evaluation.reid import Templates, compare, reidentify
from deid.evaluation.settings import Evaluation
from tests.unit.evaluation import faking


def asked(chosen):
    return faking.evaluation([chosen], resamples=300)


def planted(faces, shown):
    """`shown(subject)`: the treatment that the subject gets."""
    seen = [faces.treated[shown(s)][n] for n, s in enumerate(faces.subjects)]
    return dataclasses.replace(faces, treated={"mixed": seen}, seams={"mixed": faces.seams["identity"]})


@pytest.fixture(scope="module")
def faces():
    return faking.faces(people=48)


@pytest.fixture(scope="module")
def unfair(faces):
    """Women are not de-identified."""
    some = planted(faces, lambda s: "identity" if s.sex == "female" else "random heads")
    return fairness(some, asked("mixed"), np.random.default_rng(0))


def test_a_planted_gap_is_found(unfair):
    largest = unfair.data["largest_gap"]
    assert (largest["kind"], largest["groups"]) == ("sex", ["female", "male"])
    assert largest["what"].startswith("rank-1")
    assert 0.8 < largest["low"] <= largest["value"] <= largest["high"] <= 1
    assert largest["by_chance"] < 0.6
    assert largest["p"] < 0.01
    assert "female is" in unfair.intro[-1]
    table = {t.id: t for t in unfair.tables}["fairness.privacy"]
    assert table.rows["sex: female"]["rank1.own"].value == 1.0
    assert table.rows["sex: male"]["rank1.own"].value < 0.15
    assert (table.rows["sex: female"]["rank1.own"].met, table.rows["sex: male"]["rank1.own"].met) == (
        False,
        True,
    )
    assert table.rows["sex: male"]["clear.own"].value == 1.0


def test_without_a_gap_chance_explains_the_largest(faces):
    made = fairness(planted(faces, lambda s: "random heads"), asked("mixed"), np.random.default_rng(0))
    largest = made.data["largest_gap"]
    assert largest["p"] > 0.05
    assert largest["value"] == pytest.approx(largest["by_chance"], abs=0.15)


def test_chance_makes_few_gaps_significant(faces):
    """p of a gap that is none is below .05 in about one of twenty."""
    rng = np.random.default_rng(8)
    kind = Kind.by("sex", ["female", "male"] * 24)
    found = []
    for _ in range(60):
        figure = OfFaces("x", "x", "mean", rng.normal(size=96), np.arange(96) // 2, 48)
        found.append(gaps.gap(figure, kind, kind.drawn(rng, 20), kind.shuffled(rng, 200)).p)
    assert np.mean(np.array(found) < 0.05) < 0.15
    assert np.mean(found) == pytest.approx(0.5, abs=0.12)


def test_groups_with_few_people_are_counted_and_no_more():
    few = faking.faces(people=18)  # 4 or 5 of each age
    made = fairness(planted(few, lambda s: "identity"), asked("mixed"), np.random.default_rng(0))
    for table in made.tables[:2]:
        row = table.rows["age band: 45+"]
        assert row["people"].value == 4
        cells = [cell for key, cell in row.items() if key != "people"]
        assert {cell.text for cell in cells} == {"few"}
        assert np.isnan([cell.value for cell in cells]).all()
        assert {cell.met for cell in cells} == {None}
    assert made.data["groups"]["age band"]["45+"] == 4
    assert not [g for g in made.data["gaps"] if "45+" in g["groups"]]


def test_groups_stand_in_their_order(unfair):
    names = [name for name in unfair.tables[0].rows if name.startswith("age band")]
    assert names == ["age band: 18-24", "age band: 25-34", "age band: 35-44", "age band: 45+"]
    assert next(iter(unfair.tables[0].rows)) == "everyone"


def test_nothing_known_of_the_people_is_said(faces):
    subjects = [
        dataclasses.replace(s, sex="unknown", age=float("nan"), tone=float("nan")) for s in faces.subjects
    ]
    unknown = dataclasses.replace(planted(faces, lambda s: "identity"), subjects=subjects)
    made = fairness(unknown, asked("mixed"), np.random.default_rng(0))
    assert made.data["largest_gap"] is None
    assert "No gap could be measured" in made.intro[-1]
    assert json.dumps(sections.as_dict(made), allow_nan=False)


@pytest.mark.parametrize("treatment", ["missing", "gone", "one head"])
def test_treatments_without_faces_are_no_crash(faces, treatment):
    made = fairness(planted(faces, lambda s: treatment), asked("mixed"), np.random.default_rng(0))
    assert json.dumps(sections.as_dict(made), allow_nan=False)
    table = {t.id: t for t in made.tables}["fairness.utility"]
    found = table.rows["sex: male"]["found_again"].value
    assert found == (1.0 if treatment == "one head" else 0.0)


def test_nobody_at_all():
    none = faking.faces(people=0)
    assert "Nothing was measured" in fairness(none, asked("identity"), np.random.default_rng(0)).intro[-1]


def test_the_plot_says_what_it_shows(unfair):
    (plot,) = unfair.plots
    assert plot.png.startswith(b"\x89PNG")
    assert "The largest gap of" in plot.alt


def test_the_area_of_a_group_is_that_of_its_probes():
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(30, 4))
    enrolled = Templates(centres + 0.5 * rng.normal(size=(30, 4)), np.arange(30))
    probes = Templates(centres + 0.5 * rng.normal(size=(30, 4)), np.arange(30))
    comparison = compare(enrolled, probes, "euclidean")
    figure = Area("auc", "AUC", comparison, np.arange(30), np.arange(30), 30)
    members = np.arange(30) % 3 == 0
    some = compare(enrolled, Templates(probes.vectors[members], probes.subjects[members]), "euclidean")
    expected = reidentify(some, rng, resamples=0).auc.value
    assert figure.of(members[None])[0] == pytest.approx(expected)
    assert figure.drawn(members, np.ones((1, 30)))[0] == pytest.approx(expected)
    assert np.isnan(figure.of(np.zeros((1, 30), bool))[0])


def test_a_missing_picture_is_no_miss(faces):
    some = [faking.Observation() if n % 4 < 2 else seen for n, seen in enumerate(faces.treated["identity"])]
    given = dataclasses.replace(faces, treated={"some": some}, seams={"some": faces.seams["identity"]})
    asked = Evaluation(
        source={"uri": "raw"},
        output="report",
        results=[{"name": "some", "uri": "some"}],
        baselines=(),
        resamples=100,
    )
    privacy = fairness(given, asked, np.random.default_rng(0)).tables[0]
    assert privacy.rows["everyone"]["rank1.own"].value == 1.0
