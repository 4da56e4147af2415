"""Alignment and embedding of faces, against dlib where dlib does the same."""

from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from deid.faces.embed import (
    MESH_INDICES,
    DlibEmbedder,
    chip,
    chip_transform,
    similarity,
)
from deid.interfaces import Face, Picture
from deid.models.store import default_store

# what CenterFace finds in the portrait
BOX = np.array([183, 65, 271, 179], np.float32)
DETECTOR_POINTS = np.array([[206, 102], [248, 106], [225, 127], [205, 144], [241, 146]], np.float32)


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    store = default_store()
    return store.files("dlib_resnet") | store.files("dlib_5point")


@pytest.fixture(scope="module")
def embedder(files: dict[str, Path]) -> DlibEmbedder:
    return DlibEmbedder(files)


@pytest.fixture(scope="module")
def portrait() -> Picture:
    picture: Picture = skimage.data.astronaut()
    return picture


def dlib_shape(files: dict[str, Path], picture: Picture) -> dlib.full_object_detection:
    """dlib's 5 points of the largest face that dlib finds."""
    found = max(dlib.get_frontal_face_detector()(picture, 1), key=lambda box: box.area())
    return dlib.shape_predictor(str(files["shape_predictor_5_face_landmarks.dat"]))(picture, found)


def face_with_mesh(points: NDArray[np.float32]) -> Face:
    """A face whose mesh has these points [5, 2] where the alignment looks."""
    mesh = np.zeros((468, 3), np.float32)
    mesh[list(MESH_INDICES), :2] = points
    return Face(box=BOX, score=0.9, points=DETECTOR_POINTS, mesh=mesh, mesh_score=1.0)


def face_with_points(points: NDArray[np.float32] = DETECTOR_POINTS) -> Face:
    return Face(box=BOX, score=0.9, points=points.astype(np.float32))


@pytest.mark.parametrize("zoom", [0.5, 1.0, 2.0, 4.5])
def test_chips_are_those_of_dlib(
    zoom: float, files: dict[str, Path], embedder: DlibEmbedder, portrait: Picture
) -> None:
    flags = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    picture = np.asarray(cv2.resize(portrait, None, fx=zoom, fy=zoom, interpolation=flags), np.uint8)
    shape = dlib_shape(files, picture)
    theirs = dlib.get_face_chip(picture, shape, size=150, padding=0.25)
    points = np.array([[part.x, part.y] for part in shape.parts()], np.float32)
    ours = chip(picture, chip_transform(face_with_mesh(points)))
    assert ours.shape == (150, 150, 3)
    assert np.abs(ours.astype(float) - theirs).mean() < 4
    ours_embedded, theirs_embedded = embedder.embed_chips(np.stack([ours, theirs]))
    assert (
        np.linalg.norm(ours_embedded - theirs_embedded) < 0.06
    )  # one person's photographs differ by 0.2 to 0.4


def test_points_of_a_detector_give_the_same_identity(
    files: dict[str, Path], embedder: DlibEmbedder, portrait: Picture
) -> None:
    shape = dlib_shape(files, portrait)
    points = np.array([[part.x, part.y] for part in shape.parts()], np.float32)
    ((by_mesh, by_points),) = embedder.embed([portrait], [[face_with_mesh(points), face_with_points()]])
    assert np.linalg.norm(by_mesh - by_points) < 0.25


