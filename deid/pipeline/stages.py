"""The stages of the run: Arrow table in, Arrow table out, no Ray inside.

Each loads its models when it is built (once an actor) and is pure after that. Whatever fails for a face marks the
face, whatever fails for a picture quarantines the picture (`Row.fail`); neither ends the run.
"""

import functools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deid.config import Config
from deid.errors import ConfigError, FaceError, PictureError
from deid.faces.align import expression, pose
from deid.faces.appearance import hidden, looks
from deid.faces.mesh import as_detection
from deid.faces.segment import head_chip
from deid.gallery import store as gallery_store
from deid.interfaces import Detections, Face, Picture, Renderer, Rendering
from deid.pipeline import parts, rows
from deid.pipeline.direct import Direct
from deid.pipeline.guard import attempt, attempt_batch
from deid.pipeline.identities import Identities
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.privacy import audit
from deid.shards import pictures
from deid.surrogates import composite, ksame, ladder, masks, match, mimic
from deid.surrogates.match import UNKNOWN
from deid.surrogates.steering import HIDDEN, Seen, Steering, Style

MESH_SCORE = 0.5  # below it the mesh is not trusted
DRAWS = 3  # of identities at most, until a trial shows a face that nothing covers
PLAINER = (0.6, 0.3, 0.0)  # shares of the steering that are tried where its face is covered
TRIAL_SIDE = 128  # px of the pictures by which a style is corrected
RENDER_SIZES = (64, 128, 256, 512, 1024)  # px; a surrogate travels at the least of them that covers its face
DRAWN_SIZES = (128, 256, 512, 1024)  # px; a surrogate is drawn at the least of them that covers its face
NEARLY = 0.8  # share of the pixels of its place with which a surrogate is sharp enough


class Analyse:
    """Decode, detect, mesh, embed, and take heads apart.

    Args:
        run: the run's random id, for logs.
    """

    @shielded("analyse")
    def __init__(self, config: Config, run: str = "") -> None:
        stage = config.stages.analyse
        self.config, self.batch, self.run = config, stage.batch_size, run
        self.detector = parts.build(config, "detector", stage)
        self.mesher = parts.build(config, "mesher", stage)
        self.embedder = parts.build(config, "embedder", stage)
        self.segmenter = parts.segmenter(config, stage)

    @shielded("analyse")
    def __call__(self, table: pa.Table) -> pa.Table:
        items = rows.from_table(table)
        live = [row for row in items if not row.reason]
        for start in range(0, len(live), self.batch):
            self.analyse(live[start : start + self.batch])
        return rows.to_table(items)

    def analyse(self, batch: Sequence[Row]) -> None:
        pairs = [(row, pixels) for row in batch if (pixels := decode(row, self.config)) is not None]
        found = attempt_batch("detect", self.detect, [pixels for _, pixels in pairs])
        for (row, pixels), detections in zip(pairs, found, strict=True):
            if detections is None:
                row.fail("detector_failed")
            else:
                row.faces = self.meshed(pixels, detections)
        live = [(row, pixels) for row, pixels in pairs if not row.reason and row.faces]
        self.embed(live)
        self.segment([(pixels, face) for row, pixels in live for face in row.faces if not face.failure])

    def segment(self, faces: Sequence[tuple[Picture, Face]]) -> None:
        """Parts and looks of heads; a head without them is replaced as a face."""
        if self.segmenter is None:
            return
        chips = [
            attempt("segment", partial(head_chip, pixels, face.mesh)) if face.mesh is not None else None
            for pixels, face in faces
        ]
        pairs = [(chip, face) for chip, (_, face) in zip(chips, faces, strict=True) if chip is not None]
        found = attempt_batch("segment", self.segmenter.parts, [chip for chip, _ in pairs])
        for (chip, face), parts_of_head in zip(pairs, found, strict=True):
            if parts_of_head is not None and face.mesh is not None:
                face.segments = parts_of_head
                face.looks = attempt("looks", partial(looks, chip, parts_of_head, face.mesh))

    def detect(self, batch: Sequence[Picture]) -> list[Detections]:
        found = list(self.detector.detect(batch))
        for faces in found:
            if not faces.sound:
                raise ValueError("a detector gave boxes, scores and points that do not fit each other")
        return found

    def meshed(self, pixels: Picture, detections: Detections) -> list[Face]:
        faces = [
            Face(box=box, score=float(score), points=points)
            for box, score, points in zip(detections.boxes, detections.scores, detections.points, strict=True)
        ]
        if not faces:
            return faces
        answer = attempt("mesh", lambda: self.mesher.mesh(pixels, detections))
        if answer is None or not len(answer[0]) == len(answer[1]) == len(faces):
            answer = [None] * len(faces), [0.0] * len(faces)  # type: ignore[assignment]
        meshes, scores = answer
        for face, mesh, score in zip(faces, meshes, scores, strict=True):
            if mesh is not None and score >= MESH_SCORE and np.isfinite(mesh).all():
                face.mesh, face.mesh_score = mesh, float(score)
            else:
                face.failure = "mesh_failed"
        return faces

    def embed(self, pairs: Sequence[tuple[Row, Picture]]) -> None:
        def call(batch: Sequence[tuple[Row, Picture]]) -> list[NDArray[np.float32]]:
            faces = [row.faces for row, _ in batch]
            found = list(self.embedder.embed([pixels for _, pixels in batch], faces))
            if [len(vectors) for vectors in found] != [len(of) for of in faces]:
                raise ValueError("an embedder gave another number of embeddings than of faces")
            return found

        for (row, _), embeddings in zip(pairs, attempt_batch("embed", call, pairs), strict=True):
            for number, face in enumerate(row.faces):
                if embeddings is not None and np.isfinite(embeddings[number]).all():
                    face.embedding = embeddings[number]
                else:
                    face.failure = face.failure or "embed_failed"


