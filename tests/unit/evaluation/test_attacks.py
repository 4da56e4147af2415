"""The harness itself: what is known of made-up faces, it must find, and it must say when it cannot know."""

import dataclasses
import json

import numpy as np
import pytest

from deid.evaluation import adversary, attack_tables, heads, sections
from deid.evaluation.adversary import Attack
from deid.evaluation.attacks import attacked, privacy
from deid.evaluation.faces import Faces
from deid.evaluation.reid import Templates
from tests.unit.evaluation import faking


def tables_of(faces, impostors="all", fit=heads.fit, seed=0, **settings):
    """By setting, of the first recognizer."""
    rng = np.random.default_rng(seed)
    asked = faking.evaluation(faces.treated, **settings)
    fold = heads.folds(faces.persons, rng)
    made = attacked(Attack(faces, asked, faces.attackers[0], impostors, fold, rng, fit))
    return {setting: table for setting, (table, _) in made.items()}


def changed(faces, subjects):
    return Faces(
        subjects, faces.clear, faces.grey, faces.treated, faces.seams, faces.attackers, faces.smile_threshold
    )


@pytest.fixture(scope="module")
def faces():
    return faking.faces(people=40)


@pytest.fixture(scope="module")
def section(faces):
    notes = {"one head": {"people": {"min": 40, "median": 40}}}
    return privacy(faces, faking.evaluation(faces.treated, k=5), notes, np.random.default_rng(1))


@pytest.fixture(scope="module")
def tables(section):
    return {table.id: table for table in section.tables}


SETTINGS = ("forward", "reverse", "parrot", "parrot-retrained")


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("recognizer", ["own", "other"])
def test_a_perfect_anonymizer_is_at_chance_and_a_broken_one_at_clear_level(tables, setting, recognizer):
    table = tables[f"privacy.{setting}.{recognizer}.all"]
    assert table.valid, table.problems
    perfect, broken, clear = (table.rows[name] for name in ("random heads", "identity", "clear"))
    assert perfect["rank1"].low <= 1 / 40 <= perfect["rank1"].high
    assert perfect["rank1"].value < 0.15
    assert perfect["auc"].value == pytest.approx(0.5, abs=0.12)
    assert broken["rank1"].value == clear["rank1"].value == 1.0
    assert broken["auc"].value == pytest.approx(clear["auc"].value, abs=0.01)
    assert list(table.rows)[:3] == ["clear", "random pairs", "grey head"]
    assert table.rows["random pairs"]["auc"].value == pytest.approx(0.5, abs=0.06)


def test_chance_lies_in_the_intervals_of_a_perfect_anonymizer():
    inside = []
    for seed in range(20):
        rng, some = np.random.default_rng(seed), faking.faces(people=30, seed=seed)
        asked = faking.evaluation(some.treated)
        attack = Attack(some, asked, some.attackers[0], "all", heads.folds(some.persons, rng), rng)
        sides = attack.sides(adversary.SETTINGS[0], some.treated["random heads"])
        result = attack.figures(attack.compared(*sides))
        chance = ((result.rank1, 1 / 30), (result.auc, 0.5))
        inside.append([figure.low <= value <= figure.high for figure, value in chance])
    assert (np.mean(inside, axis=0) >= 0.85).all()


@pytest.mark.parametrize("setting", SETTINGS)
def test_one_head_for_all_tells_nobody_apart(tables, setting):
    row = tables[f"privacy.{setting}.own.all"].rows["one head"]
    assert row["rank1"].low <= 1 / 40 <= row["rank1"].high
    assert row["auc"].low <= 0.5 <= row["auc"].high


def test_every_table_that_a_report_needs_is_there(section, tables):
    expected = {
        f"privacy.{setting}.{recognizer}.{impostors}"
        for setting in SETTINGS
        for recognizer in ("own", "other")
        for impostors in ("all", "alike")
    }
    assert set(tables) == expected | {"privacy.k.own", "privacy.k.other"}
    assert {plot.id for plot in section.plots} == {
        f"privacy-{kind}-{recognizer}" for kind in ("cmc", "roc") for recognizer in ("own", "other")
    }
    assert all(plot.png.startswith(b"\x89PNG") for plot in section.plots)
    assert "at rank 1 in 1.000; of clear faces 1.000; a guess in 0.025" in section.plots[0].alt
    assert json.loads(json.dumps(sections.as_dict(section), allow_nan=False))["id"] == "privacy"


