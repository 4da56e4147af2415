import dataclasses
import math
from typing import Any

import pytest

from deid.evaluation.sections import NAN, Cell, Section, Table
from deid.evaluation.verdict import Figure, Verdict, parrot_limit, verdict
from tests.unit.evaluation import reporting


@pytest.fixture
def sections() -> list[Section]:
    """Every figure of the chosen treatment is met, with room."""
    made = reporting.sections(drawn=False)
    for table in tables(made):
        row = table.rows.get(reporting.CHOSEN, {})
        for id, value in {
            "rank1": 0.02,
            "auc": 0.52,
            "found_again": 1.0,
            "smile_mesh": 0.99,
            "smile_network": 0.98,
        }.items():
            if id in row:
                row[id] = Cell(value, value, value, None, 60, 60)
        if table.about.get("impostors") == "all":
            table.problems = []
    return made


def tables(sections: list[Section]) -> list[Table]:
    return [table for section in sections for table in section.tables]


def attack(sections: list[Section], setting: str, impostors: str, recognizer: str) -> Table:
    about = {"setting": setting, "impostors": impostors, "recognizer": recognizer}
    return next(table for table in tables(sections) if table.about == about)


def utility(sections: list[Section]) -> Table:
    return next(table for table in tables(sections) if table.id == "utility.shares")


def figure(found: Verdict, id: str) -> Figure:
    return next(figure for figure in found.figures if figure.id == id)


def judged(sections: list[Section], **settings: Any) -> Verdict:
    return verdict(sections, reporting.evaluation(**settings), people=60)


def test_all_five_are_met(sections: list[Section]) -> None:
    found = judged(sections)
    assert [(f.id, f.state) for f in found.figures] == [
        ("rank1", "met"), ("auc_alike", "met"), ("parrot", "met"), ("found_again", "met"), ("expression", "met"),
    ]  # fmt: skip
    assert found.holds
    assert found.state == "met"


@pytest.mark.parametrize("recognizer", reporting.RECOGNIZERS)
@pytest.mark.parametrize(
    ("id", "setting", "impostors", "column", "bad"),
    [
        ("rank1", "forward", "all", "rank1", 0.2),
        ("auc_alike", "forward", "alike", "auc", 0.7),
        ("parrot", "parrot", "all", "rank1", 0.4),
        ("parrot", "parrot, retrained", "all", "rank1", 0.4),
    ],
)
def test_the_worst_recognizer_decides(
    sections: list[Section], recognizer: str, id: str, setting: str, impostors: str, column: str, bad: float
) -> None:
    attack(sections, setting, impostors, recognizer).rows[reporting.CHOSEN][column] = Cell(bad, 0.1, 0.9)
    found = judged(sections)
    assert figure(found, id).state == "missed"
    assert figure(found, id).cell.value == bad
    assert recognizer in figure(found, id).by
    assert [f.id for f in found.figures if f.state != "met"] == [id]
    assert not found.holds


def test_another_treatment_does_not_count(sections: list[Section]) -> None:
    attack(sections, "forward", "all", "MobileFaceNet").rows["blur"]["rank1"] = Cell(1.0)
    assert judged(sections).holds


@pytest.mark.parametrize(
    ("id", "setting", "impostors"),
    [
        ("rank1", "forward", "all"),
        ("auc_alike", "forward", "alike"),
        ("parrot", "parrot", "all"),
        ("parrot", "parrot, retrained", "all"),
    ],
)
def test_an_invalid_table_is_never_green(
    sections: list[Section], id: str, setting: str, impostors: str
) -> None:
    attack(sections, setting, impostors, "MobileFaceNet").problems.append("the attack is too weak")
    found = judged(sections)
    assert figure(found, id).state == "not measured"
    assert any("too weak" in remark for remark in figure(found, id).remarks)
    assert not found.holds
    assert found.state == "not measured"
    assert any("too weak" in problem for problem in found.problems)


def test_one_that_is_missed_stays_missed_beside_an_invalid_one(sections: list[Section]) -> None:
    attack(sections, "forward", "all", "MobileFaceNet").problems.append("the attack is too weak")
    attack(sections, "forward", "all", "dlib ResNet").rows[reporting.CHOSEN]["rank1"] = Cell(0.5)
    assert figure(judged(sections), "rank1").state == "missed"


@pytest.mark.parametrize("lack", ["table", "row", "cell", "value"])
def test_what_is_missing_is_never_green(sections: list[Section], lack: str) -> None:
    table = attack(sections, "forward", "alike", "dlib ResNet")
    if lack == "table":
        privacy = next(section for section in sections if section.id == "privacy")
        privacy.tables = [each for each in privacy.tables if each is not table]
    elif lack == "row":
        del table.rows[reporting.CHOSEN]
    elif lack == "cell":
        del table.rows[reporting.CHOSEN]["auc"]
    else:
        table.rows[reporting.CHOSEN]["auc"] = Cell(NAN, text="no face to compare")
    found = judged(sections)
    assert figure(found, "auc_alike").state == "not measured"
    assert "dlib ResNet" in figure(found, "auc_alike").remarks[0]
    assert figure(found, "rank1").state == "met"


