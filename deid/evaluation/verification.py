"""Verification figures from genuine and impostor scores (higher is more alike): ROC, AUC, EER, TAR at a FAR.

Terms of ISO/IEC 19795-1. A pair is accepted when its score is at or above the threshold. Every figure is
NaN where there are no genuine or no impostor pairs.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def roc(genuine: Floats, impostor: Floats) -> tuple[Floats, Floats]:
    """FAR and TAR [T + 1] of accepting scores at or above each of T distinct scores, strictest first."""
    levels, where = np.unique(np.concatenate([genuine, impostor]), return_inverse=True)
    size = len(levels)
    return curve(
        np.bincount(where[: len(genuine)], minlength=size).astype(float),
        np.bincount(where[len(genuine) :], minlength=size).astype(float),
    )


def curve(genuine: Floats, impostor: Floats) -> tuple[Floats, Floats]:
    """FAR and TAR [..., T + 1] of the weights [..., T] of genuine and impostor pairs at each score level, ascending."""
    return _accepted(impostor), _accepted(genuine)


def _accepted(weights: Floats) -> Floats:
    """[..., T + 1] share of the weights [..., T] at or above each level, strictest first."""
    summed = np.cumsum(weights[..., ::-1], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = summed / weights.sum(axis=-1, keepdims=True)
    return np.concatenate([np.zeros_like(shares[..., :1]), shares], axis=-1)


def auc(far: Floats, tar: Floats) -> float:
    """Area under the ROC: probability that a genuine pair scores above an impostor pair, ties one half."""
    return float(aucs(far, tar))


def aucs(far: Floats, tar: Floats) -> Floats:
    """[...] `auc` of each of the curves [..., T]."""
    return np.asarray(np.sum(np.diff(far) * (tar[..., 1:] + tar[..., :-1]) / 2, axis=-1))


def eer(far: Floats, tar: Floats) -> float:
    """Error rate where FAR meets 1 - TAR, linear between the two points around it."""
    return float(eers(far, tar))


def eers(far: Floats, tar: Floats) -> Floats:
    """[...] `eer` of each of the curves [..., T]."""
    gap = far - (1 - tar)
    if gap.shape[-1] < 2:
        return np.full(gap.shape[:-1], np.nan)
    after = np.maximum(np.argmax(gap >= 0, axis=-1), 1)[..., None]
    (g0, g1), (f0, f1) = (
        [np.take_along_axis(values, after - back, -1)[..., 0] for back in (1, 0)] for values in (gap, far)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(np.isfinite(gap).all(axis=-1), f0 - g0 / (g1 - g0) * (f1 - f0), np.nan))


def tar_at(far: Floats, tar: Floats, limit: float) -> float:
    """Largest TAR of a threshold whose FAR is at most `limit`, without interpolation."""
    return float(tars_at(far, tar, limit))


def tars_at(far: Floats, tar: Floats, limit: float) -> Floats:
    """[...] `tar_at` of each of the curves [..., T]."""
    known = np.isfinite(far + tar).all(axis=-1)
    inside = np.maximum((far <= limit).sum(axis=-1) - 1, 0)
    return np.asarray(np.where(known, np.take_along_axis(tar, inside[..., None], -1)[..., 0], np.nan))
