"""What the measuring models see in encoded pictures, kept in a folder by hash: none is looked at twice."""

import dataclasses
import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from deid.config import Config, Part
from deid.evaluation.blazeface import BlazeFace
from deid.evaluation.controls import grey_head
from deid.evaluation.expression import ExpressionNetwork
from deid.evaluation.observe import Observation, Observer
from deid.evaluation.recognizers import EmbedderRecognizer, OnnxRecognizer, RecognizerConfig
from deid.evaluation.reid import Templates
from deid.interfaces import Picture
from deid.models.store import Store
from deid.pipeline import parts
from deid.shards import pictures

VERSION = "2"  # of what is observed; another one makes the kept observations worthless
GREY = "grey"


def decode(data: bytes) -> Picture:
    return pictures.decode(data, common.MAX_PIXELS).pixels


def build(config: Config, recognizer: RecognizerConfig) -> Observer:
    """The measuring models, on one thread: the pipeline's detector, mesher and embedder, and unrelated ones."""
    stage = config.stages.analyse.model_copy(update={"threads": 1})
    plain = config.model_copy(update={"detector": Part(name="centerface", options={"enlarge": 1})})
    embedder, store = parts.build(config, "embedder", stage), Store(config.models)
    return Observer(
        detector=parts.build(plain, "detector", stage),  # large faces: enlarging finds no others
        mesher=parts.build(config, "mesher", stage),
        embedder=embedder,
        second=BlazeFace(store.files("blazeface")),
        expression=ExpressionNetwork(store.files("fer_expression")),
        recognizers=[
            EmbedderRecognizer(embedder, f"{config.embedder.name}, the pipeline's own"),
            OnnxRecognizer(recognizer),
        ],
    )


class Observing:
    """Observations of encoded pictures, from the folder where they are there."""

    def __init__(self, observer: Observer, folder: Path) -> None:
        self.observer, self.folder = observer, folder
        folder.mkdir(parents=True, exist_ok=True)

    def plain(self, data: bytes) -> Observation:
        """The largest face of a picture."""
        path = self._path(data, "")
        if path.exists():
            return load(path.read_bytes())
        return self._keep(path, self.observer.observe(decode(data)))

    def grey(self, data: bytes) -> Observation:
        """The same picture with a grey head, as one sees it who knows where the face was."""
        path = self._path(data, GREY)
        if path.exists():
            return load(path.read_bytes())
        picture, before = decode(data), self.plain(data)
        return self._keep(path, self.observer.observe(grey_head(picture, before.mesh), before.face))

    def _path(self, data: bytes, kind: str) -> Path:
        name = hashlib.sha256(f"{VERSION} {kind} ".encode() + data).hexdigest()
        return self.folder / f"{name}.npz"

    def _keep(self, path: Path, seen: Observation) -> Observation:
        path.write_bytes(dump(seen))
        return seen


def dump(seen: Observation) -> bytes:
    """An observation as a NumPy archive."""
    arrays = {
        f.name: np.asarray(getattr(seen, f.name)) for f in dataclasses.fields(seen) if f.name != "vectors"
    }
    stream = io.BytesIO()
    np.savez(stream, **arrays, **{f"vector {name}": vector for name, vector in seen.vectors.items()})
    return stream.getvalue()


def load(data: bytes) -> Observation:
    """What `dump` wrote."""
    with np.load(io.BytesIO(data)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    vectors = {name.removeprefix("vector "): arrays[name] for name in arrays if name.startswith("vector ")}
    kept: dict[str, Any] = {
        name: value if value.ndim else float(value) for name, value in arrays.items() if name[:7] != "vector "
    }
    return Observation(**kept, vectors=vectors)


def templates(
    recognizer: str, keys: Iterable[str], seen: Mapping[str, Observation], subjects: Mapping[str, str]
) -> Templates:
    """Of one recognizer, of the observations of these keys; NaN for a picture without a face, or no picture."""
    chosen = list(keys)
    size = next(len(o.vectors[recognizer]) for o in seen.values() if recognizer in o.vectors)
    empty = np.full(size, np.nan, np.float32)
    vectors = [seen[k].vectors.get(recognizer, empty) if k in seen else empty for k in chosen]
    return Templates(np.stack(vectors), np.array([subjects[k] for k in chosen]))
