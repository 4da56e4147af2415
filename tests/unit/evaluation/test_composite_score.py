import dataclasses
import os
import tempfile

import hifd
import numpy as np
import pytest

from deid.evaluation import composite_score, hifd_export
from deid.evaluation.observe import Observation
from deid.evaluation.settings import Evaluation
from tests.unit.evaluation import faking

EVALUATION = Evaluation(source={"uri": "pictures"}, output="report", resamples=100)
PROFILES = tuple(composite_score.PROFILES)


@pytest.fixture(scope="module")
def faces():
    return faking.faces(people=12)


@pytest.fixture(scope="module")
def section(faces):
    return composite_score.composite(faces, EVALUATION, np.random.default_rng(0))


def rows(section):
    return section.tables[0].rows


def test_every_treatment_and_two_controls_have_a_row(section, faces):
    assert set(rows(section)) == {"clear", "random pairs", *faces.treated}
    assert section.tables[0].valid


def test_the_source_is_of_full_use_and_no_privacy(section):
    for name in ("clear", "identity"):
        row = rows(section)[name]
        assert [row[c].value for c in ("P", "U1", "U2")] == pytest.approx([0, 1, 1], abs=1e-6)
        assert [row[c].value for c in PROFILES] == pytest.approx([0, 0, 0], abs=1e-4)


def test_random_heads_are_as_unlike_as_random_pairs(section):
    made, other = rows(section)["random heads"], rows(section)["random pairs"]
    assert max(made["P"].low, other["P"].low) < min(made["P"].high, other["P"].high)
    assert made["U1"].value > other["U1"].value
    assert all(made[p].value > 0.4 for p in PROFILES)


def test_a_treatment_gains_nothing_by_destroying_faces(section):
    row = rows(section)["gone"]
    assert (row["U1"].value, row["U2"].value) == (0, 0)
    assert (row["U1"].measured, row["U1"].of, row["P"].measured) == (0, 24, 24)
    assert row["P"].value > 0.4
    assert [row[p].value for p in PROFILES] == pytest.approx([0, 0, 0], abs=1e-4)


def test_without_pictures_there_is_no_score(section):
    row = rows(section)["missing"]
    assert all(np.isnan(found.value) and found.text == "no pictures" for found in row.values())


def test_half_the_faces_is_half_the_use(faces):
    seen = [o if n % 2 else Observation(vectors=o.vectors) for n, o in enumerate(faces.clear)]
    half = dataclasses.replace(faces, treated={"half": seen}, seams={"half": faces.seams["gone"]})
    row = rows(composite_score.composite(half, EVALUATION, np.random.default_rng(0)))["half"]
    assert (row["U1"].measured, row["U1"].of) == (12, 24)
    assert [row["U1"].value, row["U2"].value] == pytest.approx([0.5, 0.5])


def test_pictures_that_are_missing_are_of_no_use_and_out_of_privacy(faces):
    seen = [o if n % 2 else Observation() for n, o in enumerate(faces.treated["random heads"])]
    half = dataclasses.replace(faces, treated={"half": seen}, seams={"half": faces.seams["gone"]})
    row = rows(composite_score.composite(half, EVALUATION, np.random.default_rng(0)))["half"]
    assert (row["P"].measured, row["P"].of) == (12, 24)
    assert row["P"].value == pytest.approx(0.5, abs=0.12)
    assert row["U1"].value < 0.5


def test_intervals_hold_the_value_and_come_from_people(section):
    for name in ("random heads", "one head", "random pairs"):
        for id in ("P", "U1", "U2", *PROFILES):
            found = rows(section)[name][id]
            assert found.low < found.value < found.high


def test_what_the_intervals_are_of_is_what_hifd_says(faces):
    """Each person drawn once gives hifd's own figures."""

    class Once(np.random.Generator):
        def multinomial(self, n, pvals, size=None):
            return np.ones((size, n), np.int64)

    once = Once(np.random.PCG64(0))
    written, result = composite_score._scored(faces, {})
    for name, title in written.methods.items():
        tasks = composite_score._samples(result.per_sample_df, title, written.samples)
        low, high = composite_score._intervals(tasks, faces.persons, once, 3)
        scored = result.composite_df.set_index("method").loc[title]
        for id in ("P", "U1", "U2", *PROFILES):
            assert low[id] == pytest.approx(high[id]), name
            assert low[id] == pytest.approx(scored[id], abs=1e-9), name


def test_random_pairs_are_of_different_people(faces):
    pairs = composite_score._random_pairs(faces, np.random.default_rng(1))
    whose = {id(o): s.person for o, s in zip(faces.clear, faces.subjects, strict=True)}
    assert all(whose[id(o)] != s.person for o, s in zip(pairs, faces.subjects, strict=True))
    assert len({id(o) for o in pairs}) == len(faces)


def test_beside_the_table_stands_what_is_missing(section):
    said = " ".join(section.tables[0].notes)
    assert "picture quality (Q: LPIPS and NIQE) and the pulse in video (U3) were not measured" in said
    assert "no estimator of ethnicity" in said
    assert "privacy first: P 0.67, U1 0.17, U2 0.17" in said
    assert "Balanced and clinical then weigh the same" in said


def test_the_weights_are_hifd_s(section):
    shown = section.data["weights"]
    for profile, weights in hifd.DEFAULT_PROFILES.items():
        for parts in ((0.5, 0.9, 0.2), (0.1, 0.4, 0.8)):
            by_hifd = hifd.composite(parts[0], None, parts[1], parts[2], None, weights, epsilon=0)
            by_us = 1 / sum(shown[profile][c] / v for c, v in zip(("P", "U1", "U2"), parts, strict=True))
            assert by_us == pytest.approx(by_hifd, abs=1e-5)


def test_no_template_is_left_on_the_disk(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes = []
    written = hifd_export.export

    def watched(shown, folder, references):
        modes.append(os.stat(folder.parent).st_mode & 0o777)
        return written(shown, folder, references)

    monkeypatch.setattr(composite_score, "export", watched)
    composite_score.composite(faces, EVALUATION, np.random.default_rng(0))
    assert (modes, list(tmp_path.iterdir())) == ([0o700], [])


def test_a_source_without_a_face_is_a_problem_not_a_crash(faces):
    nobody = dataclasses.replace(faces, clear=[Observation()] * len(faces))
    table = composite_score.composite(nobody, EVALUATION, np.random.default_rng(0)).tables[0]
    assert table.problems == ["no face was found in the source"]
    assert not table.valid


def test_the_seed_decides(faces):
    made = [composite_score.composite(faces, EVALUATION, np.random.default_rng(3)).tables for _ in range(2)]
    assert repr(made[0]) == repr(made[1])