def test_limits_are_held_against_treatments_and_the_promise_against_the_chosen_one(tables):
    forward, parrot = tables["privacy.forward.own.all"], tables["privacy.parrot.own.all"]
    assert forward.columns[0].limit == 0.1
    assert (forward.rows["identity"]["rank1"].met, forward.rows["random heads"]["rank1"].met) == (False, True)
    assert {name: forward.rows[name]["rank1"].met for name in attack_tables.CONTROLS} == dict.fromkeys(
        attack_tables.CONTROLS
    )
    assert parrot.columns[0].limit == pytest.approx(0.2 + 1.96 * np.sqrt(0.2 * 0.8 / 40))
    assert {name for name, row in parrot.rows.items() if row["rank1"].met is not None} == {"identity"}
    alike = tables["privacy.forward.own.alike"]
    assert (alike.columns[0].limit, alike.columns[2].limit) == (None, 0.6)
    assert (alike.rows["identity"]["auc"].met, alike.rows["clear"]["auc"].met) == (False, None)


def test_a_parrot_limit_of_the_settings_is_held_against_every_treatment(faces):
    table = tables_of(faces, thresholds={"parrot": 0.3})["parrot"]
    assert table.columns[0].limit == 0.3
    assert (table.rows["identity"]["rank1"].met, table.rows["random heads"]["rank1"].met) == (False, True)


def test_chance_stands_beside_rank_1(tables):
    notes = tables["privacy.forward.own.all"].notes[0]
    assert "40 people enrolled, 40 probes; rank-1 of a guess: 0.025; of a guess that knows sex" in notes
    assert "0.400, and by luck up to 0.550" in notes


def test_curves_go_into_the_data_thinned(section):
    curve = section.data["curves"]["own"]["forward"]["identity"]
    assert len(curve["far"]) == len(curve["tar"]) <= attack_tables.POINTS
    assert (curve["far"][0], curve["far"][-1], curve["tar"][-1]) == (0, 1, 1)
    assert curve["far"] == sorted(curve["far"])
    assert len(curve["cmc"]) == 40
    assert curve["cmc"][0] == 1


def test_thinning_a_curve_keeps_its_ends_and_its_area():
    far = np.linspace(0, 1, 5001)
    tar = far**0.2
    x, y = attack_tables.thinned(far, tar)
    assert len(x) <= attack_tables.POINTS
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(y, x) == pytest.approx(np.trapezoid(tar, far), abs=0.003)


def test_a_shuffled_label_file_is_caught(faces):
    names = np.random.default_rng(3).permutation(faces.persons)
    subjects = [dataclasses.replace(s, person=str(n)) for s, n in zip(faces.subjects, names, strict=True)]
    for setting, table in tables_of(changed(faces, subjects)).items():
        assert not table.valid, setting
        assert "the labels do not fit the pictures, or the recognizer is too weak" in " ".join(table.problems)


