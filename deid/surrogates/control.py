"""Linear control of pose, expression and looks in style space.

Over many generated faces, styles w and measures p of their meshes are close to jointly normal. Then the expected
style of a face whose measures differ by d, all else as likely as before, lies at w + Cov(w, p) Cov(p, p)^-1 d: the
face stays natural, since the step follows what the generator makes of such faces. Faces that differ in measures also
differ in what goes with them (women smile more in photographs), so a step may hold other features e, such as
the identity's embedding, at their place: the columns of p in the regression of w on p and e together. With the
default gallery that lowers the embedding distance of a step from 0.54 to 0.37 on average, sex and age stay, and
the measures reach their targets nearly as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deid.faces.align import MEASURES, measures

Styles = NDArray[np.float32]  # [N, style_dim] or [style_dim]
Values = NDArray[
    np.float64
]  # [..., M]: MEASURES in the units of deid.faces.align, then what else can be steered

RIDGE = 0.3  # of the regression from style to measures, in mean squared lengths of a centred style
PRIOR = 0.001  # of the regression from measures to style, in numbers of faces: keeps rare combinations near
HELD = 32  # principal components of the features that are held
RANGE = (0.5, 99.5)  # percentiles of the gallery between which targets are clamped


@dataclass(frozen=True)
class Control:
    """Linear maps between styles and standardised measures; fitted in milliseconds, so it has no file."""

    names: tuple[str, ...]  # [M] of what can be steered
    mean_style: NDArray[np.float64]  # [style_dim] of the faces that it was fitted on
    mean: Values  # [M]
    deviation: Values  # [M]
    low: Values  # [M] least target, in deviations from the mean
    high: Values  # [M] greatest target
    predict: NDArray[np.float64] = field(repr=False)  # [style_dim, M] style to standardised measures
    steps: NDArray[np.float64] = field(
        repr=False
    )  # [style_dim, M] style step of one deviation of each measure

    @classmethod
    def fit(
        cls,
        styles: Styles,
        meshes: NDArray[np.float32],
        held: NDArray[np.floating] | None = None,
        others: Mapping[str, NDArray[np.floating]] | None = None,
    ) -> "Control":
        """Fit on faces with styles [N, style_dim] and meshes [N, 468, 3] (any unit).

        Args:
            held: features [N, E] that steps leave alone, such as embeddings.
            others: values [N] by name that can be steered too (looks, sex, age), NaN where a face has none.

        Raises:
            ValueError: fewer than twice as many faces as measures and held components.
        """
        values = measures(meshes).astype(np.float64)
        columns = [np.asarray(column, np.float64) for column in (others or {}).values()]
        values = np.column_stack([values, *(_filled(column) for column in columns)])
        kept = _components(held) if held is not None else np.empty((len(values), 0))
        if len(values) != len(styles) or len(values) < 2 * (values.shape[1] + kept.shape[1]):
            raise ValueError(
                f"{len(values)} faces are too few to fit a control of {values.shape[1]} measures"
            )
        mean_style, mean, deviation = styles.mean(0, np.float64), values.mean(0), values.std(0)
        deviation[deviation < 1e-6 * np.maximum(np.abs(mean), 1)] = (
            1.0  # the same for all: nothing to steer by
        )
        w, p = styles - mean_style, (values - mean) / deviation
        predict = _ridge(w, p)
        regressors = np.hstack([p, kept])
        gram = regressors.T @ regressors + PRIOR * len(p) * np.eye(regressors.shape[1])
        steps = np.linalg.solve(gram, regressors.T @ w)[: p.shape[1]].T
        low, high = np.percentile(p, RANGE, axis=0)
        return cls((*MEASURES, *(others or {})), mean_style, mean, deviation, low, high, predict, steps)

    def measures(self, styles: Styles) -> Values:
        """Measures [..., M] to be expected of the faces of styles [..., style_dim]."""
        return self.mean + ((styles - self.mean_style) @ self.predict) * self.deviation

    def steer(self, styles: Styles, target: Values, strength: float = 1.0) -> Styles:
        """Styles [..., style_dim] whose faces have measures as near to `target` [..., M] as the generator gives.

        Targets are clamped to the percentiles `RANGE` of the faces that the control was fitted on, beyond which the
        generator has seen too little. NaN leaves a measure as it is.

        Args:
            strength: 0 leaves the styles, 1 goes to the target.
        """
        return self.correct(styles, target, self.measures(styles), strength)

    def correct(self, styles: Styles, target: Values, seen: Values, strength: float = 1.0) -> Styles:
        """`steer` for styles whose faces have been rendered and measured: `seen` [..., M], NaN where not."""
        now = (np.asarray(seen, np.float64) - self.mean) / self.deviation
        wanted = np.clip((np.asarray(target, np.float64) - self.mean) / self.deviation, self.low, self.high)
        step = strength * np.nan_to_num(wanted - now)
        return np.asarray(styles + step @ self.steps.T, np.float32)

    def target(self, mesh: NDArray[np.float32], others: Mapping[str, float] | None = None) -> Values:
        """Target [M] of a mesh [468, 3] in pixels of an upright picture and of other values by name; NaN where there
        is none."""
        wanted = dict(zip(MEASURES, measures(mesh[None])[0], strict=True)) | dict(others or {})
        wanted["roll"] = np.nan  # generated faces stand upright; the composite turns them
        return np.array([wanted.get(name, np.nan) for name in self.names], np.float64)

    def follow(
        self,
        style: Styles,
        mesh: NDArray[np.float32],
        strength: float = 1.0,
        others: Mapping[str, float] | None = None,
    ) -> Styles:
        """Style [style_dim] with the pose and expression of a mesh [468, 3], and with other values by name."""
        return self.steer(style, self.target(mesh, others), strength)

    def blend(self, styles: Styles, mean: NDArray[np.float32] | None = None) -> Styles:
        """Equal-weight mean [style_dim] of styles [k, style_dim], pushed out to their own distance from `mean`.

        A mean of k styles lies nearer to the centre, where all faces are one average face. At the distance of
        a single draw it is as natural as one.

        Args:
            mean: the truncation centre [style_dim]; None takes the mean of the faces fitted on.
        """
        centre = self.mean_style if mean is None else mean.astype(np.float64)
        away = styles.mean(0, np.float64) - centre
        distance = np.linalg.norm(styles - centre, axis=1).mean()
        return np.asarray(centre + away * (distance / max(np.linalg.norm(away), 1e-9)), np.float32)


def held_out_r2(styles: Styles, meshes: NDArray[np.float32], folds: int = 5) -> dict[str, float]:
    """Share of each measure's variance that the style explains, on faces that the regression has not seen."""
    values = measures(meshes).astype(np.float64)
    guess = np.empty_like(values)
    for fold in range(folds):
        test = np.arange(len(values)) % folds == fold
        guess[test] = Control.fit(styles[~test], meshes[~test]).measures(styles[test])
    rest = ((values - guess) ** 2).sum(0) / ((values - values.mean(0)) ** 2).sum(0)
    return {name: float(1 - share) for name, share in zip(MEASURES, rest, strict=True)}


def _filled(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values [N] with their mean where there is none; 0 where there is none at all."""
    known = column[~np.isnan(column)]
    return np.where(np.isnan(column), known.mean() if len(known) else 0.0, column)


def _ridge(w: NDArray[np.float64], p: Values) -> NDArray[np.float64]:
    """Ridge regression [style_dim, M] of centred p [N, M] on centred w [N, style_dim]."""
    gram = w.T @ w
    gram += RIDGE * np.trace(gram) / len(w) * np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram, w.T @ p))


def _components(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Leading principal components [N, <= HELD], of unit variance."""
    centred = features - features.mean(0, np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    keep = min(HELD, int((sizes > 1e-6 * sizes[0]).sum()))
    return np.asarray(left[:, :keep] * np.sqrt(len(centred)))
