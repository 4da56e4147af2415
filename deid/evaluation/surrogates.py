"""Whether a surrogate keeps what it should: place, landmarks, pose, gaze, expression, sex, age, skin tone, seam.

Everything is measured on the source and on the result by the same estimator, so its errors about people cancel where
they are the same on both. A result in which an estimator finds no face fails every share and takes no part in means and
medians; how many were measured is part of each figure. A source in which it finds none is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deid.evaluation import expression, skin
from deid.evaluation.observe import Observation
from deid.evaluation.reid import Estimate
from deid.evaluation.seam import Seam
from deid.evaluation.utility import iou, landmark_error, pose_error
from deid.faces import align
from deid.surrogates import masks

Floats = NDArray[np.float64]
IOU = 0.6  # a face is found again where the boxes overlap by this
FALL = 0.1  # of a score against the source's own
SEAM = 1.2  # a seam shows from here
AHEAD = 0.05  # eye widths; a gaze less than this off the middle of the eye goes straight ahead
NOSE = np.array([168, 6, 197, 195, 5, 4, 1, 2, 98, 327])
LANDMARKS = np.concatenate([*masks.EYES, NOSE, masks.LIPS, masks.MOUTH])


@dataclass(frozen=True)
class Metric:
    """What a metric's values [N] are summed up by, and what is asked of the sum."""

    title: str
    statistic: Literal["mean", "median", "share"]
    limit: float | None = None
    at_least: bool = False  # else at most

    def met(self, value: float) -> bool | None:
        """Whether a value reaches the limit; None where nothing is asked, or nothing was measured."""
        if self.limit is None or np.isnan(value):
            return None
        return bool(value >= self.limit if self.at_least else value <= self.limit)


METRICS = {
    "found_again": Metric("face found again (unrelated detector, IoU >= .6)", "share", 0.99, True),
    "box_iou": Metric("box IoU (unrelated detector)", "mean", None, True),
    "found_by_own": Metric("face found again (pipeline's detector, IoU >= .6)", "share", 0.99, True),
    "own_iou": Metric("box IoU (pipeline's detector)", "mean", None, True),
    "landmarks": Metric("eyes, nose, mouth moved (over eye distance)", "mean", 0.06),
    "yaw": Metric("yaw error, degrees", "median", 3),
    "pitch": Metric("pitch error, degrees", "median", 3),
    "roll": Metric("roll error, degrees", "median", 3),
    "gaze": Metric("gaze moved, eye widths (iris)", "mean"),
    "gaze_side": Metric("gaze left, ahead or right as before (iris)", "share", None, True),
    "smile_mesh": Metric("smiling or neutral as before (mesh)", "share", 0.95, True),
    "smile_network": Metric("smiling or neutral as before (fer)", "share", 0.95, True),
    "expression": Metric("likeliest of 7 expressions as before (fer)", "share", None, True),
    "sex": Metric("apparent sex as before (own heads)", "share", 0.97, True),
    "age": Metric("apparent age changed, years (own heads)", "mean", 5),
    "sex_teacher": Metric("apparent sex as before (face-api)", "share", 0.97, True),
    "age_teacher": Metric("apparent age changed, years (face-api)", "mean", 5),
    "skin": Metric("skin tone (ITA) changed, degrees", "mean", 6),
    "seam": Metric("gradient along the seam, result over source", "mean", SEAM),
    "seam_shows": Metric("pictures with a seam above 1.2", "share"),
    "seam_worst": Metric("the same, worst of 12 sides of the border", "mean"),
    "score_fell": Metric("detector or mesh score fell by over 10 %", "share", 0.02),
}


@dataclass(frozen=True)
class Figure:
    """One metric over all pictures, with a 95 % interval (bootstrap over people)."""

    estimate: Estimate
    measured: int
    of: int
    met: bool | None


def compare(
    before: Sequence[Observation],
    after: Sequence[Observation],
    seams: Sequence[Seam],
    smile_threshold: float,
) -> dict[str, Floats]:
    """Values [N] of each metric, for N sources and their results; NaN where a metric was not measured.

    seams: `seam.seam` of each pair. smile_threshold: of `expression.smile`, see `expression.threshold`.
    """
    a, b = _columns(before), _columns(after)
    overlap, own = (
        np.array([iou(x[None], y[None])[0, 0] for x, y in zip(a[name], b[name], strict=True)])
        for name in ("box", "face_box")
    )
    turned = pose_error(align.pose(a["mesh"]), align.pose(b["mesh"]))
    smiles = [expression.smile(side["mesh"]) - smile_threshold for side in (a, b)]
    happiness = [expression.happier(side["expression"]) for side in (a, b)]
    fell = [b[name] < (1 - FALL) * a[name] for name in ("score", "mesh_score")]
    whole, worst = (np.array([getattr(s, side) for s in seams], np.float64) for side in ("whole", "worst"))
    return {
        "found_again": _share(overlap >= IOU, a["box"][:, 0]),
        "box_iou": overlap,
        "found_by_own": _share(own >= IOU, a["face_box"][:, 0]),
        "own_iou": own,
        "landmarks": landmark_error(a["mesh"], b["mesh"], (align.RIGHT_EYE, align.LEFT_EYE), LANDMARKS),
        **{name: turned[:, axis] for axis, name in enumerate(align.POSE)},
        "gaze": np.linalg.norm(a["gaze"] - b["gaze"], axis=1),
        "gaze_side": same_class(*(_side(side["gaze"][:, 0]) for side in (a, b))),
        "smile_mesh": same(*smiles),
        "smile_network": same(*happiness),
        "expression": same_class(*(_likeliest(side["expression"]) for side in (a, b))),
        "sex": same(a["sex"] - 0.5, b["sex"] - 0.5),
        "age": np.abs(a["age"] - b["age"]),
        "skin": pose_error(skin.ita(a["lab"]), skin.ita(b["lab"])),
        "seam": whole,
        "seam_shows": _share(whole > SEAM, whole),
        "seam_worst": worst,
        "score_fell": _share(fell[0] | fell[1], np.where(a["score"] > 0, 0, np.nan)),
    }


