"""Which configuration is recommended, of made-up evaluations in which it is known."""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deid.config import parse
from deid.errors import ConfigError, InputError, PromiseError
from deid.evaluation import options, recommend

DEID = str(Path(sys.executable).with_name("deid"))
ROOT = Path(__file__).parents[3]
ASKED = {"rank1": 0.1, "auc_alike": 0.6}


def point(name, settings, privacy, utility):
    def figures(values):
        return {n: {"value": v, "low": v - 0.05, "high": v + 0.05} for n, v in values.items()}

    return {"name": name, "settings": settings, "chosen": False, "efficient": []} | {
        "privacy": figures(dict(zip(("rank1", "auc_alike", "parrot"), privacy, strict=True))),
        "utility": figures(dict(zip(("kept", "expression", "seam"), utility, strict=True))),
    }


POINTS = [
    point("five", {"assignment": {"k": 5}}, (0.02, 0.52, 0.4), (0.80, 0.9, 0.9)),
    point("ten", {"assignment": {"k": 10}, "match": {"margin": 0.9}}, (0.03, 0.55, 0.2), (0.70, 0.8, 1.0)),
    point("near", {"match": {"margin": 0.6}, "seed": 3}, (0.3, 0.8, 0.5), (0.95, 0.95, 0.9)),
    point("alone", {"assignment": {"mode": "keyed-random"}}, (0.0, 0.56, 1.0), (0.85, 0.9, 0.9)),
    point("grey", {"anonymizer": "solid"}, (0.0, 0.5, 0.02), (0.0, 0.0, 3.0)),
    point("theirs", None, (0.0, 0.5, 0.0), (1.0, 1.0, 1.0)),
]


def evaluation(points=POINTS, title="made-up people"):
    on = {"title": title, "people": 24, "faces": 48}
    return {"sections": {"tradeoff": {"id": "tradeoff", "data": {"measured_on": on, "points": points}}}}


def write(folder, document, name="evaluation.json"):
    (folder / name).write_text(json.dumps(document))
    return folder / name


def chosen(text):
    """Settings over the defaults of a printed configuration, and the configuration."""
    raw = yaml.safe_load(text)
    parse(raw)
    return {name: value for name, value in raw.items() if name not in options.PLACES}


@pytest.mark.parametrize(
    ("asked", "by", "expected"),
    [
        (ASKED, "value", {"assignment": {"mode": "keyed-random"}}),
        (ASKED | {"k": 5}, "value", {}),
        (ASKED | {"parrot": 0.5}, "value", {}),
        (ASKED | {"parrot": 0.3}, "value", {"assignment": {"k": 10}, "match": {"margin": 0.9}}),
        (ASKED | {"k": 6}, "value", {"assignment": {"k": 10}, "match": {"margin": 0.9}}),
        (ASKED, "bound", {}),  # the pseudonym's interval reaches .61
        ({"rank1": 1.0, "auc_alike": 1.0}, "value", {"match": {"margin": 0.6}}),
        (ASKED | {"parrot": 0.1}, "value", {"anonymizer": "solid"}),
    ],
)
def test_the_most_useful_of_those_that_keep_the_limits(tmp_path, asked, by, expected):
    text = recommend.recommend([write(tmp_path, evaluation())], asked, by)
    assert chosen(text) == expected
    assert parse(yaml.safe_load(text)) == parse(options.PLACES | expected)


def test_figures_and_people_are_comments(tmp_path):
    text = recommend.recommend([write(tmp_path, evaluation())], ASKED | {"parrot": 0.3})
    assert "# Measured on 24 people, 48 faces (made-up people)" in text
    assert "0.200 (0.150 to 0.250); asked <= 0.3" in text
    assert "people promised behind a surrogate: 10" in text
    assert "not measured" in text  # rank-1 in reverse


@pytest.mark.parametrize(
    ("asked", "by", "parts"),
    [
        (ASKED | {"expression": 0.92}, "value", ["'five'", "expression is 0.9, 0.02 off the 0.92 asked"]),
        (ASKED | {"expression": 0.87}, "bound", ["'five'", "expression is 0.85 (bound of its interval), 0.02 off"]),
        (ASKED | {"k": 20, "expression": 0.5}, "value", ["'ten'", "k is 10, 10 off the 20 asked"]),
        (ASKED | {"reverse": 0.1}, "value", ["reverse was not measured"]),
    ],
)  # fmt: skip
def test_what_the_nearest_one_misses(tmp_path, asked, by, parts):
    with pytest.raises(PromiseError) as error:
        recommend.recommend([write(tmp_path, evaluation())], asked, by)
    line = str(error.value)
    assert "\n" not in line
    for part in parts:
        assert part in line


