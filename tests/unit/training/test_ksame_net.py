import numpy as np
import pytest
import torch

from deid.faces import align
from deid.models.ksame_net import KSameNetwork
from deid.surrogates.ksame_net import KSameNet
from deid.training import faces, ksame_losses
from deid.training.ksame_net import Plan, Training, export
from deid.training.mixtures import Bank, Recipe
from tests.unit.training import made_people

SHORT = Plan(steps=3, small=2, batch=2, warm=150, samples=32, coefficients=6)


@pytest.fixture(scope="module")
def made():
    return made_people.people()


@pytest.fixture(scope="module")
def trained(made):
    training = Training(made[0], SHORT)
    before = loss(training)
    training.warm_up()
    return training, before


def loss(training: Training) -> float:
    """How far the network's pictures are from their targets, of pairs of people."""
    people = training.people
    weights = np.zeros((3, len(people)), np.float32)
    for row, pair in zip(weights, ((0, 1), (2, 3), (4, 5)), strict=True):
        row[list(pair)] = 0.5
    recipe = Recipe.plain(weights, smile=1.0)
    wanted, _ = Bank(people, 128).target(recipe)
    with torch.no_grad():
        found, _ = training.network(training.given(recipe)[0], 128)
    return float(ksame_losses.pixel(found, wanted))


def test_the_warm_start_brings_the_pictures_near_their_targets(trained):
    training, before = trained
    assert loss(training) < 0.4 * before


def test_steps_learn(made):
    training = Training(
        made[0], Plan(steps=12, small=12, batch=4, warm=0, coefficients=6, rate=1e-3, terms=("pixel",))
    )
    terms = [training.learn() for _ in range(12)]
    assert all(np.isfinite(list(each.values())).all() for each in terms)
    assert np.mean([t["pixel"] for t in terms[-3:]]) < 0.9 * np.mean([t["pixel"] for t in terms[:3]])


def test_training_goes_on_exactly_where_it_stopped(made, tmp_path):
    plan = Plan(steps=3, small=2, batch=2, warm=0, coefficients=6)
    whole, part, rest = (Training(made[0], plan) for _ in range(3))
    for _ in range(3):
        last = whole.learn()
    for _ in range(1):
        part.learn()
    part.save(tmp_path / "net.checkpoint")
    rest.load(tmp_path / "net.checkpoint")
    assert rest.step == 1
    rest.learn()
    assert rest.learn() == last
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, rest.network.state_dict()[name]), name
    with pytest.raises(ValueError, match="another plan"):
        Training(made[0], Plan(steps=4, small=2, batch=2, warm=0, coefficients=6)).load(
            tmp_path / "net.checkpoint"
        )


@pytest.mark.parametrize("term", ksame_losses.TERMS)
def test_each_term_can_stand_alone_and_moves_the_network(made, term):
    training = Training(made[0], Plan(steps=1, small=1, batch=2, warm=0, coefficients=0, terms=(term,)))
    start = training.network.blocks[0].conv.weight.detach().clone()
    training.learn()
    assert not torch.equal(start, training.network.blocks[0].conv.weight)


def test_the_discriminator_sees_people_that_are_not_targets(made):
    people, _ = made
    merged = faces.merged(people, [[0, 1, 2], [3, 4, 5]])
    training = Training(merged, Plan(steps=1, small=1, batch=2, warm=0, coefficients=6), real=people)
    training.learn()
    assert training.network.identities == 2
    assert len(training.bank(128, real=True).held[0]) == 2 * len(people)
    assert len(training.bank(128).held[0]) == 2 * 2


def test_folding_forgets_who_is_who(trained):
    network = trained[0].network
    mixtures = faces.mixing([[0, 1, 2], [3, 4, 5]], 6)
    folded = network.fold(torch.from_numpy(mixtures))
    assert folded.identities == 2
    given, _ = trained[0].given(Recipe.plain(mixtures[:1]))
    first = torch.tensor([[1.0, 0.0]])
    with torch.no_grad():
        wanted, shape = network(given, 128)
        found, again = folded(type(given)(first, given.expression, given.pose, given.light), 128)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(again, shape, atol=1e-4)
    weight = folded.state_dict()["stages.identity.0.weight"]
    assert weight.shape[1] == 2
    # Whatever is put in, nobody of a group of three has a larger share than the others.
    assert np.linalg.pinv(mixtures) @ mixtures == pytest.approx(np.kron(np.eye(2), np.ones((3, 3)) / 3))


@pytest.fixture(scope="module")
def net(trained, made, tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    export(trained[0], path, made[1].mean, faces.mixing([[0, 1, 2], [3, 4, 5]], 6))
    return KSameNet({"ksame_net.safetensors": path})


def test_an_exported_file_is_read_and_holds_mixtures_alone(net, trained):
    assert (net.identities, net.variant) == (2, "shapefree")
    recipe = Recipe.plain(faces.mixing([[3, 4, 5]], 6), smile=0.0)
    with torch.no_grad():
        wanted, _ = trained[0].network(trained[0].given(recipe)[0])
    measures = trained[0].shapes.meshes_of(recipe)
    pictures, meshes = net.heads(net.mixture([1])[None], align.expression(measures))
    assert np.abs(pictures[0] / 255 - wanted[0].permute(1, 2, 0).numpy()).max() < 0.02
    assert meshes.shape == (1, 468, 3)
    assert np.abs(meshes[0] - measures[0]).max() < 0.05


def test_a_plain_network_is_exported_without_coefficients(made, tmp_path):
    training = Training(made[0], Plan(steps=0, warm=0, coefficients=0))
    export(training, tmp_path / "plain.safetensors", made[1].mean)
    net = KSameNet({"ksame_net.safetensors": tmp_path / "plain.safetensors"})
    pictures, meshes = net.portraits(net.mixture([0, 4])[None], pose=np.array([[10.0, 0, 0]]))
    assert net.variant == "plain"
    assert pictures.shape == (1, 256, 256, 4)
    assert meshes.shape == (1, 468, 3)


def test_the_weights_keep_below_their_limit():
    size = sum(p.numel() for p in KSameNetwork(60, 24).parameters()) * 2
    assert size < 40e6
