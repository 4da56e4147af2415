"""The classic ways beside ours, made by the job's own stages in one process: a picture is analysed once for all."""

import copy
import dataclasses
from collections.abc import Sequence
from functools import partial

from deid.config import Config, Models, Options, parse
from deid.evaluation.options import PLACES, merged
from deid.evaluation.settings import BASELINES
from deid.interfaces import Picture
from deid.pipeline import parts, stages
from deid.pipeline.compose import Compose
from deid.pipeline.guard import attempt
from deid.pipeline.identities import Identities
from deid.pipeline.rows import Row
from deid.shards import pictures


def configured(settings: Options, models: Models) -> Config:
    """The job's configuration with these settings over its defaults, each face replaced on its own; its input and
    output are never touched."""
    base = PLACES | {"models": models.model_dump(), "assignment": {"mode": "per-face"}}
    return parse(merged(base, settings), "baselines")


class Baselines:
    """The analysis of sources, and what the named ways of `BASELINES` make of them.

    Args:
        secret: 32 bytes, of the draws.
    """

    def __init__(self, names: Sequence[str], models: Models, secret: bytes) -> None:
        self.configs = {name: configured(BASELINES[name], models) for name in names}
        every = [*self.configs.values()]
        heads = [config for config in every if parts.uses_segmenter(config)]
        self.analysis = stages.Analyse((heads or [configured({"region": {"kind": "face"}}, models)])[0])
        self.generate = stages.Generate(every[0], secret) if every else None
        self.segmenter = self.analysis.segmenter
        self.secret = secret
        gates = [Compose(config).gate for config in every if config.gate.enabled][:1]
        self.gate = gates[0] if gates else None

    def analysed(self, number: int, pixels: Picture, data: bytes, extension: str) -> Row:
        """A picture with its faces found, meshed and embedded.

        Args:
            number: of the picture: other numbers give other draws.
        """
        row = Row(0, number, 0, data, extension, height=pixels.shape[0], width=pixels.shape[1])
        row.faces = self.analysis.meshed(pixels, self.analysis.detect([pixels])[0])
        if row.faces:
            self.analysis.embed([(row, pixels)])
            self.analysis.segment([(pixels, face) for face in row.faces if not face.failure])
        return row

    def make(
        self, name: str, analysed: Row, pixels: Picture, decoded: pictures.Decoded
    ) -> tuple[bytes, list[str]]:
        """The encoded result, and what stands where each face was (`records.ANONYMIZERS`); empty where the job would
        have held the picture back.

        Args:
            analysed: left as it is.
        """
        config, row = self.configs[name], copy.deepcopy(analysed)
        if not parts.uses_segmenter(config):
            row.faces = [dataclasses.replace(face, segments=None, looks=None) for face in row.faces]
        self.render(config, row)
        result = self.compose(config).result(row, pixels)
        if result is None:
            return b"", []
        extension = decoded.format if decoded.format in pictures.ENCODABLE else "png"
        encode = partial(pictures.encode, result, extension, config.output.quality, decoded.grey)
        return attempt("encode", encode) or b"", [face.anonymizer for face in row.faces]

    def render(self, config: Config, row: Row) -> None:
        """Surrogates of all faces, as the stage would make them under this configuration."""
        if self.generate is None:
            raise ValueError("no baseline was asked for")
        stage = copy.copy(self.generate)
        stage.config = config
        stage.identities = Identities(stage.gallery, config.match, self.secret, parts.attributes(config))
        stage.segmenter = self.segmenter if parts.uses_segmenter(config) else None
        for face in row.faces:
            stage.start(face)
        stage.fill([row])
        if config.gate.enabled:
            stage.spare([row])

    def compose(self, config: Config) -> Compose:
        made = Compose(config.model_copy(update={"gate": config.gate.model_copy(update={"enabled": False})}))
        made.config, made.gate = config, self.gate if config.gate.enabled else None
        return made
