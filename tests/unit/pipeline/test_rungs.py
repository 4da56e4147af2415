"""From analysed faces to composited ones, each way down the ladder, with the real models."""

import copy
import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deid import config
from deid.pipeline import rows
from deid.pipeline.compose import Compose
from deid.pipeline.identities import Identities
from deid.pipeline.rows import Row
from deid.pipeline.stages import Analyse, Generate
from tests.e2e import corpus

SECRET = b"s" * 32


def settings(**changes: object) -> config.Config:
    base = {
        "input": {"uri": "raw"},
        "output": {"uri": "out", "image_format": "png"},
        "state": "state",
        "models": {"accept": ["clean", "permissive", "restricted"]},
        "assignment": {"mode": "per-face"},
    }
    return config.parse(base | changes)


@pytest.fixture(scope="module")
def analysed() -> Row:
    """Two faces, of about 190 and 110 px."""
    source = Row(0, 0, 0, corpus.encoded(corpus.group(), "PNG"), "png")
    return rows.from_table(Analyse(settings())(rows.to_table([source])))[0]


@pytest.fixture(scope="module")
def generate() -> Generate:
    return Generate(settings(), SECRET)


@pytest.fixture
def row(analysed: Row) -> Row:
    return copy.deepcopy(analysed)


def done(row: Row, stage: Generate, **changes: object) -> Row:
    stage.config = settings(**changes)
    return rows.from_table(Compose(stage.config)(stage(rows.to_table([row]))))[0]


def pixels(row: Row) -> NDArray[np.int_]:
    return np.asarray(Image.open(io.BytesIO(row.result)).convert("RGB")).astype(int)


def outcome(row: Row) -> set[tuple[str, str, str]]:
    return {(face.status, face.anonymizer, face.failure) for face in row.faces}


def without_mesh(row: Row) -> None:
    for face in row.faces:
        face.mesh, face.mesh_score, face.failure = None, 0.0, "mesh_failed"


def with_mesh_elsewhere(row: Row) -> None:
    for face in row.faces:
        assert face.mesh is not None
        face.mesh[:, 0] += 200


def without_embedding(row: Row) -> None:
    """The larger face alone, for which a simple surrogate would be too coarse."""
    row.faces = [max(row.faces, key=lambda face: face.height)]
    row.faces[0].embedding, row.faces[0].failure = None, "embed_failed"


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (lambda _: None, {}, ("surrogate", "")),
        (without_mesh, {}, ("ksame-pixel", "mesh_failed")),
        (with_mesh_elsewhere, {}, ("ksame-pixel", "mesh_failed")),
        (without_embedding, {"gate": {"enabled": False}}, ("ksame-pixel", "embed_failed")),
        (without_mesh, {"ladder": {"simple_below": 900}}, ("simple", "mesh_failed")),
        (lambda _: None, {"ladder": {"simple_below": 900}}, ("simple", "too_small")),
        (lambda _: None, {"anonymizer": "ksame-pixel"}, ("ksame-pixel", "policy")),
    ],
)
def test_hard_faces_are_replaced_one_rung_down(
    row: Row,
    generate: Generate,
    change: Callable[[Row], None],
    options: dict[str, object],
    expected: tuple[str, str],
) -> None:
    source = pixels(Row(0, 0, 0, b"", "", result=row.image))
    change(row)
    result = done(row, generate, **options)
    assert outcome(result) == {("replaced", *expected)}
    assert {face.k for face in result.faces} == {5}
    after = pixels(result)
    for face in result.faces:
        x0, y0, x1, y1 = face.box.astype(int)
        before, there = source[y0:y1, x0:x1], after[y0:y1, x0:x1]
        assert (np.abs(there - before).max(2) > 0).mean() > 0.95
        assert (np.abs(there - 128).max(2) == 0).mean() < 0.01, "grey shows"
        assert np.abs(there.mean((0, 1)) - before.mean((0, 1))).max() < 60, "quite another colour"


def test_the_source_leaves_no_pixel_in_a_box_without_a_mesh(row: Row, generate: Generate) -> None:
    image = np.asarray(Image.open(io.BytesIO(row.image))).copy()
    for face in row.faces:
        x0, y0, x1, y1 = face.box.astype(int)
        image[y0:y1, x0:x1] = (255, 0, 255)
    row.image = corpus.encoded(Image.fromarray(image), "PNG")
    without_mesh(row)
    result = done(row, generate)
    assert outcome(result) == {("replaced", "ksame-pixel", "mesh_failed")}
    for face in result.faces:
        x0, y0, x1, y1 = face.box.astype(int)
        left = np.abs(pixels(result)[y0:y1, x0:x1] - (255, 0, 255)).max(2) < 60
        assert not left.any()


@pytest.mark.parametrize("anonymizer", ["solid", "blur", "pixelate"])
def test_what_the_configuration_asks_for_is_no_failure(row: Row, generate: Generate, anonymizer: str) -> None:
    assert outcome(done(row, generate, anonymizer=anonymizer)) == {("covered", anonymizer, "policy")}


@pytest.mark.parametrize(
    ("change", "code"), [(lambda _: None, "generate_failed"), (without_mesh, "mesh_failed")]
)
def test_without_a_generator_all_is_grey(
    row: Row, generate: Generate, monkeypatch: pytest.MonkeyPatch, change: Callable[[Row], None], code: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(generate.generator, "generate", fail)
    generate.gallery_faces._kept.clear()
    change(row)
    result = done(row, generate)
    assert outcome(result) == {("covered", "solid", code)}
    assert {face.k for face in result.faces} == {0}


def test_a_margin_that_none_keeps_ends_in_grey(row: Row, generate: Generate) -> None:
    options = config.Match(margin=100)
    whole, generate.identities.options = generate.identities.options, options
    try:
        assert outcome(done(row, generate)) == {("covered", "solid", "match_failed")}
    finally:
        generate.identities.options = whole


def test_each_rung_is_another_draw_and_repeats(row: Row, generate: Generate) -> None:
    identities, face, draws = generate.identities, row.faces[0], {}
    for face.anonymizer in ("surrogate", "simple", "ksame-pixel"):
        draws[face.anonymizer] = tuple(identities.of(face, 0, 0, 0))
        assert tuple(identities.of(face, 0, 0, 0)) == draws[face.anonymizer]
    assert len(set(draws.values())) == 3
    other = Identities(generate.gallery, config.Match(), b"t" * 32)
    assert tuple(other.of(face, 0, 0, 0)) != draws["ksame-pixel"]


def test_without_an_embedding_any_identity_serves(row: Row, generate: Generate) -> None:
    face = row.faces[0]
    face.embedding, face.anonymizer = None, "ksame-pixel"
    assert len(set(generate.identities.of(face, 0, 0, 0))) == 5
