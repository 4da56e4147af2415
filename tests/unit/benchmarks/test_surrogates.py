"""The whole benchmark but its models: a plain observer looks at drawn pictures instead."""

import json

import cv2
import numpy as np
import pytest

from benchmarks import observing, surrogates, surrogates_jobs, surrogates_report
from benchmarks.common import Photograph
from benchmarks.observing import Observing
from deid.evaluation.observe import Observation

PEOPLE = 12


class Observer:
    """Takes a picture's mean colours for its face; counts how often it looks."""

    def __init__(self):
        self.recognizers, self.looked = [self], 0

    name, metric = "colours", "euclidean"

    def observe(self, picture, known=None):
        self.looked += 1
        if not picture.any():
            return Observation()
        cells = cv2.resize(picture, (4, 4), interpolation=cv2.INTER_AREA).astype(np.float64)
        mesh = np.random.default_rng(1).normal(60, 20, (468, 3))
        mesh[[61, 291], 1] -= 20 * (picture[0, 0, 0] > 128)  # smiling pictures have a bright corner
        mesh[[61, 291], 0] += cells[1, 1, 0] / 10
        return Observation(
            score=0.9,
            face_box=np.array([20, 20, 100, 100.0]),
            points=np.zeros((5, 2)),
            box=np.array([20, 20, 100, 100.0]) + cells[1, 1, 1] / 4,
            mesh=mesh,
            mesh_score=1.0,
            lab=np.array([60.0, 10, 20]),
            expression=np.eye(7)[3 if picture[0, 0, 0] > 128 else 6],
            sex=float(cells[1, 1, 2] > 128),
            age=float(cells[1, 1, 0] / 4),
            vectors={"colours": cells[1:3, 1:3].ravel()},
        )


@pytest.fixture
def photographs(tmp_path):
    """Two pictures a person: a wall, in it a head of blocks of the person's colours, and a corner that smiles."""
    rng, made = np.random.default_rng(0), []
    for number in range(PEOPLE):
        head = cv2.resize(rng.integers(0, 255, (2, 2, 3)).astype(np.uint8), (60, 60), interpolation=0)
        for expression in ("neutral", "smiling"):
            picture = np.full((120, 120, 3), 90, np.uint8)
            picture[30:90, 30:90] = head
            picture[:10, :10] = 250 if expression == "smiling" else 20
            path = tmp_path / f"{number:03d}_{expression}.png"
            cv2.imwrite(str(path), picture)
            group = ("male" if number % 2 else "female", "")
            made.append(Photograph(path.stem, path, f"{number:03d}", expression, group, 20.0))
    return made


@pytest.fixture
def eyes(tmp_path):
    return Observing(Observer(), tmp_path / "observations")


def measured(photographs, eyes, output, partial=False):
    """The report on one treatment of the photographs."""
    clear = surrogates.Clear.of(photographs, eyes)
    treatment = surrogates.Treatment("made", output, {"partial": partial})
    kept = {"made": surrogates.measure(treatment, clear, eyes)}
    tables = surrogates.attack([treatment], clear, eyes, 50)
    return surrogates_report.report(clear, kept, tables, {"made": treatment.notes})


def figure(made, name):
    return made["treatments"]["made"]["figures"][name]["value"]


def attack(made, column, title="colours"):
    return made["tables"][title]["rows"]["made"][column]["value"]


def test_the_sources_themselves_are_kept_and_known(photographs, eyes):
    made = measured(photographs, eyes, {p.key: p.path.read_bytes() for p in photographs})
    assert (attack(made, "rank1"), attack(made, "auc")) == (1, 1)
    assert [figure(made, n) for n in ("found_again", "sex", "smile_mesh", "smile_network", "seam")] == [1] * 5
    assert [figure(made, n) for n in ("landmarks", "yaw", "skin", "age", "score_fell")] == [0] * 5
    assert made["groups"]["chance"] == pytest.approx(2 / PEOPLE, abs=1e-3)
    assert "**missed**" in surrogates_report.markdown(made)
    json.dumps(made, allow_nan=False)


def test_other_people_are_not_known_and_not_kept(photographs, eyes):
    keys = [p.key for p in photographs]
    data = [p.path.read_bytes() for p in photographs]
    made = measured(photographs, eyes, dict(zip(keys, data[2:] + data[:2], strict=True)))
    assert attack(made, "rank1") == 0
    assert attack(made, "auc") < 0.8
    assert figure(made, "age") > 5
    assert figure(made, "landmarks") > 0


def test_missing_pictures_are_failures_but_in_a_partial_folder(photographs, eyes):
    some = {p.key: p.path.read_bytes() for p in photographs[:12]}
    whole = measured(photographs, eyes, some)
    assert figure(whole, "found_again") == 0.5
    assert attack(whole, "rank1") == 0.5
    part = measured(photographs, eyes, some, partial=True)
    assert figure(part, "found_again") == 1
    assert attack(part, "rank1") == 1


def test_no_picture_is_looked_at_twice(photographs, eyes):
    data = photographs[0].path.read_bytes()
    first, second = eyes.plain(data), eyes.plain(data)
    assert eyes.observer.looked == 1
    assert (first.mesh == second.mesh).all()
    assert second.vectors["colours"].tolist() == first.vectors["colours"].tolist()
    assert (second.score, second.sex) == (first.score, first.sex)
    eyes.grey(data)
    eyes.grey(data)
    assert eyes.observer.looked == 2


def test_nothing_observed_is_kept_too():
    seen = observing.load(observing.dump(Observation()))
    assert (seen.score, seen.vectors, seen.face) == (0.0, {}, None)
    assert np.isnan(seen.mesh).all()


def test_a_folder_of_results(photographs, tmp_path):
    made = surrogates.folder("x", str(tmp_path))
    assert set(made.output) == {p.key for p in photographs}
    surrogates_jobs.keep(tmp_path / "kept", {"a": b"1"}, {"seconds_a_face": 2.0})
    again = surrogates.folder("x", str(tmp_path / "kept"))
    assert (again.output, again.notes) == ({"a": b"1"}, {"seconds_a_face": 2.0, "partial": False})
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="no pictures"):
        surrogates.folder("x", str(tmp_path / "empty"))


def test_overrides_are_changes_of_the_defaults():
    name, changes = surrogates_jobs.override("match.k=9,region.scale=1.5")
    assert changes == {"match": {"k": 9}, "region": {"scale": 1.5}}
    config = surrogates_jobs.configured(name, changes)
    assert (config.match.k, config.region.scale, config.match.method) == (9, 1.5, "distant")
    assert config.output.uri == "s3://out/match-k-9-region-scale-1-5"
    with pytest.raises(SystemExit, match="give section"):
        surrogates_jobs.override("match")


def test_changes_leave_the_base_alone():
    base = {"a": {"b": 1, "c": 2}}
    assert surrogates_jobs.merged(base, {"a": {"b": 3}, "d": 4}) == {"a": {"b": 3, "c": 2}, "d": 4}
    assert base == {"a": {"b": 1, "c": 2}}


def test_everybody_is_on_the_sheets(photographs, tmp_path):
    data = {p.key: p.path.read_bytes() for p in photographs}
    surrogates_report.sheets(tmp_path / "sheets", "made", data, data, height=60)
    pages = sorted((tmp_path / "sheets").iterdir())
    assert [cv2.imread(str(page)).shape for page in pages] == [(360, 240, 3)] * 2
