import io

import numpy as np
import pytest
from PIL import Image

from deid.errors import ConfigError, ModelError
from deid.evaluation import explain, heatmap, occlude
from deid.evaluation.contribution import BEFORE, OTHERS, PARTS, PERSON, SAME, STRANGERS
from deid.evaluation.sections import Section, as_dict
from deid.evaluation.settings import Evaluation


def evaluation(**settings: object) -> Evaluation:
    raw = {"source": {"uri": "in"}, "output": "out", "baselines": [], "resamples": 100} | settings
    return Evaluation.model_validate(raw)


def test_the_chosen_treatments_settings_are_taken_where_they_are_known() -> None:
    trial = {"name": "ours", "settings": {"match": {"k": 7}}}
    settings, said = explain.treatment(evaluation(trials=[trial]))
    assert settings == {"match": {"k": 7}}
    assert "“ours”" in said
    assert explain.treatment(evaluation(baselines=["blur"]))[0]["anonymizer"] == "blur"
    settings, said = explain.treatment(
        evaluation(results=[{"name": "another tool", "uri": "x"}], trials=[trial])
    )
    assert settings == {}
    assert "not known" in said


def test_one_example_has_no_strangers() -> None:
    with pytest.raises(ValueError, match="two examples"):
        explain.explain(evaluation(trials=[{"name": "ours"}]), np.random.default_rng(0), examples=1)


def test_a_recognizer_that_is_not_there_is_refused_at_once() -> None:
    asked = evaluation(trials=[{"name": "ours"}], recognizers=["missing.yaml"])
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        explain.explain(asked, np.random.default_rng(0))


def test_a_licence_that_is_not_accepted_is_refused() -> None:
    asked = evaluation(baselines=["blur"], models={"accept": ["clean", "permissive"]})
    with pytest.raises(ModelError, match="accept"):
        explain.explain(asked, np.random.default_rng(0))


@pytest.fixture(scope="module")
def section() -> Section:
    asked = evaluation(trials=[{"name": "ours", "settings": {"match": {"corrections": 0}}}])
    return explain.explain(asked, np.random.default_rng(0), examples=2)


@pytest.mark.slow
def test_the_face_tells_before_and_no_longer_after(section: Section) -> None:
    table = section.tables[0]
    assert tuple(table.rows) == PARTS
    value = {name: {key: c.value for key, c in row.items()} for name, row in table.rows.items()}
    middle = ("brows", "eyes", "nose", "cheeks")
    assert sum(value[name][BEFORE] for name in middle) > 0.6
    assert sum(value[name][PERSON] for name in middle) < 0.5 * sum(value[name][BEFORE] for name in middle)
    assert abs(value[occlude.CONTROL][BEFORE]) < 0.05
    assert set(value["nose"]) == {BEFORE, PERSON, SAME, STRANGERS, OTHERS}


@pytest.mark.slow
def test_results_are_far_from_their_person_and_near_each_other(section: Section) -> None:
    whole = next(table for table in section.tables if table.id == "explain.whole")
    for row in whole.rows.values():
        assert row[BEFORE].value == pytest.approx(1)
        assert row[PERSON].value < 0.6
        assert row[SAME].value > row[PERSON].value
    kept = next(table for table in section.tables if table.id == "explain.kept")
    assert kept.rows["mean"]["apart"].value > kept.rows["mean"]["apart_same"].value
    assert list(kept.rows) == ["example 1", "example 2", "mean"]


@pytest.mark.slow
def test_every_example_has_a_figure_that_says_what_it_shows(section: Section) -> None:
    assert [plot.id for plot in section.plots] == ["explain_1", "explain_2"]
    for plot in section.plots:
        width, height = (round(side * 110) for side in heatmap.SIZE)
        assert Image.open(io.BytesIO(plot.png)).size == (width, height)
        assert "Before" in plot.alt
        assert len(plot.png) < 600_000
    assert as_dict(section)["tables"]["explain.kept"]["rows"]
