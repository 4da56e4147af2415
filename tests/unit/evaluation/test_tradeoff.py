"""The Pareto set, the worst of the attacks, and what every treatment's point holds."""

import dataclasses
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deid.evaluation import sections, surrogates, tradeoff
from deid.evaluation.sections import Cell, Column, Section, Table
from deid.evaluation.settings import Evaluation
from tests.unit.evaluation import faking

COORDINATE = st.one_of(st.integers(0, 4).map(float), st.just(math.nan))
PLACES = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3), st.tuples(COORDINATE, COORDINATE), max_size=9
)


@given(PLACES)
def test_efficient_are_those_that_no_other_is_better_than(places):
    best = tradeoff.efficient(places)
    known = {name: place for name, place in places.items() if not any(map(math.isnan, place))}

    def better(one, other):
        (a, b), (x, y) = known[one], known[other]
        return a <= x and b >= y and (a < x or b > y)

    assert set(best) == {n for n in known if not any(better(other, n) for other in known)}
    assert bool(best) == bool(known)
    line = [known[name] for name in best]
    assert line == sorted(line)
    assert [y for _, y in line] == sorted(
        y for _, y in line
    )  # the line goes up: more useful only if less strong


def test_efficient_on_a_known_plane():
    places = {"strong": (0.5, 0.6), "useful": (0.7, 0.9), "worse": (0.7, 0.8), "unknown": (math.nan, 1.0)}
    assert tradeoff.efficient(places) == ["strong", "useful"]


@pytest.mark.parametrize(
    ("auc", "expected"),
    [
        ((0.7, 0.6, 0.8), (0.7, 0.6, 0.8)),
        ((0.3, 0.2, 0.4), (0.7, 0.6, 0.8)),
        ((0.45, 0.35, 0.55), (0.55, 0.5, 0.65)),
    ],
)
def test_an_auc_below_one_half_is_a_link_too(auc, expected):
    found = tradeoff.either_way(Cell(*auc))
    assert (found.value, found.low, found.high) == pytest.approx(expected)


def test_all_kept_asks_for_every_known_value():
    nan = math.nan
    values = np.array([[1.0, 1, nan, nan, 0], [1, 0, 1, nan, nan]])
    assert tradeoff.all_kept(values).tolist()[:3] == [1, 0, 1]
    assert math.isnan(tradeoff.all_kept(values)[3])
    assert tradeoff.all_kept(values)[4] == 0


def attack(recognizer, setting, impostors, rows, problems=()):
    columns = [Column("rank1", "rank-1", "lower"), Column("auc", "AUC", "lower")]
    cells = {name: {"rank1": Cell(r, r, r), "auc": Cell(a, a, a)} for name, (r, a) in rows.items()}
    about = {"recognizer": recognizer, "setting": setting, "impostors": impostors}
    title = f"{recognizer}, {setting}, {impostors}"
    return Table(title, title, columns, cells, problems=list(problems), about=about)


@pytest.fixture(scope="module")
def faces():
    return faking.faces()


@pytest.fixture
def evaluation():
    return Evaluation(
        source={"uri": "raw"},
        output="report",
        title="made-up people",
        results=[{"name": name, "uri": name} for name in ("identity", "gone", "missing")],
        trials=[
            {"name": "random heads", "settings": {}},
            {"name": "one head", "settings": {"anonymizer": "solid"}},
        ],
        baselines=(),
        chosen="random heads",
        resamples=100,
    )


@pytest.fixture
def privacy():
    """`identity` is found by everyone; `random heads` a little by the second recognizer, and by the parrot."""
    return Section(
        "privacy",
        "Privacy",
        tables=[
            attack("own", "forward", "all", {"identity": (1, 1), "random heads": (0, 0.5), "one head": (0, 0.5)}),
            attack("other", "forward", "all", {"identity": (1, 1), "random heads": (0.2, 0.3), "one head": (0, 0.5)}),
            attack("own", "forward", "alike", {"identity": (1, 0.95), "random heads": (0, 0.55), "one head": (0, 0.6)}),
            attack("own", "reverse", "all", {"identity": (0.8, 1), "random heads": (0.1, 0.5)}),
            attack("own", "parrot", "all", {"identity": (1, 1), "random heads": (0.3, 0.5), "one head": (0.05, 0.5)}),
            attack("own", "parrot, retrained", "all", {"identity": (1, 1), "random heads": (0.4, 0.5)}),
            attack("broken", "forward", "all", {"random heads": (0.9, 0.9)}, ["the control failed"]),
        ],
    )  # fmt: skip


