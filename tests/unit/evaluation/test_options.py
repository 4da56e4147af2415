"""Settings over the defaults, from wherever they are told."""

import pytest

from deid.config import parse
from deid.errors import ConfigError
from deid.evaluation import options, trials
from deid.evaluation.settings import BASELINES, Evaluation
from deid.gallery import store as gallery_store
from deid.privacy.manifest import public_config

CHANGES = [
    {},
    {"assignment": {"k": 9, "looks": "own"}},
    {"anonymizer": "pixelate", "classic": {"pixelate_blocks": 12}},
    {"detector": {"name": "strict"}, "gate": {"enabled": False}},
    {
        "metadata": {
            "sidecar_fields": {
                "label": {"type": "int", "round": None, "values": None, "free": False, "depth": None}
            }
        }
    },
]


@pytest.mark.parametrize("changes", CHANGES)
def test_a_manifest_tells_what_differed(changes):
    machine = {"seed": 3, "models": {"accept": ["clean"]}, "stages": {"io_cpus": 0.2}}
    config = parse(options.PLACES | changes | machine)
    assert options.of_run(public_config(config)) == changes


@pytest.mark.parametrize(
    "given",
    [
        None,
        "text",
        3,
        [],
        {},
        {"name": "theirs"},
        {"anonymizer": "theirs"},
        {"assignment": {"k": "many"}},
        {"match": 3},
    ],
)
def test_nothing_told_is_nothing_known(given):
    assert options.of_run(given) is None


def test_a_run_with_a_gallery_of_its_own_is_not_taken_for_one_with_the_packaged_one():
    config = public_config(parse(options.PLACES))
    for used, expected in ((gallery_store.digest(None), {}), ("0" * 64, None), (None, {})):
        said = trials.about({"config": config, "models": {"gallery": used}})
        assert options.of_run(said["settings"]) == expected


def test_settings_that_name_files_of_this_machine_are_not_told():
    trial = {"name": "mine", "settings": {"gallery": "private/gallery.parquet"}}
    given = Evaluation.model_validate(
        {"source": {"uri": "a"}, "output": "b", "trials": [trial], "baselines": []}
    )
    assert options.of("mine", given, {}) is None


def test_options_that_a_manifest_hides_are_not_guessed():
    config = parse(options.PLACES | {"detector": {"name": "centerface", "options": {"enlarge": 2}}})
    assert options.of_run(public_config(config)) is None


def test_differing_takes_only_settings_of_the_treatment():
    given = {"seed": 1, "state_key": "k", "assignment": {"k": 5, "looks": "own"}, "detector": "strict"}
    assert options.differing(given) == {"detector": {"name": "strict"}, "assignment": {"looks": "own"}}
    with pytest.raises(ConfigError, match="asignment is no setting"):
        options.differing({"asignment": {}})


@pytest.mark.parametrize("given", [*CHANGES, *BASELINES.values()])
def test_differing_settings_make_the_same_configuration(given):
    assert options.configured(options.differing(given)) == parse(options.PLACES | given)


@pytest.mark.parametrize(
    ("settings", "people"),
    [
        ({}, 5),
        ({"assignment": {"k": 7}}, 7),
        ({"assignment": {"mode": "keyed-random"}}, 1),
        ({"anonymizer": "blur"}, 1),
        ({"anonymizer": "ksame-pixel"}, 5),
    ],
)
def test_people_promised(settings, people):
    assert options.people(settings) == people
