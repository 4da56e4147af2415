"""The catalogue of an output: `catalogue.json` beside the releases says which there are, and by what to know them.

It says nothing that the releases' own manifests do not, and is sorted by day and random id, so that its order tells
no time finer than the day that each manifest gives. It is not signed: what is to be believed of a release is in its
manifest (`deid verify`). Whoever adds to it holds the lease of the state (`deid.pipeline.lease`), since it is read,
changed and written back; jobs with one output must therefore have one state.
"""

import hashlib
import json
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict

from deid.errors import InputError
from deid.privacy import seal
from deid.shards import storage

NAME = "catalogue.json"
VERSION = 1


class Release(BaseModel):
    """One release."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    run: str  # id of the run, and name of its folder
    day: str  # as in the manifest: YYYY-MM-DD, UTC
    manifest_sha256: str  # of manifest.json, hex
    merkle_root: str  # over the release's objects, hex
    counts: dict[str, int]  # as in the manifest
    config_sha256: str  # of the canonical JSON of the manifest's public configuration, without places or keys
    deid: str  # version of the package


class _Catalogue(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    catalogue_version: int
    releases: list[Release]


def release(manifest: bytes) -> Release:
    """The entry of a release, from its signed manifest as it was written."""
    value: dict[str, Any] = json.loads(manifest)
    return Release(
        run=value["run"],
        day=value["day"],
        manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        merkle_root=value["merkle_root"],
        counts=value["counts"],
        config_sha256=hashlib.sha256(seal.canonical(value["config"])).hexdigest(),
        deid=value["code"]["deid"],
    )


def add(output_uri: str, entry: Release) -> None:
    """Add a release, or replace its entry: a run that was killed at its end signs its manifest once more.

    Call it under the lease of the state.

    Raises:
        InputError: catalogue.json is damaged.
    """
    releases = [known for known in read(output_uri) if known.run != entry.run]
    releases = sorted([*releases, entry], key=lambda item: (item.day, item.run))
    whole = _Catalogue(catalogue_version=VERSION, releases=releases)
    storage.write_bytes(
        storage.join(output_uri, NAME), whole.model_dump_json(indent=2).encode(), overwrite=True
    )


def read(output_uri: str) -> list[Release]:
    """All releases, by day and id; none where there is no catalogue.

    Raises:
        InputError: catalogue.json is no catalogue of this version.
    """
    place = storage.join(output_uri, NAME)
    if not storage.exists(place):
        return []
    try:
        whole = _Catalogue.model_validate_json(storage.read_bytes(place))
    except pydantic.ValidationError:
        whole = None
    if whole is None or whole.catalogue_version != VERSION:
        raise InputError(
            f"output.uri, {NAME}: is damaged or of another version of deid; move it away, the releases themselves do "
            "not depend on it"
        )
    return whole.releases
