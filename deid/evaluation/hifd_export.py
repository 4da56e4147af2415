"""Predictions of an evaluation in the JSON schema of `hifd` 0.1.0 (InfraFace, MIT): one envelope a task and estimator.

A face that an estimator does not find in a result must not fall out of the score, or a treatment that destroys faces is
judged by those it spares. So it is written as what hifd scores 0 against any face: the class "no face" (which exists in
every categorical envelope), an age `NO_AGE`, all landmarks in one point, no gaze direction. A face that is not found in
the source is not written. Templates are written where there is a picture; there is nothing to recognize without one.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from deid.evaluation.expression import CLASSES
from deid.evaluation.faces import Attacker, Faces
from deid.evaluation.observe import Observation
from deid.evaluation.table import CLEAR
from deid.faces import align

SCHEMA = "1.0"  # hifd.SCHEMA_VERSION, without importing pandas
NO_FACE = "no face"
NO_AGE = -1000.0  # years; hifd's agreement is 0 from 100 years apart
# Of a sphere, with the gaze's offset from the middle of the eye as the distance from its axis: an eye 30 mm wide whose
# iris turns 12 mm before the eyeball's centre. Round anatomical figures, not fitted; the same for source and result.
RADII_AN_EYE_WIDTH = 30 / 12

Prediction = dict[str, Any] | None  # None: not found


@dataclass(frozen=True)
class Estimator:
    """What one estimator says of a face, in hifd's words."""

    task: str  # of hifd.io.TASK_TYPES
    name: str
    predict: Callable[[Observation], Prediction]
    absent: dict[str, Any] | None  # written for a result in which it finds no face; None: left out
    classes: tuple[str, ...] = ()  # of a categorical task


@dataclass(frozen=True)
class Export:
    """What was written.

    methods: hifd's name of each treatment (numbered, since its CSV would read a name such as 7 as a number).
    samples: hifd's names of the faces, in their order; numbers, so that no key of a picture leaves the evaluation.
    measured: by treatment and task, [N] whether an estimator found the face in the source and in the result.
    left_out: treatments without a single picture, of which nothing can be scored.
    """

    methods: dict[str, str]
    samples: list[str]
    measured: dict[str, dict[str, NDArray[np.bool_]]]
    left_out: list[str]
    methods_file: Path
    estimators_file: Path


def estimators(attackers: Sequence[Attacker]) -> list[Estimator]:
    """All estimators that are exported. hifd has further tasks, for which this project has none: ethnicity, micro_exp,
    rppg, niqe."""
    found = [
        Estimator("age", "own heads", _age, {"value": NO_AGE}),
        Estimator("gender", "own heads", _sex, {"probs": [0.0, 0.0, 1.0]}, ("female", "male", NO_FACE)),
        Estimator(
            "macro_exp", "fer", _expression, {"probs": [0.0] * len(CLASSES) + [1.0]}, (*CLASSES, NO_FACE)
        ),
        Estimator("landmark", "face mesh", _landmarks, _mesh(np.zeros((468, 2)))),
        Estimator("gaze", "iris", _gaze, {"direction": [0.0, 0.0, 0.0]}),
    ]
    return found + [Estimator("face_embedding", a.name, _embedding(a.name), None) for a in attackers]


