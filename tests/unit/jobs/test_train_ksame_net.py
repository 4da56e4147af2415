"""The recipe of the k-Same-Net, on generated and on made people."""

import csv
import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from deid.gallery import store
from deid.models.store import default_store
from deid.surrogates.generator import MobileStyleGANGenerator
from deid.surrogates.ksame_net import KSameNet
from deid.training.faces import Unusable
from deid.training.mixtures import People
from tests.unit.training import made_people

SOURCE = Path(__file__).parents[3] / "jobs/train_ksame_net.py"
OPTIONS = {
    "variant": "shapefree",
    "each": 3,
    "fold": 3,
    "leave_out": [],
    "terms": ["pixel", "gradient", "feature", "adversarial"],
    "restore": True,
    "steps": 2,
    "small": 1,
    "warm": 30,
    "samples": 16,
    "batch": 2,
    "rate": 2e-4,
    "seed": 0,
    "every": 1,
    "threads": 1,
    "device": "cpu",
    "resume": False,
}


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("train_ksame_net", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    path = tmp_path_factory.mktemp("people") / "people.npz"
    made, frame = made_people.people()
    made.save(path, frame)
    return path


def test_generated_faces_are_aligned_and_those_left_out_stay_out(job, tmp_path, capsys):
    generator = MobileStyleGANGenerator(default_store().files("mobilestylegan"))
    pictures = generator.generate(store.load(None).styles[:6], 256)
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "subject", "expression"])
        for n, picture in enumerate(pictures):
            cv2.imwrite(str(tmp_path / f"{n}.png"), picture[..., ::-1])
            writer.writerow([f"{n}.png", n // 2, ("neutral", "smiling")[n % 2]])
    job.prepare(tmp_path, tmp_path / "people.npz", ["1"], threads=1)
    made, frame = People.load(tmp_path / "people.npz")
    assert made.names == ["0", "2"]
    assert made.pictures.shape == (1, 2, 2, 256, 256, 4)
    nose = (frame.mean[4, :2] * 256).astype(int)
    assert (made.pictures[0, ..., nose[1], nose[0], 3] > 250).all()
    assert np.abs(made.meshes - frame.mean).max() < 0.2
    assert "2 people, 1 left out" in capsys.readouterr().out


def test_a_folder_without_labels_is_refused(job, tmp_path):
    with pytest.raises(Unusable, match="no labels"):
        job.prepare(tmp_path, tmp_path / "people.npz", [], threads=1)


def test_a_tiny_run_gives_a_network_of_groups_and_a_curve(job, people, tmp_path):
    job.fit(people, tmp_path / "net.safetensors", **OPTIONS)
    net = KSameNet({"ksame_net.safetensors": tmp_path / "net.safetensors"})
    assert net.identities == 2
    rows = list(csv.DictReader((tmp_path / "net.csv").open()))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert all(np.isfinite([float(value) for value in row.values()]).all() for row in rows)
    job.sheet(tmp_path / "net.safetensors", tmp_path / "sheet.png", 2, 0, threads=1)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (7 * 256, 2 * 256, 3)


def test_single_people_are_folded_into_groups_when_they_leave(job, people, tmp_path):
    job.fit(people, tmp_path / "net.safetensors", **OPTIONS | {"each": 1, "warm": 0, "steps": 0})
    assert KSameNet({"ksame_net.safetensors": tmp_path / "net.safetensors"}).identities == 2


def test_a_run_that_broke_off_goes_on_to_the_same_end_and_can_be_exported(job, people, tmp_path, monkeypatch):
    given = OPTIONS | {"warm": 0, "steps": 2, "small": 2}
    job.fit(people, tmp_path / "whole.safetensors", **given)
    learn, done = job.Training.learn, []

    def breaks(self):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return learn(self)

    monkeypatch.setattr(job.Training, "learn", breaks)
    with pytest.raises(KeyboardInterrupt):
        job.fit(people, tmp_path / "part.safetensors", **given)
    monkeypatch.undo()
    job.export_checkpoint(people, tmp_path / "part.safetensors", 3, 3, [], threads=1)
    assert KSameNet({"ksame_net.safetensors": tmp_path / "part.safetensors"}).identities == 2
    job.fit(people, tmp_path / "part.safetensors", **given | {"resume": True})
    for end in ("safetensors", "csv"):
        whole, part = ((tmp_path / f"{name}.{end}").read_bytes() for name in ("whole", "part"))
        assert whole == part


def test_there_is_nothing_to_go_on_from(job, people, tmp_path):
    with pytest.raises(SystemExit, match="no checkpoint"):
        job.fit(people, tmp_path / "net.safetensors", **OPTIONS | {"resume": True})


@pytest.mark.parametrize("verb", ["prepare", "fit", "export", "sheet"])
def test_every_verb_explains_itself(job, verb, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train_ksame_net.py", verb, "--help"])
    with pytest.raises(SystemExit) as ended:
        job.main()
    assert ended.value.code == 0
    assert "--threads" in capsys.readouterr().out