def test_embedding_survives_rotation_and_size(embedder: DlibEmbedder, portrait: Picture) -> None:
    (upright,) = embedder.embed([portrait], [[face_with_points()]])
    for angle, scale in ((40, 1.0), (-120, 1.0), (180, 1.0), (10, 0.6), (0, 2.5)):
        turn = cv2.getRotationMatrix2D((225.0, 127.0), angle, scale)
        turn[:, 2] += (400 - 225, 400 - 127)
        turned = np.asarray(cv2.warpAffine(portrait, turn, (800, 800), flags=cv2.INTER_CUBIC), np.uint8)
        points = (DETECTOR_POINTS @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
        (got,) = embedder.embed([turned], [[face_with_points(points)]])
        assert np.linalg.norm(got[0] - upright[0]) < 0.2, (angle, scale)


def test_faces_of_several_pictures_keep_their_places(embedder: DlibEmbedder, portrait: Picture) -> None:
    shifted = face_with_points(DETECTOR_POINTS + 120)
    mirrored = np.ascontiguousarray(portrait[:, ::-1])
    pictures = [portrait, mirrored, portrait, mirrored]
    faces = [[face_with_points(), shifted], [], [shifted], [face_with_points()]]
    together = embedder.embed(pictures, faces)
    alone = [embedder.embed([picture], [some])[0] for picture, some in zip(pictures, faces, strict=True)]
    assert [len(vectors) for vectors in together] == [2, 0, 1, 1]
    assert all(vectors.shape[1] == 128 and vectors.dtype == np.float32 for vectors in together)
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(together[0][1], together[2][0], atol=1e-5)


def test_more_faces_than_a_batch(embedder: DlibEmbedder, portrait: Picture) -> None:
    faces = [face_with_points(DETECTOR_POINTS + shift) for shift in range(35)]
    (vectors,) = embedder.embed([portrait], [faces])
    (last,) = embedder.embed([portrait], [faces[-1:]])
    assert vectors.shape == (35, 128)
    np.testing.assert_allclose(vectors[-1], last[0], atol=1e-5)


@pytest.mark.parametrize("value", [5.0, np.nan, np.inf])
def test_a_face_that_cannot_be_aligned_fails_alone(
    value: float, embedder: DlibEmbedder, portrait: Picture
) -> None:
    broken = face_with_points(np.full((5, 2), value))
    (vectors,) = embedder.embed([portrait], [[broken, face_with_points()]])
    (good,) = embedder.embed([portrait], [[face_with_points()]])
    assert np.isnan(vectors[0]).all()
    np.testing.assert_allclose(vectors[1], good[0], atol=1e-5)


def test_no_pictures(embedder: DlibEmbedder) -> None:
    assert embedder.embed([], []) == []


def test_similarity_is_recovered() -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(size=(5, 2)) * 30
    angle, scale = 0.7, 1.9
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = np.column_stack([turn, [12.0, -7.0]])
    np.testing.assert_allclose(similarity(source, source @ turn.T + (12, -7)), expected, atol=1e-9)


def test_similarity_never_mirrors() -> None:
    source = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    found = similarity(source, source * (-1, 1))
    assert np.linalg.det(found[:, :2]) > 0


def test_chip_copies_pixels_and_is_black_outside() -> None:
    picture = np.random.default_rng(4).integers(1, 256, (40, 50, 3), dtype=np.uint8)
    transform = np.array([[1.0, 0, -45], [0, 1.0, 10]])  # 45 px to the left and 10 up from the chip's corner
    got = chip(picture, transform, 20)
    np.testing.assert_array_equal(got[10:, :5], picture[:10, 45:])
    assert not got[:10].any()
    assert not got[:, 6:].any()


def test_chip_beside_the_picture_is_black() -> None:
    picture = np.full((40, 50, 3), 200, np.uint8)
    assert not chip(picture, np.array([[1.0, 0, -500], [0, 1.0, -500]]), 20).any()
    assert not chip(picture, np.array([[1.0, 0, 500], [0, 1.0, 500]]), 20).any()


def test_shrinking_averages_instead_of_skipping() -> None:
    picture = np.zeros((400, 400, 3), np.uint8)
    picture[:, ::2] = 255  # stripes of one pixel
    got = chip(picture, np.array([[0.1, 0, 0], [0, 0.1, 0]]), 40)
    assert np.abs(got[5:-5, 5:-5].astype(float) - 127.5).max() < 8
