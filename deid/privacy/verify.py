"""Check a finished run from its output alone: who signed it, whether it is all there, whether its promises hold.

Nothing is needed but the folder and the public key: no state, no source, no network but the storage itself.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field

from deid import records
from deid.config import Metadata
from deid.errors import InputError
from deid.privacy import manifest as manifests
from deid.privacy import (
    seal,
    verify_audit,
    verify_folder,
    verify_objects,
    verify_parquet,
    verify_people,
    verify_shards,
    verify_video,
)
from deid.privacy.verify_folder import TABLE
from deid.privacy.verify_objects import MANIFEST, Faults, kind
from deid.privacy.verify_shards import Shard
from deid.shards import storage

_SHARED = ("surrogate", "ksame-pixel")  # anonymizers whose results people can share
_REPEATABLE = (
    "the run was repeatable (seed was set): its ids and draws can be worked out again; it is not for release"
)
_SHOWN = 5  # faults of one shard that are named one by one


def printable(text: str) -> str:
    """One line of it, for a terminal: what is no letter, mark or space is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclass(frozen=True, order=True)
class Finding:
    """Something that is not as it was signed or promised; `name` is an object, or a table of several."""

    name: str
    fault: str

    def __str__(self) -> str:
        """One line, whatever the object is named."""
        return printable(f"{self.name}: {self.fault}")


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Entry(_Part):
    name: str = Field(min_length=1)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Assignment(_Part):
    mode: str
    k: int = Field(ge=1)


class _Input(_Part):
    format: str


class _Output(_Part):
    class_field: str | None
    audio: str


class _Config(_Part):
    anonymizer: str
    assignment: _Assignment
    metadata: Metadata
    input: _Input
    output: _Output
    repeatable: bool


class _Counts(_Part):
    pictures_out: int = Field(ge=0)
    pictures_in: int = Field(ge=0)
    faces: int = Field(ge=0)
    replaced: int = Field(ge=0)
    covered: int = Field(ge=0)
    pictures_dropped: int = Field(ge=0)


class _Manifest(_Part):
    """The parts of a manifest that are looked at."""

    objects: list[_Entry]
    merkle_root: str
    audit_version: str
    counts: _Counts
    anonymizers: dict[str, int]
    gate: dict[str, int]
    people: dict[str, Any]
    config: _Config


def verify(
    uri: str,
    public: Ed25519PublicKey,
    say: Callable[[str], None] = lambda line: None,
    allow_repeatable: bool = False,
) -> list[Finding]:
    """Everything that is wrong with a run's output, sorted; empty when it is as signed and keeps its promises.

    Args:
        uri: folder or s3:// prefix of one run.
        public: the key that it must be signed with.
        say: gets a line for each part of the check that found nothing, with what was looked at.
        allow_repeatable: a run with a seed is no fault: for measurements, never for a release.

    Raises:
        InputError: there is nothing, or it cannot be read.
        StorageError: storage did not answer.
    """
    files = verify_objects.listing(uri)
    if not files:
        raise InputError(f"{uri}: nothing is there; give the folder of one finished run")
    if files.get(MANIFEST, 0) < 0:
        return [Finding(MANIFEST, "is no plain file")]
    if MANIFEST not in files:
        return [Finding(MANIFEST, "is missing: the run did not end, or it was removed")]
    data = storage.read_bytes(storage.join(uri, MANIFEST))
    try:
        manifest = parse(data)
    except ValueError as error:
        return [Finding(MANIFEST, str(error))]
    findings = []
    if manifest["config"]["repeatable"] and not allow_repeatable:
        findings.append(Finding(MANIFEST, _REPEATABLE))
    for faults, line in _sections(uri, files, manifest, data, public):
        found = [Finding(name, fault) for name, fault in faults]
        findings += found
        if not found:
            say(line)
    return sorted(set(findings))


