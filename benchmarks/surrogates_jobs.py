"""The configurations that `benchmarks.surrogates` compares, and their runs: the job over all photographs, one each."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from benchmarks import common
from benchmarks.london import SEED, SHARDS
from deid.config import Config, parse
from deid.demo.run import environment
from deid.demo.s3server import S3Server
from deid.evaluation.baselines import merged
from deid.pipeline import cluster, trace
from deid.pipeline.run import RunResult, run
from deid.shards import storage, tables

Changes = dict[str, Any]
NOTES = "notes.json"  # beside the results, what the job said


def configurations() -> dict[str, Changes]:
    """What is compared when nothing else is asked for: changes to a repeatable run with the product's defaults."""
    return {"default": {}}


def override(text: str) -> tuple[str, Changes]:
    """Name and changes of `section.setting=value,...`; values are YAML.

    Raises:
        SystemExit: not of that form.
    """
    changes: Changes = {}
    for part in text.split(","):
        path, mark, value = part.partition("=")
        if not mark:
            raise SystemExit(f"--config-override {text}: give section.setting=value,...")
        *sections, setting = path.split(".")
        place = changes
        for section in sections:
            place = place.setdefault(section, {})
        place[setting] = yaml.safe_load(value)
    return text, changes


def configured(name: str, changes: Changes) -> Config:
    """The configuration of a treatment, on buckets of the embedded server."""
    base = {
        "input": {"uri": "s3://raw/london"},
        "output": {"uri": f"s3://out/{slug(name)}"},
        "state": f"s3://state/{slug(name)}",
        "models": {"accept": ["clean", "permissive", "restricted"]},
        "seed": SEED,
    }
    return parse(merged(base, changes))


def slug(name: str) -> str:
    """A name that may stand in a path."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()


def run_all(
    wanted: dict[str, Changes], clear: dict[str, bytes], scratch: Path
) -> dict[str, tuple[dict[str, bytes], dict[str, Any]]]:
    """Encoded results by key of the source, and notes, of each configuration; the scratch folder keeps the pictures."""
    made = {}
    with S3Server(scratch / "s3") as server, environment(server.environment()):
        for bucket in ("raw", "out", "state"):
            server.create_bucket(bucket)
        common.pack({key: ("jpg", data) for key, data in clear.items()}, "s3://raw/london", SHARDS)
        first = configured(*next(iter(wanted.items())))
        with cluster.session(first.cluster):
            for name, changes in wanted.items():
                config = configured(name, changes)
                result = run(config)
                output = {pair.key: pair.after for pair in trace.pairs(config, result) if pair.after}
                made[name] = output, notes(result, changes)
                keep(scratch / "results" / slug(name), *made[name])
    return made


def keep(folder: Path, output: dict[str, bytes], noted: dict[str, Any]) -> None:
    """Write results as <key>.jpg, and the notes, so that they can be measured again as a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, data in output.items():
        (folder / f"{key}.jpg").write_bytes(data)
    (folder / NOTES).write_text(json.dumps(noted))


def notes(result: RunResult, changes: Changes) -> dict[str, Any]:
    """What the job said: faces replaced and covered, with reasons, and its speed."""
    counts = result.manifest["counts"]
    table = tables.from_bytes(storage.read_bytes(storage.join(result.output, "summary.parquet")))
    reasons = {row["value"]: row["faces"] for row in table.to_pylist() if row["name"] == "reason"}
    return {
        "changes": changes,
        "faces": counts["faces"],
        "replaced": counts["replaced"],
        "below_the_first_rung": {reason: faces for reason, faces in reasons.items() if reason != "none"},
        "seconds_a_face": round(result.seconds / max(1, counts["faces"]), 3),
        "people": result.manifest["people"],
    }
