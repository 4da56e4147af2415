"""A small finished run, made by the project's own writers, and the means to tamper with it."""

import copy
import functools
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deid import config, records
from deid.privacy import audit, keys, manifest, seal, verify_people
from deid.privacy.suppress import ALL, ORDER
from deid.privacy.verify import verify
from deid.shards import pictures, storage
from deid.shards.formats import Sample
from deid.shards.writers import WRITERS, output_format
from tests.unit.privacy import released

SECRET = b"s" * 32
K = 5
SHARDS, PICTURES, FACES, DROPPED = 3, 12, 2, 6
SETTINGS = config.parse(
    {
        "input": {"uri": "raw"},
        "output": {"uri": "out"},
        "state": "state",
        "metadata": {
            "sidecar_fields": {"label": "int", "place": {"type": "str", "free": True}},
            "members": {"cls": "int"},
        },
    }
)
PEOPLE = {
    "mode": "k-same", "people_by": "face", "pseudo_identities": 55, "k": K, "surrogates": 9, "min": 5, "median": 7.0,
    "histogram": {"5": 4, "7": 5}, "across_attributes": 1, "least_margin": 0.871, "withheld": 0,
}  # fmt: skip


def picture(number: int, extension: str) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (24, 32, 3), np.uint8)
    return pictures.encode(pixels, extension, 90, grey=number % 5 == 0)


def samples(unit: int) -> list[Sample]:
    made = []
    for position in range(PICTURES):
        number = unit * PICTURES + position
        extension = ("jpg", "png", "webp")[number % 3]
        pictures = (("", extension, picture(number, extension)),)
        fields = {"label": position, "place": "x", "cls": 3} if position % 2 else {}
        made.append(Sample(keys.output_id(SECRET, unit, position), pictures, fields))
    return sorted(made, key=lambda sample: sample.key)


def unit_objects(unit: int, settings: config.Config) -> tuple[dict[str, bytes], dict[str, str]]:
    """What the job writes of a unit: its objects, and the shard of each sample."""

    def named(_: bytes) -> str:
        return keys.shard_name(SECRET, unit, b"content")

    objects, shards = WRITERS[output_format(settings)](samples(unit), named, settings, 0)
    return dict(objects), dict(shards)


