"""The stages of the run: Arrow table in, Arrow table out, no Ray inside.

Each loads its models when it is built (once an actor) and is pure after that. Whatever fails for a face marks the
face, whatever fails for a picture quarantines the picture (`Row.fail`); neither ends the run.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deid.config import Config
from deid.errors import ConfigError, FaceError, PictureError
from deid.faces.align import five_points
from deid.faces.attributes import AttributeHeads, sex_class
from deid.gallery import store as gallery_store
from deid.interfaces import Detections, Face, Picture
from deid.pipeline import parts, rows
from deid.pipeline.guard import attempt, attempt_batch
from deid.pipeline.rows import Row
from deid.privacy import keys
from deid.shards import pictures
from deid.surrogates import composite, match
from deid.surrogates.control import Control

SEX_BAND = np.array(
    [0.2, 0.8], np.float32
)  # P(male) between these: not known, and identities of either sex serve
MESH_SCORE = 0.5  # below it the mesh is not trusted
RENDER_SIZES = (64, 128, 256, 512, 1024)  # px; a surrogate travels at the least of them that covers its face
DRAWN_SIZES = (128, 256, 512, 1024)  # px; a surrogate is drawn at the least of them that covers its face


class Analyse:
    """Decode, detect, mesh, embed."""

    def __init__(self, config: Config) -> None:
        stage = config.stages.analyse
        self.config, self.batch = config, stage.batch_size
        self.detector = parts.build(config, "detector", stage)
        self.mesher = parts.build(config, "mesher", stage)
        self.embedder = parts.build(config, "embedder", stage)

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
        self.embed([(row, pixels) for row, pixels in pairs if not row.reason and row.faces])

    def detect(self, batch: Sequence[Picture]) -> list[Detections]:
        found = list(self.detector.detect(batch))
        for faces in found:
            if (
                not len(faces.boxes) == len(faces.scores) == len(faces.points)
                or not np.isfinite(faces.boxes).all()
            ):
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
    """Match each face with the gallery and render its surrogate, with the face's pose and expression."""

    def __init__(self, config: Config, secret: bytes) -> None:
        stage = config.stages.generate
        self.config, self.secret, self.batch = config, secret, stage.batch_size
        self.gallery = gallery_store.load(config.gallery)
        match.check(config.match, self.gallery)
        self.control = Control.fit(self.gallery.styles, self.gallery.meshes)
        self.heads = AttributeHeads.load() if config.embedder.name == "dlib" else None
        self.generator = parts.build(config, "generator", stage)
        self.mesher = parts.build(config, "mesher", stage)
        self.mean_mesh = self.gallery.meshes.mean(0)
        self.place_of_faces = _detection(self.mean_mesh)
        if self.generator.style_dim != self.gallery.styles.shape[1]:
            raise ConfigError(
                "gallery: its styles are not those of the configured generator; build one with it"
            )

    def __call__(self, table: pa.Table) -> pa.Table:
        items = rows.from_table(table)
        chosen = [
            (row, number) for row in items for number, face in enumerate(row.faces) if self.wanted(face)
        ]
        for start in range(0, len(chosen), self.batch):
            self.generate(chosen[start : start + self.batch])
        return rows.to_table(items)

    def wanted(self, face: Face) -> bool:
        if self.config.anonymizer == "solid":
            face.failure = face.failure or "policy"
        return not face.failure

    def generate(self, batch: Sequence[tuple[Row, int]]) -> None:
        styled: dict[int, list[tuple[Face, NDArray[np.float32]]]] = {}
        for row, number in batch:
            face = row.faces[number]
            found = attempt("match", partial(self.style_and_side, row, number))
            if found is None:
                face.failure = "match_failed"
            else:
                styled.setdefault(found[1], []).append((face, found[0]))
        for side, some in styled.items():
            self.render(some, side)

    def style_and_side(self, row: Row, number: int) -> tuple[NDArray[np.float32], int]:
        """Style [style_dim] of a face's surrogate, and the side (px) at which it is drawn."""
        return self.style(row, number), self.side(row.faces[number])

    def side(self, face: Face) -> int:
        """The least of DRAWN_SIZES that the face's place needs, if its surrogate lies where the gallery's do."""
        return composite.least_size(self.mean_mesh, face, DRAWN_SIZES)

    def render(self, styled: Sequence[tuple[Face, NDArray[np.float32]]], side: int) -> None:
        def call(styles: Sequence[NDArray[np.float32]]) -> list[Picture]:
            return list(self.generator.generate(np.stack(styles), side))

        rendered = attempt_batch("generate", call, [style for _, style in styled])
        for (face, _), picture in zip(styled, rendered, strict=True):
            if picture is None or attempt("place", partial(self.place, face, picture)) is None:
                face.failure, face.surrogate, face.surrogate_mesh = "generate_failed", None, None

    def style(self, row: Row, number: int) -> NDArray[np.float32]:
        """Style [style_dim] of the surrogate: the equal-weight mean of k gallery identities, steered."""
        face, options = row.faces[number], self.config.match
        if face.embedding is None or face.mesh is None:
            raise FaceError("match_failed")
        if options.method == "nearest":
            indices = match.nearest(face.embedding, self.gallery, options.k)
        else:
            sex, age = self.apparent(face.embedding)
            rng = keys.rng_for(
                self.secret, keys.face_id(self.secret, row.unit, row.position, number).encode()
            )
            indices = match.distant(
                face.embedding, self.gallery, options.k, options.margin, rng, sex, age, options.age_band
            )
        face.k = len(indices)
        blended = self.control.blend(self.gallery.styles[indices], self.gallery.mean_style)
        return self.control.follow(blended, face.mesh)

    def apparent(self, embedding: NDArray[np.float32]) -> tuple[int, float]:
        """Apparent sex (1 male, 0 female, -1 not known) and age in years (NaN not known)."""
        if self.heads is None:
            return match.UNKNOWN, float("nan")
        found = self.heads.predict(embedding[None])
        sex = int(sex_class(found["sex"], SEX_BAND)[0]) if self.config.match.same_sex else match.UNKNOWN
        return sex, float(found["age"][0])

    def place(self, face: Face, picture: Picture) -> bool:
        """Mesh the rendered face and keep it no larger than its place in the picture needs."""
        side = picture.shape[0]
        frame = self.place_of_faces
        detections = Detections(frame.boxes * side, frame.scores, frame.points * side)
        meshes, scores = self.mesher.mesh(picture, detections)
        if scores[0] < MESH_SCORE or not np.isfinite(meshes[0]).all():
            raise FaceError("generate_failed")
        face.surrogate, face.surrogate_mesh = composite.fit_size(picture, meshes[0], face, RENDER_SIZES)
        return True


