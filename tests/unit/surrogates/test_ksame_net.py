from pathlib import Path

import numpy as np
import pytest
import torch

from deid.errors import FaceError, ModelError
from deid.faces import align
from deid.interfaces import Face, Gallery, Renderer
from deid.surrogates.ksame_net import PACKAGED, KSameNet, turned


@pytest.fixture(scope="module")
def net() -> KSameNet:
    return KSameNet(threads=1)


@pytest.fixture(scope="module")
def gallery(net: KSameNet) -> Gallery:
    weights = np.stack([net.mixture([n]) for n in range(net.identities)])
    _, meshes = net.heads(weights)
    return Gallery(weights, np.zeros((net.identities, 128), np.float32), meshes)


def face(mesh: np.ndarray) -> Face:
    return Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), mesh.astype(np.float32), 1.0)


def test_any_number_of_identities_is_mixed_with_equal_weights(net):
    mixtures = np.stack([net.mixture(range(k)) for k in range(1, net.identities + 1)])
    assert mixtures.sum(1) == pytest.approx(1)
    for k, row in enumerate(mixtures, 1):
        assert row[row > 0] == pytest.approx(np.full(k, 1 / k))
    pictures, meshes = net.heads(mixtures, side=128)
    assert pictures.shape == (net.identities, 128, 128, 4)
    assert meshes.shape == (net.identities, 468, 3)
    assert len(np.unique(pictures.reshape(len(pictures), -1), axis=0)) == net.identities


@pytest.mark.parametrize("members", [[], [0, 0], [-1], [10_000]])
def test_mixtures_that_cannot_be_are_refused(net, members):
    with pytest.raises(ValueError, match="different identities"):
        net.mixture(members)


def test_the_mask_is_a_head(net):
    picture = net.heads(net.mixture([0, 1, 2])[None])[0][0]
    mask = picture[..., 3]
    nose, chin = (net.frame.mean[[4, 152], :2] * 256).round().astype(int)
    assert mask[nose[1], nose[0]] > 250
    assert mask[chin[1] - 6, chin[0]] > 200
    assert mask[:, :6].max() < 30
    assert mask[-20:].max() < 30
    soft = (mask > 20) & (mask < 235)
    assert 0 < soft.mean() < 0.1


def test_expression_moves_the_mesh_and_the_texture(net):
    one, smile = np.repeat(net.mixture([3, 4])[None], 5, 0), align.EXPRESSION.index("smile")
    steps = net.centre + np.linspace(-1.5, 1.5, 5)[:, None] * net.spread
    pictures, meshes = net.heads(one, steps)
    found = align.expression(meshes)[:, smile]
    assert (np.diff(found) > 0).all()
    apart = np.abs(np.diff(pictures[..., :3].astype(int), axis=0)).mean((1, 2, 3))
    assert apart.min() > 0.05
    assert apart.max() < 10  # continuous


def test_light_comes_from_the_side_that_is_asked(net):
    one = np.repeat(net.mixture([5])[None], 2, 0)
    left, right = net.heads(one, light=np.array([[0, -0.4, 0, 0], [0, 0.4, 0, 0]]))[0].astype(int)
    change = (right - left)[110:170, :, :3].mean((0, 2))
    assert change[90:105].mean() < change[150:165].mean()


def test_a_head_turns(net):
    pictures, meshes = net.portraits(
        np.repeat(net.mixture([1, 2])[None], 2, 0), pose=np.array([[0, 0, 0], [18.0, 6, 0]])
    )
    yaw, pitch, _ = np.diff(align.pose(meshes), axis=0)[0]
    assert yaw == pytest.approx(18, abs=2)
    assert pitch == pytest.approx(6, abs=2)
    assert np.abs(np.diff(pictures.astype(int), axis=0)).mean() > 1


def test_it_draws_a_gallerys_mixtures_onto_faces(net, gallery):
    assert isinstance(net, Renderer)
    net.use(gallery)
    target = turned(gallery.meshes[2], (15, 0, 8)) * 400 + 100
    first, second = net.draw([np.array([0, 4]), np.array([5])], [face(target), face(target)], 256)
    assert first.picture.shape == (256, 256, 3)
    assert first.picture.dtype == np.uint8
    assert np.abs(first.picture.astype(int) - second.picture).mean() > 2
    assert align.pose(first.mesh)[0] == pytest.approx(align.pose(target)[0], abs=3)
    assert align.expression(first.mesh) == pytest.approx(align.expression(target), abs=0.02)
    assert (first.picture[:5] == 200).all()  # no background but grey


def test_what_was_asked_of_the_expression_is_followed(net, gallery):
    net.use(gallery)
    asked = face(gallery.meshes[0] * 256)
    asked.wanted = (net.centre + net.spread * np.array([1.2, 0.5, 1, 0, 0])).astype(np.float32)
    drawn = net.draw([np.array([0])], [asked], 256)[0]
    assert align.expression(drawn.mesh)[0] == pytest.approx(asked.wanted[0], abs=0.01)


def test_faces_without_a_mesh_and_galleries_of_others_are_refused(net, gallery):
    net.use(gallery)
    with pytest.raises(FaceError):
        net.draw([np.array([0])], [face(np.zeros((468, 3)))], 256)
    bare = face(gallery.meshes[0])
    bare.mesh = None
    with pytest.raises(FaceError):
        net.draw([np.array([0])], [bare], 256)
    with pytest.raises(ModelError, match="no mixtures of this network"):
        net.use(Gallery(np.zeros((2, 512), np.float32), gallery.embeddings[:2], gallery.meshes[:2]))


def test_a_file_that_is_no_network_is_one_clear_error(tmp_path: Path):
    broken = tmp_path / "ksame_net.safetensors"
    broken.write_bytes(PACKAGED.read_bytes()[:1000])
    with pytest.raises(ModelError, match="no k-Same-Net"):
        KSameNet({broken.name: broken})


def test_the_packaged_file_is_small_and_of_mixtures(net):
    assert PACKAGED.stat().st_size < 40e6
    assert net.identities <= 20  # of 60 people: three or more in each
    assert all(torch.isfinite(value).all() for value in net.network.state_dict().values())


def test_wrong_shapes_are_refused(net):
    one = net.mixture([0])[None]
    with pytest.raises(ValueError, match="expression"):
        net.heads(one, np.zeros((1, 4)))
    with pytest.raises(ValueError, match="identity"):
        net.heads(one[:, :-1])
