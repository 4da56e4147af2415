import csv
import json

import numpy as np
import pytest

from deid.errors import InputError
from deid.evaluation import sections
from deid.evaluation.study import make, tasks
from deid.evaluation.study import questions as q
from deid.evaluation.study.score import score
from tests.unit.evaluation import study_people

PEOPLE = 12


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    heads, rng = study_people.heads(40), np.random.default_rng(0)
    path = tmp_path_factory.mktemp("key") / make.KEY
    path.write_text(json.dumps(make.assemble(heads, tasks.draw(heads, 60, False, rng), rng)[1]))
    return path


def sure(task, rng):
    return task["truth"] or "smiling"


def guess(task, rng):
    return task["truth"] if task["check"] else str(rng.choice(q.QUESTIONS[task["kind"]].options))


def fooled(task, rng):
    """Sees no difference between source and result, and knows nobody again who is hidden."""
    if task["kind"] == "real":
        return "real"
    return "different" if task["condition"] == q.HIDDEN else sure(task, rng)


def asleep(task, rng):
    return q.QUESTIONS[task["kind"]].options[0]


def write(path, key, answer, who="a", seed=0, change=None):
    held, rng = json.loads(key.read_text()), np.random.default_rng(seed)
    rows = [
        dict(
            zip(
                q.COLUMNS,
                (who, name, task["kind"], n, "", answer(task, rng), 1500, "en", held["page"]),
                strict=True,
            )
        )
        for n, (name, task) in enumerate(held["tasks"].items(), 1)
    ]
    if change:
        change(rows)
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, q.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def scored(tmp_path, key, answer, people=PEOPLE):
    files = [write(tmp_path / f"{n}.csv", key, answer, f"p{n}", n) for n in range(people)]
    return score(key, files, np.random.default_rng(0), 300)


def values(section, table, column):
    found = next(t for t in section.tables if t.id == f"study.{table}")
    return {name: row[column] for name, row in found.rows.items() if column in row}


def test_who_knows_all_is_right_in_all(tmp_path, key):
    section = scored(tmp_path, key, sure)
    assert {name: cell.value for name, cell in values(section, "real", "right").items()} == {
        "source pictures": 1, "de-identified pictures": 1, "all": 1
    }  # fmt: skip
    same = values(section, "same", "same")
    assert [same[title].value for title in q.CONDITIONS.values()] == [1, 0, 1, 0]
    assert all(cell.value > 3 for cell in values(section, "same", "d_prime").values())
    assert {
        cell.value for cell in values(section, "agreement", "nominal").values() if cell.value == cell.value
    } == {1}
    assert values(section, "attributes", "same")["apparent sex?"].value == 1
    assert section.tables[1].valid
    everyone = values(section, "real", "right")["all"]
    assert (everyone.measured, everyone.of) == (18 * PEOPLE, 18 * PEOPLE)
    assert 0.7 < everyone.low < 1


def test_who_guesses_is_at_chance_and_the_control_says_so(tmp_path, key):
    section = scored(tmp_path, key, guess)
    right, d_prime = (values(section, "real", column)["all"] for column in ("right", "d_prime"))
    assert right.low < 0.5 < right.high
    assert d_prime.low < 0 < d_prime.high
    for cell in values(section, "agreement", "nominal").values():
        assert abs(cell.value) < 0.15
    table = next(t for t in section.tables if t.id == "study.same")
    assert not table.valid


def test_good_work_is_taken_for_real_and_not_known_again(tmp_path, key):
    section = scored(tmp_path, key, fooled)
    assert values(section, "real", "generated")["de-identified pictures"].value == 0
    assert values(section, "real", "d_prime")["all"].value == pytest.approx(0)
    same = values(section, "same", "d_prime")
    assert same[q.CONDITIONS[q.CONTROL]].value > 3
    assert same[q.CONDITIONS[q.HIDDEN]].value == pytest.approx(0)
    assert next(t for t in section.tables if t.id == "study.same").valid


def test_age_bands_next_to_the_truth_are_near(tmp_path, key):
    def older(task, rng):
        if task["kind"] != "age":
            return sure(task, rng)
        bands = q.ASKED["age"].options
        return bands[min(bands.index(task["truth"]) + 1, len(bands) - 1)]

    section = scored(tmp_path, key, older)
    assert values(section, "attributes", "near")["apparent age band?"].value == 1
    assert values(section, "attributes", "same")["apparent age band?"].value < 1


