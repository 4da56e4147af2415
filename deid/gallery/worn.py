"""What generated people wear that must not reach another head: hats and the like, and glasses.

The generator's styles give it away: a linear score, fitted by ridge regression on candidates that were looked at and
labelled by hand (`data/worn.json`: their numbers, for MobileStyleGAN, one seed and one truncation), ranks held-out
candidates with an AUC of .94 (headgear) and .97 (glasses). The labels are the data, so nothing but them is stored.
"""

import json
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
from numpy.typing import NDArray

KINDS = ("headgear", "glasses")
RIDGE = 1.0  # in mean squared lengths of a centred style


@dataclass(frozen=True)
class Labels:
    """Numbers of the labelled candidates of a recipe with this seed and truncation, by kind."""

    seed: int
    truncation: float
    worn: dict[str, list[int]]
    absent: dict[str, list[int]]

    @classmethod
    def load(cls) -> "Labels":
        """The labels in the package."""
        return cls(
            **json.loads((resources.files(__package__) / "data/worn.json").read_text(encoding="utf-8"))
        )


@dataclass(frozen=True)
class Score:
    """A linear score of styles: about 1 for those that wear it, -1 for those that do not."""

    direction: NDArray[np.float64] = field(repr=False)  # [style_dim]
    middle: NDArray[np.float64] = field(repr=False)  # [style_dim]
    offset: float

    @classmethod
    def fit(cls, worn: NDArray[np.float32], absent: NDArray[np.float32]) -> "Score":
        """Fit on styles [N, style_dim] with and [M, style_dim] without."""
        styles = np.concatenate([worn, absent]).astype(np.float64)
        targets = np.repeat([1.0, -1.0], [len(worn), len(absent)])
        middle, offset = styles.mean(0), float(targets.mean())
        centred = styles - middle
        gram = centred @ centred.T
        gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram)
        return cls(centred.T @ np.linalg.solve(gram, targets - offset), middle, offset)

    def __call__(self, styles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores [N] of styles [N, style_dim]."""
        return np.asarray((styles - self.middle) @ self.direction + self.offset, np.float32)