def test_a_figure_that_was_not_measured_keeps_no_limit(tmp_path):
    points = copy.deepcopy(POINTS[:1])
    points[0]["privacy"]["auc_alike"] = {"value": None, "low": None, "high": None}
    path = write(tmp_path, evaluation(points))
    with pytest.raises(PromiseError, match="auc_alike was not measured"):
        recommend.recommend([path], ASKED)


def test_with_several_evaluations_the_worst_counts(tmp_path):
    others = copy.deepcopy(POINTS[:3])
    others[0]["privacy"]["rank1"]["value"] = 0.5
    files = [write(tmp_path, evaluation()), write(tmp_path, evaluation(others, "others"), "other.json")]
    text = recommend.recommend(files, ASKED)
    assert chosen(text) == {"assignment": {"k": 10}, "match": {"margin": 0.9}}
    assert "(made-up people)" in text
    assert "(others)" in text
    other = write(tmp_path, evaluation(POINTS[4:5], "third"), "third.json")
    alone = write(tmp_path, evaluation(POINTS[:1]), "fourth.json")
    with pytest.raises(ConfigError, match="in all of the evaluations"):
        recommend.recommend([other, alone], ASKED)


def test_words_of_the_file_stay_in_comments(tmp_path):
    points = [point("a\nanonymizer: solid\r\n\x1b[2J", {}, (0.0, 0.5, 0.1), (1.0, 1.0, 1.0))]
    document = evaluation(points, "people\nseed: 1") | {"attribution": "by\nsomebody"}
    text = recommend.recommend([write(tmp_path, document)], ASKED)
    assert chosen(text) == {}
    assert "\x1b" not in text
    assert "# by somebody" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, []),
        ({"anonymizer": "blur"}, ["baselines"]),
        ({"anonymizer": "solid"}, []),
        ({"assignment": {"mode": "keyed-random"}}, ["--k"]),
        ({"assignment": {"mode": "per-face"}, "gate": {"enabled": False}}, ["--k", "gate"]),
    ],
)
def test_cautions(settings, said):
    found = recommend.cautions(settings)
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        3,
        {"sections": []},
        {"sections": {"tradeoff": {"id": "tradeoff"}}},
        evaluation([{"name": "x"}]),
    ],
)
def test_what_is_no_evaluation_is_refused(tmp_path, document):
    with pytest.raises(InputError, match="holds no trade-off"):
        recommend.recommend([write(tmp_path, document)], ASKED)


def test_a_list_of_sections_will_do(tmp_path):
    document = {"sections": list(evaluation()["sections"].values())}
    assert chosen(recommend.recommend([write(tmp_path, document)], ASKED | {"k": 5})) == {}


def test_the_packaged_evaluation_is_attributed_and_gives_a_configuration():
    evidence = recommend.packaged()
    assert "DeBruine" in evidence["attribution"]
    assert "CC BY 4.0" in evidence["attribution"]
    text = recommend.recommend([], {"rank1": 1.0, "auc_alike": 1.0})
    assert "60 people, 120 faces" in text
    chosen(text)
    for candidate in recommend.candidates([evidence]):
        assert not math.isnan(candidate.figure("rank1")["value"])
        assert not math.isnan(candidate.figure("kept")["value"])


def deid(*arguments):
    return subprocess.run(
        [DEID, "recommend", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def test_exit_codes_of_the_command(tmp_path):
    path = write(tmp_path, evaluation())
    done = deid(path, "--k", "5")
    assert done.returncode == 0, done.stderr
    assert chosen(done.stdout) == {}
    (tmp_path / "bad.json").write_text("{")
    for code, arguments in {
        6: (path, "--expression", "0.99"),
        2: (path, "--rank1", "7"),
        4: (tmp_path / "bad.json",),
    }.items():
        done = deid(*arguments)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
    assert deid(tmp_path / "none.json").returncode == 4


def test_a_figure_that_lacks_an_attack_does_not_keep_a_limit(tmp_path):
    points = copy.deepcopy(POINTS)
    points[3]["privacy"]["rank1"]["lacking"] = "not by other, forward"
    assert chosen(recommend.recommend([write(tmp_path, evaluation(points))], ASKED)) == {}  # else: alone
    for each in points:
        each["privacy"]["rank1"]["lacking"] = "not by other, forward"
    with pytest.raises(PromiseError, match="rank1 was not measured"):
        recommend.recommend([write(tmp_path, evaluation(points))], ASKED)
