"""The last of the expression: small movements of mouth, lids and brows that bring the surrogate's to the source's.

Steering brings the expression near; what is left is some pixels. Only the measures of `deid.faces.align.EXPRESSION`
pass from the source, no other geometry: features move from where the surrogate has them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deid.faces.align import EXPRESSION, expression
from deid.surrogates.masks import Points

# Greatest change of each measure, in its unit: beyond it a movement would show.
LIMITS = dict(zip(EXPRESSION, (0.03, 0.03, 0.05, 0.02, 0.03), strict=True))
# Centre and width of the levels of each measure. A neutral and a smiling picture of one person differ by .016 in smile
# and .048 in width of the mouth on average, so these have several; opening of the eyes and height of the brows tell
# who somebody is (of 60 people, deviations .0045 and .0147, and .0029 and .0047 from picture to picture), so all but
# closed eyes and raised brows are one level.
LEVELS = dict(
    zip(
        EXPRESSION, ((0.0112, 0.012), (0.015, 0.03), (0.35, 0.04), (0.0555, 0.03), (0.139, 0.07)), strict=True
    )
)
CORNERS, LIPS, LIDS = (61, 291), (13, 14), ((159, 145), (386, 374))
BROWS = (70, 63, 105, 66, 107, 300, 293, 334, 296, 336)
# Standard deviations of the movements, in sides of a generated picture.
CORNER_REACH, LIP_REACH, LID_REACH, BROW_REACH = 0.04, 0.025, 0.012, 0.025


def levelled(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Measures [5] of `EXPRESSION` at the level that they belong to: the expression, without what tells the person."""
    centre, width = np.array(list(LEVELS.values())).T
    return np.asarray(centre + np.round((values - centre) / width) * width, np.float32)


@dataclass(frozen=True)
class Movement:
    """Displacements [M, 2] of points [M, 2], which fade over `reach`; in sides of a generated picture."""

    points: Points
    shifts: Points
    reach: float

    def at(self, places: Points) -> Points:
        """Displacement [N, 2] at places [N, 2]: never more than the points', whose opposite shifts cancel where they
        are close (closed lips stay closed)."""
        apart = ((places[:, None] - self.points[None]) ** 2).sum(-1)
        near = np.exp(-apart / (2 * self.reach**2))
        return np.asarray(near @ self.shifts / np.maximum(near.sum(1, keepdims=True), 1))


def movements(
    wanted: NDArray[np.floating], surrogate: NDArray[np.floating], placed: Points
) -> list[Movement]:
    """What moves in the surrogate's face for it to have the expression that is wanted.

    Args:
        wanted: [5] measures of `EXPRESSION`.
        surrogate: mesh [468, 3] of the surrogate, any unit.
        placed: its points [468, 2], upright, in sides of a generated picture.
    """
    left = np.asarray(wanted, np.float64) - expression(surrogate)
    size = (1.6 * np.linalg.norm(placed[10] - placed[2]) + np.linalg.norm(placed[234] - placed[454])) / 2
    smile, mouth, width, eyes, brows = (
        size * float(np.clip(value, -limit, limit))
        for value, limit in zip(left, LIMITS.values(), strict=True)
    )
    corners = [(-width / 2, -smile), (width / 2, -smile)]
    lips = [(0.0, -mouth / 2), (0.0, mouth / 2)]
    found = [Movement(placed[list(CORNERS)], np.array(corners), CORNER_REACH)]
    found.append(Movement(placed[list(LIPS)], np.array(lips), LIP_REACH))
    lids = np.array([(0.0, -eyes / 2), (0.0, eyes / 2)])
    found += [Movement(placed[list(pair)], lids, LID_REACH) for pair in LIDS]
    for side in (BROWS[:5], BROWS[5:]):
        found.append(Movement(placed[list(side)], np.tile([0.0, -brows], (len(side), 1)), BROW_REACH))
    return found


def origins(places: Points, moved: list[Movement]) -> Points:
    """Where the content of each place [N, 2] comes from."""
    result = places.copy()
    for movement in moved:
        result -= movement.at(places)
    return result
