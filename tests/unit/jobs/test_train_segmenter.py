import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from deid.faces.segment import FACE, HAIR, INPUT, PARTS
from deid.faces.segmenter import HeadSegmenter
from deid.training.labels import sure_face

SOURCE = Path(__file__).parents[3] / "jobs/train_segmenter.py"
COUNT = 4


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("train_segmenter", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def faces(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    job.draw(folder, 0, COUNT, seed=77, threads=1)
    job.label_all(folder, threads=1)
    return folder


def train(job, faces, output, **options):
    given = {"steps": 2, "batch": 2, "seed": 0, "every": 1, "workers": 0, "threads": 1, "device": "cpu"}
    job.fit(faces, output, **{"resume": False, **given, **options})


def test_labels_of_drawn_faces_are_sane(job, faces):
    numbers, pictures, parts = job.read(faces)
    assert numbers.tolist() == list(range(COUNT))
    assert pictures.shape == (COUNT, INPUT, INPUT, 3)
    shares = parts.astype(int)
    assert np.abs(shares.sum(-1) - 255).max() <= len(PARTS)
    look = job.mesher()
    for picture, share in zip(pictures, shares, strict=True):
        mesh, _ = look(picture)
        column, row = mesh[:, :2].mean(0).round().astype(int)
        assert share[row, column, FACE] > 240
        assert share[sure_face(mesh), FACE].mean() > 240
        assert share[:8, :8, FACE].max() < 30
        assert share[:8, -8:, FACE].max() < 30
        assert share[..., HAIR].mean() > 0.02 * 255  # none of the four is bald


def test_drawing_goes_on_where_it_stopped(job, faces, tmp_path):
    job.draw(tmp_path, 1, 1, seed=77, threads=1)
    assert (tmp_path / "00001.png").read_bytes() == (faces / "00001.png").read_bytes()
    before = (faces / "00001.npy").stat().st_mtime_ns
    job.draw(faces, 0, COUNT, seed=77, threads=1)
    assert (faces / "00001.npy").stat().st_mtime_ns == before


def test_two_steps_give_weights_that_the_segmenter_loads(job, faces, tmp_path):
    train(job, faces, tmp_path / "a.safetensors")
    _, pictures, _ = job.read(faces)
    found = HeadSegmenter(tmp_path / "a.safetensors").parts([pictures[0]])
    assert found[0].shape == (INPUT // 2, INPUT // 2, len(PARTS))
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert 0 <= float(rows[-1]["face"]) <= 1


def test_resumed_training_ends_where_an_unbroken_one_does(job, faces, tmp_path, monkeypatch):
    train(job, faces, tmp_path / "a.safetensors")
    learn, done = job.Training.learn, []

    def breaks(self, *batch):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return learn(self, *batch)

    monkeypatch.setattr(job.Training, "learn", breaks)
    with pytest.raises(KeyboardInterrupt):
        train(job, faces, tmp_path / "b.safetensors")
    monkeypatch.undo()
    train(job, faces, tmp_path / "b.safetensors", resume=True)
    for end in ("safetensors", "csv"):
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()


def test_there_is_nothing_to_resume_without_a_checkpoint(job, faces, tmp_path):
    with pytest.raises(SystemExit, match="no checkpoint"):
        train(job, faces, tmp_path / "c.safetensors", resume=True)


def test_a_folder_without_labels_is_refused(job, tmp_path):
    with pytest.raises(SystemExit, match="draw and label first"):
        job.read(tmp_path)


def test_figures_name_every_part_framing_and_condition(job, faces, capsys):
    job.measure(faces, None, threads=1)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == f"{COUNT} faces," + ",".join(PARTS)
    assert len(lines) == 2 * 2 * len(job.CONDITIONS)
    face = float(lines[0].split(",")[1 + FACE])
    assert face > 0.8  # with the shipped weights
