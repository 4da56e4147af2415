"""Looking at one picture of an evaluation and at all that was made of it; no Ray inside but the table at the border."""

import collections
import dataclasses
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from deid.config import Config, Part
from deid.errors import ConfigError
from deid.evaluation import scenes
from deid.evaluation.baselines import Baselines, configured
from deid.evaluation.blazeface import BlazeFace
from deid.evaluation.controls import grey_head
from deid.evaluation.corpus import Place, decoded
from deid.evaluation.expression import ExpressionNetwork
from deid.evaluation.gaze import Gaze
from deid.evaluation.labels import Label
from deid.evaluation.observe import Observation, Observer, nearest, window
from deid.evaluation.quality import Features
from deid.evaluation.recognizers import EmbedderRecognizer, OnnxRecognizer, RecognizerConfig, load_config
from deid.evaluation.seam import Seam, seam
from deid.evaluation.settings import Evaluation
from deid.faces.align import five_points
from deid.gallery import store as gallery_store
from deid.interfaces import Detector, Face, Picture
from deid.models.store import Store
from deid.pipeline import parts
from deid.pipeline.guard import attempt
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.shards import pictures
from deid.surrogates import ksame

TALL = 40.0  # px: where every face is taller, enlarging the picture finds no others
AROUND = (
    1.6  # half the side of what a seam is looked for in, over the longer side of the face: the head is in it
)
SAME_SHAPE = 0.02  # by which width over height of a result may differ from its source's
FAULTS = (
    "not readable",
    "not looked at",
    "of another size",
    "of another shape",
)  # counted beside what stands where faces were
SCHEMA = pa.schema([("number", pa.int64()), ("seen", pa.large_binary())])


@dataclass(frozen=True)
class Job:
    """One source picture, and where its results are."""

    number: int
    key: str
    source: Place
    labels: list[Label] | None  # None: nobody on it is known
    results: dict[str, Place | None]  # by treatment; None: not paired


@dataclass
class Seen:
    """What was seen of one source picture: F faces, in the order of its labels."""

    number: int
    labels: list[Label | None] = field(default_factory=list)
    clear: list[Observation] = field(default_factory=list)
    grey: list[Observation] = field(default_factory=list)
    treated: dict[str, list[Observation]] = field(default_factory=dict)
    seams: dict[str, list[Seam]] = field(default_factory=dict)
    counts: dict[str, collections.Counter[str]] = field(
        default_factory=dict
    )  # by treatment; "": of the source


def recognizers(evaluation: Evaluation, config: Config) -> list[RecognizerConfig]:
    """Configurations of the attackers' own recognizers; the pipeline's is not among them."""
    made = [load_config(path) for path in evaluation.recognizers]
    named = [one.model_copy(update={"name": one.name or Path(one.path).stem}) for one in made]
    names = [config.embedder.name, *(one.name for one in named)]
    if len(set(names)) < len(names):
        raise ConfigError(f"recognizers: two have one name among {', '.join(names)}; set name in their files")
    return named


def observer(config: Config, attackers: Sequence[RecognizerConfig]) -> Observer:
    """The measuring models, on one thread each: the pipeline's detector, mesher and embedder, and unrelated ones."""
    stage = config.stages.analyse.model_copy(update={"threads": 1})
    embedder, store = parts.build(config, "embedder", stage), Store(config.models)
    own = EmbedderRecognizer(embedder, config.embedder.name)
    return Observer(
        detector=parts.build(config, "detector", stage),
        mesher=parts.build(config, "mesher", stage),
        embedder=embedder,
        second=BlazeFace(store.files("blazeface")),
        expression=ExpressionNetwork(store.files("fer_expression")),
        recognizers=[own, *(OnnxRecognizer(one) for one in attackers)],
        gaze=Gaze(store.files("iris")),
        features=Features(store.files("mtcnn")),
    )


