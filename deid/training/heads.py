"""Fits the heads of `deid.faces.attributes` to embeddings and labels, with figures by cross-validation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deid.faces.attributes import DIM, UNKNOWN, AttributeHeads, sex_class

Array = NDArray[np.floating[Any]]
Fold = NDArray[np.integer[Any]]
VIEWS = 3  # of a face: as it is, mirrored, small and compressed
FOLDS = 5
SEX_PENALTY, AGE_PENALTY = 3.0, 30.0  # L2, on standardised embeddings, a view
SURE = 0.99  # accuracy wanted outside the uncertain band


def logistic(x: Array, y: Array, penalty: float) -> Array:
    """Weights [D + 1], bias last, of an L2 logistic regression on x [N, D] and soft labels y [N], by Newton steps."""
    x = np.c_[x, np.ones(len(x))]
    ridge = np.diag([penalty] * (x.shape[1] - 1) + [1e-9])
    weights = np.zeros(x.shape[1])
    for _ in range(30):
        p = sigmoid(x @ weights)
        gradient = x.T @ (p - y) + ridge @ weights
        weights -= np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + ridge, gradient)
    return weights


def linear(x: Array, y: Array, penalty: float) -> Array:
    """Weights [D + 1], bias last, of a ridge regression."""
    x = np.c_[x, np.ones(len(x))]
    return np.linalg.solve(x.T @ x + np.diag([penalty] * (x.shape[1] - 1) + [1e-9]), x.T @ y)


def sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def platt(log_odds: Array, male: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset that calibrate log odds [N] (Platt 1999, with his smoothed targets)."""
    targets = np.where(male, (male.sum() + 1) / (male.sum() + 2), 1 / ((~male).sum() + 2))
    slope, offset = logistic(log_odds[:, None], targets, 1e-9)
    return float(slope), float(offset)


def uncertain_band(probability: Array, male: NDArray[np.bool_]) -> Array:
    """[2] Narrowest band around 1/2, even in log odds, outside which at least `SURE` of the answers are right."""
    doubt = np.minimum(probability, 1 - probability)
    right = (probability > 0.5) == male
    order = np.argsort(doubt)
    good = np.flatnonzero(np.cumsum(right[order]) >= SURE * np.arange(1, len(order) + 1))
    if not len(good):
        raise SystemExit(f"no band gives {SURE:.0%}: the labels do not follow from the embeddings")
    edge = math.nextafter(float(doubt[order[good[-1]]]), 1.0)
    return np.array([edge, 1 - edge])


def out_of_fold(x: Array, y: Array, fold: Fold, fit: Callable[[Array, Array], Array]) -> Array:
    """Predictions [N, views] for embeddings x [N, views, D], each from a fit without the faces of its fold [N]."""
    predicted = np.zeros(x.shape[:2])
    for held in np.unique(fold):
        rest = fold != held
        weights = fit(x[rest], y[rest])
        predicted[fold == held] = x[fold == held] @ weights[:-1] + weights[-1]
    return predicted


@dataclass(frozen=True)
class Held:
    """What heads say of faces they were not fitted to: P(male), calibrated, and years, each [N, views]; the slope and
    offset that calibrated it, and the band [2] of P(male) that is no answer."""

    sex: Array
    age: Array
    calibration: tuple[float, float]
    band: Array


def standardised(embeddings: Array) -> tuple[Array, Array, float]:
    """Embeddings [N, views, 128] about their mean in their standard deviation, and both."""
    mean, scale = embeddings.mean(axis=(0, 1)), float(embeddings.std())
    return (embeddings - mean) / scale, mean, scale


def fit_sex(x: Array, male: Array) -> Array:
    """Weights [129] from embeddings [N, views, 128] and P(male) [N]."""
    views = x.shape[1]
    return logistic(x.reshape(-1, DIM), np.repeat(male, views), SEX_PENALTY * views)


def fit_age(x: Array, age: Array) -> Array:
    """Weights [129] from embeddings [N, views, 128] and years [N], NaN where they are not known."""
    views, known = x.shape[1], np.isfinite(age)
    return linear(x[known].reshape(-1, DIM), np.repeat(age[known], views), AGE_PENALTY * views)


def hold_out(embeddings: Array, sex: Array, age: Array, fold: Fold | None = None) -> Held:
    """What heads say that were fitted without each fold, from embeddings [N, views, 128], P(male) [N] and ages [N], NaN
    where they are not known.

    Args:
        fold: of each face [N]; None: `FOLDS` by lot.
    """
    x, _, _ = standardised(embeddings)
    parts: Fold = np.asarray(np.random.default_rng(0).integers(0, FOLDS, len(x))) if fold is None else fold
    log_odds, male = out_of_fold(x, sex, parts, fit_sex), np.repeat(sex > 0.5, x.shape[1])
    slope, offset = platt(log_odds.ravel(), male)
    calibrated = sigmoid(slope * log_odds + offset)
    band = uncertain_band(calibrated.ravel(), male)
    return Held(calibrated, out_of_fold(x, age, parts, fit_age), (slope, offset), band)


def fit_heads(
    embeddings: Array, sex: Array, age: Array, fold: Fold | None = None
) -> tuple[AttributeHeads, dict[str, float]]:
    """Heads and cross-validated figures; arguments as of `hold_out`."""
    held = hold_out(embeddings, sex, age, fold)
    x, mean, scale = standardised(embeddings)
    slope, offset = held.calibration
    w_sex, w_age = slope * fit_sex(x, sex) + np.r_[np.zeros(DIM), offset], fit_age(x, age)
    raw = [np.r_[w[:-1] / scale, w[-1] - mean @ w[:-1] / scale].astype(np.float32) for w in (w_sex, w_age)]
    heads = AttributeHeads(raw[0][:-1], raw[0][-1:], raw[1][:-1], raw[1][-1:], held.band.astype(np.float32))
    return heads, figures(held.sex, held.age, sex, age, held.band)


def figures(p: Array, years: Array, sex: Array, age: Array, band: Array) -> dict[str, float]:
    """Agreement of predictions [N, views] with labels [N], the plain and the small view apart."""
    result = {"faces": float(len(sex)), "labelled_male": float((sex > 0.5).mean())}
    for name, view in (("plain", 0), ("small", VIEWS - 1)):
        answer, male = sex_class(p[:, view], band), sex > 0.5
        known = answer != UNKNOWN
        result |= {
            f"{name}_sex_accuracy": float(((p[:, view] > 0.5) == male).mean()),
            f"{name}_sex_answered": float(known.mean()),
            f"{name}_sex_accuracy_answered": float((answer == male)[known].mean()),
            f"{name}_sex_calibration_error": calibration_error(p[:, view], male),
            f"{name}_age_mean_absolute_error": float(np.nanmean(np.abs(years[:, view] - age))),
        }
    return result


def calibration_error(p: Array, male: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error over bins of equal width (Naeini et al. 2015)."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    return float(sum(abs((p - male)[which == b].sum()) for b in range(bins)) / len(p))
