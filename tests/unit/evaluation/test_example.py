"""The annotated example of an evaluation is one, and names every setting that there is."""

from pathlib import Path

import yaml

from deid.config import parse
from deid.demo.run import CONFIG
from deid.evaluation import settings

CONFIGS = Path(__file__).parents[3] / "configs"
EXAMPLE = CONFIGS / "evaluate.yaml"
LEFT_OUT = {"cluster", "actors"}  # as in a run's configuration; one actor a CPU


def test_the_example_is_valid_and_complete():
    made = settings.load(EXAMPLE)
    assert made.favourite == "our release"
    assert set(yaml.safe_load(EXAMPLE.read_text())) == set(settings.Evaluation.model_fields) - LEFT_OUT
    assert made.thresholds == settings.Thresholds()


def test_its_trials_are_settings_of_the_job():
    places = {"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state"}
    for trial in settings.load(EXAMPLE).trials:
        parse(places | trial.settings)


def test_the_demo_is_evaluated_where_it_lies():
    made = settings.load(CONFIGS / "evaluate_demo.yaml")
    assert made.k == parse(CONFIG).assignment.k
    assert [result.uri for result in made.results] == [".demo/out"]
    assert made.treatments == [made.favourite, *settings.BASELINES]
