import json

import numpy as np
import pytest

from deid.evaluation.reid import Templates
from deid.evaluation.table import CLEAR, RANDOM_PAIRS, build


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def probes_of(rng, centres, noise):
    return Templates(centres + noise * rng.normal(size=centres.shape), np.arange(len(centres)))


def test_controls_come_first_and_hold(rng):
    centres = rng.normal(size=(50, 24))
    replaced = Templates(rng.normal(size=centres.shape), np.arange(50))
    table = build(
        "net",
        "cosine",
        probes_of(rng, centres, 0.2),
        probes_of(rng, centres, 0.2),
        {"replaced": replaced},
        rng,
    )
    assert list(table.rows) == [CLEAR, RANDOM_PAIRS, "replaced"]
    assert table.valid
    assert table.rows[CLEAR].rank1.value == 1.0
    assert table.rows[RANDOM_PAIRS].rank1.value < 0.1
    assert table.rows["replaced"].rank1.value < 0.15
    assert "both controls hold" in table.markdown()


def test_an_attack_too_weak_in_clear_is_marked_invalid(rng):
    """A recognizer of pure noise makes every anonymizer look perfect; the table says so."""
    centres = rng.normal(size=(50, 24))
    enrolled, clear = probes_of(rng, centres, 5.0), probes_of(rng, centres, 5.0)
    table = build("noise", "cosine", enrolled, clear, {"nothing done": clear}, rng)
    assert not table.valid
    assert "below 0.9" in table.problems[0]
    assert "INVALID" in table.markdown()
    assert table.as_dict()["valid"] is False


def test_faces_lost_in_clear_make_it_invalid(rng):
    centres = rng.normal(size=(20, 24))
    clear = probes_of(rng, centres, 0.1)
    clear.vectors[:5] = np.nan
    table = build("blind", "cosine", probes_of(rng, centres, 0.1), clear, {}, rng)
    assert table.rows[CLEAR].auc.value == 1.0
    assert not table.valid


def test_a_person_missing_from_the_enrolment_makes_it_invalid(rng):
    centres = rng.normal(size=(20, 24))
    enrolled = probes_of(rng, centres, 0.1)
    enrolled.vectors[0] = np.nan
    table = build("net", "cosine", enrolled, probes_of(rng, centres, 0.1), {}, rng)
    assert "1 people" in table.problems[0]


def test_treatments_probed_with_fewer_pictures_make_it_invalid(rng):
    centres = rng.normal(size=(20, 24))
    clear = probes_of(rng, centres, 0.1)
    fewer = Templates(clear.vectors[:10], clear.subjects[:10])
    table = build("net", "cosine", probes_of(rng, centres, 0.1), clear, {"half": fewer}, rng)
    assert "different numbers" in table.problems[0]


def test_json_has_no_nan(rng):
    centres = rng.normal(size=(8, 24))
    lost = Templates(np.full_like(centres, np.nan), np.arange(8))
    table = build(
        "net", "cosine", probes_of(rng, centres, 0.1), probes_of(rng, centres, 0.1), {"none": lost}, rng
    )
    text = json.dumps(table.as_dict(), allow_nan=False)
    assert json.loads(text)["rows"]["none"]["auc"]["value"] is None
    assert "n/a" in table.markdown()
