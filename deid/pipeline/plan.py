"""The plan of a run: windows of input shards, and the units into which the records of each are drawn.

Input shards are put into an order under the run secret and cut into windows of so many bytes. A task scans a window,
draws its records into units, and leaves an object a unit in the state: nobody holds the whole plan, and the driver
holds counts.
"""

import functools
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from numpy.typing import NDArray

from deid.config import Config
from deid.errors import InputError
from deid.gallery import store as gallery_store
from deid.pipeline import cluster, ledger, parts
from deid.pipeline.shield import shielded
from deid.privacy import gate, keys, vault, wrapping
from deid.privacy.vault import Vault
from deid.shards import storage, tables, writers
from deid.shards.formats import INDEX, Layout
from deid.shards.readers import FORMATS
from deid.surrogates import match

# A row a window.
WINDOWS = pa.schema(
    [
        ("shards", pa.int32()),
        ("groups", pa.list_(pa.int32())),  # units in each group that is read at once
        ("files", pa.list_(pa.int32())),  # units of each file; none where files are mixed
        ("pictures", pa.int64()),  # in its units
        ("bytes", pa.int64()),  # of them
        ("refused", pa.int64()),  # entries that are in quarantine already
        ("reasons", pa.list_(pa.struct([("name", pa.string()), ("pictures", pa.int64())]))),  # of them
        ("several", pa.int32()),  # most pictures of one sample whose names are not listed
    ]
)
RECORDS = INDEX.append(pa.field("unit_sample", pa.int32()))  # of a unit; the sample's number in it
_PLAN = "plan/windows"  # written last, and once: with it the plan is whole
_MOST = 50_000  # objects in a window
_THREADS = 8
_GIB = 1 << 30

Window = tuple[int, pa.Table]  # number, and rows of `storage.LISTED`


