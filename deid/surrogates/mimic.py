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
CORNERS, LIPS, LIDS = (61, 291), (13, 14), ((159, 145), (386, 374))
BROWS = (70, 63, 105, 66, 107, 300, 293, 334, 296, 336)
# Standard deviations of the movements, in sides of a generated picture.
CORNER_REACH, LIP_REACH, LID_REACH, BROW_REACH = 0.04, 0.025, 0.012, 0.025


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
    source: NDArray[np.floating], surrogate: NDArray[np.floating], placed: Points
) -> list[Movement]:
    """What moves in the surrogate's face for it to have the source's expression.

    Args:
        source: mesh [468, 3] of the source, any unit.
        surrogate: mesh [468, 3] of the surrogate, any unit.
        placed: its points [468, 2], upright, in sides of a generated picture.
    """
    left = expression(source) - expression(surrogate)
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
