"""The passes over the units as Ray Data jobs, and what is settled between them.

`per-face` needs one pass. Else the first writes the face index, the assignment is made from it, and the second
replaces. Whatever is settled or done lies in the state: a pass does only what is not there yet.
"""

import dataclasses
import functools
import itertools
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray import ObjectRef
from ray.data import ActorPoolStrategy, Dataset

from deid import log as logs
from deid import records
from deid.config import Config, Stage
from deid.gallery import store as gallery_store
from deid.pipeline import cluster, parts, vet
from deid.pipeline import plan as planning
from deid.pipeline.appoint import Appointer, KeyedRandom, KSame, Recall
from deid.pipeline.careful import RESTARTS, careful
from deid.pipeline.compose import Compose
from deid.pipeline.film import WriteVideo
from deid.pipeline.foreseen import FAILURES, passing
from deid.pipeline.index import WriteIndex, faces_name
from deid.pipeline.plan import Plan
from deid.pipeline.publish import Commits
from deid.pipeline.read import Subject
from deid.pipeline.source import UnitSource
from deid.pipeline.stages import Analyse, Generate
from deid.pipeline.track import DONE, SEEN, WriteSeen, track
from deid.pipeline.watch import REPAIR
from deid.pipeline.write import WriteUnit, commit_name
from deid.privacy import assign, keys, metadata, people, tally
from deid.privacy.assign import Surrogate
from deid.privacy.vault import Vault
from deid.shards import tables

VETTED_AT_ONCE = 64  # surrogates in one call
WAVE = 2048  # units in one dataset: the driver's memory does not grow with their number
TRIES = 3  # of a pass without any unit done, where the failure may pass
PAUSE_S = 20.0  # before the second
_ASSIGNED = "assigned"

log = logs.logger(__name__)


