import csv
import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from deid.faces.segment import FACE, INPUT, PARTS
from deid.faces.segmenter import HeadSegmenter
from deid.training import photograph_views
from tests.unit.training import drawn

SOURCE = Path(__file__).parents[3] / "jobs/train_segmenter_clean.py"


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("train_segmenter_clean", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def labelled(job, tmp_path_factory):
    """A folder as of `label`: six drawn subjects, the fourth in two pictures."""
    folder = tmp_path_factory.mktemp("labelled")
    picture, mesh, part = drawn.person()
    parts = np.eye(len(PARTS), dtype=np.float32)[part]
    for name in ("1_a", "2_a", "3_a", "4_a", "4_b", "5_a", "6_a"):
        job.keep(folder / name, picture, mesh, parts)
    return folder


@pytest.fixture(autouse=True)
def few_places(monkeypatch):
    monkeypatch.setattr(photograph_views, "PLACES", 3)


def train(job, folder, output, **options):
    given = {"steps": 2, "batch": 2, "seed": 0, "every": 1, "workers": 0, "threads": 1, "device": "cpu"}
    job.fit(folder, output, **{"resume": False, **given, **options})


def test_what_was_kept_is_read_and_whole_subjects_are_held_out(job, labelled):
    names, held, people = job.read(labelled)
    assert [name for name, out in zip(names, held, strict=True) if out] == ["4_a", "4_b"]
    picture, mesh, part = drawn.person()
    np.testing.assert_array_equal(people.pictures[0], picture)
    np.testing.assert_array_equal(people.parts[0].argmax(-1), part)
    np.testing.assert_array_equal(people.meshes[0], mesh)
    assert people[held].pictures.shape[0] == 2


def test_two_steps_give_weights_that_the_segmenter_loads(job, labelled, tmp_path):
    train(job, labelled, tmp_path / "a.safetensors")
    chips, _ = job.read(labelled)[2].chips()
    found = HeadSegmenter(tmp_path / "a.safetensors").parts([chips[0]])
    assert found[0].shape == (INPUT // 2, INPUT // 2, len(PARTS))
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert all(np.isfinite(float(row["loss"])) for row in rows)


def test_resumed_training_ends_where_an_unbroken_one_does(job, labelled, tmp_path, monkeypatch):
    train(job, labelled, tmp_path / "a.safetensors")
    learn, done = job.Training.learn, []

    def breaks(self, *batch):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return learn(self, *batch)

    monkeypatch.setattr(job.Training, "learn", breaks)
    with pytest.raises(KeyboardInterrupt):
        train(job, labelled, tmp_path / "b.safetensors")
    monkeypatch.setattr(job.Training, "learn", learn)
    train(job, labelled, tmp_path / "b.safetensors", resume=True)
    for name in ("safetensors", "csv"):
        assert (tmp_path / f"a.{name}").read_bytes() == (tmp_path / f"b.{name}").read_bytes()


def test_training_that_is_resumed_with_fewer_steps_ends_there(job, tmp_path):
    long, short = job.Training(1000, 0), job.Training(50, 0)
    for _ in range(48):
        long.optimizer.step()
        long.rate.step()
        long.step += 1
    long.save(tmp_path / "a.checkpoint")
    short.load(tmp_path / "a.checkpoint")
    assert short.step == 48
    short.optimizer.step()
    short.rate.step()
    assert short.rate.get_last_lr()[0] < 1e-6 < long.rate.get_last_lr()[0]


def test_a_picture_without_a_face_is_left_out(job, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "1_a.jpg"), np.full((300, 300, 3), 180, np.uint8))
    job.label(tmp_path / "in", tmp_path / "out", bald=[], without=[])
    assert "1_a.jpg: no sure face" in capsys.readouterr().out
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(SystemExit, match="label first"):
        job.read(tmp_path / "out")


def test_measured_figures_and_the_sheet_are_of_the_held_out(job, labelled, tmp_path, capsys):
    job.measure(labelled, None, threads=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"2 photographs,{','.join(PARTS)}"
    figures = dict(line.split(",", 1) for line in lines[1:])
    assert len(figures) == 2 * len(job.CONDITIONS)
    assert float(figures["as it is all"].split(",")[FACE]) > 0.5
    job.sheet(labelled, tmp_path / "s.png", [None], width=2)
    assert job.read_picture(tmp_path / "s.png").shape == (INPUT, 2 * 3 * INPUT, 3)