def test_nothing_measured_is_red_everywhere() -> None:
    found = judged([])
    assert {f.state for f in found.figures} == {"not measured"}
    assert not found.holds


def test_two_tables_of_one_attack_are_not_measured(sections: list[Section]) -> None:
    next(s for s in sections if s.id == "privacy").tables.append(
        dataclasses.replace(attack(sections, "forward", "all", "MobileFaceNet"))
    )
    assert figure(judged(sections), "rank1").state == "not measured"


def test_an_auc_as_far_below_one_half_is_missed_too(sections: list[Section]) -> None:
    attack(sections, "forward", "alike", "dlib ResNet").rows[reporting.CHOSEN]["auc"] = Cell(0.3)
    assert figure(judged(sections), "auc_alike").state == "missed"


@pytest.mark.parametrize("column", ["smile_mesh", "smile_network"])
def test_the_worse_estimator_of_expression_decides(sections: list[Section], column: str) -> None:
    utility(sections).rows[reporting.CHOSEN][column] = Cell(0.9)
    assert figure(judged(sections), "expression").state == "missed"
    del utility(sections).rows[reporting.CHOSEN][column]
    assert figure(judged(sections), "expression").state == "not measured"


def test_faces_found_again(sections: list[Section]) -> None:
    utility(sections).rows[reporting.CHOSEN]["found_again"] = Cell(0.98)
    assert figure(judged(sections), "found_again").state == "missed"
    assert figure(judged(sections, thresholds={"found_again": 0.97}), "found_again").state == "met"


def test_the_thresholds_of_the_configuration_decide(sections: list[Section]) -> None:
    asked = {"rank1": 0.01, "auc_alike": 0.51, "parrot": 0.01, "expression": 0.99}
    states = {f.id: f.state for f in judged(sections, thresholds=asked).figures}
    assert [id for id, state in states.items() if state == "missed"] == [
        "rank1",
        "auc_alike",
        "parrot",
        "expression",
    ]


def test_the_parrot_is_not_asked_without_k_or_threshold(sections: list[Section]) -> None:
    found = judged(sections, k=None)
    assert figure(found, "parrot").state == "not asked"
    assert figure(found, "parrot").cell.value == 0.02
    assert found.holds
    assert len(found.asked) == 4


def test_the_parrot_is_held_against_one_in_k_of_these_people(sections: list[Section]) -> None:
    for table in tables(sections):
        table.columns = [dataclasses.replace(column, limit=None) for column in table.columns]
        if table.about.get("setting") == "parrot" and table.about["impostors"] == "all":
            table.rows[reporting.CHOSEN]["rank1"] = Cell(0.3)
    assert figure(verdict(sections, reporting.evaluation(), 60), "parrot").state == "met"
    assert figure(verdict(sections, reporting.evaluation(), 600), "parrot").state == "missed"
    assert figure(verdict(sections, reporting.evaluation(), None), "parrot").state == "missed"


def test_one_in_k_and_its_interval() -> None:
    assert parrot_limit(5, 60) == pytest.approx(0.3012, abs=1e-4)  # 0.2 + 1.96 sqrt(0.2 * 0.8 / 60)
    assert parrot_limit(5, None) == 0.2


def test_an_interval_past_the_limit_is_said(sections: list[Section]) -> None:
    attack(sections, "forward", "all", "MobileFaceNet").rows[reporting.CHOSEN]["rank1"] = Cell(
        0.09, 0.02, 0.2, None, 50, 60
    )
    found = figure(judged(sections), "rank1")
    assert found.state == "met"
    assert found.remarks == ("the interval reaches past what is asked", "measured on 50 of 60")


def test_as_json(sections: list[Section]) -> None:
    utility(sections).rows[reporting.CHOSEN].clear()
    said = judged(sections).as_dict()
    assert said["holds"] is False
    assert said["figures"]["rank1"] | {"by": "", "risk": ""} == {
        "title": "People found from clear photographs (rank-1)", "state": "met", "asked": "at most 0.10",
        "value": 0.02, "low": 0.02, "high": 0.02, "by": "", "risk": "", "remarks": [],
    }  # fmt: skip
    assert said["figures"]["found_again"]["value"] is None
    assert said["largest_gap"]["kind"] == "skin-tone band"
    assert not any(isinstance(v, float) and math.isnan(v) for v in said["figures"]["found_again"].values())


def test_what_a_cell_says_of_itself_stands_on_the_first_page(sections: list[Section]) -> None:
    row = attack(sections, "forward", "all", reporting.RECOGNIZERS[0]).rows[reporting.CHOSEN]
    row["rank1"] = dataclasses.replace(row["rank1"], value=0.05, text="9 of 60 probes have no picture")
    assert "9 of 60 probes have no picture" in figure(judged(sections), "rank1").remarks
