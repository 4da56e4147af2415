"""The run manifest: what was run with what, the counts, and every object with its hash. Nothing of the source."""

import collections
import datetime
import json
import platform
from importlib import metadata
from typing import Any

import pyarrow as pa

from deid import __version__, records
from deid.config import Config
from deid.errors import PromiseError

MANIFEST_VERSION = 1
_COUNTS = ("pictures_in", "pictures_out", "pictures_quarantined", "faces", "replaced", "covered")
_PACKAGES = (
    "ray",
    "torch",
    "openvino",
    "onnxruntime",
    "pyarrow",
    "opencv-python-headless",
    "numpy",
    "pillow",
)


def counts(commits: pa.Table, planned: int, refused: int) -> dict[str, int]:
    """Sums over the commit rows, plus what was quarantined when the shards were scanned.

    Args:
        planned: pictures in the units of the plan.
        refused: entries quarantined while planning (damaged shards, samples without a picture).

    Raises:
        PromiseError: in is not out + quarantined, a face is neither replaced nor covered, by no known anonymizer
            or without a word of the gate, or units are missing.
    """
    units = commits["unit"].to_pylist()
    if sorted(units) != list(range(len(units))):
        raise PromiseError("a unit was committed twice, or never; run again")
    sums = {name: sum(commits[name].to_pylist()) for name in _COUNTS}
    if sums["pictures_in"] != planned:
        raise PromiseError(
            f"{planned} pictures were planned, the commits hold {sums['pictures_in']}; run again"
        )
    sums["pictures_in"] += refused
    sums["pictures_quarantined"] += refused
    if sums["pictures_in"] != sums["pictures_out"] + sums["pictures_quarantined"]:
        raise PromiseError(f"counts do not balance: {sums}")
    if sums["faces"] != sums["replaced"] + sums["covered"]:
        raise PromiseError(f"counts of faces do not balance: {sums}")
    for column, known in (("anonymizers", records.ANONYMIZERS), ("gate", records.GATE)):
        named = by_name(commits, column)
        if sum(named.values()) != sums["faces"] or not named.keys() <= known.keys():
            raise PromiseError(f"the faces by {column} are not all faces: {named}; {sums['faces']} faces")
    return sums


def by_name(commits: pa.Table, column: str) -> dict[str, int]:
    """Faces by the names of a column (`anonymizers`: what stands in their place; `gate`: what it said), over the
    commit rows."""
    found: collections.Counter[str] = collections.Counter()
    for entries in commits[column].to_pylist():
        found.update({entry["name"]: entry["faces"] for entry in entries})
    return dict(sorted(found.items()))


def build(
    config: Config,
    run: str,
    commits: pa.Table,
    sums: dict[str, int],
    reasons: dict[str, int],
    models: dict[str, Any],
) -> dict[str, Any]:
    """The manifest of a run.

    Args:
        commits: rows of `records.COMMIT`.
        sums: what `counts` gave.
        reasons: quarantined pictures by code.
        models: for each model its archive's and members' SHA-256, and the gallery's.
    """
    objects = sorted(
        ({"name": row[kind], "bytes": row[f"{kind}_bytes"], "sha256": row[f"{kind}_sha256"]}
         for row in commits.to_pylist() for kind in ("shard", "audit")),
        key=lambda entry: str(entry["name"]),
    )  # fmt: skip
    return {
        "manifest_version": MANIFEST_VERSION,
        "run": run,
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "code": {
            "deid": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        "config": public_config(config),
        "counts": sums,
        "anonymizers": by_name(commits, "anonymizers"),
        "gate": by_name(commits, "gate"),
        "quarantine": reasons,
        "models": models,
        "audit_version": records.AUDIT_VERSION,
        "objects": objects,
    }


def public_config(config: Config) -> dict[str, Any]:
    """The configuration without what tells where the source or the state is, and without the seed."""
    values = config.model_dump(mode="json")
    for section, name in (
        ("input", "uri"),
        ("input", "pattern"),
        ("output", "uri"),
        ("models", "cache"),
        ("models", "mirror"),
    ):
        values[section].pop(name)
    for name in ("state", "seed", "gallery", "cluster"):
        values.pop(name)
    values["repeatable"] = config.seed is not None  # ids and draws can be worked out again: not for release
    return values


def to_bytes(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=2, sort_keys=True).encode()
