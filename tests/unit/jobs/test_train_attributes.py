import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

SOURCE = Path(__file__).parents[3] / "jobs/train_attributes.py"


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("train_attributes", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_three_views_of_one_portrait_are_one_person(job, tmp_path):
    cv2.imwrite(str(tmp_path / "astronaut.jpg"), data.astronaut()[..., ::-1])
    cv2.imwrite(str(tmp_path / "wall.jpg"), np.full((200, 200, 3), 128, np.uint8))
    rows = ("file,sex_probability,age", "astronaut.jpg,0.1,35", "wall.jpg,0.5,0", "none.jpg,0,0")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    job.embed(tmp_path, tmp_path / "faces.npz")
    views, sex, age = job.read_teacher(tmp_path / "faces.npz", tmp_path / "labels.csv")
    assert views.shape == (1, 3, 128)  # the wall has no face, and one label no picture
    assert (sex.tolist(), age.tolist()) == ([0.1], [35])
    distances = np.linalg.norm(views[0, 1:] - views[0, 0], axis=1)
    assert (distances > 0).all()
    assert (distances < 0.6).all()  # dlib's threshold for the same person