def test_labels_that_are_missing_are_said_to_be(tmp_path, key):
    section = scored(tmp_path, key, sure)
    assert values(section, "attributes", "same")["which expression?"].text == "no labels"


def test_inattentive_participants_are_dropped_and_counted(tmp_path, key):
    files = [write(tmp_path / f"{n}.csv", key, sure, f"p{n}") for n in range(3)]
    files.append(write(tmp_path / "z.csv", key, asleep, "z"))
    section = score(key, files, np.random.default_rng(0), 100)
    assert (section.data["participants"], section.data["dropped"]) == (3, 1)
    assert section.intro[0].startswith("3 participants answered")
    assert "1 of 4 were left out" in section.intro[0]
    assert values(section, "real", "right")["all"].value == 1
    with pytest.raises(InputError, match="no participant of 1 passed"):
        score(key, files[3:], np.random.default_rng(0))


@pytest.mark.parametrize(
    ("wrong", "missing", "kept"), [(0, 0, 1), (1, 0, 1), (2, 0, 0), (1, 1, 0), (0, 1, 1)]
)
def test_one_slip_in_six_checks_is_forgiven(tmp_path, key, wrong, missing, kept):
    checks = [name for name, task in json.loads(key.read_text())["tasks"].items() if task["check"]]

    def change(rows):
        for row in rows:
            if row["task"] in checks[:wrong]:
                options = q.QUESTIONS[row["kind"]].options
                row["answer"] = options[(options.index(row["answer"]) + 1) % len(options)]
        rows[:] = [row for row in rows if row["task"] not in checks[wrong : wrong + missing]]

    files = [
        write(tmp_path / "a.csv", key, sure, "a"),
        write(tmp_path / "b.csv", key, sure, "b", change=change),
    ]
    assert score(key, files, np.random.default_rng(0), 100).data["participants"] == 1 + kept


def test_a_single_participant_has_wilsons_interval(tmp_path, key):
    section = scored(tmp_path, key, sure, people=1)
    assert 0.8 < values(section, "real", "right")["all"].low < 0.9  # 18 of 18
    assert np.isnan(values(section, "agreement", "nominal")["real or generated?"].value)


def put(column, value):
    return lambda rows: rows[3].update({column: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("page", "1-ffff"), "line 5: answers of page '1-ffff', but the key is of page '1-"),
        (put("task", "t00"), "line 5: task 't00' is unknown to the key"),
        (put("answer", "=1+1"), "line 5: '=1\\+1' is no answer to a question of kind"),
        (put("kind", "press"), "is no answer to a question of kind 'press'|is no answer"),
        (put("milliseconds", "soon"), "line 5: milliseconds are not a number"),
        (lambda rows: rows.append(dict(rows[0])), "is answered twice by participant b"),
        (lambda rows: [row.update(participant="a") for row in rows], "participant a is in .*a.csv already"),
    ],
)
def test_bad_answers_are_one_line(tmp_path, key, change, said):
    files = [write(tmp_path / "a.csv", key, sure), write(tmp_path / "b.csv", key, sure, "b", change=change)]
    with pytest.raises(InputError, match=said) as caught:
        score(key, files, np.random.default_rng(0), 100)
    assert "b.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_something_else(tmp_path, key):
    other = tmp_path / "other.csv"
    other.write_text("a;b\n1;2\n")
    with pytest.raises(InputError, match=f"lacks the columns {', '.join(q.COLUMNS)}$"):
        score(key, [other], np.random.default_rng(0))
    other.write_text(",".join(name for name in q.COLUMNS if name != "page") + "\n")
    with pytest.raises(InputError, match=r"lacks the column page$"):
        score(key, [other], np.random.default_rng(0))
    other.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no CSV in UTF-8"):
        score(key, [other], np.random.default_rng(0))
    with pytest.raises(InputError, match="is no study key"):
        score(other.with_name("other.csv"), [other], np.random.default_rng(0))
    other.write_text("{}")
    with pytest.raises(InputError, match="is no study key"):
        score(other, [other], np.random.default_rng(0))
    other.write_text(",".join(q.COLUMNS) + "\n")
    with pytest.raises(InputError, match="no answers in the files"):
        score(key, [other], np.random.default_rng(0))


def test_section_goes_to_json(tmp_path, key):
    found = json.loads(json.dumps(sections.as_dict(scored(tmp_path, key, guess, people=2)), allow_nan=False))
    assert found["id"] == "study"
    assert set(found["tables"]) == {f"study.{name}" for name in ("real", "same", "attributes", "agreement")}
    assert "trial" in found["intro"][-1]
