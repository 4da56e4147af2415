import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from deid.errors import FaceError
from deid.evaluation import contribution
from deid.evaluation.contribution import BEFORE, OTHERS, PARTS, PERSON, SAME, STRANGERS, Example, Shown
from deid.faces.align import five_points
from deid.interfaces import Face, Picture
from tests.unit.surrogates import generated


class Window:
    """A recognizer that goes by the grey levels at some points of the mesh and nothing else."""

    name, metric = "window", "euclidean"

    def __init__(self, *points: int) -> None:
        self.points = list(points)

    def embed(self, picture: Picture, face: Face) -> NDArray[np.float32]:
        x, y = np.round(face.mesh[self.points, :2]).astype(int).T
        return picture[y, x].astype(np.float32).ravel()


def shown(number: int) -> Shown:
    head = generated.head(number)
    low, high = head.mesh[:, :2].min(0), head.mesh[:, :2].max(0)
    box = np.concatenate([low, high]).astype(np.float32)
    return Shown(head.picture, Face(box, 1.0, five_points(head.mesh), mesh=head.mesh, mesh_score=1.0))


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Results that are other people: of heads 5 and 6, and each photograph twice."""
    return [Example(shown(n), shown(n), shown(n + 4), shown(n + 4)) for n in (1, 2)]


def test_only_the_region_that_the_recognizer_goes_by_counts(examples: list[Example]) -> None:
    found = contribution.shares(Window(4, 1, 195), examples)  # tip and bridge of the nose
    fall = dict(zip(PARTS, found.falls[BEFORE].mean(0), strict=True))
    assert fall["nose"] > 0.05
    assert {name: fall[name] for name in ("forehead", "jaw and chin", "hair above")} == pytest.approx(
        {"forehead": 0, "jaw and chin": 0, "hair above": 0}, abs=0.02
    )
    assert max(fall, key=lambda name: -np.inf if np.isnan(fall[name]) else fall[name]) == "nose"


def test_levels_are_shares_of_the_way_from_one_person_to_two(examples: list[Example]) -> None:
    found = contribution.shares(Window(4, 1, 195, 151, 50, 280), examples)
    assert found.gap > 0
    assert found.levels[BEFORE].mean() == pytest.approx(1)
    assert found.levels[SAME].mean() == pytest.approx(1)  # the same picture twice
    assert found.levels[PERSON].mean() < 0.6
    assert {name: values.shape for name, values in found.falls.items()} == dict.fromkeys(
        (BEFORE, PERSON, SAME, STRANGERS, OTHERS), (2, len(PARTS))
    )


def test_a_part_that_is_not_there_is_not_measured(examples: list[Example]) -> None:
    found = contribution.shares(
        Window(4), examples
    )  # without parts of the head there is no background to tell
    assert np.isnan(found.falls[BEFORE][:, PARTS.index(contribution.occlude.CONTROL)]).all()
    assert np.isfinite(found.falls[BEFORE][:, : len(contribution.occlude.REGIONS)]).all()


def test_a_face_without_mesh_is_refused() -> None:
    bare = dataclasses.replace(shown(1).face, mesh=None)
    with pytest.raises(FaceError):
        _ = Shown(shown(1).picture, bare).masks