class Compose:
    """Put the surrogates in place, cover what has none, encode; the source ends here."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, table: pa.Table) -> pa.Table:
        items = rows.from_table(table)
        for row in items:
            if not row.reason:
                self.compose(row)
        return rows.to_table(items)

    def compose(self, row: Row) -> None:
        decoded = attempt("decode", lambda: pictures.decode(row.image, self.config.limits.max_pixels))
        if decoded is None:
            row.fail("truncated_image")
            return
        result = attempt(
            "cover", lambda: composite.composite_all(decoded.pixels, row.faces, self.config.region)
        )
        if result is None or any(face.status not in ("replaced", "covered") for face in row.faces):
            row.fail("cover_failed")
            return
        output = self.config.output
        same = decoded.format if decoded.format in ("jpg", "png", "webp") else "png"
        extension = same if output.image_format == "same" else output.image_format
        encoded = attempt("encode", lambda: pictures.encode(result, extension, output.quality, decoded.grey))
        if not encoded:
            row.fail("encode_failed")
            return
        row.result, row.result_extension, row.image = encoded, extension, b""
        for face in row.faces:
            face.embedding = face.mesh = face.surrogate = face.surrogate_mesh = None


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


def _detection(mesh: NDArray[np.float32]) -> Detections:
    """The detection that would stand where a mesh [468, 3] is, in the mesh's units."""
    low, high = mesh[:, :2].min(0), mesh[:, :2].max(0)
    box = np.concatenate([low, high]).astype(np.float32)
    return Detections(box[None], np.ones(1, np.float32), five_points(mesh)[None])