def same(before: Floats, after: Floats) -> Floats:
    """[N] 1 where both values lie on the same side of 0, else 0; NaN where there is no value before."""
    return _share((before > 0) == (after > 0), before) * np.where(np.isnan(before) | np.isfinite(after), 1, 0)


def same_class(before: Floats, after: Floats) -> Floats:
    """[N] 1 where both classes are the same, else 0, also where there is none after; NaN where there is none before."""
    return _share(before == after, before)


def summarize(
    values: dict[str, Floats], subjects: NDArray[Any], rng: np.random.Generator, resamples: int = 1000
) -> dict[str, Figure]:
    """The figure of each metric; subjects: [N], whose pictures stay together in a resample."""
    return {
        name: Figure(
            estimate := bootstrap(column, subjects, METRICS[name].statistic, rng, resamples),
            measured=int(np.isfinite(column).sum()),
            of=len(column),
            met=METRICS[name].met(estimate.value),
        )
        for name, column in values.items()
    }


def bootstrap(
    values: Floats, subjects: NDArray[Any], statistic: str, rng: np.random.Generator, resamples: int = 1000
) -> Estimate:
    """Mean or median of the finite values [N], and its 95 % interval over resampled subjects [N].

    The interval of a share of 0 or 1 ends at the rule of three, not at a point.
    """
    known = np.isfinite(values)
    if not known.any():
        return Estimate(float("nan"), float("nan"), float("nan"))
    value, whose = values[known], np.unique(np.asarray(subjects)[known], return_inverse=True)[1]
    people = int(whose.max()) + 1
    draws = rng.integers(people, size=(resamples, people))
    times = np.stack([np.bincount(draw, minlength=people) for draw in draws]) if resamples else draws
    reduce = medians if statistic == "median" else means
    low, high = np.percentile(reduce(value, times[:, whose]), [2.5, 97.5]) if resamples else (np.nan, np.nan)
    whole, width = float(reduce(value, np.ones((1, len(value)), np.intp))[0]), min(1.0, 3 / people)
    if statistic == "share" and resamples and whole in (0.0, 1.0):
        low, high = (1 - width, 1.0) if whole else (0.0, width)
    return Estimate(whole, float(low), float(high))


def means(values: Floats, times: NDArray[np.intp]) -> Floats:
    """[R] mean of the values [N], each taken as often as `times` [R, N] says."""
    return np.asarray(times @ values / times.sum(axis=1))


def medians(values: Floats, times: NDArray[np.intp]) -> Floats:
    """[R] median of the values [N], each taken as often as `times` [R, N] says."""
    order = np.argsort(values)
    up_to = np.cumsum(times[:, order], axis=1)
    total = up_to[:, -1:]
    low, high = ((up_to > place).argmax(axis=1) for place in ((total - 1) // 2, total // 2))
    return np.asarray((values[order][low] + values[order][high]) / 2)


def _side(across: Floats) -> Floats:
    """[N] -1, 0 or 1: gaze to the left, straight ahead, to the right; NaN where there is none."""
    return np.where(np.isnan(across), np.nan, np.sign(across) * (np.abs(across) > AHEAD))


def _likeliest(probabilities: Floats) -> Floats:
    """[N] number of the likeliest class of probabilities [N, C]; NaN where there are none."""
    return np.where(np.isnan(probabilities).any(axis=1), np.nan, np.argmax(probabilities, axis=1))


def _share(hit: NDArray[np.bool_], known: Floats) -> Floats:
    """[N] 1 for a hit, 0 for none, NaN where `known` is."""
    return np.where(np.isnan(known), np.nan, hit.astype(np.float64))


def _columns(observations: Sequence[Observation]) -> dict[str, Floats]:
    names = ("score", "face_box", "box", "mesh", "mesh_score", "lab", "gaze", "expression", "sex", "age")
    return {n: np.array([getattr(o, n) for o in observations], np.float64) for n in names}
