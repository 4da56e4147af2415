import dataclasses
import json

import numpy as np
import pytest

from deid.evaluation import downstream as module
from deid.evaluation.downstream import downstream
from deid.evaluation.sections import as_dict
from deid.evaluation.settings import Evaluation, Result, Source
from tests.unit.evaluation import faking

SETTINGS = Evaluation(
    source=Source(uri="a"),
    output="b",
    results=(Result(name="identity", uri="c"),),
    baselines=("solid",),
    resamples=100,
)


def planted(people=24, seed=0):
    """`solid` shows noise, and flat faces; everything else is as it was made up."""
    faces = faking.faces(people, seed=seed)
    rng = np.random.default_rng(1)
    noise = [
        dataclasses.replace(
            o,
            scene=rng.integers(0, 255, (96, 96, 3), np.uint8),
            chip=np.full((64, 64, 3), 128, np.uint8),
        )
        for o in faces.clear
    ]
    treated = {**faces.treated, "solid": noise}
    return dataclasses.replace(
        faces, treated=treated, seams={**faces.seams, "solid": faces.seams["identity"]}
    )


def run(faces, effort):
    return downstream(faces, SETTINGS, np.random.default_rng(2), effort)


@pytest.fixture(scope="module")
def section():
    return run(planted(), 0.24)


def test_what_keeps_faces_costs_nothing_and_noise_costs_all(section):
    detector, classifier = section.tables
    assert detector.valid, detector.problems
    assert classifier.valid, classifier.problems
    assert list(detector.rows) == ["clear", "identity", "solid"]
    for table, figure in ((detector, "recall"), (detector, "precision"), (classifier, "balanced")):
        clear, same, noise = (table.rows[name] for name in ("clear", "identity", "solid"))
        assert same[figure].value == clear[figure].value  # the same pictures, the same seed
        assert same[f"{figure}_price"].value == 0
        assert noise[f"{figure}_price"].value > 0.25
        assert noise[f"{figure}_price"].low > 0
        assert clear[f"{figure}_price"].text == "reference"


def test_it_can_be_written_and_drawn(section):
    json.dumps(as_dict(section), allow_nan=False)
    assert [plot.png[:4] for plot in section.plots] == [b"\x89PNG"] * 2
    assert "24 people" in section.intro[0]


def test_networks_that_were_not_trained_make_the_tables_invalid():
    section = run(planted(10), 0.005)
    assert not any(table.valid for table in section.tables)
    assert "not trained" in section.tables[0].problems[0]


def test_the_same_seed_gives_the_same_section():
    one, again = (json.dumps(as_dict(run(planted(10), 0.01))) for _ in range(2))
    assert one == again


def test_nothing_to_learn_from_is_said_and_no_error():
    faces = faking.faces(10)
    gone = dataclasses.replace(faces, treated={"identity": faces.treated["missing"]}, seams={})
    row = run(gone, 0.005).tables[0].rows["identity"]
    assert np.isnan(row["recall"].value)
    assert row["recall"].text == row["recall_price"].text == "too few pictures to learn from"
    nobody = dataclasses.replace(gone, clear=faces.treated["missing"])
    assert not run(nobody, 0.005).tables[1].valid


def test_labels_that_are_missing_come_from_the_expression_network():
    faces = faking.faces(12)
    told, none = module._smiling(faces)
    assert none == 0
    blank = dataclasses.replace(
        faces, subjects=[dataclasses.replace(s, expression="") for s in faces.subjects]
    )
    guessed, count = module._smiling(blank)
    assert count == len(faces)
    np.testing.assert_array_equal(told, guessed)
    other = dataclasses.replace(
        faces, subjects=[dataclasses.replace(s, expression="sad") for s in faces.subjects]
    )
    assert np.isnan(module._smiling(other)[0]).all()


def test_no_network_is_tested_on_people_it_learned_from(monkeypatch):
    faces, learned = planted(12), []
    people = {o.scene.tobytes(): s.person for s, o in zip(faces.subjects, faces.clear, strict=True)}
    train, detect = module.small_detector.train, module.small_detector.detect

    def watched_train(scenes, boxes, seed, steps):
        network = train(scenes, boxes, seed, steps)
        network.people = {people.get(s.tobytes()) for s in scenes}
        return network

    def watched_detect(network, scenes):
        tested = {people[s.tobytes()] for s in scenes}
        learned.append((network.people, tested))
        return detect(network, scenes)

    monkeypatch.setattr(module.small_detector, "train", watched_train)
    monkeypatch.setattr(module.small_detector, "detect", watched_detect)
    run(faces, 0.005)
    assert len(learned) == 6  # three treatments, two halves
    assert all(not seen & tested for seen, tested in learned)
    assert learned[0][1] | learned[1][1] == set(people.values())
