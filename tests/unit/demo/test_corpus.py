import dataclasses
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from deid.demo import backgrounds, corpus, exif
from deid.demo.corpus import Corpus
from deid.errors import InputError
from deid.evaluation import labels
from deid.evaluation.utility import match
from deid.faces.detect import CenterFaceDetector
from deid.models.store import default_store
from deid.shards import pictures
from tests.unit.demo.conftest import RECIPE

Members = dict[str, dict[str, bytes]]


def members(made: Corpus) -> Members:
    found: Members = {}
    for shard in made.shards:
        with tarfile.open(shard) as archive:
            for info in archive:
                key, _, extension = info.name.partition(".")
                stream = archive.extractfile(info)
                assert stream is not None
                found.setdefault(key, {})[extension] = stream.read()
    return found


@pytest.fixture(scope="module")
def samples(small: Corpus) -> Members:
    return members(small)


def image(sample: dict[str, bytes]) -> bytes:
    return sample.get("jpg") or sample["png"]


def test_the_corpus_has_the_shards_pictures_and_people_that_were_asked_for(
    small: Corpus, samples: Members
) -> None:
    assert len(small.shards) == RECIPE.shards
    assert set(samples) == set(small.truth)
    assert len(samples) == RECIPE.pictures
    subjects = [subject for truth in small.truth.values() for subject in truth.subjects]
    assert set(subjects) <= set(range(RECIPE.people + 1))
    assert {"jpg", "png"} <= {extension for sample in samples.values() for extension in sample}
    assert max(len(truth.boxes) for truth in small.truth.values()) > 1


def test_the_default_recipe_is_large_enough() -> None:
    recipe = corpus.Recipe()
    groups = [corpus.GROUP_SIZES[n % len(corpus.GROUP_SIZES)] for n in range(recipe.pictures - 1)]
    faces = sum(1 if n % corpus.PORTRAIT_EVERY == 0 else count for n, count in enumerate(groups)) + 1
    assert recipe.pictures >= 64
    assert recipe.shards == 4
    assert recipe.people >= 24
    assert faces >= 100


def test_true_boxes_are_where_the_detector_sees_faces(small: Corpus, samples: Members) -> None:
    detector = CenterFaceDetector(default_store().files("centerface"), threads=2)
    for key, truth in small.truth.items():
        pixels = pictures.decode(image(samples[key]), 10**8).pixels
        assert pixels.shape == (truth.height, truth.width, 3)
        boxes = np.array(truth.boxes, np.float32)
        assert len(match(boxes, detector.detect([pixels])[0].boxes, 0.4)) == len(boxes)


def test_sidecars_name_people_and_carry_one_label(samples: Members) -> None:
    for sample in samples.values():
        sidecar = json.loads(sample["json"])
        assert set(sidecar) == {"name", "caption", "label"}
        assert sidecar["name"]
        assert int(sample["cls"]) == sidecar["label"]
        assert 0 <= sidecar["label"] <= len(backgrounds.KINDS)


def test_some_pictures_carry_orientation_place_author_and_thumbnail(small: Corpus, samples: Members) -> None:
    turned = 0
    for key, sample in samples.items():
        if "jpg" not in sample:
            continue
        picture = Image.open(io.BytesIO(sample["jpg"]))
        block = picture.getexif()
        if Base.Orientation not in block:
            continue
        turned += block[Base.Orientation] in (3, 6, 8)
        assert block[Base.Artist]
        assert block.get_ifd(IFD.GPSInfo)[GPS.GPSLatitude]
        raw = picture.info["exif"]
        thumbnail = Image.open(io.BytesIO(raw[raw.rindex(b"\xff\xd8\xff") :]))
        assert max(thumbnail.size) == exif.THUMBNAIL
        assert thumbnail.width / thumbnail.height == pytest.approx(picture.width / picture.height, rel=0.03)
        assert small.truth[key].width in picture.size
    assert turned


@pytest.mark.parametrize("orientation", exif.TURNS)
def test_a_viewer_turns_the_stored_pixels_upright(orientation: int) -> None:
    upright = (
        np.random.default_rng(0).integers(0, 255, (4, 7, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    )
    sink = io.BytesIO()
    block = exif.block(upright, orientation, "Nobody", np.random.default_rng(1))
    Image.fromarray(exif.stored(upright, orientation)).save(
        sink, "jpeg", quality=100, subsampling=0, exif=block
    )
    shown = pictures.decode(sink.getvalue(), 10**6).pixels
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 3


def test_the_same_seed_makes_the_same_bytes(small: Corpus, tmp_path: Path) -> None:
    again = corpus.make(tmp_path / "again", RECIPE)
    assert [shard.read_bytes() for shard in again.shards] == [shard.read_bytes() for shard in small.shards]
    assert again.truth == small.truth


def test_a_corpus_is_used_again_only_when_its_recipe_is_the_same(
    small: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[int] = []
    monkeypatch.setattr(corpus, "_write", lambda folder, recipe, progress: made.append(recipe.seed))
    before = [shard.stat().st_mtime_ns for shard in small.shards]
    assert corpus.make(small.folder, RECIPE).truth == small.truth
    assert [shard.stat().st_mtime_ns for shard in small.shards] == before
    assert made == []
    with pytest.raises(InputError):
        corpus.make(tmp_path / "other", dataclasses.replace(RECIPE, seed=8))
    assert made == [8]


def test_labels_are_the_ground_truth_and_show_no_real_person(small: Corpus) -> None:
    file = small.folder / corpus.LABELS
    made = labels.read(str(file))
    assert len(made) == small.faces
    for key, truth in small.truth.items():
        faces = [label for label in made if label.key == key]
        assert [int(label.person) for label in faces] == truth.subjects
        assert [list(label.box or ()) for label in faces] == truth.boxes
        assert {label.show for label in faces} == {key != corpus.ASTRONAUT}
    written = file.read_bytes()
    file.unlink()
    corpus.make(small.folder, RECIPE)
    assert file.read_bytes() == written


def test_a_folder_without_a_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no demonstration corpus"):
        corpus.load(tmp_path)
