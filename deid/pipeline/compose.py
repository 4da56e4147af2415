"""The last stage before the writer: surrogates into their places, the gate's second look, encoding."""

import pyarrow as pa

from deid import log as logs
from deid.config import Config
from deid.errors import FaceError
from deid.gallery import store as gallery_store
from deid.interfaces import Picture
from deid.pipeline import parts, rows
from deid.pipeline.guard import attempt
from deid.pipeline.rows import Row
from deid.pipeline.shield import shielded
from deid.privacy import gate
from deid.privacy.gate import Gate
from deid.shards import pictures
from deid.surrogates import composite

log = logs.logger(__name__)


class Compose:
    """Put the surrogates in place, cover what has none, check the result, encode; the source ends here.

    Args:
        run: the run's random id, for logs.
    """

    @shielded("compose")
    def __init__(self, config: Config, run: str = "") -> None:
        self.config, self.run = config, run
        self.gate = self.build(config) if config.gate.enabled else None

    @staticmethod
    def build(config: Config) -> Gate:
        stage = config.stages.compose
        margin = gate.margin(config.gate, gallery_store.load(config.gallery))
        log.info("gate: margin %.3f", margin)
        return Gate(
            parts.build(config, "detector", stage),
            parts.build(config, "mesher", stage),
            parts.build(config, "embedder", stage),
            margin,
            config.gate.score,
        )

    @shielded("compose")
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
        result = self.result(row, decoded.pixels)
        if result is None:
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
            face.embedding = face.mesh = face.looks = face.surrogate = face.surrogate_mesh = None
            face.segments = face.surrogate_segments = face.spare = face.spare_mesh = None

    def result(self, row: Row, source: Picture) -> Picture | None:
        """What goes out; None when the picture was quarantined instead."""

        def composed() -> Picture:
            made = composite.composite_all(source, row.faces, self.config.region, self.config.classic)
            if any(face.status not in ("replaced", "covered") for face in row.faces):
                raise FaceError("composite_failed")
            return made

        first, check = attempt("cover", composed), self.gate
        if first is None:
            row.fail("cover_failed")
            return None
        if check is None:
            for face in row.faces:
                face.gate = "unchecked"
            return first
        verified = attempt("gate", lambda: check.verify(source, first, row.faces, composed))
        if verified is None:
            row.fail("gate_failed")
        return verified
