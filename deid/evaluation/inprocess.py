"""The job's own stages on a handful of pictures in this process, without Ray: for pictures that explain the method.

What happens is what `deid.pipeline.passes` does, stage by stage; the face index lies in a vault in a temporary folder,
under a key that this process alone holds.
"""

import copy
import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from deid.config import Config, Models, Options, parse
from deid.errors import InputError
from deid.evaluation.options import PLACES, merged
from deid.interfaces import Face, Picture
from deid.pipeline import parts, rows
from deid.pipeline.appoint import KeyedRandom, KSame, Recall
from deid.pipeline.compose import Compose
from deid.pipeline.index import WriteIndex, faces_name
from deid.pipeline.rows import Row
from deid.pipeline.stages import Analyse, Generate
from deid.pipeline.vet import ASKED, Vet
from deid.privacy import assign, people, tally, vault
from deid.privacy.assign import Surrogate
from deid.shards import pictures

QUALITY = 95  # of the JPEG that the stages are given


@dataclass(frozen=True)
class Treated:
    """A picture before and after the job."""

    source: Picture
    result: Picture | None  # None: quarantined
    faces: list[Face]  # of the source, with their surrogates, as they stood before they were put in
    done: list[Face]  # the same, with what became of them: `anonymizer`, `gate`, `status`


def configuration(models: Models, settings: Options, **over: Any) -> Config:
    """The job's configuration with these settings over the defaults; it reads and writes nothing.

    Raises:
        ConfigError: a setting is wrong.
    """
    whole = merged(merged({"models": models.model_dump()}, settings), over)
    return parse(whole | PLACES, "settings")


def eyes(models: Models) -> Analyse:
    """The first stage with the job's defaults, which takes heads apart.

    Raises:
        ModelError: a model is missing or its licence is not accepted.
    """
    config = configuration(models, {})
    parts.check(config)
    return Analyse(config)


def looked(stage: Analyse, sources: Sequence[Picture]) -> list[Row]:
    """Rows of pictures [H, W, 3], their faces as this stage sees them.

    Raises:
        InputError: a picture could not be looked at.
    """
    found = [
        Row(0, n, len(sources), pictures.encode(picture, "jpg", QUALITY), "jpg")
        for n, picture in enumerate(sources)
    ]
    for row in found:
        stage.analyse([row])
        if row.reason:
            raise InputError(f"a made picture could not be looked at: {row.reason}")
    return found


class Job:
    """Stages with their networks, built once.

    Args:
        secret: of the run, 32 bytes: the same one gives the same surrogates.

    Raises:
        ConfigError, ModelError: a part is unknown, a model is missing or its licence is not accepted.
    """

    def __init__(self, config: Config, secret: bytes) -> None:
        parts.check(config)
        self.config, self.secret = config, secret
        self.analyse, self.generate, self.compose = Analyse(config), Generate(config, secret), Compose(config)

    def look(self, sources: Sequence[Picture]) -> list[Row]:
        """Rows with the faces found, meshed, embedded and taken apart; see `looked`."""
        return looked(self.analyse, sources)

    def appoint(self, found: Sequence[Row]) -> list[Surrogate]:
        """Give the faces their surrogates, as the job does between its passes; the k-same assignment's surrogates.

        Raises:
            PromiseError: k-same, and fewer than k people.
        """
        if not self.config.two_passes:
            return []
        options, gallery = self.config.assignment, self.generate.gallery
        with tempfile.TemporaryDirectory(prefix="deid-look-") as folder:
            store = vault.create(folder, None)
            WriteIndex(self.config, store)(rows.to_table(list(found)))
            same = options.same or people.calibrated(gallery, options.false_match_rate)
            names, keyed = [faces_name(0)], options.mode == "keyed-random"
            people.find(names, store, gallery.embeddings, people.Settings(same, means=keyed))
            surrogates: list[Surrogate] = []
            if not keyed:
                key = functools.partial(assign.key, bands=options.age_bands)
                cells = tally.gather(names, store, gallery.embeddings, key, assign.witnessing(options))
                surrogates = self._vetted(
                    assign.assign(cells, gallery, options, self.config.match, self.secret)
                )
            appointer = KeyedRandom(self.config, self.secret) if keyed else KSame(surrogates, self.config)
            Recall(store, appointer, self.secret)(0, found)
        return surrogates

    def _vetted(self, surrogates: list[Surrogate]) -> list[Surrogate]:
        if not parts.uses_segmenter(self.config):
            return surrogates
        columns = [
            list(range(len(surrogates))),
            [[list(draw.identities) for draw in s.draws] for s in surrogates],
            *([getattr(s, name) for s in surrogates] for name in ("sex", "age", "looks")),
        ]
        asked = pa.table([pa.array(c, t) for c, t in zip(columns, ASKED.types, strict=True)], schema=ASKED)
        chosen = Vet(self.config)(asked)["draw"].to_pylist()
        return [
            Surrogate(s.keys, s.draws[n:], s.people, s.across, s.sex, s.age, s.looks)
            for s, n in zip(surrogates, chosen, strict=True)
        ]

    def finish(self, found: Sequence[Row], sources: Sequence[Picture]) -> list[Treated]:
        """Render the surrogates, put them in, and look again."""
        made = []
        for row, source in zip(found, sources, strict=True):
            for face in row.faces:
                self.generate.start(face)
            self.generate.fill([row])
            if self.config.gate.enabled:
                self.generate.spare([row])
            before = copy.deepcopy(row.faces)
            self.compose.compose(row)
            result = None if row.reason else pictures.decode(row.result, 1 << 40).pixels
            made.append(Treated(source, result, before, row.faces))
        return made

    def run(self, sources: Sequence[Picture]) -> list[Treated]:
        """All of it."""
        found = self.look(sources)
        self.appoint(found)
        return self.finish(found, sources)