@dataclass(frozen=True)
class Passes:
    """One run's passes.

    Args:
        run: random id, for logs.
        seen: gets rows of `records.INDEXED` ("index") and `records.COMMIT` ("replace", "repair") as they come, and
            whether they are done now, not by an earlier process.
        begins: gets the phase, and of how many units it is; a repair's rows are of units that were seen before.
    """

    config: Config
    plan: Plan
    vault: Vault
    secret: bytes
    output: str
    run: str
    seen: Callable[[pa.Table, str, bool], None] = lambda table, phase, fresh: None
    begins: Callable[[str, int], None] = lambda phase, units: None

    def index(self) -> None:
        """Pass 1: detect, mesh, embed; the face index."""

        def dataset(units: Sequence[int], again: bool) -> Dataset:
            analyse = self.config.stages.analyse
            faces = self._stage(self.read(units), Analyse, analyse, again, self.config, self.run)
            return self.write(faces, writer)

        self.begins("index", self.plan.units)
        writer = (WriteSeen if self.config.video else WriteIndex)(self.config, self.vault)
        for table in self.work(range(self.plan.units), lambda: self.there(self._first), dataset):
            self.seen(table.cast(records.INDEXED), "index", True)

    def track(self) -> None:
        """Video, after pass 1: its faces become tracks, a file in each task."""
        done = self.there(DONE)
        files = [units for units in self.plan.files() if units[0] not in done]
        self.begins("track", len(files))
        for _ in cluster.spread(functools.partial(track, config=self.config, plan=self.plan), files):
            pass

    @property
    def _first(self) -> str:
        """Prefix of what pass 1 leaves of each unit."""
        return SEEN if self.config.video else "index/"

    def assign(self) -> tuple[list[Surrogate], int]:
        """People told apart: the surrogates that they share (k-same), and how many they are.

        Raises:
            PromiseError: fewer than k people.
        """
        if self.vault.has(_ASSIGNED):
            settled: tuple[list[Surrogate], int] = pickle.loads(self.vault.get(_ASSIGNED))
            return settled
        settled = self._assign()
        self.vault.put(_ASSIGNED, pickle.dumps(settled))
        return settled

    def _assign(self) -> tuple[list[Surrogate], int]:
        options, gallery = self.config.assignment, gallery_store.of(self.config)
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

    def replace(self, surrogates: Sequence[Surrogate] = (), repair: "Repair | None" = None) -> pa.Table:
        """The last pass: replace, check, write. Rows of `records.COMMIT` of all units that it is about."""
        turn = 0 if repair is None else repair.turn
        units = range(self.plan.units) if repair is None else repair.units
        phase = "replace" if repair is None else REPAIR
        self.begins(phase, len(units))
        recall = None
        if self.config.two_passes or self.config.video:
            withheld = () if repair is None else repair.withheld
            appointer = self.appointer(surrogates) if self.config.two_passes else None
            # put once: it holds all surrogates, and each read task of a wave would hold it again
            recall = ray.put(Recall(self.vault, appointer, self.secret, withheld))
        writer = (WriteVideo if self.config.video else WriteUnit)(
            self.output, self.vault, self.secret, self.config, max(0, self.plan.several - 1), turn
        )

        def dataset(units: Sequence[int], again: bool) -> Dataset:
            return self.write(self.replaced(units, recall, again), writer)

        commits, got = [records.COMMIT.empty_table()], set[int]()

        def take(table: pa.Table, fresh: bool) -> None:
            commits.append(table.cast(records.COMMIT))
            got.update(table["unit"].to_pylist())
            self.seen(commits[-1], phase, fresh)

        def there() -> set[int]:
            """Units that are committed; of those that were so before, or whose answer was lost, the rows are read."""
            found = self.committed(turn)
            for table in cluster.spread(self._again(turn), _parts(sorted(found.intersection(units) - got))):
                take(table, False)
            return found

        for table in self.work(units, there, dataset):
            take(table, True)
        return pa.concat_tables(commits)

    def replaced(self, units: Sequence[int], recall: "ObjectRef[Recall] | None", again: bool) -> Dataset:
        stages, dataset = self.config.stages, self.read(units, recall)
        if recall is None:
            dataset = self._stage(dataset, Analyse, stages.analyse, again, self.config, self.run)
        dataset = self._stage(dataset, Generate, stages.generate, again, self.config, self.secret, self.run)
        return self._stage(dataset, Compose, stages.compose, again, self.config, self.run)

    def work(
        self,
        units: Sequence[int],
        done: Callable[[], set[int]],
        dataset: Callable[[Sequence[int], bool], Dataset],
    ) -> Iterator[pa.Table]:
        """What `dataset` gives of the units that are not done, in waves.

        A wave that ended since machines or processes are gone, or that stands still, begins again with what is left,
        and with as few actors as there is room for.
        """
        failures, there = 0, done()
        left = [unit for unit in units if unit not in there]
        while left:
            try:
                yield from planning.batches(dataset(left[:WAVE], failures > 0))
                left = left[WAVE:]
            except FAILURES as error:
                before, there = len(left), done() if passing(error) else set()
                left = [unit for unit in left if unit not in there]
                failures = 1 if len(left) < before else failures + 1
                if failures == TRIES or not passing(error):
                    raise
                log.warning("%s: the pass goes on with what is left of it", type(error).__name__)
                time.sleep(PAUSE_S * failures)

    def there(self, prefix: str) -> set[int]:
        """Units of which there is an object of this prefix."""
        found = (name.removeprefix(prefix) for name in self.vault.names(prefix))
        return {int(name) for name in found if name.isdecimal()}

    def committed(self, turn: int) -> set[int]:
        """Units with a commit of this turn."""
        ending = commit_name(0, turn).removeprefix(commit_name(0))
        found = (name.removeprefix("commits/") for name in self.vault.names("commits/"))
        pairs = (name.partition("-") for name in found)
        return {int(unit) for unit, dash, number in pairs if dash + number == ending}

    def repairs(self) -> Iterator["Repair"]:
        """Those that are settled, in their order."""
        for turn in itertools.count(1):
            if not self.vault.has(f"repair/{turn}"):
                return
            yield pickle.loads(self.vault.get(f"repair/{turn}"))

    def settle(self, repair: "Repair") -> None:
        self.vault.put(f"repair/{repair.turn}", pickle.dumps(repair))

    def lost(self) -> pa.Table:
        """Source shard, key and reason of what was quarantined or dropped so far."""
        units = sorted(self.there("commits/"))
        if units:
            return planning.quarantine(self.plan, units, Commits(self.vault))
        units = sorted(self.there(self._first))
        commit = functools.partial(_indexed, vault=self.vault, prefix=self._first)
        return planning.quarantine(self.plan, units, commit)

    def _again(self, turn: int) -> Callable[[Sequence[int]], pa.Table]:
        return functools.partial(_commits, vault=self.vault, turn=turn)

    def appointer(self, surrogates: Sequence[Surrogate]) -> Appointer:
        if self.config.assignment.mode == "k-same":
            return KSame(surrogates, self.config)
        return KeyedRandom(self.config, self.secret)

    def read(self, units: Sequence[int], recall: "ObjectRef[Recall] | None" = None) -> Dataset:
        field = self.config.assignment.subject
        subject: Subject | None = None
        if field is not None and self.config.two_passes and recall is None:
            subject = functools.partial(_subject, field=field, secret=self.secret)
        source = UnitSource(self.plan, self.config, units, subject, recall)
        return ray.data.read_datasource(
            source,
            override_num_blocks=len(source.groups),
            ray_remote_args={"num_cpus": self.config.stages.io_cpus},
        )

    def _stage(self, dataset: Dataset, stage: type, options: Stage, again: bool, *arguments: Any) -> Dataset:
        if again:
            most = options.max_actors or options.actors
            options = options.model_copy(update={"actors": 1, "max_actors": most})
        return _actors(dataset, careful(stage), options, self.vault, *arguments)

    def write(self, dataset: Dataset, writer: Any) -> Dataset:
        return dataset.map_batches(
            writer.__call__, batch_size=None, batch_format="pyarrow", num_cpus=self.config.stages.io_cpus
        )


