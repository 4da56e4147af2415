import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from skimage.data import astronaut

from deid.errors import ConfigError, ModelError
from deid.evaluation.recognizers import (
    EmbedderRecognizer,
    OnnxRecognizer,
    RecognizerConfig,
    largest,
    load_config,
    templates,
)
from deid.faces.detect import CenterFaceDetector
from deid.faces.embed import DlibEmbedder
from deid.faces.mesh import FaceMesher
from deid.interfaces import Detections, Face
from deid.models.store import default_store

SIZE = 16
TEMPLATE = ((5.0, 5.0), (11.0, 5.0), (8.0, 8.0), (6.0, 12.0), (10.0, 12.0))


@pytest.fixture
def network(tmp_path):
    """A network that gives its input back, flattened: the vector is then what the recognizer fed."""
    shape = numpy_helper.from_array(np.array([1, 3 * SIZE * SIZE], np.int64), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "flatten",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3 * SIZE * SIZE])],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "flatten.onnx"
    onnx.save(model, path)
    return path


def config(path, **other):
    return RecognizerConfig(path=str(path), size=SIZE, template=TEMPLATE, **other)


def face_at(points):
    points = np.asarray(points, np.float32)
    return Face(np.concatenate([points.min(0), points.max(0)]), 1.0, points)


def test_the_chip_is_upright_wherever_the_face_lies(network):
    """The face's own five points land on the template, for a turned and enlarged face."""
    dots = np.zeros((200, 200, 3), np.uint8)
    turned = np.array(TEMPLATE)[:, ::-1] * [-6, 6] + [150, 40]  # a quarter turn, 6 times as large
    for index, (x, y) in enumerate(turned.astype(int)):
        dots[y - 9 : y + 10, x - 9 : x + 10] = 51 * (index + 1)
    plain = config(network, mean=(0, 0, 0), std=(1, 1, 1))
    fed = OnnxRecognizer(plain).embed(dots, face_at(turned)).reshape(3, SIZE, SIZE)
    assert [fed[0, int(y), int(x)] for x, y in TEMPLATE] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], abs=0.02)


def test_the_network_is_fed_as_configured(network):
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    picture[:] = (255, 51, 0)
    face = face_at(TEMPLATE)
    fed = OnnxRecognizer(config(network, mean=(0.5, 0.2, 0.1), std=(0.5, 0.1, 0.2))).embed(picture, face)
    assert fed.reshape(3, -1).mean(axis=1) == pytest.approx([1.0, 0.0, -0.5], abs=1e-5)
    swapped = OnnxRecognizer(config(network, mean=(0, 0, 0), std=(1, 1, 1), colours="bgr")).embed(
        picture, face
    )
    assert swapped.reshape(3, -1).mean(axis=1) == pytest.approx([0.0, 0.2, 1.0], abs=1e-5)
    assert fed.dtype == np.float32


def test_configuration_file(network):
    path = network.parent / "net.yaml"
    path.write_text(
        yaml.safe_dump({"path": network.name, "size": SIZE, "template": [list(p) for p in TEMPLATE]})
    )
    recognizer = OnnxRecognizer(load_config(path))
    assert (recognizer.name, recognizer.metric) == ("flatten", "cosine")
    path.write_text(yaml.safe_dump({"path": "x", "template": [[1, 2]] * 4, "std_dev": 1}))
    with pytest.raises(ConfigError, match=r"template.*std_dev"):
        load_config(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(network.parent / "absent.yaml")


def test_no_network_is_a_model_error(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"no\.onnx"):
        OnnxRecognizer(config(tmp_path / "no.onnx"))


def test_the_largest_face_is_attacked():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 30, 40], [0, 0, 20, 20]], np.float32)
    points = np.arange(30, dtype=np.float32).reshape(3, 5, 2)
    face = largest(Detections(boxes, np.array([0.9, 0.5, 0.8], np.float32), points))
    assert face is not None
    assert face.points.tolist() == points[1].tolist()
    assert largest(Detections(boxes[:0], np.zeros(0, np.float32), points[:0])) is None


@pytest.fixture(scope="module")
def own():
    """The pipeline's own detector, and its embedder with and without the mesh."""
    store = default_store()
    embedder, mesher = DlibEmbedder(store.files("dlib_resnet")), FaceMesher(store.files("facemesh"))
    detector = CenterFaceDetector(store.files("centerface"), enlarge=1)
    return detector, [
        EmbedderRecognizer(embedder, "points"),
        EmbedderRecognizer(embedder, "mesh", mesher=mesher),
    ]


def test_templates_of_a_portrait_in_several_guises(own, network):
    """Mirrored and darkened the portrait is still the same person to the real recognizers; nobody is a row of NaN."""
    detector, recognizers = own
    portrait = astronaut()
    guises = [
        portrait,
        np.ascontiguousarray(portrait[:, ::-1]),
        (portrait * 0.6).astype(np.uint8),
        portrait[260:],
    ]
    faces = [largest(detector.detect([picture])[0]) for picture in guises]
    assert [face is not None for face in faces] == [True, True, True, False]
    attackers = [*recognizers, OnnxRecognizer(config(network))]
    found = templates(attackers, zip(guises, faces, strict=True), np.array([1, 1, 1, 2]))
    assert {name: t.vectors.shape[1] for name, t in found.items()} == {
        "points": 128,
        "mesh": 128,
        "flatten": 768,
    }
    for name in ("points", "mesh"):
        assert found[name].acquired.tolist() == [True, True, True, False]
        assert (np.linalg.norm(found[name].vectors[1:3] - found[name].vectors[0], axis=1) < 0.5).all()
    assert np.abs(found["points"].vectors[0] - found["mesh"].vectors[0]).max() > 0  # aligned differently


def test_no_face_anywhere_is_an_error(own):
    _, recognizers = own
    with pytest.raises(ValueError, match="no face"):
        templates(recognizers, [(astronaut(), None)], np.array(["a"]))