def parse(data: bytes) -> dict[str, Any]:
    """A manifest of this version, with every part that is looked at.

    Raises:
        ValueError: it is none; the text says why.
    """
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON: it was edited or cut after it was signed") from None
    version = manifest.get("manifest_version") if isinstance(manifest, dict) else None
    if version != manifests.MANIFEST_VERSION:
        raise ValueError(f"is of version {version}, this deid checks version {manifests.MANIFEST_VERSION}")
    try:
        _Manifest.model_validate_json(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    names = [entry["name"] for entry in manifest["objects"]]
    if len(set(names)) != len(names) or MANIFEST in names:
        raise ValueError("names an object twice, or itself")
    parsed: dict[str, Any] = manifest
    return parsed


def _sections(
    uri: str, files: Mapping[str, int], manifest: dict[str, Any], data: bytes, public: Ed25519PublicKey
) -> Iterable[tuple[Faults, str]]:
    """Each part of the check: its faults, and what to say where there are none."""
    yield _signature(manifest, data, public), f"signature: Ed25519, public key {seal.public_hex(public)}"
    yield (
        _root(manifest),
        f"manifest: version {manifest['manifest_version']}, Merkle root {manifest['merkle_root']}",
    )
    signed = verify_objects.Signed(manifest["objects"])
    shards = sorted(
        name for name in signed.marks if kind(name) in ("shard", "video") or TABLE.fullmatch(name)
    )
    config = manifest["config"]
    allowed = Metadata.model_validate_json(json.dumps(config["metadata"]))
    found = verify_objects.read(
        uri, files, signed, lambda name, content: _look(name, content, shards, allowed, config["output"])
    )
    size = sum(size for size, _ in signed.marks.values())
    yield (
        verify_objects.faults(files, found, signed),
        f"objects: {len(signed.marks):,} with {size:,} bytes, each there with the SHA-256 that was signed",
    )
    contents = verify_objects.contents(found, signed)
    keys = {name: contents[name].keys for name in shards if name in contents}
    parts = {name: part for name, part in contents.items() if kind(name) in ("shard", "file", "video")}
    pictures = sum(part.pictures for part in parts.values())
    yield (
        _shards(parts, keys, pictures, manifest),
        f"shards: {len(keys):,} with {pictures:,} pictures; headers, keys, fields and blocks are plain",
    )
    yield from _tables(contents, keys, shards, manifest)


def _tables(
    contents: Mapping[str, Any], keys: Mapping[str, list[str]], shards: list[str], manifest: dict[str, Any]
) -> Iterable[tuple[Faults, str]]:
    parts = {name: content for name, content in contents.items() if kind(name) == "audit"}
    audit = verify_audit.Audit(parts, keys, shards)
    k, mode = (manifest["config"]["assignment"][name] for name in ("k", "mode"))
    if manifest["config"]["anonymizer"] not in _SHARED:
        mode = "per-face"
    yield (
        _audit(audit, manifest, k),
        f"audit: {audit.rows:,} rows; every combination of values has {k} or more, rows fit pictures and counts",
    )
    yield (
        _summary(contents.get("summary.parquet"), manifest, audit.rows),
        f"summary: fits the manifest; {manifest['counts']['faces']:,} faces",
    )
    stated = manifest["people"]
    line = (
        f"people: {stated.get('surrogates')} surrogates, at least {stated.get('min')} people each (k = {k})"
    )
    yield (
        verify_people.faults(contents.get("people.json"), manifest, mode, k),
        line if mode == "k-same" else f"people: as the manifest says; {mode} promises no number",
    )


def _look(name: str, data: bytes, shards: list[str], allowed: Metadata, output: Mapping[str, Any]) -> Any:
    """What is kept of an object."""
    match kind(name):
        case "shard" if name.endswith(".parquet"):
            return verify_parquet.read(data, allowed, allowed.pictures)
        case "shard":
            return verify_shards.read(data, allowed, allowed.pictures)
        case "file":
            return verify_folder.read(name, data, allowed, allowed.pictures, output["class_field"])
        case "video":
            return verify_video.read(name, data, output["audio"] == "copy")
        case "audit":
            return verify_audit.read(data, shards)
        case "summary":
            return verify_audit.read_summary(data)
        case "people":
            return data
    return None


def _signature(manifest: dict[str, Any], data: bytes, public: Ed25519PublicKey) -> Faults:
    if seal.signed_by(manifest, public):
        if data != manifests.to_bytes(manifest):
            yield MANIFEST, "says what was signed, but is not written as the job writes it"
        return
    signature = manifest.get("signature")
    if not isinstance(signature, dict):
        yield MANIFEST, "is not signed"
    elif signature.get("public_key") != seal.public_hex(public):
        yield MANIFEST, f"is signed with another key: {signature.get('public_key')}"
    else:
        yield MANIFEST, "was edited after it was signed: the signature does not hold"


def _root(manifest: dict[str, Any]) -> Faults:
    if seal.merkle_root(manifest["objects"]) != manifest["merkle_root"]:
        yield MANIFEST, "its merkle_root is not that of its objects"


def _shards(
    parts: Mapping[str, Shard], keys: Mapping[str, list[str]], pictures: int, manifest: dict[str, Any]
) -> Faults:
    for name in sorted(parts):
        faults = parts[name].faults
        yield from ((name, fault) for fault in faults[:_SHOWN])
        if len(faults) > _SHOWN:
            yield name, f"{len(faults) - _SHOWN} more faults"
    yield from (
        (name, f"key {key} is there twice in the release") for key, name in verify_shards.repeated(keys)
    )
    yield from verify_folder.together(
        {name: p for name, p in parts.items() if isinstance(p, verify_folder.Part)}
    )
    least = most = manifest["counts"]["pictures_out"]
    if manifest["config"]["input"]["format"] == "video":
        most = manifest["counts"]["pictures_in"]  # frames that do not go out are grey
    if not least <= pictures <= most:
        yield "shards", f"have {pictures} pictures, the manifest counts {least}"


def _audit(audit: verify_audit.Audit, manifest: dict[str, Any], k: int) -> Faults:
    if manifest["audit_version"] != records.AUDIT_VERSION:
        yield (
            MANIFEST,
            f"audit_version is {manifest['audit_version']}, this deid checks {records.AUDIT_VERSION}",
        )
        return
    if not audit.parts:
        yield "audit", "is missing"
    for name, part in sorted(audit.parts.items()):
        yield from ((name, fault) for fault in part.faults)
    for check in (audit.order(), audit.anonymity(k), audit.links(), audit.counts(manifest, k)):
        yield from check


def _summary(found: dict[tuple[str, str], int] | None, manifest: dict[str, Any], rows: int) -> Faults:
    if found is None:
        yield "summary.parquet", "is missing, or is no summary of this version"
    else:
        yield from verify_audit.summary(found, manifest, rows)
