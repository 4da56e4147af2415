"""The benchmark but its pictures: its settings, and that `deid recommend` reads what it writes."""

import dataclasses
import json

import pytest

from benchmarks import surrogates_jobs, tradeoff
from deid.evaluation import options, recommend
from deid.evaluation.settings import Evaluation
from tests.unit.evaluation import faking


@pytest.mark.parametrize("name", tradeoff.GRID)
def test_settings_of_the_grid_are_settings_of_the_job(name):
    options.configured(tradeoff.GRID[name])


def test_settings_of_the_grid_are_different_and_kept_apart():
    slugs = {surrogates_jobs.slug(name) for name in tradeoff.GRID}
    assert len(slugs) == len(tradeoff.GRID)
    different = {json.dumps(options.differing(given), sort_keys=True) for given in tradeoff.GRID.values()}
    assert len(different) == len(tradeoff.GRID)


@pytest.fixture
def kept(tmp_path):
    """The folder of a setting with what the job said."""
    folders = {name: tmp_path / name for name in ("default",)}
    for folder in folders.values():
        folder.mkdir()
        said = {"faces": 48, "replaced": 48, "seconds_a_face": 1.0, "changes": {}}
        (folder / surrogates_jobs.NOTES).write_text(json.dumps(said))
    return folders


def test_what_is_measured_can_be_recommended(tmp_path, kept):
    made = faking.faces()
    treated = {"default": made.treated["random heads"], "solid": made.treated["gone"]}
    seams = dict.fromkeys(treated, made.seams["gone"])
    faces = dataclasses.replace(made, treated=treated, seams=seams)
    results = [{"name": "default", "uri": "default"}]
    asked = Evaluation(
        source={"uri": "raw"}, output="out", results=results, baselines=("solid",), resamples=100
    )
    section = tradeoff.measured(faces, asked, {})
    written = tradeoff.evidence(section, kept, {"k 20": "too few people"})
    path = tmp_path / "tradeoff.json"
    path.write_text(json.dumps(written, allow_nan=False))
    assert written["runs"]["default"] == {"faces": 48, "replaced": 48}
    text = recommend.recommend([path], {"rank1": 0.5, "auc_alike": 1.0})
    assert text.startswith("# default: ")
    assert "DeBruine" in text
    assert "| solid | " in tradeoff.markdown(section)
