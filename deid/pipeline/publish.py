"""From the units' commits to what is released: the independent count, the audit, and no object that no commit names."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from deid import config as configuration
from deid.pipeline.index import faces_name, persons_name
from deid.pipeline.write import commit_name
from deid.privacy import audit, check, shred
from deid.privacy.assign import Surrogate
from deid.privacy.check import Count
from deid.privacy.vault import Vault
from deid.shards import storage, tables


@dataclass(frozen=True)
class Done:
    """What the passes leave behind.

    commits: rows of `records.COMMIT`.
    surrogates: of the assignment; none but under k-same.
    count: people behind each surrogate that went out; None but under k-same.
    persons: pseudo-identities or subjects; 0 in one pass.
    withheld: surrogates taken back, since too few of their people's faces could be replaced.
    """

    commits: pa.Table
    surrogates: Sequence[Surrogate] = ()
    count: Count | None = None
    persons: int = 0
    withheld: int = 0


def raw_audit(vault: Vault, unit: int) -> pa.Table:
    """Rows of `records.AUDIT_RAW` of a committed unit."""
    return tables.from_bytes(tables.from_bytes(vault.get(commit_name(unit)))["audit"][0].as_py())


def recount(config: configuration.Config, vault: Vault, units: int) -> Count:
    """The independent count over all committed units."""

    def pairs() -> Iterator[check.Unit]:
        for unit in range(units):
            seen = tables.from_bytes(vault.get(faces_name(unit)))
            persons = tables.from_bytes(vault.get(persons_name(unit)))
            yield raw_audit(vault, unit), seen.append_column("person", persons["person"])

    options = config.assignment
    return check.count(pairs, options.k, options.apart, options.subject is not None)


def wearing(vault: Vault, units: int, surrogates: Collection[int]) -> list[int]:
    """Units in which a face has one of these surrogates."""
    wanted = pa.array(sorted(surrogates), pa.int64())
    return [
        unit
        for unit in range(units)
        if pc.any(pc.is_in(raw_audit(vault, unit)["surrogate_id"], value_set=wanted)).as_py()
    ]


def renewed(commits: pa.Table, newer: pa.Table) -> pa.Table:
    """The commits with those of the units in `newer` replaced."""
    old = pc.invert(pc.is_in(commits["unit"], value_set=newer["unit"].combine_chunks()))
    return pa.concat_tables([commits.filter(old), newer])


def publish(
    config: configuration.Config, output: str, vault: Vault, done: Done, sums: Mapping[str, int]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Write the audit, its summary and the count, and sweep the shards that no commit names.

    Returns:
        All objects of the release ({name, bytes, sha256}), and what the manifest says of people.
    """
    people = people_of(config, done)
    k, behind = config.assignment.k, {} if done.count is None else done.count.people
    raw = [audit.classed(raw_audit(vault, unit), behind, k) for unit in done.commits["unit"].to_pylist()]
    made = dict(audit.parts(audit.release(raw, k)))
    made["summary.parquet"] = audit.to_bytes(audit.summary(raw, k, sums))
    made["people.json"] = json.dumps(people, indent=2, sort_keys=True).encode()
    for name, data in made.items():
        storage.write_bytes(storage.join(output, name), data, overwrite=True)
    objects = [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in made.items()
    ]
    objects += [
        {"name": row["shard"], "bytes": row["shard_bytes"], "sha256": row["shard_sha256"]}
        for row in done.commits.to_pylist()
    ]
    shred.everything(output, but={str(entry["name"]) for entry in objects})
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
