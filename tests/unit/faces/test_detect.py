"""Detection on a public-domain portrait, whole, tiny, huge, turned and tiled, and on generated faces."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deid.errors import ConfigError
from deid.faces import detect
from deid.faces.detect import CenterFaceDetector
from deid.gallery import store as gallery
from deid.interfaces import Detections, Picture
from deid.models.store import default_store
from deid.surrogates.generator import MobileStyleGANGenerator

BOX = np.array([183, 65, 271, 179], np.float32)  # of the face in the portrait, px
POINTS = np.array([[206, 102], [248, 106], [225, 127], [205, 144], [241, 146]], np.float32)
HEAD = (slice(20, 230), slice(120, 340))  # rows and columns of the portrait


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return default_store().files("centerface")


@pytest.fixture(scope="module")
def detector(files: dict[str, Path]) -> CenterFaceDetector:
    return CenterFaceDetector(files)


@pytest.fixture(scope="module")
def portrait() -> Picture:
    picture: Picture = skimage.data.astronaut()
    return picture


def iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    common = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


def resized(picture: Picture, scale: float) -> Picture:
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=flags), np.uint8)


def one(detector: CenterFaceDetector, picture: Picture) -> Detections:
    return detector.detect([picture])[0]


def test_portrait_has_one_face_with_its_points(detector: CenterFaceDetector, portrait: Picture) -> None:
    found = one(detector, portrait)
    assert len(found) == 1
    assert iou(found.boxes[0], BOX) > 0.85
    assert found.scores[0] > 0.8
    assert np.abs(found.points[0] - POINTS).max() < 6
    assert (found.boxes.dtype, found.scores.dtype, found.points.dtype) == (np.float32,) * 3


def test_batches_give_what_single_pictures_give(detector: CenterFaceDetector, portrait: Picture) -> None:
    pictures = [portrait, np.zeros((50, 80, 3), np.uint8), resized(portrait, 0.5)]
    together = detector.detect(pictures)
    assert [len(found) for found in together] == [1, 0, 1]
    for picture, found in zip(pictures, together, strict=True):
        np.testing.assert_array_equal(one(detector, picture).boxes, found.boxes)


@pytest.mark.parametrize("height", [16, 20, 32])
@pytest.mark.parametrize("canvas", [(200, 300), (1300, 1700)])
def test_small_faces(
    height: int, canvas: tuple[int, int], detector: CenterFaceDetector, portrait: Picture
) -> None:
    """In a small picture, which is enlarged, and in one of two megapixels, which is not."""
    scale = height / (BOX[3] - BOX[1])
    head = resized(portrait[HEAD], scale)
    picture = np.full((*canvas, 3), 110, np.uint8)
    picture[90 : 90 + head.shape[0], 130 : 130 + head.shape[1]] = head
    found = one(detector, picture)
    place = (BOX - (HEAD[1].start, HEAD[0].start) * 2) * scale + (130, 90) * 2
    assert len(found) == 1
    assert iou(found.boxes[0], place) > 0.5


@pytest.mark.parametrize("side", [80, 500, 2600])
def test_a_face_that_fills_the_picture(side: int, detector: CenterFaceDetector, portrait: Picture) -> None:
    x0, y0, x1, y1 = BOX.astype(int)
    picture = resized(np.ascontiguousarray(portrait[y0:y1, x0:x1]), side / (y1 - y0))
    found = one(detector, picture)
    assert len(found) == 1
    assert iou(found.boxes[0], np.array([0, 0, picture.shape[1], picture.shape[0]])) > 0.6


def test_every_face_of_a_tiled_picture_once(files: dict[str, Path], portrait: Picture) -> None:
    """48 faces over four levels' worth of tiles, many of them across the tiles' borders."""
    detector = CenterFaceDetector(files, tile=256, enlarge=1)
    head = resized(portrait[HEAD], 0.5)
    picture = np.tile(head, (6, 8, 1))
    found = one(detector, picture)
    first = (BOX - (HEAD[1].start, HEAD[0].start) * 2) * 0.5
    steps = [(x * head.shape[1], y * head.shape[0]) * 2 for y in range(6) for x in range(8)]
    assert len(found) == len(steps)
    assert all(max(iou(box, first + step) for box in found.boxes) > 0.6 for step in steps)


def test_tiles_change_nothing(files: dict[str, Path], portrait: Picture) -> None:
    whole = one(CenterFaceDetector(files), portrait)
    tiled = one(CenterFaceDetector(files, tile=256), portrait)
    assert len(whole) == len(tiled) == 1
    assert iou(whole.boxes[0], tiled.boxes[0]) > 0.85


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_faces(turns: int, detector: CenterFaceDetector, portrait: Picture) -> None:
    """The boxes alone: of a face that lies or hangs the points are crude, and the mesher searches."""
    found = one(detector, np.ascontiguousarray(np.rot90(portrait, turns)))
    corners = BOX.reshape(2, 2)
    for _ in range(turns):  # np.rot90 takes x, y to y, width - 1 - x
        corners = np.stack([corners[:, 1], 511 - corners[:, 0]], axis=1)
    assert len(found) == 1
    assert iou(found.boxes[0], np.concatenate([corners.min(0), corners.max(0)])) > 0.5


@pytest.mark.parametrize("scale", [0.5, 2, 5])
def test_box_and_points_of_large_faces(scale: float, detector: CenterFaceDetector, portrait: Picture) -> None:
    """They come from the level at which the face has a size that the network knows."""
    found = one(detector, resized(portrait, scale))
    assert iou(found.boxes[0], BOX * scale) > 0.75
    assert np.abs(found.points[0] - POINTS * scale).max() < 8 * scale


def test_grey_pictures(detector: CenterFaceDetector, portrait: Picture) -> None:
    grey = np.repeat(portrait.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    found = one(detector, grey)
    assert len(found) == 1
    assert iou(found.boxes[0], BOX) > 0.8


def test_generated_faces(detector: CenterFaceDetector) -> None:
    generator = MobileStyleGANGenerator(default_store().files("mobilestylegan"))
    for picture in generator.generate(gallery.load(None).styles[:3]):
        found = one(detector, picture)
        side = picture.shape[0]
        assert len(found) == 1
        assert found.scores[0] > 0.6
        assert np.abs((found.boxes[0, :2] + found.boxes[0, 2:]) / 2 - side / 2).max() < 0.15 * side


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 20_000), (20_000, 2), (31, 33), (64, 64), (900, 700)])
def test_nothing_is_found_where_nothing_is(shape: tuple[int, int], detector: CenterFaceDetector) -> None:
    ramp = np.linspace(0, 255, shape[0] * shape[1] * 3).reshape(*shape, 3).astype(np.uint8)
    found = one(detector, ramp)
    assert (len(found), found.boxes.shape, found.points.shape) == (0, (0, 4), (0, 5, 2))


def test_noise_has_no_face(detector: CenterFaceDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    assert len(one(detector, noise)) == 0


def test_a_read_only_view_will_do(detector: CenterFaceDetector, portrait: Picture) -> None:
    mirrored = portrait[:, ::-1]
    mirrored.flags.writeable = False
    assert (
        iou(one(detector, mirrored).boxes[0], np.array([511, 0, 511, 0]) + BOX[[2, 1, 0, 3]] * (-1, 1, -1, 1))
        > 0.8
    )


def test_scales_bound_the_cost(detector: CenterFaceDetector) -> None:
    assert detector.scales(300, 400)[0] == 3
    assert detector.scales(3000, 4000) == [1, 1 / 4, 1 / 16]
    for height, width in [(1, 1), (300, 400), (800, 800), (1000, 1200), (4000, 6000), (90, 60_000)]:
        scales = detector.scales(height, width)
        work = sum(height * width * scale**2 for scale in scales)
        assert work <= 1.07 * max(height * width, detector.enlarge_pixels)
        assert scales[-1] * max(height, width) <= detect.FULL_VIEW


@given(length=st.integers(1, 20_000), tile=st.sampled_from([256, 288, 1280]))
def test_spans_cover_an_axis_and_share_its_centres(length: int, tile: int) -> None:
    spans = detect._spans(length, tile)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert (spans[0][2], spans[-1][3]) == (-np.inf, np.inf)
    for (start, end, *_, cut), (following, _, begin, _) in itertools.pairwise(spans):
        assert cut == begin
        assert end - start == tile
        assert end - following >= tile // 8 - 1
        assert min(cut - following, end - cut) >= tile // 16 - 1


def test_decode_reads_the_outputs_as_the_network_means_them() -> None:
    heatmap, sizes = np.zeros((1, 1, 8, 8), np.float32), np.zeros((1, 2, 8, 8), np.float32)
    offsets, landmarks = np.zeros((1, 2, 8, 8), np.float32), np.zeros((1, 10, 8, 8), np.float32)
    heatmap[0, 0, 2, 5] = 0.9
    sizes[0, :, 2, 5] = np.log([5, 3])  # height, width in cells
    offsets[0, :, 2, 5] = 0.5, -0.5  # y, x
    landmarks[0, :, 2, 5] = np.tile([0.25, 0.5], 5)  # y, x
    boxes, scores, points = detect.decode([heatmap, sizes, offsets, landmarks], 0.25)
    np.testing.assert_allclose(boxes, [[20 - 6, 12 - 10, 20 + 6, 12 + 10]], rtol=1e-6)
    np.testing.assert_allclose(scores, [0.9])
    np.testing.assert_allclose(points, np.full((1, 5, 2), (14 + 6, 2 + 5)), rtol=1e-6)


def test_suppress_keeps_the_best_of_overlapping_and_nested_boxes() -> None:
    boxes = np.array(
        [[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 90, 90], [60, 60, 70, 70], [9, 9, 19, 19]], np.float32
    )
    scores = np.array([0.5, 0.6, 0.9, 0.8, 0.3], np.float32)
    assert detect.suppress(boxes, scores).tolist() == [2, 1, 4]
    assert detect.suppress(boxes[:0], scores[:0]).tolist() == []


def test_openvino_finds_the_same(
    files: dict[str, Path], detector: CenterFaceDetector, portrait: Picture
) -> None:
    theirs = one(CenterFaceDetector(files, engine="openvino"), portrait)
    ours = one(detector, portrait)
    assert len(theirs) == len(ours) == 1
    assert iou(theirs.boxes[0], ours.boxes[0]) > 0.9


def test_without_cuda_the_cpu_works_and_a_warning_says_so(
    files: dict[str, Path], portrait: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    detector = CenterFaceDetector(files, device="cuda")
    assert "no CUDA provider" in caplog.text
    assert len(one(detector, portrait)) == 1


@pytest.mark.gpu
def test_cuda_finds_the_same(files: dict[str, Path], detector: CenterFaceDetector, portrait: Picture) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA")
    theirs = one(CenterFaceDetector(files, device="cuda"), portrait)
    assert iou(theirs.boxes[0], one(detector, portrait).boxes[0]) > 0.95


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"threshold": 0}, "threshold"),
        ({"threshold": 1}, "threshold"),
        ({"enlarge": 0.5}, "enlarge"),
        ({"tile": 250}, "tile"),
        ({"tile": 128}, "tile"),
        ({"engine": "tensorrt"}, "engine"),
        ({"engine": "openvino", "device": "cuda"}, "engine"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], name: str, files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=f"detector.options.{name}"):
        CenterFaceDetector(files, **options)  # type: ignore[arg-type]