def test_shuffled_labels_are_caught_where_hardly_anybody_is_alike(faces):
    """Most people have a group of their own and are found by being the only ones in it, whoever they are."""
    subjects = []
    for n, subject in enumerate(faces.subjects):
        number = (n // 2 + (7 if subject.probe else 0)) % 40  # of the person, as the wrong labels say
        group = number % 37
        tone, sex = (70.0, 48.0, 35.0, 20.0, 0.0, -50.0)[group // 5 % 6], ("female", "male")[group // 30]
        looks = {"sex": sex, "age": 10.0 + 10 * (group % 5), "tone": tone}
        subjects.append(dataclasses.replace(subject, person=f"p{number:03d}", **looks))
    forward = tables_of(changed(faces, subjects), "alike")["forward"]
    assert forward.rows["clear"]["rank1"].value >= 0.9
    assert "hardly above that of a guess" in " ".join(forward.problems)
    assert not forward.valid


def random_head(templates: Templates) -> heads.Head:
    size = templates.vectors.shape[1]
    return heads.Head(np.zeros(size), np.random.default_rng(0).normal(size=(size, 2)))


def no_training(templates: Templates) -> heads.Head:
    size = templates.vectors.shape[1]
    return heads.Head(np.zeros(size), np.eye(size))


@pytest.mark.parametrize("fit", [random_head, no_training])
def test_an_attack_that_was_not_trained_is_marked_invalid(faces, fit):
    tables = tables_of(faces, fit=fit)
    assert "the attack was not trained" in " ".join(tables["parrot, retrained"].problems)
    assert tables["parrot"].valid


def test_training_finds_people_whom_the_recognizer_alone_does_not(faces):
    """Surrogates that keep the person, beneath a disturbance: only the retrained head sees through it."""
    rng = np.random.default_rng(5)
    attacker = faces.attackers[0]
    every = heads.disturbed(faces.templates(attacker, faces.clear, np.arange(len(faces))), rng)
    hidden = [
        dataclasses.replace(seen, vectors={a.name: vector for a in faces.attackers})
        for seen, vector in zip(faces.clear, every.vectors, strict=True)
    ]
    treated = {"hidden": hidden}
    seams = {"hidden": faces.seams["identity"]}
    some = dataclasses.replace(faces, treated=treated, seams=seams)
    tables = tables_of(some)
    assert tables["parrot"].rows["hidden"]["rank1"].value < 0.2
    assert tables["parrot, retrained"].rows["hidden"]["rank1"].value > 0.9
    assert tables["parrot, retrained"].rows["hidden"]["training"].value > 0.9


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_treatment_without_pictures_has_no_figure(tables, setting):
    row = tables[f"privacy.{setting}.own.all"].rows["missing"]
    assert np.isnan(row["rank1"].value)
    assert row["rank1"].text
    assert row["rank1"].met is None


@pytest.mark.parametrize("impostors", ["all", "alike"])
def test_pictures_that_are_missing_do_not_hide_that_the_others_are_found(faces, impostors):
    some = [
        seen if n % 20 in (0, 1) else faking.Observation() for n, seen in enumerate(faces.treated["identity"])
    ]
    seams = {"some": faces.seams["identity"]}
    row = tables_of(dataclasses.replace(faces, treated={"some": some}, seams=seams), impostors)[
        "forward"
    ].rows["some"]
    assert row["rank1"].value == 1.0
    assert row["lost"].value == pytest.approx(0.9)
    assert row["rank1"].text == "36 of 40 probes have no picture"


def test_people_whose_enrolment_is_lost_are_counted(faces):
    some = list(faces.treated["identity"])
    some[:10] = faces.treated["missing"][:10]
    seams = {"some": faces.seams["identity"]}
    row = tables_of(dataclasses.replace(faces, treated={"some": some}, seams=seams))["reverse"].rows["some"]
    assert row["rank1"].text == "5 people could not be enrolled"
    assert (row["rank1"].measured, row["rank1"].of) == (35, 40)


def test_one_picture_a_person_is_both_enrolled_and_probed():
    """No labels: forward and reverse can be measured, other pictures of a person there are none."""
    faces = faking.faces(people=16)
    subjects = [dataclasses.replace(s, person=s.picture, enrolled=True, probe=True) for s in faces.subjects]
    tables = tables_of(changed(faces, subjects))
    assert tables["forward"].valid
    assert "cannot fail for a weak recognizer" in tables["forward"].notes[1]
    assert tables["forward"].rows["random heads"]["rank1"].value < 0.2
    assert tables["reverse"].valid
    for setting in ("parrot", "parrot, retrained"):
        assert "not measurable: every probe is a picture that is enrolled" in tables[setting].problems[0]
        assert not tables[setting].rows
    made = privacy(changed(faces, subjects), faking.evaluation(faces.treated), {}, np.random.default_rng(0))
    assert "not measurable" in {t.id: t for t in made.tables}["privacy.k.own"].problems[0]


@pytest.mark.parametrize(("people", "settings"), [(0, SETTINGS), (1, SETTINGS), (3, SETTINGS[3:])])
def test_too_few_people_is_a_problem_and_no_crash(people, settings):
    few = faking.faces(people=people)
    made = privacy(few, faking.evaluation(few.treated), {}, np.random.default_rng(0))
    tables = {table.id: table for table in made.tables}
    for setting in settings:
        assert not tables[f"privacy.{setting}.own.all"].valid
    assert json.dumps(sections.as_dict(made), allow_nan=False)


def test_the_same_seed_gives_the_same_figures():
    few = faking.faces(people=12)
    first, second = (
        sections.as_dict(privacy(few, faking.evaluation(few.treated), {}, np.random.default_rng(4)))
        for _ in range(2)
    )
    assert first == second
