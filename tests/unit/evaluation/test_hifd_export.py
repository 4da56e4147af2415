import dataclasses
import json
import stat
import subprocess
import sysconfig
from pathlib import Path

import hifd
import numpy as np
import pytest
import yaml
from hifd.scores import agreement

from deid.evaluation import hifd_export
from deid.evaluation.observe import Observation
from tests.unit.evaluation import faking

HIFD = Path(sysconfig.get_path("scripts")) / "hifd"  # the tool's own command


@pytest.fixture(scope="module")
def faces():
    return faking.faces(people=6)


@pytest.fixture(scope="module")
def exported(faces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hifd") / "predictions"
    return folder, hifd_export.export(faces, folder)


def command(folder, *arguments):
    given = [
        "--methods",
        folder / "methods.yaml",
        "--estimators",
        folder / "estimators.yaml",
        "--data-dir",
        folder,
    ]
    return subprocess.run(
        [HIFD, *arguments[:1], *given, *arguments[1:]], capture_output=True, text=True, timeout=60
    )


def test_hifd_s_own_command_accepts_it(exported):
    done = command(exported[0], "validate")
    assert (done.returncode, done.stdout, done.stderr) == (0, "OK\n", "")


def test_hifd_s_own_command_scores_it(exported, tmp_path):
    done = command(exported[0], "run-all", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "tables" / "composite.csv").read_text()
    for method in ("00 clear", "01 identity", "02 random heads", "03 one head", "04 gone"):
        assert f"\n{method}," in table
    assert "renormalizing" not in done.stderr


def test_one_envelope_a_task_and_estimator(exported, faces):
    tasks = yaml.safe_load((exported[0] / "estimators.yaml").read_text())["tasks"]
    named = {task: [e["name"] for e in entry["estimators"]] for task, entry in tasks.items()}
    assert named == {
        "age": ["own heads"],
        "gender": ["own heads"],
        "macro_exp": ["fer"],
        "landmark": ["face mesh"],
        "gaze": ["iris"],
        "face_embedding": ["own", "other"],
    }
    assert hifd_export.SCHEMA == hifd.SCHEMA_VERSION
    file = exported[0] / "original" / tasks["face_embedding"]["estimators"][1]["orig_json"]
    made = json.loads(file.read_text())
    assert (made["task"], made["source"], made["estimator"]) == ("face_embedding", "original", "other")
    assert made["predictions"]["000003"]["embedding"] == faces.clear[3].vectors["other"].tolist()


def test_the_folder_is_for_its_owner_alone_and_holds_no_keys(exported, faces):
    folder = exported[0]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    written = "".join(file.read_text() for file in folder.rglob("*.*") if file.is_file())
    assert not any(s.picture in written or f'"{s.person}"' in written for s in faces.subjects)


def test_treatments_without_a_picture_are_left_out(exported):
    written = exported[1]
    assert written.left_out == ["missing"]
    assert list(written.methods) == ["clear", "identity", "random heads", "one head", "gone"]


def agreements(folder, written):
    return hifd.compute_agreements(
        str(written.methods_file),
        str(folder),
        str(folder / "x"),
        estimators_config=str(written.estimators_file),
    )


def test_what_stands_for_no_face_agrees_with_no_face(exported):
    """hifd scores it 0 in every task, whatever was there before; its privacy is measured at the place of the face."""
    _, written = exported
    result = agreements(*exported)
    gone = result[result["method"] == written.methods["gone"]]
    scores = gone.groupby("task")["s_k"].agg(["min", "max", "count"])
    for task in ("age", "gender", "macro_exp", "landmark", "gaze"):
        assert scores.loc[task].tolist() == [0, 0, 12]
        assert not written.measured["gone"][task].any()
    assert scores.loc["privacy", "count"] == 24
    assert 0.2 < scores.loc["privacy", "min"] < scores.loc["privacy", "max"]
    assert written.measured["gone"]["face_embedding"].all()


def test_the_source_against_itself_agrees_fully(exported):
    _, written = exported
    result = agreements(*exported)
    own = result[(result["method"] == written.methods["identity"]) & (result["task"] != "privacy")]
    assert own["s_k"].to_numpy() == pytest.approx(np.ones(12 * 5))


def test_faces_that_are_not_in_the_source_are_not_written(faces, tmp_path):
    clear = [Observation() if n < 3 else o for n, o in enumerate(faces.clear)]
    blind = [dataclasses.replace(o, gaze=np.full(2, np.nan)) for o in clear]
    written = hifd_export.export(dataclasses.replace(faces, clear=blind), tmp_path)
    tasks = yaml.safe_load(written.estimators_file.read_text())["tasks"]
    assert "gaze" not in tasks
    age = json.loads((tmp_path / "method-02" / tasks["age"]["estimators"][0]["deid_json"]).read_text())
    assert list(age["predictions"]) == written.samples[3:]
    assert written.measured["identity"]["age"].sum() == 9
    assert command(tmp_path, "validate").stdout == "OK\n"


def test_names_that_hifd_s_table_would_read_as_numbers(faces, tmp_path):
    treated = {
        "7": faces.treated["one head"],
        "nan": faces.treated["identity"],
        "a, b": faces.treated["identity"],
    }
    odd = dataclasses.replace(faces, treated=treated, seams=dict.fromkeys(treated, faces.seams["gone"]))
    written = hifd_export.export(odd, tmp_path / "in")
    result = hifd.run_pipeline(
        str(written.methods_file), str(tmp_path / "in"), str(tmp_path / "out"),
        estimators_config=str(written.estimators_file),
    )  # fmt: skip
    assert result.composite_df["method"].tolist() == list(written.methods.values())


@pytest.mark.parametrize(
    ("gaze", "degrees"), [((0, 0), 0), ((0.2, 0), 30), ((0, -0.2), 30), ((0.4, 0), 90), ((3, 4), 90)]
)
def test_a_gaze_is_a_direction(gaze, degrees):
    made = hifd_export.direction(np.array(gaze))
    assert np.linalg.norm(made) == pytest.approx(1)
    assert np.degrees(np.arccos(made[2])) == pytest.approx(degrees)
    assert np.sign(made[:2]).tolist() == np.sign(gaze).tolist()
    assert agreement.score_gaze(hifd_export.direction(np.zeros(2)), made) == pytest.approx(1 - degrees / 90)