def raw(shards: Mapping[str, str]) -> pa.Table:
    """The audit's rows; `shards` has the shard of each sample by its key."""
    rows: list[dict[str, Any]] = []
    for unit in range(SHARDS):
        for position in range(PICTURES):
            for face in range(FACES):
                number = (unit * PICTURES + position) * FACES + face
                covered = number % 6 == 0
                rows.append(
                    {
                        "output_id": keys.output_id(SECRET, unit, position),
                        "shard": shards[keys.output_id(SECRET, unit, position)],
                        "status": "covered" if covered else "replaced",
                        "anonymizer": "solid" if covered else "surrogate",
                        "k_class": "none" if covered else "5-9",
                        "sex": ("male", "female")[number % 2],
                        "age_band": ("18-29", "30-44")[number // 2 % 2] if number else ">=60",
                        "expression": ("smiling", "neutral", "neutral")[number % 3],
                        "face_size": "40-79",
                        "reason": "missed" if covered else "",
                        "gate": "missed" if covered else "passed",
                        "surrogate_id": -1 if covered else number % 9,
                        "position": 0,
                        "number": number,
                    }
                )
    nothing = dict.fromkeys((*ORDER, "reason", "gate"), ALL) | {
        "surrogate_id": -1,
        "position": 0,
        "number": -1,
    }
    rows += [
        {**nothing, "output_id": keys.output_id(SECRET, 99, n), "shard": "", "status": "dropped"}
        for n in range(DROPPED)
    ]
    return pa.Table.from_pylist(rows, schema=records.AUDIT_RAW)


def commits(table: pa.Table) -> pa.Table:
    """One commit row with the counts of the whole run; its objects do not matter here."""
    faces = table.filter(pc.not_equal(table["status"], "dropped"))
    names = {
        column: [{"name": e["values"], "faces": e["counts"]} for e in faces[of].value_counts().to_pylist()]
        for column, of in (("anonymizers", "anonymizer"), ("gate", "gate"))
    }
    statuses = faces["status"].to_pylist()
    out = SHARDS * PICTURES
    row = dict.fromkeys(records.COMMIT.names) | {
        "unit": 0, "pictures_in": out + DROPPED, "pictures_out": out, "pictures_quarantined": 0,
        "pictures_dropped": DROPPED,
        "faces": len(faces), "replaced": statuses.count("replaced"), "covered": statuses.count("covered"),
        "objects": [], "reasons": [], "fields": [], **names,
    }  # fmt: skip
    return pa.Table.from_pylist([row], schema=records.COMMIT)


def entries(objects: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(objects.items())
    ]


@functools.cache
def built(kind: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Objects and manifest of the run, in one of the formats."""
    changed = SETTINGS.output.model_copy(update={"format": kind, "class_field": "label"})
    settings = SETTINGS.model_copy(update={"output": changed})
    units = [unit_objects(unit, settings) for unit in range(SHARDS)]
    shards = {name: data for objects, _ in units for name, data in objects.items()}
    table = raw({key: name for _, of_key in units for key, name in of_key.items()})
    commit = commits(table)
    sums = manifest.counts(commit, SHARDS * PICTURES + DROPPED, 0)
    objects = {
        **shards,
        **released.files([table], K, 30),
        "summary.parquet": audit.to_bytes(released.summary([table], K, sums)),
        "people.json": verify_people.to_bytes(PEOPLE),
    }
    made = manifest.build(
        settings, "0123456789abcdef", commit, entries(objects), sums, {"gate_failed": DROPPED}, {}, PEOPLE,
        {"caption": 3},
    )  # fmt: skip
    made["destruction"] = {"key": "memory", "left": 0}
    return objects, made


@dataclass
class Sealed:
    """The run's folder, its key, and its objects by name."""

    folder: Path
    key: Ed25519PrivateKey = field(default_factory=seal.new_key)
    objects: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def shards(self) -> list[str]:
        return sorted(name for name in self.objects if name.startswith("shards/"))

    @property
    def parts(self) -> list[str]:
        return sorted(name for name in self.objects if name.startswith("audit/"))

    def make(self, kind: str = "webdataset") -> "Sealed":
        objects, made = built(kind)
        self.objects, self.manifest = dict(objects), copy.deepcopy(made)
        self.write()
        return self

    def entries(self) -> list[dict[str, Any]]:
        return entries(self.objects)

    def write(self) -> None:
        """Everything anew, signed by the run's key."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        for name, data in self.objects.items():
            storage.write_bytes(str(self.folder / name), data)
        self.sign(self.manifest, self.key)

    def sign(self, made: dict[str, Any], key: Ed25519PrivateKey) -> None:
        self.put_manifest(seal.sign({n: v for n, v in made.items() if n != "signature"}, key))

    def put_manifest(self, made: dict[str, Any]) -> None:
        storage.write_bytes(str(self.folder / "manifest.json"), manifest.to_bytes(made), overwrite=True)

    def read_manifest(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads((self.folder / "manifest.json").read_bytes())
        return made

    def reseal(self, made: Mapping[str, bytes] | None = None, /, **changes: Any) -> None:
        """As if the job had made these objects and this manifest: hashes, root and signature fit."""
        self.objects |= made or {}
        entries = self.entries()
        self.manifest |= {"objects": entries, "merkle_root": seal.merkle_root(entries)} | changes
        self.write()

    def edited(self, name: str, edit: Callable[[list[dict[str, Any]]], object]) -> bytes:
        """A part of the audit with its rows edited in place."""
        rows = pq.read_table(io.BytesIO(self.objects[name])).to_pylist()
        edit(rows)
        return audit.to_bytes(pa.Table.from_pylist(rows, schema=records.AUDIT))

    def faults(self) -> dict[str, list[str]]:
        """What a checker who has the public key finds, by the object's name."""
        found: dict[str, list[str]] = {}
        for finding in verify(str(self.folder), self.key.public_key()):
            found.setdefault(finding.name, []).append(finding.fault)
        return found
