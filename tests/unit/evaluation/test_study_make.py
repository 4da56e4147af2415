import base64
import io
import json
import re
import stat

import numpy as np
import pytest
from PIL import Image

from deid.errors import ConfigError, InputError
from deid.evaluation import settings
from deid.evaluation.labels import Label
from deid.evaluation.study import make
from deid.evaluation.study import questions as q
from deid.interfaces import Face
from deid.shards import webdataset
from tests.unit.evaluation import study_people


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def sides(folder):
    source, result, labels = study_people.corpus(folder)
    return settings.Source(uri=str(source), labels=str(labels)), settings.Result(name="ours", uri=str(result))


@pytest.fixture(scope="module")
def made(folder, sides):
    return make.make(*sides, make.Options(folder / "out", tasks=20, seed=5, contact="Ada <ada@example.org>"))


@pytest.fixture(scope="module")
def page(made):
    return (made.folder / make.PAGE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data(page):
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.S)
    return json.loads(found[1])


@pytest.fixture(scope="module")
def key(made):
    return json.loads((made.folder / make.KEY).read_text())


def test_page_and_key_are_of_one_study(made, data, key):
    assert data["page"] == key["page"] == made.page
    assert {task["id"] for task in data["tasks"]} == set(key["tasks"])
    assert made.tasks["check"] == 6
    assert set(made.tasks) == {*q.ASKED, "check"}
    assert made.source_faces > 0


def test_nothing_of_the_truth_is_in_the_page(page, data, key):
    shown = page.encode()
    for picture in data["pictures"].values():
        shown += base64.b64decode(picture)
    for secret in ("surname", "photos", "labels.csv", study_people.SECRET):
        assert secret.encode() not in shown, secret
    assert not re.search("source|result|control|hidden|stranger|truth", json.dumps(data["tasks"]))
    assert all(task.keys() - {"word"} == {"id", "kind", "pictures"} for task in data["tasks"])
    assert json.dumps(key["tasks"]).count('"truth"') == len(data["tasks"])


def test_key_names_nobody_and_is_its_owners_alone(made, key):
    assert "surname" not in json.dumps(key)
    assert stat.S_IMODE((made.folder / make.KEY).stat().st_mode) == 0o600


def test_pictures_hold_pixels_alone(data):
    for text in data["pictures"].values():
        image = Image.open(io.BytesIO(base64.b64decode(text)))
        assert (image.format, image.size) == ("JPEG", (256, 256))
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_heads_fill_the_window_upright(data, key):
    """The pipeline's detector finds one face in each, of two fifths to three quarters of its height."""
    detector = make._detector()
    upside = [t["id"] for t in data["tasks"] if key["tasks"][t["id"]]["truth"] == "upside"]
    skipped = {p for t in data["tasks"] if t["id"] in upside for p in t["pictures"]}
    seen = 0
    for name, text in data["pictures"].items():
        if name in skipped:
            continue
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
        face = make.heads.largest(detector.detect([pixels])[0])
        assert face is not None
        assert 0.4 < face.height / 256 < 0.75
        eyes = face.points[1] - face.points[0]
        assert abs(np.degrees(np.arctan2(eyes[1], eyes[0]))) < 8
        seen += 1
    assert seen > 15


def test_source_and_result_are_seen_through_one_window(sides):
    same = settings.Result(name="same", uri=sides[0].uri)
    pairs = make.heads.pairs(sides[0], same)
    found = make.heads.find(pairs, make._detector(), np.random.default_rng(0), 4, make.heads.Missed())
    assert len(found) >= 4
    assert all((head.source == head.result).all() for head in found)


def face(middle, length=100.0):
    """Tilted by 8 degrees, its box square."""
    box = np.array([*(np.array(middle) - length / 2), *(np.array(middle) + length / 2)])
    return Face(box, 1.0, np.array([[-20, -10], [20, -4.4], [0, 5], [-15, 25], [15, 25]]) + middle)


def corners(transform):
    back = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))
    side = make.heads.SIDE
    return (back @ [[0, side, 0, side], [0, 0, side, side], [1] * 4])[:2]


