import dataclasses

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from deid.evaluation import quality
from deid.faces import align
from deid.faces.detect import CenterFaceDetector
from deid.faces.mesh import FaceMesher
from deid.interfaces import Face
from deid.models.store import default_store


@pytest.fixture(scope="module")
def face():
    picture = astronaut()
    found = CenterFaceDetector(default_store().files("centerface")).detect([picture])[0]
    mesh = FaceMesher(default_store().files("facemesh")).mesh(picture, found)[0][0]
    return Face(found.boxes[0], float(found.scores[0]), found.points[0], mesh, 1.0)


def test_the_face_is_half_of_the_chip_and_upright(face):
    picture = astronaut()
    transform = align.similarity(align.five_points(face.mesh), quality.TEMPLATE)
    mesh = face.mesh[:, :2] @ transform[:, :2].T + transform[:, 2]
    brows, chin = mesh[[105, 334], 1].mean(), mesh[152, 1]
    assert 0.42 < (chin - brows) / quality.SIDE < 0.6
    assert chin < quality.SIDE - 4
    assert mesh[10, 1] > quality.SIDE * 0.15
    assert abs(np.subtract(*mesh[[33, 263], 1])) < 2
    chip = quality.chip(picture, face)
    assert (chip.shape, chip.dtype) == ((64, 64, 3), np.uint8)


def test_a_turned_picture_gives_the_same_chip(face):
    picture = astronaut()
    turn = cv2.getRotationMatrix2D((225, 120), 40, 1.3)
    turned = cv2.warpAffine(picture, turn, (512, 512))
    mesh = face.mesh.copy()
    mesh[:, :2] = mesh[:, :2] @ turn[:, :2].T + turn[:, 2]
    points = (face.points @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    moved = dataclasses.replace(face, mesh=mesh, points=points)
    difference = cv2.absdiff(quality.chip(turned, moved), quality.chip(picture, face))
    assert np.median(difference) < 4


def test_points_that_make_no_face_give_no_chip(face):
    broken = Face(face.box, 0.5, np.zeros((5, 2), np.float32))
    assert quality.chip(astronaut(), broken).size == 0


def test_sharpness_falls_with_blur_and_is_of_the_face_alone(face):
    picture = astronaut()
    values = [
        quality.sharpness(cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture, face.mesh)
        for sigma in (0, 1, 2, 4)
    ]
    assert (np.diff(values) < -0.5).all()
    beside = picture.copy()
    beside[300:] = np.random.default_rng(0).integers(0, 255, beside[300:].shape)
    assert quality.sharpness(beside, face.mesh) == values[0]
    assert abs(quality.sharpness(picture, face.box) - values[0]) < 1


def test_sharpness_of_a_flat_face_and_of_none():
    grey = np.full((50, 50, 3), 127, np.uint8)
    assert quality.sharpness(grey, np.array([10, 10, 40, 40.0])) == pytest.approx(np.log(quality.FLOOR))
    assert np.isnan(quality.sharpness(grey, np.array([60, 60, 90, 90.0])))


def test_features_are_nearer_for_the_same_face_than_for_a_grey_one(face):
    picture, extractor = astronaut(), quality.Features(default_store().files("mtcnn"))
    plain = extractor.of(picture, face)
    assert plain.shape == (quality.Features.SIZE,)
    assert plain.any()
    noisy = np.clip(picture + np.random.default_rng(0).normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
    grey = np.full_like(picture, 127)
    near, far = (np.linalg.norm(extractor.of(other, face) - plain) for other in (noisy, grey))
    assert near < far / 3


def test_features_are_what_the_network_judges_by(face):
    """Its last layer on them gives the network's own answer."""
    import torch

    from deid.faces import mtcnn as detector
    from deid.models import mtcnn as nets

    extractor = quality.Features(default_store().files("mtcnn"))
    cut = detector.cut(astronaut(), detector.square(face.box[None])[0], nets.O_SIDE)
    with torch.inference_mode():
        probability = extractor._net(detector.normal(torch.from_numpy(cut[None])))[0]
        head = extractor._net.dense6_1(torch.from_numpy(extractor.of(astronaut(), face)[None])).softmax(1)[
            :, 1
        ]
    assert head.item() == pytest.approx(probability.item(), abs=1e-5)
    assert head.item() > 0.9