def export(
    faces: Faces, folder: Path, references: Mapping[str, Sequence[Observation]] | None = None
) -> Export:
    """Write the predictions on the clear faces, and on those of every treatment, for `hifd validate` and `run-all`:

        hifd run-all --methods FOLDER/methods.yaml --estimators FOLDER/estimators.yaml --data-dir FOLDER --out SCORES

    The folder holds templates of real people: it is made readable by its owner alone, and its reader has to remove it.
    references: further rows, at the places of the same faces. Estimators that see no face in any source, and treatments
    without a single picture, are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    treatments = {CLEAR: faces.clear, **(references or {}), **faces.treated}
    samples = [f"{n:06d}" for n in range(len(faces))]
    used, original = list[Estimator](), list[list[Prediction]]()
    for estimator in estimators(faces.attackers):
        said = [estimator.predict(seen) for seen in faces.clear]
        if any(p is not None for p in said):
            used.append(estimator)
            original.append(said)
    kept = {
        n: seen
        for n, seen in treatments.items()
        if all(_some(e, o, seen) for e, o in zip(used, original, strict=True))
    }
    methods = {name: f"{number:02d} {name}" for number, name in enumerate(kept)}
    measured = dict[str, dict[str, NDArray[np.bool_]]]()
    _write(folder / "original", "original", used, original, samples)
    for number, (name, seen) in enumerate(kept.items()):
        predicted = [[e.predict(s) for s in seen] for e in used]
        measured[name] = _measured(used, original, predicted)
        filled = [_filled(e, o, p) for e, o, p in zip(used, original, predicted, strict=True)]
        _write(folder / _folder(number), "deid", used, filled, samples)
    files = folder / "methods.yaml", folder / "estimators.yaml"
    listed = [{"name": title, "base_path": _folder(n)} for n, title in enumerate(methods.values())]
    files[0].write_text(yaml.safe_dump({"original": {"base_path": "original"}, "methods": listed}))
    files[1].write_text(yaml.safe_dump({"tasks": _tasks(used)}))
    return Export(methods, samples, measured, [n for n in treatments if n not in kept], *files)


def _folder(number: int) -> str:
    return f"method-{number:02d}"


def _file(number: int, estimator: Estimator) -> str:
    return f"{number:02d}-{estimator.task}.json"


def _tasks(used: Sequence[Estimator]) -> dict[str, dict[str, list[dict[str, str]]]]:
    tasks: dict[str, dict[str, list[dict[str, str]]]] = {}
    for number, estimator in enumerate(used):
        file = _file(number, estimator)
        entry = {"name": estimator.name, "orig_json": file, "deid_json": file}
        tasks.setdefault(estimator.task, {"estimators": []})["estimators"].append(entry)
    return tasks


def _some(estimator: Estimator, original: list[Prediction], seen: Sequence[Observation]) -> bool:
    """Whether hifd has a pair to score."""
    if estimator.absent is not None:
        return True
    return any(before is not None and estimator.predict(s) for before, s in zip(original, seen, strict=True))


def _filled(
    estimator: Estimator, original: list[Prediction], predicted: list[Prediction]
) -> list[Prediction]:
    """The predictions on a result, with what stands for no face where the source had one."""
    return [
        None if before is None else after or estimator.absent
        for before, after in zip(original, predicted, strict=True)
    ]


def _measured(
    used: Sequence[Estimator], original: list[list[Prediction]], predicted: list[list[Prediction]]
) -> dict[str, NDArray[np.bool_]]:
    found: dict[str, NDArray[np.bool_]] = {}
    for estimator, before, after in zip(used, original, predicted, strict=True):
        both = np.array([a is not None and b is not None for a, b in zip(before, after, strict=True)])
        found[estimator.task] = found.get(estimator.task, np.zeros(len(both), np.bool_)) | both
    return found


def _write(
    folder: Path,
    source: str,
    used: Sequence[Estimator],
    predictions: list[list[Prediction]],
    samples: Sequence[str],
) -> None:
    folder.mkdir(exist_ok=True)
    for number, (estimator, predicted) in enumerate(zip(used, predictions, strict=True)):
        envelope: dict[str, Any] = {
            "task": estimator.task,
            "source": source,
            "estimator": estimator.name,
            "schema_version": SCHEMA,
        }
        if estimator.classes:
            envelope["class_names"] = list(estimator.classes)
        envelope["predictions"] = {s: p for s, p in zip(samples, predicted, strict=True) if p is not None}
        (folder / _file(number, estimator)).write_text(json.dumps(envelope, allow_nan=False))


def _age(seen: Observation) -> Prediction:
    return {"value": float(seen.age)} if np.isfinite(seen.age) else None


def _sex(seen: Observation) -> Prediction:
    male = float(seen.sex)
    return {"probs": [1 - male, male, 0.0]} if np.isfinite(male) else None


def _expression(seen: Observation) -> Prediction:
    p = np.asarray(seen.expression, np.float64)
    return {"probs": [*(p / p.sum()).tolist(), 0.0]} if np.isfinite(p).all() and p.sum() > 0 else None


def _landmarks(seen: Observation) -> Prediction:
    return _mesh(seen.mesh) if np.isfinite(seen.mesh).all() else None


def _mesh(mesh: NDArray[np.floating]) -> dict[str, Any]:
    """All points [468, 2] in pixels, the outline among them, and the middles of the eyes' corners."""
    points = np.round(np.asarray(mesh, np.float64)[:, :2], 2)
    right, left = (points[list(side)].mean(axis=0).tolist() for side in (align.RIGHT_EYE, align.LEFT_EYE))
    return {"points": points.tolist(), "left_eye_center": left, "right_eye_center": right}


def _gaze(seen: Observation) -> Prediction:
    return {"direction": direction(seen.gaze).tolist()} if np.isfinite(seen.gaze).all() else None


def direction(gaze: NDArray[np.floating]) -> NDArray[np.float64]:
    """Unit vector [3] (right, down, towards the camera) of a gaze [2] (right, down, in eye widths off the middle of the
    eye), see `RADII_AN_EYE_WIDTH`: the turn of the eye in the head; that of the head is no part of it."""
    aside = np.asarray(gaze, np.float64) * RADII_AN_EYE_WIDTH
    length = float(np.linalg.norm(aside))
    if length >= 1:
        return np.array([*(aside / length), 0.0])
    return np.array([*aside, (1 - length**2) ** 0.5])


def _embedding(attacker: str) -> Callable[[Observation], Prediction]:
    def predict(seen: Observation) -> Prediction:
        vector = np.asarray(seen.vectors.get(attacker, [np.nan]), np.float64)
        return {"embedding": vector.tolist()} if np.isfinite(vector).all() else None

    return predict