@pytest.mark.parametrize(
    ("middle", "size"), [((90, 95), (400, 500)), ((410, 310), (400, 500)), ((100, 100), (190, 400))]
)
def test_a_window_lies_in_the_picture_where_the_head_allows(middle, size):
    seen = corners(make.heads.window(face(middle), size))
    assert seen.min() > -1e-6
    assert (seen.max(axis=1) < np.array(size[::-1]) + 1e-6).all()


def test_a_window_keeps_the_head_where_the_picture_ends():
    seen = corners(make.heads.window(face((50, 200)), (400, 500)))
    assert seen[0].min() < -10
    assert seen[0].min() < 0 < 100 < seen[0].max()
    wide = corners(make.heads.window(face((60, 60)), (120, 120)))
    assert np.hypot(*(wide[:, 1] - wide[:, 0])) == pytest.approx(make.heads.LEAST_REACH * 100)


def test_beyond_the_picture_its_colours_go_on():
    """To the left of a picture red at its left and blue elsewhere, all is red, and nothing is black."""
    picture = np.full((200, 300, 3), (20, 40, 200), np.uint8)
    picture[:, :60] = 200, 40, 20
    seen = make.heads.head(picture, np.array([[1.0, 0, 100], [0, 1, 30]]))
    assert (seen[:, :80] == (200, 40, 20)).all()
    assert (seen[:, 200:] == (20, 40, 200)).all()


def test_result_of_another_size_is_seen_through_the_same_window(sides, tmp_path):
    for name in ("surname0_0", "surname1_0"):
        image = Image.fromarray(study_people.portrait(int(name[7]), 0))
        image.resize((512, 512) if name == "surname0_0" else (512, 300)).save(tmp_path / f"{name}.png")
    pairs = make.heads.pairs(sides[0], settings.Result(name="large", uri=str(tmp_path)))
    missed = make.heads.Missed()
    found = make.heads.find(pairs, make._detector(), np.random.default_rng(0), 9, missed)
    assert (len(found), missed.other_shape) == (1, 1)
    assert np.abs(found[0].source.astype(int) - found[0].result).mean() < 4


def test_small_faces_and_broken_pictures_are_left_out(tmp_path):
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        small = Image.fromarray(study_people.portrait(0, 0)).resize((64, 64))
        small.save(tmp_path / side / "small.png")
        (tmp_path / side / "broken.jpg").write_bytes(b"\xff\xd8\xffnothing")
        Image.new("RGB", (200, 200), "green").save(tmp_path / side / "empty.png")
    pairs = make.heads.pairs(
        settings.Source(uri=str(tmp_path / "a")), settings.Result(name="b", uri=str(tmp_path / "b"))
    )
    missed = make.heads.Missed()
    assert not make.heads.find(pairs, make._detector(), np.random.default_rng(0), 9, missed)
    assert (missed.small, missed.unreadable, missed.no_face) == (1, 1, 1)


def test_shards_paired_by_background(sides, tmp_path):
    """The output of a run: other keys, other order, another part of the picture changed."""
    source, result = tmp_path / "raw", tmp_path / "run"
    for place in (source, result):
        place.mkdir()
    rng, samples = np.random.default_rng(0), []
    for person in range(3):
        scene = np.repeat(np.repeat(rng.integers(0, 255, (8, 8, 3), np.uint8), 64, 0), 64, 1)
        before, after = scene.copy(), scene.copy()
        before[128:384, 128:384] = study_people.portrait(person, 0)
        after[128:384, 128:384] = study_people.portrait(person + study_people.AWAY, 0)
        samples.append((make.pictures.encode(before, "jpg", 95), make.pictures.encode(after, "jpg", 95)))
    shard = webdataset.write_shard((f"in{n}", {"jpg": pair[0]}) for n, pair in enumerate(samples))
    (source / "raw.tar").write_bytes(shard)
    shard = webdataset.write_shard((f"out{n}", {"jpg": samples[n][1]}) for n in (2, 0, 1))
    (result / "0.tar").write_bytes(shard)
    given = settings.Source(uri=str(source)), settings.Result(name="r", uri=str(result), pairing="background")
    places = [(p.source.read(), p.result.read()) for p in make.heads.pairs(*given)]
    assert sorted(places) == sorted(samples)
    made = make.make(*given, make.Options(tmp_path / "out", tasks=10))
    assert "same" not in made.tasks
    with pytest.raises(InputError, match="none of its 3 pictures could be paired"):
        make.heads.pairs(given[0], settings.Result(name="r", uri=str(result)))


