"""The passes over the units as Ray Data jobs, and what is settled between them.

`per-face` needs one pass. Else the first writes the face index, the assignment is made from it, and the second
replaces.
"""

import dataclasses
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, Dataset

from deid import records
from deid.config import Config, Stage
from deid.gallery import store as gallery_store
from deid.pipeline import cluster, parts, vet
from deid.pipeline import plan as planning
from deid.pipeline.appoint import Appointer, KeyedRandom, KSame, Recall
from deid.pipeline.compose import Compose
from deid.pipeline.index import WriteIndex, faces_name
from deid.pipeline.plan import Plan
from deid.pipeline.read import Subject
from deid.pipeline.source import UnitSource
from deid.pipeline.stages import Analyse, Generate
from deid.pipeline.write import WriteUnit
from deid.privacy import assign, keys, metadata, people, tally
from deid.privacy.assign import Surrogate
from deid.privacy.vault import Vault

VETTED_AT_ONCE = 64  # surrogates in one call


@dataclass(frozen=True)
class Passes:
    """One run's passes; each gives rows as they are written."""

    config: Config
    plan: Plan
    vault: Vault
    secret: bytes
    output: str
    run: str  # random id, for logs

    def index(self) -> pa.Table:
        """Pass 1: detect, mesh, embed; the face index. Rows of `records.INDEXED`."""
        dataset = _actors(self.read(), Analyse, self.config.stages.analyse, self.config, self.run)
        return planning.arrow(self.write(dataset, WriteIndex(self.config, self.vault)), records.INDEXED)

    def assign(self) -> tuple[list[Surrogate], int]:
        """People told apart: the surrogates that they share (k-same), and how many they are.

        Raises:
            PromiseError: fewer than k people.
        """
        options, gallery = self.config.assignment, gallery_store.load(self.config.gallery)
        names = [faces_name(unit) for unit in range(self.plan.units)]
        same = options.same or people.calibrated(gallery, options.false_match_rate)
        found = people.find(
            names,
            self.vault,
            gallery.embeddings,
            people.Settings(same, means=options.mode == "keyed-random"),
            cluster.spread,
        )
        if options.mode != "k-same":
            return [], found.persons
        key = functools.partial(assign.key, bands=options.age_bands)
        settings = assign.witnessing(options)
        cells = tally.gather(names, self.vault, gallery.embeddings, key, settings, cluster.spread)
        surrogates = assign.assign(cells, gallery, options, self.config.match, self.secret)
        return self.vetted(surrogates), found.persons

    def vetted(self, surrogates: list[Surrogate]) -> list[Surrogate]:
        """The surrogates with the first of their draws whose face is fit to be seen."""
        if not surrogates or not parts.uses_segmenter(self.config):
            return surrogates
        columns = (
            range(len(surrogates)),
            [[draw.identities for draw in surrogate.draws] for surrogate in surrogates],
            *([getattr(surrogate, name) for surrogate in surrogates] for name in ("sex", "age", "looks")),
        )
        asked = pa.table(
            [pa.array(c, t) for c, t in zip(columns, vet.ASKED.types, strict=True)], schema=vet.ASKED
        )
        dataset = ray.data.from_arrow(asked).repartition(-(-len(asked) // VETTED_AT_ONCE))
        dataset = _actors(dataset, vet.Vet, self.config.stages.generate, self.config, self.run)
        chosen = planning.arrow(dataset, vet.VETTED).sort_by("number")["draw"].to_pylist()
        return [
            dataclasses.replace(surrogate, draws=surrogate.draws[draw:])
            for surrogate, draw in zip(surrogates, chosen, strict=True)
        ]

    def replace(
        self,
        surrogates: Sequence[Surrogate] = (),
        units: Sequence[int] | None = None,
        withheld: Collection[int] = (),
    ) -> pa.Table:
        """The last pass: replace, check, write. Rows of `records.COMMIT`.

        Args:
            units: whose commits are to be replaced; None: all, for the first time.
            withheld: surrogates that nobody gets.
        """
        recall = None
        if self.config.two_passes:
            recall = Recall(self.vault, self.appointer(surrogates), self.secret, withheld)
        dataset = self.read(recall, units)
        if recall is None:
            dataset = _actors(dataset, Analyse, self.config.stages.analyse, self.config, self.run)
        dataset = _actors(dataset, Generate, self.config.stages.generate, self.config, self.secret, self.run)
        dataset = _actors(dataset, Compose, self.config.stages.compose, self.config, self.run)
        total, size, options = len(self.plan.order), self.config.unit_size, self.config.assignment
        again = units is not None
        writer = WriteUnit(self.output, self.vault, self.secret, total, size, options, again)
        return planning.arrow(self.write(dataset, writer), records.COMMIT)

    def appointer(self, surrogates: Sequence[Surrogate]) -> Appointer:
        if self.config.assignment.mode == "k-same":
            return KSame(surrogates, self.config)
        return KeyedRandom(self.config, self.secret)

    def read(self, recall: Recall | None = None, units: Sequence[int] | None = None) -> Dataset:
        field = self.config.assignment.subject
        subject: Subject | None = None
        if field is not None and self.config.two_passes and recall is None:
            subject = functools.partial(_subject, field=field, secret=self.secret)
        source = UnitSource(self.plan, self.config.metadata, subject, recall, units)
        return ray.data.read_datasource(
            source,
            override_num_blocks=len(source.units),
            ray_remote_args={"num_cpus": self.config.stages.io_cpus},
        )

    def write(self, dataset: Dataset, writer: Any) -> Dataset:
        return dataset.map_batches(
            writer.__call__, batch_size=None, batch_format="pyarrow", num_cpus=self.config.stages.io_cpus
        )


def _actors(dataset: Dataset, stage: type, options: Stage, *arguments: Any) -> Dataset:
    pool = ActorPoolStrategy(min_size=options.actors, max_size=options.max_actors or options.actors)
    return dataset.map_batches(
        stage,
        fn_constructor_args=arguments,
        compute=pool,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=options.cpus,
        num_gpus=options.gpus or None,
    )


def _subject(sidecar: bytes | None, field: str, secret: bytes) -> bytes:
    value = metadata.subject(sidecar, field)
    return b"" if value is None else keys.subject(secret, value)