class Looker:
    """Looks at one picture after the other."""

    @shielded("look")
    def __init__(self, evaluation: Evaluation, secret: bytes) -> None:
        cv2.setNumThreads(1)
        config = configured({}, evaluation.models)
        self.names = evaluation.chosen_baselines
        self.baselines = Baselines(self.names, evaluation.models, secret)
        self.observer = observer(config, recognizers(evaluation, config))
        plain = config.model_copy(update={"detector": Part(name="centerface", options={"enlarge": 1})})
        self.full: Detector = self.observer.detector
        self.plain: Detector = parts.build(plain, "detector", config.stages.analyse)
        self.mean_mesh = gallery_store.load(None).meshes.mean(0)

    @shielded("look")
    def __call__(self, table: pa.Table) -> pa.Table:
        made = [self.look(pickle.loads(job)) for job in table["job"].to_pylist()]
        rows = [{"number": seen.number, "seen": pickle.dumps(seen)} for seen in made]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def look(self, job: Job) -> Seen:
        """All that is to be seen of a source picture."""
        seen = Seen(job.number, counts=collections.defaultdict(collections.Counter))
        data = attempt("read", job.source.read) or b""
        source = decoded(data)
        if source is None:
            seen.counts[""]["not readable"] += 1
            self.nothing(seen, job, list(job.labels or []))
            return seen
        row = self.baselines.analysed(job.number, source.pixels, data, job.source.extension)
        found = list(self.places(source.pixels, row, job.labels))
        there = [face for _, face in found if face is not None]
        self.enlarge(min((face.height for face in row.faces), default=0.0) < TALL)
        self.nothing(seen, job, [label for label, face in found if face is None])
        seen.labels += [label for label, face in found if face is not None]
        if not there:
            return seen
        clear = with_scenes(self.observer.observe_at(source.pixels, there), source.pixels, there, job.key)
        known = [o.face or face for o, face in zip(clear, there, strict=True)]
        seen.clear += clear
        seen.grey += self.grey(source.pixels, known)
        for name, pixels in self.results(job, row, source, seen):
            answer = None
            if pixels is not None:
                answer = attempt(
                    "observe", partial(self.compared, source.pixels, pixels, known, there, job.key)
                )
                seen.counts[name]["not looked at"] += answer is None
            observed, seams = answer or ([Observation()] * len(known), [Seam()] * len(known))
            seen.treated[name] += observed
            seen.seams[name] += seams
        return seen

    def enlarge(self, small: bool) -> None:
        """Let the detector enlarge results as the job does, or, where no face is small, spare half of the time."""
        self.observer.detector = self.full if small else self.plain
        if self.baselines.gate is not None:
            self.baselines.gate = dataclasses.replace(self.baselines.gate, detector=self.observer.detector)

    def nothing(self, seen: Seen, job: Job, labels: Sequence[Label | None]) -> None:
        """Labelled faces in whose place nothing is found in the source: they count, as not seen anywhere."""
        seen.labels += labels
        seen.clear += [Observation()] * len(labels)
        seen.grey += [Observation()] * len(labels)
        for name in (*job.results, *self.names):
            seen.treated.setdefault(name, []).extend([Observation()] * len(labels))
            seen.seams.setdefault(name, []).extend([Seam()] * len(labels))

    def places(
        self, pixels: Picture, row: Row, labels: Sequence[Label] | None
    ) -> Iterator[tuple[Label | None, Face | None]]:
        """Whose faces are where; None for a face whose place is not known."""
        faces = row.faces
        if labels is None:
            yield from ((None, face) for face in faces)
            return
        boxes = np.array([face.box for face in faces]).reshape(-1, 4)
        for label in labels:
            if label.box is None:
                area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
                yield label, faces[int(np.argmax(area))] if faces else None
            else:
                box = np.array(label.box, np.float32)
                index = nearest(box, boxes)
                yield label, self.laid(pixels, box) if index is None else faces[index]

    def laid(self, pixels: Picture, box: np.ndarray) -> Face:
        """A face where a label has one and the detector none: with the mesh that is found there, or a mean one."""
        mesh = ksame.lay(self.mean_mesh, np.zeros((5, 2), np.float32), box)
        face = self.observer.meshed(pixels, Face(box, 0.0, five_points(mesh)))
        face.points = face.points if face.mesh is None else five_points(face.mesh)
        return face

    def grey(self, pixels: Picture, faces: Sequence[Face]) -> list[Observation]:
        """The faces, each with a grey head; so have all others on the picture."""
        covered = pixels
        for face in faces:
            mesh = ksame.lay(self.mean_mesh, face.points, face.box) if face.mesh is None else face.mesh
            covered = grey_head(covered, mesh)
        return self.observer.observe_known(covered, faces)

    def results(
        self, job: Job, row: Row, source: pictures.Decoded, seen: Seen
    ) -> Iterator[tuple[str, Picture | None]]:
        """Every treatment's picture, at the source's size; None where there is none."""
        for name, where in job.results.items():
            data = b"" if where is None else attempt("read", where.read)
            yield name, None if where is None else self.fitted(data, source.pixels, seen.counts[name])
        for name in self.names:
            made = attempt("baseline", partial(self.baselines.make, name, row, source.pixels, source))
            data, stood = made or (b"", [])
            seen.counts[name].update(stood)
            yield name, self.fitted(data, source.pixels, seen.counts[name])

    def fitted(self, data: bytes | None, source: Picture, counts: collections.Counter[str]) -> Picture | None:
        result = decoded(data or b"")
        if result is None:
            counts["not readable"] += 1
            return None
        if result.pixels.shape == source.shape:
            return result.pixels
        size = (source.shape[1], source.shape[0])
        (height, width), (high, wide) = result.pixels.shape[:2], source.shape[:2]
        if abs(width * high / (height * wide) - 1) > SAME_SHAPE:  # turned or cut: its faces are elsewhere
            counts["of another shape"] += 1
            return None
        counts["of another size"] += 1
        return np.asarray(cv2.resize(result.pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

    def compared(
        self, source: Picture, result: Picture, faces: Sequence[Face], places: Sequence[Face], key: str
    ) -> tuple[list[Observation], list[Seam]]:
        """Observations and seams of a result at the places of the source's faces; scenes about the places."""
        seams = []
        for face in faces:
            left, top, right, bottom = window(source, face.box, AROUND)
            empty = right - left < 1 or bottom - top < 1
            pair = (picture[top:bottom, left:right] for picture in (source, result))
            seams.append(Seam() if empty else seam(*pair))
        return with_scenes(self.observer.observe_at(result, faces), result, places, key), seams


def with_scenes(
    observations: Sequence[Observation], picture: Picture, places: Sequence[Face], key: str
) -> list[Observation]:
    """The observations with a scene about each place; those in the source and in its results are of the same window."""
    boxes = np.array([face.box for face in places], np.float64).reshape(-1, 4)
    made = []
    for number, (seen, box) in enumerate(zip(observations, boxes, strict=True)):
        if (box[2:] <= box[:2]).any() or not np.isfinite(box).all():
            made.append(seen)
            continue
        pixels, where = scenes.scene(picture, box, f"{key}#{number}", np.delete(boxes, number, axis=0))
        made.append(replace(seen, scene=pixels, scene_box=where))
    return made
