"""The run manifest: what was run with what, the counts, and every object with its hash. Nothing of the source."""

import collections
import datetime
import functools
import hashlib
import json
import os
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa

from deid import __version__, records
from deid.config import Config
from deid.errors import PromiseError
from deid.privacy import seal

_COUNTS = (
    *("pictures_in", "pictures_out", "pictures_quarantined", "pictures_dropped"),
    *("faces", "replaced", "covered"),
)
MANIFEST_VERSION = 2
IMAGE_DIGEST = (
    "DEID_IMAGE_DIGEST"  # environment variable: sha256:<64 hex> of the container image the job runs in
)
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
        PromiseError: in is not out + quarantined + dropped, a face is neither replaced nor covered, by no known
            anonymizer or without a word of the gate, or units are missing.
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
    ended = sums["pictures_out"] + sums["pictures_quarantined"] + sums["pictures_dropped"]
    if sums["pictures_in"] != ended:
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
    objects: Sequence[dict[str, Any]],
    sums: dict[str, int],
    reasons: dict[str, int],
    models: dict[str, Any],
    people: dict[str, Any],
    dropped_fields: dict[str, int],
) -> dict[str, Any]:
    """The manifest of a run, not yet signed, and without `destruction`: what `vault.destroy` gives is added then.

    Args:
        commits: rows of `records.COMMIT`.
        objects: {name, bytes, sha256} of every object below the run's folder but the manifest.
        sums: what `counts` gave.
        reasons: quarantined pictures by code.
        models: for each model its archive's and members' SHA-256, and the gallery's.
        people: what `people.json` holds: k, surrogates, min, median and histogram of people behind a surrogate.
        dropped_fields: how often each sidecar field did not pass.
    """
    return {
        "manifest_version": MANIFEST_VERSION,
        "run": run,
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "code": {
            "deid": __version__,
            "sha256": code_sha256(),
            "python": platform.python_version(),
            **versions(),
        },
        "container": image_digest(),
        "config": public_config(config),
        "counts": sums,
        "anonymizers": by_name(commits, "anonymizers"),
        "gate": by_name(commits, "gate"),
        "quarantine": reasons,
        "dropped_fields": dropped_fields,
        "people": people,
        "models": models,
        "audit_version": records.AUDIT_VERSION,
        "objects": sorted(objects, key=lambda entry: str(entry["name"])),
        "merkle_root": seal.merkle_root(objects),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Of the libraries that a result depends on."""
    return {name: metadata.version(name) for name in _PACKAGES}


def code_sha256() -> str:
    """SHA-256 (hex) of the installed package: of a line `SHA-256, two spaces, name` for each file, sorted by name.

    Byte code does not count.
    """
    root = Path(__file__).parents[1]
    files = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n"
        for path in files
    ]
    return hashlib.sha256("".join(sorted(lines, key=lambda line: line[66:])).encode()).hexdigest()


def image_digest() -> str | None:
    """Digest of the container image, where whoever deploys it has put one into the environment."""
    digest = os.environ.get(IMAGE_DIGEST, "")
    return digest if re.fullmatch("sha256:[0-9a-f]{64}", digest) else None


def public_config(config: Config) -> dict[str, Any]:
    """The configuration without what tells where source, state or keys are or what names people, without the seed."""
    values = config.model_dump(mode="json")
    for section, name in (
        ("input", "uri"),
        ("input", "pattern"),
        ("input", "image_columns"),
        ("input", "metadata_table"),
        ("output", "uri"),
        ("models", "cache"),
        ("models", "mirror"),
    ):
        values[section].pop(name)
    for name in ("state", "state_key", "signing", "seed", "gallery", "cluster"):
        values.pop(name)
    for part in ("detector", "mesher", "embedder", "generator"):  # options may hold paths
        options = json.dumps(values[part].pop("options"), sort_keys=True)
        values[part]["options_sha256"] = hashlib.sha256(options.encode()).hexdigest()
    values["assignment"]["people_by"] = "face" if values["assignment"].pop("subject") is None else "subject"
    values["repeatable"] = config.seed is not None  # ids and draws can be worked out again: not for release
    return values


def to_bytes(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=2, sort_keys=True).encode()
