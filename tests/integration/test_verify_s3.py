"""A run's output on a real S3 server is checked there as on a folder."""

from pathlib import Path
from typing import Any

import boto3

from deid.privacy.verify import verify
from deid.shards import storage
from tests.unit.privacy.sealed import Sealed


def test_a_run_on_s3(s3: Any, tmp_path: Path) -> None:
    run, place = Sealed(tmp_path / "run").make(), f"s3://{s3.bucket()}/out/0123"
    for file in storage.list_files(str(run.folder)):
        name = file.uri.removeprefix(f"{run.folder}/")
        storage.write_bytes(storage.join(place, name), storage.read_bytes(file.uri))
    storage.write_bytes(f"{place}4/other", b"another run")
    assert verify(place, run.key.public_key()) == []
    storage.write_bytes(f"{place}/shards/new", b"x")
    client, (bucket, _, prefix) = boto3.session.Session().client("s3"), place[5:].partition("/")
    for name in ("/slash", "shards//double", "folder/"):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=b"")
    storage.delete(f"{place}/{run.shards[0]}")
    data = run.objects[run.parts[0]]
    storage.write_bytes(f"{place}/{run.parts[0]}", data[:99] + b"?" + data[100:], overwrite=True)
    found = {finding.name: finding.fault for finding in verify(place + "/", run.key.public_key())}
    added = {name for name, fault in found.items() if "added after the run" in fault}
    assert {"shards/new", "folder/"} <= added  # what comes of "//" is up to the server
    assert found[run.shards[0]] == "is missing"
    assert found[run.parts[0]] == "its content is not what was signed: the audit was edited"
