"""From an analysed face to a composited one with a generator that draws straight onto it, with the real models."""

import copy
import io
import time

import numpy as np
import pytest
from PIL import Image

from deid import config
from deid.errors import ModelError
from deid.faces import align
from deid.gallery import store
from deid.interfaces import Face, Gallery, Renderer
from deid.pipeline import parts, rows
from deid.pipeline.compose import Compose
from deid.pipeline.rows import Row
from deid.pipeline.stages import Analyse, Generate
from deid.surrogates.ksame_mesh import KSameMesh
from tests.e2e import corpus
from tests.unit.pipeline.test_rungs import without_mesh

SMILING = np.array([0.0352, 0.045, 0.43, 0.05, 0.139], np.float32)
NEUTRAL = np.array([0.0112, 0.015, 0.35, 0.0555, 0.139], np.float32)


def settings(**changes: object) -> config.Config:
    base: dict[str, object] = {
        "input": {"uri": "raw"},
        "output": {"uri": "out", "image_format": "png"},
        "state": "state",
        "models": {"accept": ["clean", "permissive", "restricted"]},
        "assignment": {"mode": "per-face"},
        "generator": "ksame_mesh",
        "match": {"k": 1, "margin": 0.65},
    }
    return config.parse(base | changes)


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return store.of(settings())


@pytest.fixture(scope="module")
def renderer(gallery: Gallery) -> KSameMesh:
    made = KSameMesh({})
    made.use(gallery)
    return made


@pytest.fixture(scope="module")
def analysed() -> Row:
    """Two faces, of about 190 and 110 px."""
    source = Row(0, 0, 0, corpus.encoded(corpus.group(), "PNG"), "png")
    return rows.from_table(Analyse(settings())(rows.to_table([source])))[0]


@pytest.fixture(scope="module")
def generate() -> Generate:
    return Generate(settings(), b"s" * 32)


@pytest.fixture
def row(analysed: Row) -> Row:
    return copy.deepcopy(analysed)


def done(row: Row, stage: Generate, **changes: object) -> Row:
    stage.config = settings(**changes)
    return rows.from_table(Compose(stage.config)(stage(rows.to_table([row]))))[0]


def posed(mesh: np.ndarray, wanted: np.ndarray | None = None) -> Face:
    face = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), mesh.astype(np.float32), 1.0)
    face.wanted = wanted
    return face


def test_the_packaged_gallery_keeps_its_rules(gallery: Gallery) -> None:
    weights = gallery.styles
    assert ((weights > 0).sum(1) >= 3).all()
    assert weights.sum(1) == pytest.approx(1, abs=0.01)
    assert (weights.max(1) - np.where(weights > 0, weights, 1).min(1)).max() < 1e-3
    assert float(gallery.metadata["recipe.threshold"]) > 0.45
    sexes = np.asarray(gallery.attributes["sex"])
    assert min((sexes == 0).sum(), (sexes == 1).sum()) >= 30


def test_faces_are_drawn_and_put_in(row: Row, generate: Generate) -> None:
    for kind in ("head", "face"):
        result = done(copy.deepcopy(row), generate, region={"kind": kind}, gate={"enabled": False})
        assert {(face.status, face.anonymizer) for face in result.faces} == {("replaced", "surrogate")}
        assert {face.k for face in result.faces} == {1}
        pixels = np.asarray(Image.open(io.BytesIO(result.result)).convert("RGB")).astype(int)
        for face in row.faces:
            x, y = face.mesh[4, :2].round().astype(int)
            assert pixels[y - 10 : y + 10, x - 10 : x + 10].std() > 1


def test_a_face_without_mesh_gets_the_average_of_portraits(row: Row, generate: Generate) -> None:
    without_mesh(row)
    result = done(row, generate, gate={"enabled": False})
    assert {(face.status, face.anonymizer) for face in result.faces} == {("replaced", "ksame-pixel")}


def test_pose_and_expression_are_the_faces(analysed: Row, renderer: KSameMesh) -> None:
    faces = [posed(face.mesh, wanted) for face in analysed.faces for wanted in (NEUTRAL, SMILING)]
    drawn = renderer.draw([np.array([n]) for n in range(len(faces))], faces, 256)
    for face, one in zip(faces, drawn, strict=True):
        assert one.picture.shape == (256, 256, 3)
        assert align.expression(one.mesh) == pytest.approx(face.wanted, abs=0.012)
        yaw, pitch, _ = align.pose(one.mesh) - align.pose(face.mesh)
        assert abs(yaw) < 4
        assert abs(pitch) < 6


def test_the_expression_is_seen_in_the_picture(
    renderer: KSameMesh, generate: Generate, gallery: Gallery
) -> None:
    """By the mesher, which took no part in drawing; in steps from neutral to smiling."""
    for index in (0, len(gallery) // 2):
        smiles = []
        for share in (0, 0.5, 1):
            wanted = NEUTRAL + np.float32(share) * (SMILING - NEUTRAL)
            one = renderer.draw([np.array([index])], [posed(gallery.meshes[index] * 256, wanted)], 256)[0]
            meshes, scores = generate.mesher.mesh(one.picture, generate.standing(256))
            assert scores[0] > 0.9
            smiles.append(align.expression(meshes[0]))
        widths = [smile[align.EXPRESSION.index("mouth_width")] for smile in smiles]
        assert np.diff(widths).min() > 0.01


def test_more_than_one_mixture_is_averaged_again(renderer: KSameMesh, gallery: Gallery) -> None:
    face = posed(gallery.meshes[0] * 128, NEUTRAL)
    both = renderer.draw([np.array([0, 1])], [face], 128)[0].picture.astype(int)
    alone = [renderer.draw([np.array([n])], [face], 128)[0].picture.astype(int) for n in (0, 1)]
    middle = np.s_[60:75, 50:78]
    assert np.abs(both - (alone[0] + alone[1]) / 2)[middle].mean() < 12


def test_nothing_but_the_mesh_passes_from_the_face(renderer: KSameMesh, analysed: Row) -> None:
    face = posed(analysed.faces[0].mesh)
    other = copy.deepcopy(face)
    other.embedding, other.looks = np.ones(128, np.float32), np.ones(17, np.float32)
    first, second = (renderer.draw([np.array([3])], [one], 128)[0] for one in (face, other))
    assert (first.picture == second.picture).all()


def test_a_face_takes_little_time(renderer: KSameMesh, analysed: Row) -> None:
    faces = [posed(face.mesh) for face in analysed.faces] * 4
    chosen = [np.array([n]) for n in range(len(faces))]
    renderer.draw(chosen, faces, 256)  # textures are decoded once
    start = time.process_time()
    renderer.draw(chosen, faces, 256)
    assert (time.process_time() - start) / len(faces) < 0.06


def test_another_generators_gallery_is_refused() -> None:
    with pytest.raises(ModelError, match="build_mixtures"):
        KSameMesh({}).use(store.load(None))


def test_it_is_a_renderer_and_needs_no_restricted_generator() -> None:
    assert isinstance(KSameMesh({}), Renderer)
    names = {*parts.models_of(settings()), *parts.packaged_of(settings())}
    assert "ksame_mesh" in names
    assert not {"mobilestylegan", "image_heads", "default_gallery"} & names
