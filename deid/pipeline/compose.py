"""The last stage before the writer: surrogates into their places, the gate's second look, encoding."""

import json

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
from deid.privacy import gate, label_maps
from deid.privacy.gate import Gate
from deid.shards import pictures
from deid.surrogates import composite
from deid.video import frames

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
        margin = gate.margin(config.gate, gallery_store.of(config))
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
        extension = frames.EXTENSION if self.config.video else extension
        encoded = attempt("encode", lambda: pictures.encode(result, extension, output.quality, decoded.grey))
        if not encoded:
            row.fail("encode_failed")
            return
        row.result, row.result_extension, row.image = encoded, extension, b""
        self.keep_masks(row, result)
        for face in row.faces:
            face.embedding = face.mesh = face.looks = face.surrogate = face.surrogate_mesh = None
            face.segments = face.surrogate_segments = face.spare = face.spare_mesh = None

    def keep_masks(self, row: Row, result: Picture) -> None:
        """Of the label maps, those that are no pictures; the others are dropped and counted."""
        size, most = (result.shape[1], result.shape[0]), self.config.metadata.mask_values
        kept = {name: label_maps.keep(data, size, most) for name, data in row.masks.items()}
        row.masks = {name: data for name, data in kept.items() if data is not None}
        lost = dict.fromkeys(kept.keys() - row.masks.keys(), 1)
        row.dropped = json.dumps(json.loads(row.dropped) | lost)

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