def test_pairs_from_a_file(sides, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("key,result\nsurname0_0,surname3_1\n", encoding="utf-8")
    (pair,) = make.heads.pairs(sides[0], settings.Result(name="r", uri=sides[1].uri, pairing=str(pairs)))
    assert pair.source.uri.endswith("/surname0_0.jpg")
    assert pair.result.uri.endswith("/surname3_1.png")
    assert [label.person for label in pair.labels] == ["surname0"]


def test_a_head_says_what_its_label_knows():
    flat = study_people.colour(0, 0)
    first = Label("a", "1", (1, 2, 3, 4), "male", float("nan"), "other")
    assert make.heads.Head(0, first, flat, flat).known == {"sex": "male", "age": "", "expression": "other"}
    second = Label("a", "2", (1, 2, 3, 4), age=24)
    assert make.heads.Head(0, second, flat, flat).known == {"sex": "", "age": "18-24", "expression": ""}


def test_the_face_in_a_labels_box_is_the_persons(tmp_path):
    """Two people in one picture, the larger one to the right."""
    scene = np.full((300, 560, 3), 128, np.uint8)
    left, right = (Image.fromarray(study_people.portrait(n, 0)) for n in (0, 1))
    scene[60:260, 20:220], scene[20:276, 290:546] = left.resize((200, 200)), right
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        Image.fromarray(scene).save(tmp_path / side / "both.png")
    text = "file,subject,x0,y0,x1,y1\nboth.png,left,70,100,170,230\nboth.png,right,355,70,480,240\n"
    (tmp_path / "labels.csv").write_text(text)
    source = settings.Source(uri=str(tmp_path / "a"), labels=str(tmp_path / "labels.csv"))
    pairs = make.heads.pairs(source, settings.Result(name="b", uri=str(tmp_path / "b")))
    missed = make.heads.Missed()
    found = make.heads.find(pairs, make._detector(), np.random.default_rng(0), 9, missed)
    assert missed == make.heads.Missed()
    heads = {head.label.person: head.source.astype(int) for head in found}
    detector = make._detector()
    for person, portrait in (("left", left), ("right", right)):
        pixels = np.asarray(portrait)
        own = make.heads.window(make.heads.largest(detector.detect([pixels])[0]), pixels.shape[:2])
        near = np.abs(make.heads.head(pixels, own).astype(int) - heads[person])[64:192, 64:192].mean()
        other = np.abs(heads["left"] - heads["right"])[64:192, 64:192].mean()
        assert near < other / 2


def test_a_second_head_in_the_window_is_seen():
    own, size = face((250, 200)), (400, 500)
    there = make.heads.window(own, size)

    def found(box):
        boxes = np.array([own.box, box], np.float32)
        points = np.stack([own.points] * 2).astype(np.float32)
        return make.heads.crowded(
            there, boxes_face(boxes, own), make.heads.Detections(boxes, np.ones(2, np.float32), points)
        )

    assert found([290, 150, 330, 200])
    assert not found([340, 150, 440, 250]), "mostly outside"
    assert not found([300, 150, 320, 180]), "much smaller: the background"


def boxes_face(boxes, own):
    return Face(boxes[0], own.score, own.points)


def test_a_study_is_not_overwritten(made, sides):
    with pytest.raises(ConfigError, match="holds a study already"):
        make.make(*sides, make.Options(made.folder))


def test_policy_allows_the_page_alone(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)[1]
        assert make._hash(text) in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://", page)


def test_every_text_is_there_in_both_languages(data):
    def shape(value):
        if isinstance(value, dict):
            return {name: shape(inner) for name, inner in value.items()}
        return (
            [shape(inner) for inner in value]
            if isinstance(value, list)
            else sorted(re.findall(r"\{\w+\}", value))
        )

    english, japanese = (data["texts"][language] for language in make.LANGUAGES)
    assert shape(english) == shape(japanese)
    for kind, question in q.QUESTIONS.items():
        assert set(english["options"][kind]) == set(question.options)
        assert kind in english["questions"]
