import numpy as np
import pytest
import torch

from deid.faces import align
from deid.training import faces
from deid.training.mixtures import Bank, People, Recipe, Shapes, contrast, firm
from tests.unit.training import made_people


@pytest.fixture(scope="module")
def made():
    return made_people.people()


@pytest.fixture(scope="module")
def people(made):
    return made[0]


def even(people: People, *members: int) -> np.ndarray:
    weights = np.zeros((1, len(people)), np.float32)
    weights[0, list(members)] = 1 / len(members)
    return weights


def test_a_recipe_depends_on_its_key_alone_and_has_equal_weights():
    one, again, other = (Recipe.draw(key, 64, 12, 2) for key in ((0, 5), (0, 5), (0, 6)))
    for name in ("weights", "smile", "pose", "light", "wobble"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
    assert not np.array_equal(one.weights, other.weights)
    counts = (one.weights > 0).sum(1)
    assert counts.min() == 1
    assert counts.max() == 10
    for row, count in zip(one.weights, counts, strict=True):
        assert row[row > 0] == pytest.approx(1 / count)
    assert one.smile.min() < 0
    assert one.smile.max() > 1


def test_the_target_of_one_person_is_his_picture_and_of_several_their_average(people):
    bank = Bank(people, 256, restore=False)
    single, _ = bank.target(Recipe.plain(even(people, 2)))
    own = people.pictures[0, 2, 0].transpose(2, 0, 1) / 255
    assert np.abs(single[0, :3].numpy() - own[:3]).max() < 0.02
    assert np.array_equal(single[0, 3] > 0.5, own[3] > 0.5)
    mixed, _ = bank.target(Recipe.plain(even(people, 0, 1, 2, 3)))
    inside = people.pictures[0, :4, 0, ..., 3].min(0) > 0
    mean = people.pictures[0, :4, 0, ..., :3].mean(0) / 255
    assert np.abs(mixed[0, :3].permute(1, 2, 0).numpy() - mean)[inside].max() < 0.02


def test_what_lies_outside_a_head_does_not_bleed_into_an_average(people):
    bank = Bank(people, 256, restore=False)
    mixed, _ = bank.target(Recipe.plain(even(people, 0, 1)))
    widths = people.pictures[0, :2, 0, ..., 3].astype(bool)
    edge = widths[0] ^ widths[1]
    wide = 0 if widths[0].sum() > widths[1].sum() else 1
    own = people.pictures[0, wide, 0, ..., :3][edge] / 255
    assert np.abs(mixed[0, :3].permute(1, 2, 0).numpy()[edge] - own).mean() < 0.03


def test_an_average_gets_back_the_contrast_of_its_members(people):
    recipe = Recipe.plain(even(people, 0, 1, 2, 3))
    (flat, wanted), (sharp, _) = (Bank(people, 256, restore=on).target(recipe) for on in (False, True))
    middle = (..., slice(13, 19), slice(13, 19))
    before, after, goal = (contrast(flat[:, :3]), contrast(sharp[:, :3]), wanted)
    assert before[middle].mean() < 0.7 * goal[middle].mean()
    assert float(after[middle].mean()) == pytest.approx(float(goal[middle].mean()), rel=0.15)


def test_a_smile_is_mixed_in_between_and_lights_change_the_side_they_come_from(people):
    bank, weights = Bank(people, 128, restore=False), even(people, 1)
    levels = [bank.target(Recipe.plain(weights, smile))[0][0, :3, 79, 64].mean() for smile in (0, 0.5, 1)]
    assert levels[0] < levels[1] < levels[2]
    recipe = Recipe.plain(weights)
    recipe.light[0] = (0, 1, 0, 0)
    change = (bank.target(recipe)[0] - bank.target(Recipe.plain(weights))[0])[0, :3].mean((0, 1))
    assert change[:20].mean() < -0.02
    assert change[-20:].mean() > 0.02


def test_masks_stay_in_range_and_lose_what_few_share():
    shares = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    assert firm(shares).tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)


