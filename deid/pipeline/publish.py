"""From the units' commits to what is released: the independent count, the audit, and no object that no commit names."""

import functools
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deid import config as configuration
from deid.pipeline.index import faces_name, persons_name
from deid.pipeline.write import commit_name
from deid.privacy import audit, audit_release, check, shred, shuffle, suppress
from deid.privacy.assign import Surrogate
from deid.privacy.check import Count
from deid.privacy.vault import Vault
from deid.shards import storage, tables


@dataclass(frozen=True)
class Done:
    """What the passes leave behind.

    commits: rows of `records.COMMIT`.
    read: gives a unit's whole commit.
    surrogates: of the assignment; none but under k-same.
    count: people behind each surrogate that went out; None but under k-same.
    persons: pseudo-identities or subjects; 0 in one pass.
    withheld: surrogates taken back, since too few of their people's faces could be replaced.
    """

    commits: pa.Table
    read: "Commits"
    surrogates: Sequence[Surrogate] = ()
    count: Count | None = None
    persons: int = 0
    withheld: int = 0


@dataclass(frozen=True)
class Commits:
    """The units' commits in the state.

    Args:
        turns: number of the repair that made a unit last; 0 for those that are not in it.
    """

    vault: Vault
    turns: Mapping[int, int] = field(default_factory=dict)

    def __call__(self, unit: int) -> pa.Table:
        """One row of `write.COMMITTED`."""
        return tables.from_bytes(self.vault.get(commit_name(unit, self.turns.get(unit, 0))))

    def audit(self, unit: int) -> pa.Table:
        """Rows of `records.AUDIT_RAW`."""
        return tables.from_bytes(self(unit)["audit"][0].as_py())


def worn_and_seen(commits: Commits, unit: int) -> check.Unit:
    """What really was put in place of which face of a committed unit, and what pass 1 saw of it."""
    seen = tables.from_bytes(commits.vault.get(faces_name(unit)))
    persons = tables.from_bytes(commits.vault.get(persons_name(unit)))
    return commits.audit(unit), seen.append_column("person", persons["person"])


def _units(commits: pa.Table) -> tuple[list[int], list[int]]:
    """The units, in their order, and the rows of the raw audit of each: faces, and dropped pictures."""
    chosen = commits.select(["unit", "faces", "pictures_dropped"]).sort_by("unit")
    return chosen["unit"].to_pylist(), pc.add(chosen["faces"], chosen["pictures_dropped"]).to_pylist()


def recount(config: configuration.Config, read: Commits, commits: pa.Table, run: shuffle.Run = map) -> Count:
    """The independent count over all committed units, in tasks that `run` spreads."""
    options, pairs = config.assignment, functools.partial(worn_and_seen, read)
    named = options.subject is not None
    units, rows = _units(commits)
    return check.count(read.vault, pairs, units, rows, options.k, options.apart, named, run)


@dataclass(frozen=True)
class Search:
    """Task: find the units in which a face has one of these surrogates."""

    read: Commits
    units: Sequence[int]
    surrogates: Sequence[int]


def worn_in(job: Search) -> list[int]:
    """The units that were found."""
    wanted = pa.array(job.surrogates, pa.int64())
    return [
        unit
        for unit in job.units
        if pc.any(pc.is_in(job.read.audit(unit)["surrogate_id"], value_set=wanted)).as_py()
    ]


def wearing(
    read: Commits, commits: pa.Table, surrogates: Collection[int], run: shuffle.Run = map
) -> list[int]:
    """Units in which a face has one of these surrogates."""
    batches = shuffle.batches(*_units(commits), shuffle.BATCH)
    jobs = (Search(read, units, sorted(surrogates)) for units in batches)
    return [unit for found in run(worn_in, jobs) for unit in found]


def renewed(commits: pa.Table, newer: pa.Table) -> pa.Table:
    """The commits with those of the units in `newer` replaced."""
    old = pc.invert(pc.is_in(commits["unit"], value_set=newer["unit"].combine_chunks()))
    return pa.concat_tables([commits.filter(old), newer])


def publish(
    config: configuration.Config,
    output: str,
    done: Done,
    sums: Mapping[str, int],
    run: shuffle.Run = map,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Write the audit (in tasks), its summary and the count, and sweep the shards that no commit names.

    Returns:
        All objects of the release ({name, bytes, sha256}), and what the manifest says of people.
    """
    people = people_of(config, done)
    k, behind = config.assignment.k, {} if done.count is None else done.count.people
    read = done.read
    objects, counts, rule = audit_release.release(
        read.vault, read.audit, *_units(done.commits), audit.classes(behind, k), k, output, run
    )
    made = {
        "summary.parquet": audit.to_bytes(suppress.summary(counts, rule, k, sums)),
        "people.json": json.dumps(people, indent=2, sort_keys=True).encode(),
    }
    for name, data in made.items():
        storage.write_bytes(storage.join(output, name), data, overwrite=True)
        objects.append({"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    objects += [entry for entries in done.commits["objects"].to_pylist() for entry in entries]
    # the manifest can be there only where this process lost its lease and another has ended the run
    shred.everything(output, but={"manifest.json", *(str(entry["name"]) for entry in objects)})
    return sorted(objects, key=lambda entry: str(entry["name"])), people


def people_of(config: configuration.Config, done: Done) -> dict[str, Any]:
    """How many people stand behind the surrogates, as the manifest and people.json say it."""
    options = config.assignment
    mode = options.mode if config.two_passes else "per-face"
    found: dict[str, Any] = {"mode": mode}
    if mode != "per-face":
        found |= {
            "people_by": "face" if options.subject is None else "subject",
            "pseudo_identities": done.persons,
        }
    if done.count is not None:
        margins = [surrogate.draws[0].margin for surrogate in done.surrogates if surrogate.identities]
        found |= done.count.summary()
        found |= {
            "across_attributes": sum(surrogate.across for surrogate in done.surrogates),
            "least_margin": round(min(margins, default=0.0), 3),
            "withheld": done.withheld,
        }
    return found


def fields_dropped(commits: pa.Table) -> dict[str, int]:
    """Sidecar fields that did not pass, by name where the schema has it."""
    found: dict[str, int] = {}
    for entries in commits["fields"].to_pylist():
        for entry in entries:
            found[entry["name"]] = found.get(entry["name"], 0) + entry["dropped"]
    return dict(sorted(found.items()))
