import csv
import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from deid.errors import ConfigError, InputError
from deid.evaluation.study import make
from deid.evaluation.study import questions as q
from deid.evaluation.study.cli import app
from tests.unit.evaluation import study_people


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli")
    study_people.corpus(place)
    return place


def call(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(
        app, [str(argument) for argument in arguments], catch_exceptions=False
    )


def made(folder, out, *more):
    sides = ("--source", folder / "clear-photos", "--result", folder / "hidden-photos")
    return call("make", *sides, "--out", out, "--tasks", 10, *more)


def test_made_and_scored(folder, tmp_path):
    done = made(folder, tmp_path / "out", "--labels", folder / "labels.csv", "--language", "ja")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'out' / make.PAGE}: page 1-")
    assert "6 check" in lines[0]
    assert lines.pop(1).startswith("different people: ")  # seven people of many ages: nobody fits
    assert lines[1] == f"{tmp_path / 'out' / make.KEY}: the answers; keep it, and hand out study.html alone"
    assert "WARNING  the page shows" in lines[2]
    assert len(lines) == 3
    assert '<html lang="ja">' in (tmp_path / "out" / make.PAGE).read_text(encoding="utf-8")
    files = [answers(tmp_path, tmp_path / "out" / make.KEY, who) for who in "ab"]
    done = call("score", tmp_path / "out" / make.KEY, *files, "--json", tmp_path / "score.json")
    assert done.exit_code == 0
    for text in (
        "2 participants answered",
        "Real or generated?",
        "same person, one de-identified",
        "alpha, nominal",
    ):
        assert text in done.stdout
    found = json.loads((tmp_path / "score.json").read_text())
    assert found["tables"]["study.real"]["rows"]["all"]["right"]["value"] == 1


def answers(folder, key, who):
    held = json.loads(key.read_text())
    with open(folder / f"{who}.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(q.COLUMNS)
        for name, task in held["tasks"].items():
            writer.writerow(
                [who, name, task["kind"], 1, "", task["truth"] or "other", 900, "ja", held["page"]]
            )
    return folder / f"{who}.csv"


def test_without_labels_and_without_sources(folder, tmp_path):
    done = made(folder, tmp_path / "one")
    assert 'no "same person?" tasks' in done.stdout
    for kind in ("expression", "sex", "age"):
        assert re.search(
            rf"^{kind}: (\d+) of \1 tasks are of people whose label has no {kind}:", done.stdout, re.M
        )
    done = made(folder, tmp_path / "two", "--synthetic-only")
    assert "WARNING" not in done.stdout
    assert "real" not in done.stdout.partition("people:")[2].splitlines()[0]


def test_what_labels_lack_is_said(folder, tmp_path):
    rows = (folder / "labels.csv").read_text().splitlines()
    few = "".join(",".join(row.split(",")[:2]) + "\n" for row in rows)
    (tmp_path / "few.csv").write_text(few)
    done = made(folder, tmp_path / "out", "--labels", tmp_path / "few.csv", "--tasks", 60)
    said = re.search(
        r"^different people: (\d+) of (\d+) pairs are not matched .*\((\d+) since labels", done.stdout, re.M
    )
    assert said[1] == said[2] == said[3] != "0"
    assert re.search(r"^age: .* will only have agreement \(alpha\), no right answers$", done.stdout, re.M)
    assert re.search(r"^\d+ tasks instead of 60: there are too few people", done.stdout, re.M)


def test_an_evaluations_file_names_the_sides(folder, tmp_path):
    config = tmp_path / "evaluation.yaml"
    results = [
        {"name": "first", "uri": str(tmp_path / "none")},
        {"name": "ours", "uri": str(folder / "hidden-photos")},
    ]
    source = {"uri": str(folder / "clear-photos"), "labels": str(folder / "labels.csv")}
    config.write_text(yaml.safe_dump({"source": source, "results": results, "output": "x"}))
    done = call(
        "make", "--evaluation", config, "--treatment", "ours", "--out", tmp_path / "out", "--tasks", 10
    )
    assert done.exit_code == 0
    with pytest.raises(ConfigError, match="no result theirs"):
        call("make", "--evaluation", config, "--treatment", "theirs", "--out", tmp_path / "x")
    with pytest.raises(ConfigError, match="leave the other options out"):
        call("make", "--evaluation", config, "--source", "x", "--out", tmp_path / "x")


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        (("--language", "fr"), ConfigError, "^language 'fr': it is one of en, ja$"),
        (("--tasks", 2), ConfigError, "^tasks 2: it takes 5 or more, one of each question$"),
        (("--labels", "nowhere.csv"), InputError, "source.labels: .*nowhere.csv cannot be read"),
        (("--pairing", "nowhere.csv"), InputError, "results: result: pairing .*nowhere.csv cannot be read"),
        (("--source", "nowhere"), InputError, "source: no pictures below .*nowhere"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, more, error, said):
    with pytest.raises(error, match=said):
        made(folder, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="give --source and --result, or --evaluation"):
        call("make", "--out", tmp_path / "out")