class Generate:
    """Match each face with the gallery and render what its rung of the ladder asks for; a failure leads one rung
    down.

    Args:
        run: the run's random id, for logs.
    """

    @shielded("generate")
    def __init__(self, config: Config, secret: bytes, run: str = "") -> None:
        stage = config.stages.generate
        self.config, self.batch, self.run = config, stage.batch_size, run
        self.gallery = gallery_store.of(config)
        self.identities = Identities(self.gallery, config.match, secret, parts.attributes(config))
        self.appointed = config.two_passes  # who gets which identities is settled: they stay, whatever fails
        self.shared = config.shared_looks  # nothing but pose and expression is to tell who it is
        self.generator = parts.build(config, "generator", stage)
        self.segmenter = parts.segmenter(config, stage)
        self.mesher = parts.build(config, "mesher", stage)
        self.mean_mesh = self.gallery.meshes.mean(0)
        self.direct: Direct | None = None
        if isinstance(self.generator, Renderer):
            self.direct = Direct(self.generator, self.gallery, DRAWN_SIZES, NEARLY)
        portrait = self.direct.portrait if self.direct else self.portrait
        self.gallery_faces = ksame.Faces(self.gallery, portrait, self.mesher, MESH_SCORE)
        self.place_of_faces = as_detection(self.mean_mesh)
        if self.direct is None and self.generator.style_dim != self.gallery.styles.shape[1]:
            raise ConfigError(
                "gallery: its styles are not those of the configured generator; build one with it"
            )

    @functools.cached_property
    def steering(self) -> Steering:
        """Learnt from the gallery where styles are steered."""
        return Steering(self.gallery, self.config.match.corrections)

    @shielded("generate")
    def __call__(self, table: pa.Table) -> pa.Table:
        items = rows.from_table(table)
        for face in (face for row in items for face in row.faces):
            self.start(face)
        self.fill(items)
        if self.config.gate.enabled:
            self.spare(items)
        return rows.to_table(items)

    def start(self, face: Face) -> None:
        """Put a face on its first rung."""
        if not masks.agrees(face):
            face.mesh, face.mesh_score = None, 0.0
        if face.embedding is not None and not self.appointed:
            face.sex, face.age = self.identities.apparent(face.embedding)
        face.expression = audit.expression(face.mesh)
        if self.shared and face.mesh is not None:
            face.wanted = mimic.levelled(expression(face.mesh))
        yaw, pitch, _ = pose(face.mesh) if face.mesh is not None else (0.0, 0.0, 0.0)
        face.anonymizer, reason = ladder.start(
            self.config.anonymizer, self.config.ladder, face.height, face.mesh_score, yaw, pitch
        )
        face.failure = reason if reason == "policy" else face.failure or reason
        if face.anonymizer == "surrogate" and face.failure:
            ladder.lower(face, face.failure)

    def fill(self, items: Sequence[Row]) -> None:
        """Render what the faces' rungs ask for, rung by rung downwards, so that what fails is seen to further down."""
        for rung in ladder.RENDERED:
            chosen = [
                (row, n) for row in items for n, face in enumerate(row.faces) if ladder.pending(face, rung)
            ]
            for start in range(0, len(chosen), self.batch):
                self.generate(chosen[start : start + self.batch], rung)

    def generate(self, batch: Sequence[tuple[Row, int]], rung: str) -> None:
        if rung == "ksame-pixel":
            for row, number in batch:
                if attempt("average", partial(self.average, row, number)) is None:
                    ladder.lower(row.faces[number], "generate_failed")
            return
        if self.direct is not None:
            self.draw(self.direct, batch)
            return
        styled: list[tuple[Face, Style]] = []
        for row, number in batch:
            face = row.faces[number]
            style = attempt("match", partial(self.style, row, number))
            if style is None:
                ladder.lower(face, "match_failed")
            else:
                styled.append((face, style))

        rendered = attempt_batch("generate", self.render, styled)
        for (face, _), picture in zip(styled, rendered, strict=True):
            if picture is None or attempt("place", partial(self.place, face, picture)) is None:
                ladder.lower(face, "generate_failed")

    def draw(self, direct: Direct, batch: Sequence[tuple[Row, int]]) -> None:
        """Surrogates of a generator that needs no style."""
        chosen: list[tuple[Face, match.Indices]] = []
        for row, number in batch:
            indices = attempt("match", partial(self.chosen, row, number))
            if indices is None:
                ladder.lower(row.faces[number], "match_failed")
            else:
                chosen.append((row.faces[number], indices))
        drawn = attempt_batch("generate", direct.render, chosen)
        for (face, _), one in zip(chosen, drawn, strict=True):
            if one is None or attempt("place", partial(self.place_drawn, direct, face, one)) is None:
                ladder.lower(face, "generate_failed")

    def place_drawn(self, direct: Direct, face: Face, drawn: Rendering) -> bool:
        if self.segmenter is not None and face.anonymizer == "surrogate" and face.segments is not None:
            face.surrogate_segments = self.segmenter.parts([drawn.picture])[0]
        return direct.place(face, drawn, RENDER_SIZES)

    def portrait(self, index: int, side: int) -> Picture:
        """The rendering of one gallery identity."""
        return np.asarray(
            self.generator.generate(self.gallery.styles[index : index + 1], side=side)[0], np.uint8
        )

    def render(self, styled: Sequence[tuple[Face, Style]]) -> list[Picture]:
        """Pictures of faces, each of the least side that covers it."""
        sides = [self.side(face) for face, _ in styled]
        pictures: dict[int, Picture] = {}
        for side in sorted(set(sides)):
            chosen = [n for n, own in enumerate(sides) if own == side]
            made = self.generator.generate(np.stack([styled[n][1] for n in chosen]), side=side)
            pictures.update(zip(chosen, made, strict=True))
        return [pictures[n] for n in range(len(styled))]

    def side(self, face: Face) -> int:
        """The least of DRAWN_SIZES that the face's place needs, if its surrogate lies where the gallery's do."""
        if face.anonymizer == "simple" or face.mesh is None:
            return DRAWN_SIZES[0]
        return composite.least_size(self.mean_mesh, face, DRAWN_SIZES, NEARLY)

    def style(self, row: Row, number: int) -> Style:
        """Style [style_dim] of the surrogate: the equal-weight mean of k gallery identities, and at the first rung
        steered."""
        face = row.faces[number]
        male = float("nan") if face.sex == UNKNOWN else float(face.sex)
        for draw in range(1 if self.appointed else DRAWS):
            blended = self.blended(self.chosen(row, number, draw))
            if face.anonymizer != "surrogate":
                return blended
            style, sound = self.steering.follow(blended, face, self.seen, male, face.age)
            if sound:
                break
        return self.plainer(blended, style) if self.appointed and not sound else style

    def blended(self, indices: match.Indices) -> Style:
        return self.steering.control.blend(self.gallery.styles[indices], self.gallery.mean_style)

    def plainer(self, blended: Style, style: Style) -> Style:
        """A style on the way back from the steered to the blended one, whose face nothing covers: its identities are
        appointed, so no others can be drawn."""
        for share in PLAINER:
            tried = np.asarray(blended + np.float32(share) * (style - blended), np.float32)
            if self.sound(tried):
                return tried
        return style

    def sound(self, style: Style) -> bool:
        """A trial rendering shows a face, and nothing covers it."""
        seen = attempt("trial", partial(self.trial, style))
        return seen is not None and seen.hidden < HIDDEN

    def seen(self, style: Style) -> Seen:
        """What a style's face looks like, rendered small.

        Raises:
            FaceError: it cannot be rendered, or shows no face.
        """
        found = attempt("trial", partial(self.trial, style))
        if found is None:
            raise FaceError("generate_failed")
        return found

    def trial(self, style: Style) -> Seen:
        picture = self.generator.generate(style[None], side=TRIAL_SIDE)[0]
        meshes, scores = self.mesher.mesh(picture, self.standing(TRIAL_SIDE))
        if scores[0] < MESH_SCORE or not np.isfinite(meshes[0]).all():
            raise FaceError("generate_failed")
        if self.segmenter is None:
            return Seen(meshes[0])
        chip = head_chip(picture, meshes[0])
        seen = self.segmenter.parts([chip])[0]
        return Seen(meshes[0], looks(chip, seen, meshes[0]), hidden(seen, meshes[0]))

    def standing(self, side: int) -> Detections:
        """Where the face of a generated picture of this side (px) stands."""
        frame = self.place_of_faces
        return Detections(frame.boxes * side, frame.scores, frame.points * side)

    def average(self, row: Row, number: int) -> bool:
        """Give the face the average of k gallery faces, in the shape of its mesh, or of their mean mesh laid on the
        detector's points."""
        face = row.faces[number]
        indices = self.chosen(row, number)
        if face.mesh is None:
            face.mesh = ksame.lay(self.gallery.meshes[indices].mean(0), face.points, face.box)
        face.surrogate, face.surrogate_mesh = self.gallery_faces.average(
            indices.tolist(), face.mesh, face.height
        )
        return True

    def spare(self, items: Sequence[Row]) -> None:
        """Give each face at the first rung what the gate may put in its place; without it the face would go grey."""

        def call(row: Row, number: int, face: Face) -> bool:
            if face.mesh is None:
                raise FaceError("generate_failed")
            if self.appointed:  # another rung, the same identities: nothing that fewer people share
                indices = self.chosen(row, number).tolist()
            else:
                indices = self.identities.spare(face, row.unit, row.position, number).tolist()
            face.spare, face.spare_mesh = self.gallery_faces.average(indices, face.mesh, ksame.SIDES[0] / 2)
            return True

        for row in items:
            for number, face in enumerate(row.faces):
                if face.anonymizer == "surrogate" and face.surrogate is not None:
                    attempt("spare", partial(call, row, number, face))

    def chosen(self, row: Row, number: int, draw: int = 0) -> match.Indices:
        """The gallery identities [k] of a face: those appointed to it, else of its first or a later draw.

        Raises:
            FaceError: none are appointed, or could be drawn.
        """
        face = row.faces[number]
        if not self.appointed:
            indices = self.identities.of(face, row.unit, row.position, number, draw)
        elif face.identities is None:
            raise FaceError("match_failed")
        else:
            indices = face.identities.astype(np.int64)
        face.k = len(indices)
        return indices

    def place(self, face: Face, picture: Picture) -> bool:
        """Mesh the rendered face and keep it no larger than its place in the picture needs."""
        if face.anonymizer == "simple":
            picture = ksame.reduced(picture, ladder.SIMPLE_SIDE)
        meshes, scores = self.mesher.mesh(picture, self.standing(picture.shape[0]))
        if scores[0] < MESH_SCORE or not np.isfinite(meshes[0]).all():
            raise FaceError("generate_failed")
        if face.mesh is None:
            face.mesh = ksame.lay(meshes[0], face.points, face.box)
        if self.segmenter is not None and face.anonymizer == "surrogate" and face.segments is not None:
            face.surrogate_segments = self.segmenter.parts([picture])[0]
        face.surrogate, face.surrogate_mesh = composite.fit_size(picture, meshes[0], face, RENDER_SIZES)
        return True


def decode(row: Row, config: Config) -> Picture | None:
    """Upright pixels of the row's picture; None when it was quarantined instead."""

    def call() -> Picture | str:
        try:
            return pictures.decode(row.image, config.limits.max_pixels).pixels
        except PictureError as error:
            return error.reason

    answer = attempt("decode", call)
    if answer is None or isinstance(answer, str):
        row.fail(answer or "truncated_image")
        return None
    row.height, row.width = answer.shape[:2]
    return answer