@dataclass(frozen=True)
class Repair:
    """Units that are made again, without surrogates that too few people ended up with."""

    turn: int  # from 1 on
    units: tuple[int, ...]
    withheld: frozenset[int]  # `keys.surrogate_id` of all that nobody gets, of earlier turns too


def _parts(units: Sequence[int], size: int = 256) -> Iterator[Sequence[int]]:
    return (units[start : start + size] for start in range(0, len(units), size))


def _commits(units: Sequence[int], vault: Vault, turn: int) -> pa.Table:
    """Rows of `records.COMMIT` of units that are committed."""
    found = [tables.from_bytes(vault.get(commit_name(unit, turn))) for unit in units]
    return pa.concat_tables(found).select(records.COMMIT.names)


def _indexed(unit: int, vault: Vault, prefix: str) -> pa.Table:
    """`quarantine` of a unit, as in `write.COMMITTED`, after pass 1."""
    rows = tables.from_bytes(vault.get(f"{prefix}{unit:08d}")).select(["position", "reason"])
    return pa.table({"quarantine": [[row for row in rows.to_pylist() if row["reason"]]]})


def _actors(dataset: Dataset, stage: type, options: Stage, *arguments: Any) -> Dataset:
    pool = ActorPoolStrategy(min_size=options.actors, max_size=options.max_actors or options.actors)
    with (
        warnings.catch_warnings()
    ):  # ray 2.60 has no other way to bound restarts, and takes this one until 2.64
        warnings.simplefilter("ignore", DeprecationWarning)
        return dataset.map_batches(
            stage,
            fn_constructor_args=arguments,
            compute=pool,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=options.cpus,
            num_gpus=options.gpus or None,
            max_restarts=RESTARTS,
        )


def _subject(sidecar: bytes | None, field: str, secret: bytes) -> bytes:
    value = metadata.subject(sidecar, field)
    return b"" if value is None else keys.subject(secret, value)