def test_coefficients_give_the_mesh_back_and_measures_follow_a_smile(people):
    shapes = Shapes(people, 10)
    meshes = shapes.meshes_of(Recipe.plain(even(people, 0, 3), smile=1.0))
    back = shapes.mean + shapes.coefficients(meshes) @ shapes.basis
    assert np.abs(back.reshape(meshes.shape) - meshes).max() < 1e-3
    smile = align.EXPRESSION.index("smile")
    values = [
        shapes.expression(shapes.meshes_of(Recipe.plain(even(people, 0), smile)))[0, smile_at]
        for smile, smile_at in ((-0.25, smile), (0.0, smile), (1.0, smile), (1.25, smile))
    ]
    assert values == sorted(values)
    assert values[-1] - values[0] > 1


def test_groups_are_of_three_at_least_and_everyone_is_in_one(people):
    for each in (2, 3, 4):
        groups = faces.groups(people, each, seed=0)
        assert min(len(group) for group in groups) >= each
        assert sorted(n for group in groups for n in group) == list(range(len(people)))
    with pytest.raises(faces.Unusable, match="groups of 7"):
        faces.groups(people, 7, seed=0)


def test_groups_hold_who_look_alike(people):
    twins = People(
        [*"abcdef"],
        people.pictures[:, [0, 0, 0, 1, 1, 1]][:, [0, 3, 1, 4, 2, 5]],
        people.meshes,
        people.poses,
    )
    assert sorted(sorted(group) for group in faces.groups(twins, 3, seed=1)) == [[0, 2, 4], [1, 3, 5]]


def test_a_merged_person_is_the_average_of_his_group(people):
    merged = faces.merged(people, [[0, 1, 2], [3, 4, 5]], restore=False)
    assert merged.names == ["p0+p1+p2", "p3+p4+p5"]
    inside = people.pictures[0, :3, 1, ..., 3].min(0) > 0
    mean = people.pictures[0, :3, 1, ..., :3].mean(0)
    assert np.abs(merged.pictures[0, 0, 1, ..., :3] - mean)[inside].max() < 2
    assert np.allclose(merged.meshes[0], people.meshes[:3].mean(0))


def test_people_come_back_from_their_file_and_can_be_left_out(made, tmp_path):
    people, frame = made
    people.save(tmp_path / "people.npz", frame)
    back, where = People.load(tmp_path / "people.npz")
    assert back.names == people.names
    assert np.array_equal(back.pictures, people.pictures)
    assert np.array_equal(where.mean, frame.mean)
    fewer = back.without(["p1", "p4"])
    assert fewer.names == ["p0", "p2", "p3", "p5"]
    assert np.array_equal(fewer.meshes, people.meshes[[0, 2, 3, 5]])
    with pytest.raises(ValueError, match="no pictures of p9"):
        back.without(["p9"])


def test_the_plain_variant_shows_heads_turned(made):
    people, frame = made
    posed = faces.posed(people.without(["p2", "p3", "p4", "p5"]), frame, [(0, 0, 0), (20, 0, 0)])
    assert posed.pictures.shape == (2, 2, 2, 256, 256, 4)
    own, straight, turned = (mouth(each[0, 0]) for each in (people.pictures[0, :1], *posed.pictures))
    assert np.abs(straight - own).max() < 1.5
    assert turned[0] - straight[0] > 1  # who looks to the right has his mouth there
    assert abs(turned[1] - straight[1]) < 2


def mouth(picture: np.ndarray) -> np.ndarray:
    """Middle [2] of what is red in a made person's picture."""
    rows, columns = np.nonzero(picture[..., 0].astype(int) - picture[..., 2] > 40)
    inside = (np.abs(columns - 128) < 60) & (np.abs(rows - 158) < 30)
    return np.array([columns[inside].mean(), rows[inside].mean()])
