"""The k-Same-Net in the pipeline, with the real models: from an analysed face to one that is put in."""

import io

import numpy as np
import pytest
from PIL import Image

from deid.gallery import store
from deid.pipeline import parts, rows
from deid.pipeline.compose import Compose
from deid.pipeline.rows import Row
from deid.pipeline.stages import Analyse, Generate
from tests.e2e import corpus
from tests.unit.pipeline import test_direct

NET = {"generator": "ksame_net"}


def test_the_packaged_gallery_is_of_mixtures_far_from_the_people_learned() -> None:
    gallery = store.of(test_direct.settings(**NET))
    weights = gallery.styles
    assert weights.sum(1) == pytest.approx(1, abs=0.01)
    assert len(gallery) >= 50
    assert float(gallery.metadata["recipe.threshold"]) > 0.45
    sexes = np.asarray(gallery.attributes["sex"])
    assert min((sexes == 0).sum(), (sexes == 1).sum()) >= 15


def test_faces_are_drawn_and_put_in() -> None:
    config = test_direct.settings(**NET, gate={"enabled": False})
    source = Row(0, 0, 0, corpus.encoded(corpus.group(), "PNG"), "png")
    analysed = Analyse(config)(rows.to_table([source]))
    made = rows.from_table(Compose(config)(Generate(config, b"s" * 32)(analysed)))[0]
    assert {(face.status, face.anonymizer) for face in made.faces} == {("replaced", "surrogate")}
    pixels = np.asarray(Image.open(io.BytesIO(made.result)).convert("RGB")).astype(int)
    for face in rows.from_table(analysed)[0].faces:
        x, y = face.mesh[4, :2].round().astype(int)
        assert pixels[y - 10 : y + 10, x - 10 : x + 10].std() > 1


def test_nothing_restricted_is_needed_to_draw() -> None:
    names = {*parts.models_of(test_direct.settings(**NET)), *parts.packaged_of(test_direct.settings(**NET))}
    assert {"ksame_net", "net_mixtures"} <= names
    assert not {"mobilestylegan", "image_heads", "default_gallery", "ksame_mesh"} & names
