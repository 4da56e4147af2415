import cv2
import numpy as np
import pytest

from deid.errors import InputError
from deid.evaluation.corpus import Corpus, Place, pictures, read
from deid.evaluation.labels import Label
from deid.evaluation.settings import Evaluation
from deid.shards import storage, webdataset
from deid.shards.pictures import decode, encode


def scene(number):
    """A background that tells pictures apart."""
    cells = np.random.default_rng(number).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    return cv2.resize(cells, (96, 96), interpolation=cv2.INTER_CUBIC)


def covered(number):
    picture = scene(number).copy()
    picture[30:60, 30:60] = 127
    return picture


def evaluation(source, result=None, pairing="key", labels=None):
    results = [{"name": "ours", "uri": str(result), "pairing": str(pairing)}] if result else []
    given = {"uri": str(source), "labels": labels and str(labels)}
    return Evaluation.model_validate({"source": given, "output": "out", "results": results})


@pytest.fixture
def source(tmp_path):
    """Four loose pictures, one of them deeper, and a file that is none."""
    folder = tmp_path / "source"
    (folder / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.JPG", "c.png", "deep/er/d.webp")):
        (folder / name).write_bytes(encode(scene(number), name.rpartition(".")[2].lower(), 95))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def renamed(tmp_path):
    """Results of the first three in a shard, under other names and in another order."""
    samples = [(f"r{number}", {"jpg": encode(covered(number), "jpg", 95)}) for number in (2, 0, 1)]
    storage.write_bytes(str(tmp_path / "results" / "x.tar"), webdataset.write_shard(samples))
    return tmp_path / "results"


def test_loose_pictures_are_found_at_any_depth(source):
    found, shards = pictures(str(source), "source")
    assert list(found) == ["a", "b", "c", "d"]
    assert not shards
    assert (decode(found["c"].read(), 10**6).pixels == scene(2)).all()


def test_pictures_of_shards_are_read_where_they_lie(renamed):
    found, shards = pictures(str(renamed), "source")
    assert shards
    assert list(found) == ["r0", "r1", "r2"]
    assert found["r0"].read() == encode(covered(0), "jpg", 95)


def test_shards_in_s3(s3, renamed, source):
    bucket = s3.bucket()
    for folder in (renamed, source):
        for file in storage.list_files(str(folder)):
            name = file.uri.removeprefix(str(folder.parent)).lstrip("/")
            storage.write_bytes(f"s3://{bucket}/{name}", storage.read_bytes(file.uri))
    corpus = read(evaluation(f"s3://{bucket}/source", f"s3://{bucket}/results", "background"))
    assert set(corpus.results["ours"]) == {"a", "b", "c"}
    assert corpus.results["ours"]["b"].read() == encode(covered(1), "jpg", 95)
    assert corpus.sources["d"].read() == (source / "deep/er/d.webp").read_bytes()


def test_results_are_paired_by_their_background(source, renamed):
    corpus = read(evaluation(source, renamed, "background"))
    assert {key: where.read() for key, where in corpus.results["ours"].items()} == {
        key: encode(covered(number), "jpg", 95) for number, key in enumerate("abc")
    }
    noted = corpus.notes["ours"]
    assert noted == {"sources": 4, "results": 3, "paired": 3, "sources without result": 1}


def test_results_are_paired_by_key(source, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "c.jpg").write_bytes(encode(covered(2), "jpg", 95))
    corpus = read(evaluation(source, tmp_path / "results"))
    assert list(corpus.results["ours"]) == ["c"]
    assert corpus.notes["ours"]["sources without result"] == 3


def test_results_are_paired_by_a_file(source, renamed, tmp_path):
    (tmp_path / "pairs.csv").write_text("key,result\na,r0\nb,r1\nd,\nelsewhere,r2\n")
    corpus = read(evaluation(source, renamed, tmp_path / "pairs.csv"))
    assert {key: where.read() for key, where in corpus.results["ours"].items()} == {
        key: encode(covered(number), "jpg", 95) for number, key in enumerate("ab")
    }


def test_what_has_no_label_is_left_out(source, tmp_path):
    (tmp_path / "labels.csv").write_text("key,subject,show\na,1,yes\nb,2,no\n")
    corpus = read(evaluation(source, source, labels=tmp_path / "labels.csv"))
    assert (list(corpus.sources), corpus.unlabelled) == (["a", "b"], 2)
    assert corpus.notes["ours"]["paired"] == 2
    assert corpus.shown("labelled") == {"a"}
    assert corpus.shown("none") == set()
    assert corpus.shown("all") == {"a", "b"}


def test_a_picture_is_shown_only_if_everybody_on_it_may_be():
    labels = {"a": [Label("a", "1", show=True), Label("a", "2", show=False)]}
    corpus = Corpus({"a": Place("a.jpg", "jpg", 1)}, False, labels)
    assert corpus.shown("labelled") == set()


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ("key,result\na,r0\na,r1\n", "1 lines name a key again"),
        ("key,result\na,r0\nb,r0\n", "1 lines name a result again"),
        ("key,output\na,r0\n", "needs a column result"),
        ("key,result\na,other\n", "none of its 3 pictures could be paired"),
    ],
)
def test_pairs_that_are_wrong(source, renamed, tmp_path, pairs, says):
    (tmp_path / "pairs.csv").write_text(pairs)
    with pytest.raises(InputError, match=says):
        read(evaluation(source, renamed, tmp_path / "pairs.csv"))


def test_names_that_do_not_fit_are_no_pairs(source, renamed):
    with pytest.raises(InputError, match=r"results: ours: none of its 3 pictures.*; pairing: background"):
        read(evaluation(source, renamed, "key"))


def test_a_label_of_no_picture(source, tmp_path):
    (tmp_path / "labels.csv").write_text("key,subject\na,1\nz,2\ny,2\n")
    with pytest.raises(InputError, match=r"line 3: no picture has this key \(2 such lines\)"):
        read(evaluation(source, source, labels=tmp_path / "labels.csv"))


def test_no_pictures_and_pictures_of_one_name(tmp_path, source):
    with pytest.raises(InputError, match="source: no pictures below"):
        read(evaluation(tmp_path / "nothing", source))
    (source / "deep" / "a.png").write_bytes(encode(scene(9), "png", 95))
    with pytest.raises(InputError, match="1 pictures have the name of another"):
        read(evaluation(source, source))
