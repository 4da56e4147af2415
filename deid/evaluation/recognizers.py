"""Recognizers that attack: any ONNX network from a small configuration, and the pipeline's own embedder.

A recognizer gives a vector for one face of one picture; how alike two vectors are is its `metric`.
An attacker takes the `largest` face that a detector finds in each picture, and its `templates`.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
import pydantic
import yaml
from numpy.typing import NDArray
from pydantic import Field

from deid.config import Section
from deid.errors import ConfigError, ModelError
from deid.evaluation.reid import Metric, Templates
from deid.faces.embed import chip, similarity
from deid.interfaces import Detections, Embedder, Face, Mesher, Picture

Pair = tuple[float, float]
Triple = tuple[float, float, float]
MESH_SCORE = 0.5  # below it the five points are used


class RecognizerConfig(Section):
    """An ONNX recognizer of one input [N, 3, size, size] and one output [N, D].

    Its input is (pixel / 255 - mean) / std, of a chip in which a similarity transform has put the face's five
    points as near to `template` as it can (least squares).
    """

    path: str
    size: int = Field(112, ge=16)  # px, side of the chip
    template: tuple[
        Pair, Pair, Pair, Pair, Pair
    ]  # px: eye, eye, nose tip, mouth corners; the picture's left first
    mean: Triple = (0.5, 0.5, 0.5)  # of values 0..1, in the order of `colours`
    std: Triple = (0.5, 0.5, 0.5)
    colours: Literal["rgb", "bgr"] = "rgb"
    metric: Metric = "cosine"
    name: str = ""  # in tables; default: the file's name


def load_config(path: str | Path) -> RecognizerConfig:
    """A recognizer's YAML file; a relative `path` in it is taken from the file's own folder.

    Raises:
        ConfigError: the file cannot be read, or a setting is missing, unknown or wrong.
    """
    where = Path(path)
    try:
        raw = yaml.safe_load(where.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise ConfigError(
                f"{where}: a recognizer is a YAML mapping with path, template, ...; see docs/evaluation.md"
            )
        config = RecognizerConfig.model_validate(raw)
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(
            f"{where}: not valid YAML; give the recognizer's YAML file, not the .onnx file"
        ) from None
    except pydantic.ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{where}: {'; '.join(lines)}") from None
    path = where.parent / config.path
    if not path.is_file():
        raise ConfigError(
            f"{where}: path: there is no file {config.path} (relative ones are taken from here)"
        )
    return config.model_copy(update={"path": str(path)})


class Recognizer(Protocol):
    name: str
    metric: Metric

    def embed(self, picture: Picture, face: Face) -> NDArray[np.float32]:
        """Vector [D] of one face, from its box and points (pixels of the picture)."""


class OnnxRecognizer:
    """An ONNX recognizer in ONNX Runtime, on the CPU."""

    def __init__(self, config: RecognizerConfig, threads: int = 1) -> None:
        self.config, self.metric = config, config.metric
        self.name = config.name or Path(config.path).stem
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(config.path, options, ["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(
                f"recognizer {self.name}: {config.path} is no ONNX model that can be loaded"
            ) from error
        self._input = self._session.get_inputs()[0].name
        self._template = np.array(config.template, np.float32)
        self._mean, self._std = (np.array(v, np.float32)[:, None, None] for v in (config.mean, config.std))

    def embed(self, picture: Picture, face: Face) -> NDArray[np.float32]:
        pixels = chip(picture, similarity(face.points, self._template), self.config.size)
        if self.config.colours == "bgr":
            pixels = pixels[:, :, ::-1]
        tensor = (pixels.transpose(2, 0, 1).astype(np.float32) / 255 - self._mean) / self._std
        vector = np.asarray(self._session.run(None, {self._input: tensor[None]})[0], np.float32)
        return vector.reshape(-1)


class EmbedderRecognizer:
    """The pipeline's own embedder as an attacker; with a mesher, aligned on the mesh as the pipeline does."""

    def __init__(
        self, embedder: Embedder, name: str, metric: Metric = "euclidean", mesher: Mesher | None = None
    ) -> None:
        self.embedder, self.name, self.metric, self.mesher = embedder, name, metric, mesher

    def embed(self, picture: Picture, face: Face) -> NDArray[np.float32]:
        if self.mesher is not None:
            face = dataclasses.replace(face, mesh=self._mesh(picture, face))
        return np.asarray(self.embedder.embed([picture], [[face]])[0][0], np.float32)

    def _mesh(self, picture: Picture, face: Face) -> NDArray[np.float32] | None:
        """The mesh [468, 3] where it can be trusted."""
        if self.mesher is None:
            return None
        found = Detections(face.box[None], np.array([face.score], np.float32), face.points[None])
        meshes, scores = self.mesher.mesh(picture, found)
        return meshes[0] if scores[0] >= MESH_SCORE and np.isfinite(meshes[0]).all() else None


def largest(detections: Detections) -> Face | None:
    """The face with the largest box; None when there is none."""
    if not len(detections):
        return None
    sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
    index = int(np.argmax(sides[:, 0] * sides[:, 1]))
    return Face(detections.boxes[index], float(detections.scores[index]), detections.points[index])


def templates(
    recognizers: Iterable[Recognizer],
    found: Iterable[tuple[Picture, Face | None]],
    subjects: NDArray[Any],
) -> dict[str, Templates]:
    """By recognizer, the templates of pictures with the face to be recognized in each; NaN where none was found.

    Raises:
        ValueError: no face in any picture.
    """
    attackers = list(recognizers)
    vectors: dict[str, list[NDArray[np.float32] | None]] = {attacker.name: [] for attacker in attackers}
    for picture, face in found:
        for attacker in attackers:
            vectors[attacker.name].append(None if face is None else attacker.embed(picture, face))
    return {name: Templates(_stack(rows), np.asarray(subjects)) for name, rows in vectors.items()}


def _stack(rows: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    size = next((len(row) for row in rows if row is not None), None)
    if size is None:
        raise ValueError("no face was found in any picture")
    return np.stack([np.full(size, np.nan, np.float32) if row is None else row for row in rows])
