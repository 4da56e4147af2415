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
    """FAR and TAR of the weights of genuine and impostor pairs at each score level, levels ascending."""
    with np.errstate(invalid="ignore"):
        far = np.concatenate([[0.0], np.cumsum(impostor[::-1])]) / impostor.sum()
        tar = np.concatenate([[0.0], np.cumsum(genuine[::-1])]) / genuine.sum()
    return far, tar


def auc(far: Floats, tar: Floats) -> float:
    """Area under the ROC: probability that a genuine pair scores above an impostor pair, ties one half."""
    if not (np.isfinite(far).all() and np.isfinite(tar).all()):
        return float("nan")
    return float(np.sum(np.diff(far) * (tar[1:] + tar[:-1]) / 2))


def eer(far: Floats, tar: Floats) -> float:
    """Error rate where FAR meets 1 - TAR, linear between the two points around it."""
    gap = far - (1 - tar)
    if not np.isfinite(gap).all():
        return float("nan")
    after = int(np.argmax(gap >= 0))
    step = gap[after] - gap[after - 1]
    part = -gap[after - 1] / step
    return float(far[after - 1] + part * (far[after] - far[after - 1]))


def tar_at(far: Floats, tar: Floats, limit: float) -> float:
    """Largest TAR of a threshold whose FAR is at most `limit`, without interpolation."""
    inside = far <= limit
    return float(tar[inside].max()) if inside.any() else float("nan")
