import pytest

from deid.demo.corpus import Corpus
from deid.demo.measure import measure
from deid.faces.detect import CenterFaceDetector
from deid.faces.embed import DlibEmbedder
from deid.faces.mesh import FaceMesher
from deid.models.store import default_store
from deid.pipeline.trace import Pair
from tests.unit.demo.test_corpus import image, members


def test_pictures_that_nobody_changed_are_found_and_recognised(small: Corpus) -> None:
    files = default_store().files
    parts = (
        CenterFaceDetector(files("centerface"), threads=2),
        FaceMesher(files("facemesh")),
        DlibEmbedder(files("dlib_resnet"), threads=2),
    )
    pairs = [Pair("a.tar", key, image(s), image(s)) for key, s in members(small).items()]
    measured = measure(pairs, small.truth, *parts)
    assert measured.recall.total.found == measured.recall.total.truth == small.faces
    assert measured.before.probes == small.faces - measured.before.subjects
    assert measured.after.rank1.value == measured.before.rank1.value
    assert measured.before.rank1.value >= 0.75
    assert measured.before.auc.value == pytest.approx(measured.after.auc.value)
    assert len(measured.cells) == len(small.truth)
