"""The ledger: which versions of which source objects released runs have taken, so that the next takes what is new.

It lies in `state/ledger`, encrypted under a key that `state_key` wraps, and outlives the runs. A run is one object,
`runs/<number>-<run>`, a Parquet table of `SCHEMA` that counts its further parts, `parts/<run>/<n>`, which are written
before it. A higher number is a later run. Whoever writes holds the lease of the state (`deid.pipeline.lease`).
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from deid.errors import ConfigError
from deid.privacy import vault
from deid.privacy.vault import StateError, Vault
from deid.shards import storage, tables

FOLDER = "ledger"
PART_ROWS = 250_000  # of an object of the ledger, and about as many as are looked at at a time
_FETCHES = 4  # objects that are fetched at a time

# A source object as it is listed; uris are compared exactly.
SCHEMA = pa.schema(
    [
        pa.field("uri", pa.large_string(), nullable=False),
        pa.field("version", pa.large_string(), nullable=False),  # ETag or version id; local: time and size
        pa.field("size", pa.int64(), nullable=False),  # bytes
    ]
)

CHANGED = pa.schema(
    [
        pa.field("uri", pa.large_string(), nullable=False),
        pa.field("old_version", pa.large_string(), nullable=False),
        pa.field("old_size", pa.int64(), nullable=False),
        pa.field("new_version", pa.large_string(), nullable=False),
        pa.field("new_size", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Comparison:
    """What is listed, against what the ledger knows.

    new: rows of `SCHEMA` whose uri no run has taken, in the order of the listing.
    changed: rows of `CHANGED`: taken, with another version or size.
    known: how many were taken as they are.
    gone: how many uris were taken and are not listed.
    """

    new: pa.Table
    changed: pa.Table
    known: int
    gone: int


@dataclass(frozen=True)
class Ledger:
    """The ledger in its encrypted store."""

    vault: Vault

    def record(self, run: str, objects: pa.Table) -> None:
        """Note what a run has taken; once it is noted, to do it again changes nothing.

        Args:
            run: id of the run, with no "/".
            objects: uri, version, size, as in `SCHEMA`; no uri twice.
        """
        objects = _rows(objects)
        if not run or "/" in run:
            raise ValueError(f"{run!r} is no id of a run")
        if pc.count_distinct(objects["uri"]).as_py() != len(objects):
            raise ValueError("a uri is there twice")
        names = self._runs()
        if run in map(_run, names):
            return
        starts = range(0, len(objects), PART_ROWS)
        for number, start in enumerate(starts[:-1]):  # an attempt that ended here may have left some
            self.vault.put(_part(run, number), _packed(objects.slice(start, PART_ROWS)), overwrite=True)
        following = 1 + max((int(name.split("/")[1].partition("-")[0]) for name in names), default=0)
        last = objects.slice(starts[-1] if len(starts) else 0)
        self.vault.put(f"runs/{following:010d}-{run}", _packed(last, parts=max(0, len(starts) - 1)))

    def forget(self, run: str) -> None:
        """Take back what a run has taken, so that it is new again; a run that is not there is no error."""
        names = [name for name in self._runs() if _run(name) == run]
        for name in [*names, *self.vault.names(f"parts/{run}/")]:
            storage.delete(storage.join(self.vault.uri, name))

    def runs(self) -> list[str]:
        """Ids of the runs noted, oldest first."""
        return [_run(name) for name in self._runs()]

    def compare(self, listed: pa.Table) -> Comparison:
        """What of a listing is new or changed; of several runs that took a uri, the latest counts.

        Memory grows with the listing, not with the ledger, but for 8 bytes for each uri that is gone.

        Args:
            listed: uri, version, size, as in `SCHEMA`; no uri twice.
        """
        listed = _rows(listed)
        uris = listed["uri"].combine_chunks()
        met = np.zeros(len(listed), bool)
        changed, gone = [CHANGED.empty_table()], [np.zeros(0, np.uint64)]
        for taken in self._newest_first():
            found = pc.fill_null(pc.index_in(uris, value_set=taken["uri"]), -1).to_numpy()
            rows = np.flatnonzero(found >= 0)
            there = np.zeros(len(taken), bool)
            there[found[rows]] = True
            rows = rows[~met[rows]]
            met[rows] = True
            changed.append(_changed(listed.take(rows), taken.take(found[rows])))
            gone.append(_hashes(taken["uri"].filter(pa.array(~there))))
        differing = pa.concat_tables(changed)
        return Comparison(
            new=listed.filter(pa.array(~met)),
            changed=differing,
            known=int(met.sum()) - len(differing),
            gone=len(np.unique(np.concatenate(gone))),
        )

    def _runs(self) -> list[str]:
        return self.vault.names("runs/")

    def _newest_first(self) -> Iterator[pa.Table]:
        """All rows, later runs first, in tables of about `PART_ROWS` in which no uri is there twice."""
        waiting: list[pa.Table] = []
        for table in self._objects():
            waiting.append(table)
            if sum(map(len, waiting)) >= PART_ROWS:
                yield _latest(waiting)
                waiting = []
        if waiting:
            yield _latest(waiting)

    def _objects(self) -> Iterator[pa.Table]:
        """The table of each object, later runs first."""
        with ThreadPoolExecutor(_FETCHES) as pool:
            names = self._runs()[::-1]
            for start in range(0, len(names), _FETCHES):
                some = names[start : start + _FETCHES]
                for name, table in zip(some, pool.map(self._get, some), strict=True):
                    yield table.replace_schema_metadata()
                    for number in range(int(table.schema.metadata[b"parts"])):
                        yield self._get(_part(_run(name), number)).replace_schema_metadata()

    def _get(self, name: str) -> pa.Table:
        try:
            return tables.from_bytes(self.vault.get(name))
        except StateError:
            raise StateError(
                f"the ledger's object {name} is missing, damaged or of another key; put it back, or move the folder "
                "ledger below state away: then all that is listed is new"
            ) from None


def forget(state: str, run: str) -> None:
    """Take back what a run has taken (`Ledger.forget`), which asks for no key; no ledger is no error."""
    Ledger(Vault(storage.join(state, FOLDER), b"")).forget(run)


def there(state: str) -> bool:
    """Whether a run has made one."""
    return storage.exists(storage.join(state, FOLDER, vault.KEY_OBJECT))


def open(state: str, state_key: str | None) -> Ledger:
    """The ledger below the state folder `state`, made when there is none.

    Raises:
        ConfigError: without `state_key`, or it is not the one the ledger was made with, or it cannot be used.
        StateError: its key is missing or damaged.
        StorageError: storage or KMS did not answer.
    """
    if state_key is None:
        raise ConfigError(
            "state_key: the ledger of what was released is kept under one; make one with: deid keys new FILE"
        )
    uri = storage.join(state, FOLDER)
    if not there(state):
        if Vault(uri, b"").names():
            raise StateError(
                "the ledger's key.json is missing; put it back, or move the folder ledger below state away: then all "
                "that is listed is new"
            )
        with contextlib.suppress(storage.AlreadyThere):
            return Ledger(vault.create(uri, state_key))
    return Ledger(vault.open(uri, state_key))


def _run(name: str) -> str:
    """The run of an object below runs/."""
    return name.partition("-")[2]


def _part(run: str, number: int) -> str:
    return f"parts/{run}/{number}"


def _rows(objects: pa.Table) -> pa.Table:
    return objects.select(SCHEMA.names).cast(SCHEMA)


def _packed(objects: pa.Table, parts: int = 0) -> bytes:
    return tables.to_bytes(objects.replace_schema_metadata({"parts": str(parts)}))


def _latest(newest_first: list[pa.Table]) -> pa.Table:
    """The rows of the tables, of each uri the first alone."""
    rows = pa.concat_tables(newest_first).combine_chunks()
    if len(newest_first) == 1:  # a run has no uri twice
        return rows
    first = pc.index_in(rows["uri"], value_set=rows["uri"]).to_numpy()
    return rows.filter(pa.array(first == np.arange(len(rows))))


def _changed(new: pa.Table, old: pa.Table) -> pa.Table:
    """Rows of `CHANGED`: those of two aligned tables that differ."""
    columns = [new["uri"], old["version"], old["size"], new["version"], new["size"]]
    both = pa.Table.from_arrays([column.combine_chunks() for column in columns], schema=CHANGED)
    same = pc.and_(
        pc.equal(both["old_version"], both["new_version"]), pc.equal(both["old_size"], both["new_size"])
    )
    return both.filter(pc.invert(same))


def _hashes(texts: pa.ChunkedArray) -> np.ndarray:
    """uint64 of each different text: to count them, at odds of 1 in 10^5 that a million are counted wrong."""
    return np.unique(pd.util.hash_array(texts.to_numpy(), categorize=False))
