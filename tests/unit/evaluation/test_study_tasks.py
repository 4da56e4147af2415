from collections import Counter

import numpy as np
import pytest

from deid.errors import InputError
from deid.evaluation.study import make, tasks
from deid.evaluation.study import questions as q
from tests.unit.evaluation import study_people


def draw(people=40, number=60, seed=0, synthetic_only=False, takes=2):
    heads = study_people.heads(people, takes)
    return heads, tasks.draw(heads, number, synthetic_only, np.random.default_rng(seed))


def person(heads, shot):
    return heads[shot.head].label.person


def test_every_kind_is_asked_in_its_share():
    _, drawn = draw()
    counts = Counter(task.kind for task in drawn if not task.check)
    assert counts == {"real": 18, "same": 24, "expression": 6, "sex": 6, "age": 6}
    assert Counter(task.kind for task in drawn if task.check) == {"press": 2, "upright": 2, "same": 2}
    assert Counter(task.truth for task in drawn if task.kind == "real") == {"real": 9, "generated": 9}
    same = [task for task in drawn if task.kind == "same" and not task.check]
    assert Counter(task.condition for task in same) == dict.fromkeys(q.CONDITIONS, 6)


@pytest.mark.parametrize("number", [5, 10, 59, 65, 120])
def test_portions_are_what_was_asked(number):
    wanted = tasks.portions(list(q.ASKED), number)
    assert sum(wanted.values()) == number
    assert min(wanted.values()) >= 1


def test_no_two_kinds_show_the_same_person():
    heads, drawn = draw()
    pools = [
        {person(heads, s) for t in drawn if t.kind in kinds and not t.check for s in t.shots}
        for kinds in (["real"], ["same"], list(q.ABOUT_FACES))
    ]
    assert all(pools)
    assert len(set.union(*pools)) == sum(map(len, pools))


def test_sources_are_shown_in_two_kinds_alone():
    _, drawn = draw()
    shown = {task.kind for task in drawn for shot in task.shots if shot.side == "source"}
    assert shown == set(q.SHOWS_SOURCES)
    assert not any(shot.side == "source" for task in drawn if task.check for shot in task.shots)


def test_pairs_are_what_their_condition_says():
    (heads, drawn), alike = draw(), []
    for task in drawn:
        if task.kind != "same" or task.check:
            continue
        (a, b), same = task.shots, task.condition in (q.CONTROL, q.HIDDEN)
        assert (person(heads, a) == person(heads, b)) == same == (task.truth == "same")
        assert heads[a.head].number != heads[b.head].number, "two photographs, never one"
        assert (a.side, b.side) == (
            "source",
            "source" if task.condition in (q.CONTROL, q.DIFFERENT) else "result",
        )
        groups = [heads[s.head].known for s in (a, b)]
        assert task.alike == (groups[0] == groups[1])
        alike.append(task.alike)
    assert np.mean(alike) > 0.8


def test_people_in_no_group_are_still_compared_but_said_to_differ():
    heads = study_people.heads(4)
    for number, head in enumerate(heads):
        object.__setattr__(head.label, "sex", ("female", "male")[number // 2 % 2])
        object.__setattr__(head.label, "age", float("nan"))
    drawn = tasks.draw(heads, 60, False, np.random.default_rng(0))
    assert {task.alike for task in drawn if task.condition in (q.DIFFERENT, q.STRANGER)} <= {False}


def test_a_photograph_is_taken_for_real_or_generated_once():
    heads, drawn = draw()
    asked = [task.shots[0].head for task in drawn if task.kind == "real"]
    assert len(set(asked)) == len(asked) == 18
    del heads


def test_truth_of_faces_is_the_label():
    heads, drawn = draw()
    for task in drawn:
        if task.kind in q.ABOUT_FACES:
            assert task.truth == heads[task.shots[0].head].known[task.kind]
            assert task.shots[0].side == "result"


def test_synthetic_only_shows_no_source():
    _, drawn = draw(synthetic_only=True)
    assert {task.kind for task in drawn if not task.check} == set(q.ABOUT_FACES)
    assert all(shot.side != "source" for task in drawn for shot in task.shots)
    assert sum(task.check for task in drawn) == 6


def test_one_photograph_a_person_leaves_the_pairs_out():
    _, drawn = draw(takes=1)
    assert {task.kind for task in drawn if not task.check} == set(q.ASKED) - {"same"}


def test_a_study_needs_people():
    with pytest.raises(InputError, match="2 people"):
        draw(people=2)


def test_few_people_make_a_small_study():
    _, drawn = draw(people=3, takes=1)
    assert Counter(task.kind for task in drawn if task.kind in q.ASKED and not task.check)["real"] >= 1


def test_the_page_order_says_nothing():
    """Ids, places in the page and the order within a pair do not go with the truth, over many studies."""
    firsts, ranks = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        heads = study_people.heads(24)
        content, key = make.assemble(heads, tasks.draw(heads, 40, False, rng), rng)
        order = list(content["pictures"])
        assert order == sorted(order)
        assert [task["id"] for task in content["tasks"]] == sorted(key["tasks"])
        for place, task in enumerate(content["tasks"]):
            truth = key["tasks"][task["id"]]
            assert task.keys() - {"word"} == {"id", "kind", "pictures"}
            if truth["kind"] == "real":
                rank = (place / len(content["tasks"]), order.index(task["pictures"][0]) / len(order))
                ranks.append((truth["truth"] == "real", *rank))
            if truth["condition"] == q.HIDDEN:
                blue = [
                    make.pictures.decode(make.base64.b64decode(content["pictures"][p]), 64).pixels[0, 0, 2]
                    for p in task["pictures"]
                ]
                firsts.append(blue[0] < blue[1])  # the source is first
    assert 0.35 < np.mean(firsts) < 0.65
    table = np.array(ranks)
    for column in (1, 2):
        assert abs(np.corrcoef(table[:, 0], table[:, column])[0, 1]) < 0.12


def test_the_secret_seed_decides():
    made = []
    for seed in (1, 1, 2):
        rng = np.random.default_rng(seed)
        heads = study_people.heads(12)
        made.append(make.assemble(heads, tasks.draw(heads, 20, False, rng), rng))
    assert made[0] == made[1]
    assert not made[0][1]["tasks"].keys() & made[2][1]["tasks"].keys()