@dataclass(frozen=True)
class Plan:
    """Which record goes into which unit: counts; what is in a unit lies in the state.

    windows: rows of `WINDOWS`.
    attempt: at the plan. Each has objects of its own, so that one that goes on elsewhere, unseen, changes nothing.
    """

    vault: Vault
    windows: pa.Table
    attempt: str

    @functools.cached_property
    def _groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First unit of every window, and of every group; both with the number of units at the end."""
        column = self.windows["groups"].combine_chunks()
        sizes = np.asarray(column.flatten(), np.int64)
        groups = np.concatenate([[0], np.cumsum(sizes)])
        offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(column).to_numpy(False))])
        return groups[offsets.astype(np.int64)], groups

    @property
    def units(self) -> int:
        return int(self._groups[1][-1])

    @property
    def pictures(self) -> int:
        """In the units."""
        return self._sum("pictures")

    @property
    def refused(self) -> int:
        """Entries that are in quarantine already."""
        return self._sum("refused")

    @property
    def bytes(self) -> int:
        return self._sum("bytes")

    @property
    def several(self) -> int:
        """Most pictures of one sample whose names are not listed."""
        return int(pc.max(self.windows["several"]).as_py() or 0)

    def reasons(self) -> dict[str, int]:
        """Refused entries by code."""
        return by_name(self.windows["reasons"], "pictures")

    def name(self, unit: int) -> str:
        """Of the unit's object in the state."""
        bases, _ = self._groups
        window = int(np.searchsorted(bases, unit, "right")) - 1
        return _unit_name(self.attempt, window, unit - int(bases[window]))

    def taken(self) -> pa.Table:
        """The input shards that it is made of, rows of `storage.LISTED`."""
        return tables.from_bytes(self.vault.get(f"taken/{self.attempt}"))

    def unit(self, unit: int) -> pa.Table:
        """Rows of `RECORDS` of a unit, in the order of their positions."""
        return tables.from_bytes(self.vault.get(self.name(unit)))

    def groups(self, units: Sequence[int]) -> list[list[int]]:
        """The units, ascending, with those together that are read at once."""
        chosen = np.sort(np.asarray(units, np.int64))
        of = np.searchsorted(self._groups[1], chosen, "right")
        cuts = np.flatnonzero(np.diff(of)) + 1
        return [part.tolist() for part in np.split(chosen, cuts) if len(part)]

    def places(self, units: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Window and group of each of the units."""
        bases, groups = self._groups
        found = units.to_numpy()
        return np.searchsorted(bases, found, "right") - 1, np.searchsorted(groups, found, "right") - 1

    @property
    def count(self) -> int:
        """Groups."""
        return len(self._groups[1]) - 1

    def files(self) -> list[range]:
        """Units of each file, in order, of a format whose files are not mixed."""
        sizes = np.asarray(self.windows["files"].combine_chunks().flatten(), np.int64)
        ends = np.cumsum(sizes).tolist()
        return [range(end - size, end) for end, size in zip(ends, sizes.tolist(), strict=True)]

    def _sum(self, column: str) -> int:
        return int(pc.sum(self.windows[column]).as_py() or 0)


def by_name(column: pa.ChunkedArray, value: str) -> dict[str, int]:
    """Sums of a column of lists of {name, `value`}, by name."""
    flat = column.combine_chunks().flatten()
    pairs = pa.table({"name": flat.field("name"), "value": flat.field(value)})
    sums = pairs.group_by("name").aggregate([("value", "sum")]).sort_by("name")
    return dict(zip(sums["name"].to_pylist(), sums["value_sum"].to_pylist(), strict=True))


def check(config: Config) -> None:
    """Stop (ConfigError, ModelError) for everything that can be known to be wrong before any work is done."""
    parts.check(config)
    writers.check(config)
    wrapping.kind(config.state_key)
    gallery = gallery_store.of(config)
    match.check(config.match, gallery)
    gate.margin(config.gate, gallery)


def layout(config: Config) -> Layout:
    """How samples lie in the source."""
    given, metadata = config.input, config.metadata
    return Layout(given.image_columns, given.metadata_table, metadata.pictures, metadata.masks, given.uri)


def pattern(config: Config) -> str:
    """Names of input shards."""
    return config.input.pattern or FORMATS[config.input.format].PATTERN


def shards(config: Config) -> pa.Table:
    """The input shards: rows of `storage.LISTED`, sorted by name.

    Raises:
        InputError: there are none.
    """
    found = storage.list_table(config.input.uri, pattern(config))
    if not len(found):
        there = (
            ""
            if config.input.uri.startswith("s3://") or os.path.isdir(config.input.uri)
            else "no such folder, "
        )
        raise InputError(
            f"input.uri, input.pattern: {there}no {pattern(config)} below {config.input.uri}; is input.format "
            f"{config.input.format} right?"
        )
    return found


def make(config: Config, secret: bytes, state: Vault, listed: pa.Table) -> Plan:
    """Scan the shards in Ray tasks, a window each, and draw the units.

    Raises:
        storage.AlreadyThere: another attempt has made the plan meanwhile.
    """
    attempt = secrets.token_hex(8)
    state.put(f"taken/{attempt}", tables.to_bytes(listed))
    scan = functools.partial(_scan, config=config, secret=secret, state=state, attempt=attempt)
    found = list(cluster.spread(scan, windows(listed, int(config.input.window_gib * _GIB), secret)))
    table = pa.Table.from_pylist(found, schema=WINDOWS)
    state.put(_PLAN, tables.to_bytes(table.replace_schema_metadata({"attempt": attempt})))
    return Plan(state, table, attempt)


def load(state: Vault) -> Plan | None:
    """The plan that `make` left in the state; None: it did not end."""
    if not state.has(_PLAN):
        return None
    table = tables.from_bytes(state.get(_PLAN))
    return Plan(state, table, table.schema.metadata[b"attempt"].decode())


def windows(listed: pa.Table, size: int, secret: bytes) -> Iterator[Window]:
    """Windows of about `size` bytes of the shards, which are put into an order under the run secret."""
    order = keys.permutation(secret, len(listed), b"shards")
    ends = np.cumsum(np.asarray(listed["size"], np.int64)[order])
    start = number = 0
    while start < len(order):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + size, "right"))
        stop = min(max(stop, start + 1), start + _MOST)
        yield number, listed.take(pa.array(order[start:stop]))
        start, number = stop, number + 1


def again(config: Config, secret: bytes) -> Iterator[tuple[int, pa.Table]]:
    """Units and their records of a repeatable run, made a second time and without Ray: for measurements."""
    unit = 0
    for window in windows(shards(config), int(config.input.window_gib * _GIB), secret):
        for group in _groups(scanned(window, config), window[0], config, secret):
            for records in group:
                yield unit, records
                unit += 1


def scanned(window: Window, config: Config) -> pa.Table:
    """Rows of `INDEX` of a window's shards; a shard that is no more what was listed is a refused row, and so is a
    picture of too many bytes."""
    read, how = FORMATS[config.input.format], layout(config)

    def one(row: dict[str, Any]) -> pa.Table:
        file = storage.Object(**row)
        try:
            return read.scan(file, how)
        except storage.ObjectChanged:
            gone = {"uri": file.uri, "version": file.version, "key": "", "reason": "shard_changed"}
            return pa.Table.from_pylist([gone], schema=INDEX)

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(one, window[1].to_pylist()))
    index = pa.concat_tables([INDEX.empty_table(), *found])
    large = pc.and_kleene(pc.equal(index["reason"], ""), pc.greater(index["size"], config.limits.max_bytes))
    reasons = pc.if_else(large, "too_large", index["reason"])
    return index.set_column(INDEX.get_field_index("reason"), INDEX.field("reason"), reasons)


@shielded("scan")
def _scan(window: Window, config: Config, secret: bytes, state: Vault, attempt: str) -> dict[str, Any]:
    """Leave the units of a window in the state; its row of `WINDOWS`."""
    number, index = window[0], scanned(window, config)
    usable = index.filter(pc.equal(index["reason"], ""))
    refused = index.filter(pc.not_equal(index["reason"], ""))
    state.put(
        _refused_name(attempt, number),
        tables.to_bytes(refused.select(["uri", "key", "reason"])),
        overwrite=True,
    )
    groups, units = [], 0
    files: dict[str, int] = {}
    for group in _groups(index, number, config, secret):
        for unit in group:
            state.put(_unit_name(attempt, number, units), tables.to_bytes(unit), overwrite=True)
            units += 1
        groups.append(len(group))
        if FORMATS[config.input.format].SEQUENCE:
            uri = group[0]["uri"][0].as_py()
            files[uri] = files.get(uri, 0) + len(group)
    reasons = refused["reason"].value_counts().to_pylist()
    return {
        "shards": len(window[1]),
        "groups": groups,
        "files": list(files.values()),
        "pictures": len(usable),
        "bytes": pc.sum(usable["size"]).as_py() or 0,
        "refused": len(refused),
        "reasons": [{"name": entry["values"], "pictures": entry["counts"]} for entry in reasons],
        "several": _several(usable, config),
    }


def _unit_name(attempt: str, window: int, number: int) -> str:
    return f"plan/{attempt}/{window:07d}/{number:07d}"


def _refused_name(attempt: str, window: int) -> str:
    return f"refused/{attempt}/{window:07d}"


def _several(usable: pa.Table, config: Config) -> int:
    """Most pictures of one sample whose names are not listed."""
    listed = pa.array(config.metadata.pictures, pa.string())
    others = usable.filter(pc.invert(pc.is_in(usable["name"], value_set=listed)))
    counts = others.group_by(["uri", "sample"]).aggregate([([], "count_all")])
    return int(pc.max(counts["count_all"]).as_py() or 0)


def _groups(index: pa.Table, window: int, config: Config, secret: bytes) -> Iterator[list[pa.Table]]:
    """Units (rows of `RECORDS`) of a window, drawn under the run secret; those together that are read at once."""
    usable = index.filter(pc.equal(index["reason"], ""))
    if FORMATS[config.input.format].SEQUENCE:
        yield from _runs(usable, config.unit_size)
        return
    usable = usable.sort_by([(name, "ascending") for name in ("uri", "sample", "offset")])
    starts = _starts(usable, "sample")
    if FORMATS[config.input.format].RANGED:
        order = keys.permutation(secret, len(starts) - 1, b"window %d" % window)
        for at in range(0, len(order), config.unit_size):
            yield [_unit(usable, starts, order[at : at + config.unit_size])]
        return
    bounds = np.searchsorted(starts, _starts(usable, "group"))  # samples, by group that is read whole
    order = keys.permutation(secret, len(bounds) - 1, b"groups %d" % window)
    held: list[NDArray[np.int64]] = []
    for n, group in enumerate(order.tolist()):
        held.append(np.arange(bounds[group], bounds[group + 1]))
        samples = np.concatenate(held)
        if len(samples) >= config.input.mixed or n + 1 == len(order):
            shuffled = samples[keys.permutation(secret, len(samples), b"window %d, %d" % (window, n))]
            cuts = np.array_split(shuffled, -(-len(samples) // config.unit_size))
            yield [_unit(usable, starts, part) for part in cuts]
            held = []


def _runs(usable: pa.Table, size: int) -> Iterator[list[pa.Table]]:
    """Units of about as many records, `size` at most, that follow one another in a file; files as they come."""
    bounds = _starts(usable, "group")
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for part in np.array_split(np.arange(start, stop), -(-(stop - start) // size)):
            yield [_unit(usable.slice(part[0], len(part)), np.arange(len(part) + 1), np.arange(len(part)))]


def _starts(usable: pa.Table, name: str) -> NDArray[np.int64]:
    """Where each run of rows of one shard and one value of the column begins, and the number of rows."""
    if not len(usable):
        return np.zeros(1, np.int64)
    uris = usable["uri"].combine_chunks().dictionary_encode().indices.to_numpy()
    values = usable[name].to_numpy()
    new = (np.diff(uris) != 0) | (np.diff(values) != 0)
    return np.concatenate([[0], np.flatnonzero(new) + 1, [len(usable)]]).astype(np.int64)


def _unit(usable: pa.Table, starts: NDArray[np.int64], samples: NDArray[np.int64]) -> pa.Table:
    rows = [np.arange(starts[sample], starts[sample + 1]) for sample in samples.tolist()]
    numbers = np.repeat(np.arange(len(rows), dtype=np.int32), [len(part) for part in rows])
    return usable.take(pa.array(np.concatenate(rows))).append_column("unit_sample", pa.array(numbers))


def arrow(dataset: ray.data.Dataset, schema: pa.Schema) -> pa.Table:
    """All rows of a dataset, as they come."""
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in batches(dataset))])


def batches(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """The blocks of a dataset, as they come."""
    found: Any = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    return iter(found)


def quarantine(plan: Plan, units: Sequence[int], commit: Any) -> pa.Table:
    """What did not go out, for the operator: source shard, key and reason of each.

    Args:
        units: those of which something did not go out.
        commit: gives a unit's commit, a row of `write.COMMITTED`.
    """
    counts = plan.windows["refused"].to_pylist()
    refused = [_refused_name(plan.attempt, n) for n, count in enumerate(counts) if count]
    early = cluster.spread(functools.partial(_refused, state=plan.vault), refused)
    late = cluster.spread(functools.partial(_late, plan=plan, commit=commit), units)
    return pa.concat_tables([_QUARANTINED.empty_table(), *early, *late])


_QUARANTINED = pa.schema([("shard", pa.string()), ("key", pa.string()), ("reason", pa.string())])


def _refused(name: str, state: Vault) -> pa.Table:
    return tables.from_bytes(state.get(name)).rename_columns(_QUARANTINED.names).cast(_QUARANTINED)


def _late(unit: int, plan: Plan, commit: Any) -> pa.Table:
    records, rows = plan.unit(unit), commit(unit)["quarantine"][0].as_py()
    chosen = records.take(pa.array([row["position"] for row in rows], pa.int64()))
    reasons = pa.array([row["reason"] for row in rows], pa.string())
    return pa.table([chosen["uri"], chosen["key"], reasons], schema=_QUARANTINED)


def quarantined(uri: str, state_key: str | None) -> pa.Table:
    """The list that `run` kept below `uri` under the state key: shard, key and reason of what did not go out.

    Raises:
        ConfigError: it is another key.
        InputError: there is no such list.
    """
    try:
        return tables.from_bytes(vault.open(uri, state_key).get("quarantine"))
    except vault.StateError:
        raise InputError(f"{uri}: no quarantine list is there; give the place that the run printed") from None


def anonymizer(config: Config) -> str:
    """What faces get, in words."""
    classic = config.classic
    strength = {
        "blur": f", sigma {classic.blur_sigma} face heights",
        "pixelate": f", {classic.pixelate_blocks} blocks a face height",
    }.get(config.anonymizer)
    return config.anonymizer + (f"{strength}: a baseline, people may stay recognizable" if strength else "")


def _gate(config: Config) -> str:
    if not config.gate.enabled:
        return "off: results are not checked"
    return f"margin {gate.margin(config.gate, gallery_store.of(config)):.3f}"


def _region(config: Config) -> str:
    outline = f"{config.region.scale} face outlines"
    if not parts.uses_segmenter(config):
        return outline
    match = config.match
    return f"head, of the {match.alike} most alike, corrected {match.corrections} times; else {outline}"


def _assignment(config: Config) -> str:
    if not config.two_passes:
        return f"per-face, in {'two passes' if config.video else 'one pass'}: no surrogate is shared"
    options = config.assignment
    people = f"people by {'their faces' if options.subject is None else 'subject'}, two passes"
    if options.mode == "keyed-random":
        return f"keyed-random, {people}: a pseudonym a person"
    return f"k-same, at least {options.k} people a surrogate, {options.looks} looks, {people}"


@shielded("plan")
def describe(config: Config) -> dict[str, Any]:
    """What a run would do, from a listing alone."""
    check(config)
    listed = shards(config)
    new = ""
    if config.state_key is not None and ledger.there(config.state):
        known = ledger.open(config.state, config.state_key).compare(listed)
        new = f", of which {known.known:,} are known, {len(known.new):,} new, {len(known.changed):,} changed"
    stages = config.stages
    pools = {name: getattr(stages, name) for name in ("analyse", "generate", "compose")}
    return {
        "input": f"{len(listed):,} shards ({config.input.format}), {(pc.sum(listed['size']).as_py()) / 1e6:,.1f} MB "
        f"below {config.input.uri}{new}",
        "output": config.output.uri,
        "state": config.state,
        "models": ", ".join(f"{name} ({kind})" for name, kind in parts.classes_of(config).items()),
        "detector": config.detector.name,
        "anonymizer": anonymizer(config),
        "assignment": _assignment(config),
        "match": f"{config.match.method}, the mean of {config.match.k} identities, margin {config.match.margin}",
        "region": _region(config),
        "gate": _gate(config),
        "unit": f"{config.unit_size} frames" if config.video else f"{config.unit_size} pictures a shard",
        **{
            f"{name} actors": f"{p.actors} to {p.max_actors or p.actors}, {p.cpus} CPUs and {p.gpus} GPUs each"
            for name, p in pools.items()
        },
    }