@pytest.fixture
def section(privacy, faces, evaluation):
    return tradeoff.tradeoff([privacy], faces, evaluation, {})


def point(section, name):
    return next(p for p in section.data["points"] if p["name"] == name)


def test_the_worst_attack_counts_and_tables_that_are_not_valid_do_not(section):
    found = {name: figure["value"] for name, figure in point(section, "random heads")["privacy"].items()}
    assert found == {"rank1": 0.2, "reverse": 0.1, "auc": 0.7, "auc_alike": 0.55, "parrot": 0.4}
    assert any("broken" in line for line in section.intro)


def test_an_attack_that_is_missing_is_said_and_never_met(section):
    found = point(section, "random heads")["privacy"]
    assert found["rank1"]["lacking"] == found["auc"]["lacking"] == "not by broken, forward"
    assert "lacking" not in found["parrot"]
    assert point(section, "one head")["privacy"]["parrot"]["lacking"] == "not by own, parrot, retrained"
    row = section.tables[0].rows["one head"]
    assert (row["rank1"].value, row["rank1"].met, row["rank1"].text) == (0, None, "not by broken, forward")


def test_utility_is_what_the_measures_say(section, faces):
    values = surrogates.compare(faces.clear, faces.treated["random heads"], faces.seams["random heads"], 0.0)
    together = np.logical_and.reduce([values[metric] == 1 for metric in tradeoff.KEPT])
    useful = point(section, "random heads")["utility"]
    assert useful["kept"]["value"] == pytest.approx(together.mean())
    assert useful["expression"]["value"] == pytest.approx(
        min(values["smile_mesh"].mean(), values["smile_network"].mean())
    )
    assert useful["kept"]["low"] <= useful["kept"]["value"] <= useful["kept"]["high"]
    assert point(section, "identity")["utility"]["kept"]["value"] == 1
    assert point(section, "gone")["utility"]["kept"]["value"] == 0


def test_settings_are_those_of_the_job_and_none_for_pictures_of_others(section):
    settings = {p["name"]: p["settings"] for p in section.data["points"]}
    assert settings == {
        "identity": None,
        "random heads": {},
        "one head": {"anonymizer": "solid"},
        "gone": None,
        "missing": None,
    }


def test_a_baseline_replaces_each_face_on_its_own(privacy, faces, evaluation):
    baselines = evaluation.model_copy(update={"baselines": ("blur",)})
    named = dataclasses.replace(faces, treated={"blur": faces.clear}, seams={"blur": faces.seams["identity"]})
    made = tradeoff.tradeoff([privacy], named, baselines, {})
    assert point(made, "blur")["settings"] == {
        "assignment": {"mode": "per-face"},
        "anonymizer": "blur",
        "classic": {"blur_sigma": 0.1},
    }


def test_the_chosen_and_the_efficient_are_marked(section):
    assert [p["name"] for p in section.data["points"] if p["chosen"]] == ["random heads"]
    assert point(section, "random heads")["efficient"] == ["clear"]  # as useful as the others, and stronger
    assert point(section, "one head")["efficient"] == ["parrot"]
    assert point(section, "identity")["efficient"] == []
    assert point(section, "gone")["efficient"] == []  # not attacked: no place in the plot


def test_plots_show_what_was_measured_and_say_so_in_words(section):
    assert [plot.id for plot in section.plots] == ["tradeoff_clear", "tradeoff_parrot"]
    for plot in section.plots:
        assert Image.open(io.BytesIO(plot.png)).format == "PNG"
        assert "random heads: " in plot.alt
        assert "gone" not in plot.alt


def test_limits_of_the_evaluation_are_held_against_the_figures(section):
    row = section.tables[0].rows["random heads"]
    assert row["rank1"].met is False
    assert row["auc_alike"].met is True
    assert row["seam"].met is None
    assert section.tables[0].rows["gone"]["rank1"].met is None


def test_without_a_valid_attack_there_is_no_plot_and_no_point_is_efficient(faces, evaluation):
    made = tradeoff.tradeoff([], faces, evaluation, {})
    assert made.plots == []
    assert all(p["efficient"] == [] and p["privacy"]["rank1"]["value"] is None for p in made.data["points"])


def test_the_section_is_json_and_the_same_each_time(section, privacy, faces, evaluation):
    again = tradeoff.tradeoff([privacy], faces, evaluation, {})
    told = json.dumps(sections.as_dict(section), allow_nan=False)
    assert told == json.dumps(sections.as_dict(again), allow_nan=False)
    assert [p.png for p in section.plots] == [p.png for p in again.plots]
