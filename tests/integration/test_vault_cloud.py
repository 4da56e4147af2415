"""The state store on a real S3 server, and its run key wrapped by a KMS that answers over HTTP (moto)."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from deid.errors import ConfigError, StorageError
from deid.privacy import vault, wrapping
from deid.privacy.vault import StateError
from deid.shards import storage


@pytest.fixture(scope="module")
def kms_endpoint() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def kms(kms_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    if "AWS_ACCESS_KEY_ID" not in os.environ:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", kms_endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return boto3.session.Session().client("kms")


@pytest.fixture
def place(s3: Any) -> str:
    return f"s3://{s3.bucket()}/state/run"


@pytest.mark.parametrize("by", ["KeyId", "Arn", "alias"])
def test_kms_wraps_the_run_key(kms: Any, place: str, by: str) -> None:
    key = kms.create_key()["KeyMetadata"]
    names = {**key, "alias": f"alias/deid-{key['KeyId'][:8]}"}
    kms.create_alias(AliasName=names["alias"], TargetKeyId=key["KeyId"])
    store = vault.create(place, f"aws-kms://{names[by]}")
    store.put("faces/1", b"x")
    again = vault.open(place, f"aws-kms://{names[by]}")
    assert again == store
    assert again.get("faces/1") == b"x"
    entry = json.loads(storage.read_bytes(storage.join(place, "key.json")))
    assert entry["kind"] == "aws-kms"
    wrapped = base64.b64decode(entry["wrapped"])
    assert store.key not in wrapped
    answer = kms.decrypt(CiphertextBlob=wrapped, EncryptionContext={"purpose": "deid run key"})
    assert answer["Plaintext"] == store.key
    with pytest.raises(kms.exceptions.InvalidCiphertextException):
        kms.decrypt(CiphertextBlob=wrapped)
    record = store.destroy()
    assert (record["key"], record["order"]) == ("aws-kms", ["wrapped run key", "objects"])
    assert any("KMS key stays" in line for line in record["not_promised"])
    with pytest.raises(StateError, match="no wrapped key"):
        vault.open(place, f"aws-kms://{names[by]}")


def test_another_kms_key_and_none_are_refused(kms: Any, place: str) -> None:
    key, other = (kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(2))
    vault.create(place, f"aws-kms://{key}")
    with pytest.raises(ConfigError, match="state_key: KMS refuses"):
        vault.open(place, f"aws-kms://{other}")
    with pytest.raises(ConfigError, match=r"KMS refuses \(NotFoundException\)"):
        vault.create(place + "2", "aws-kms://alias/none")


def test_a_kms_that_does_not_answer(kms: Any, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="KMS does not answer"):
        vault.create(place, "aws-kms://alias/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "no url")
    with pytest.raises(ConfigError, match="state_key"):
        vault.create(place, "aws-kms://alias/x")


def test_a_store_on_s3(place: str, tmp_path: Any) -> None:
    store = vault.create(place, None)
    store.put("faces/1", b"x")
    with pytest.raises(storage.AlreadyThere):
        store.put("faces/1", b"y")
    assert store.get("faces/1") == b"x"
    assert store.names("faces/") == ["faces/1"]
    with pytest.raises(StateError, match="faces/2 is missing"):
        store.get("faces/2")


def test_destroying_reaches_every_version_and_nothing_beside(s3: Any, place: str, tmp_path: Any) -> None:
    bucket = place.removeprefix("s3://").partition("/")[0]
    client = boto3.session.Session().client("s3")
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    wrapping.new_key_file(tmp_path / "key")
    store = vault.create(place, str(tmp_path / "key"))
    for _ in range(3):
        store.put("a", b"x", overwrite=True)
    store.put("b", b"y")
    storage.delete(storage.join(place, "b"))
    storage.write_bytes(f"{place}-other/a", b"stays")
    before = client.list_object_versions(Bucket=bucket, Prefix="state/run/")
    assert (len(before["Versions"]), len(before["DeleteMarkers"])) == (5, 1)
    record = store.destroy()
    after = client.list_object_versions(Bucket=bucket)
    assert [item["Key"] for item in after.get("Versions", [])] == ["state/run-other/a"]
    assert not after.get("DeleteMarkers")
    assert (record["storage"], record["objects"], record["versions"], record["left"]) == ("s3", 6, True, 0)
    assert any("replicas" in line for line in record["not_promised"])


def test_destroying_more_than_one_page(place: str) -> None:
    store = vault.create(place, None)
    for number in range(1003):
        storage.write_bytes(f"{place}/{number:04d}", b"")
    record = store.destroy()
    assert (record["objects"], record["left"]) == (1003, 0)
    assert storage.list_files(place) == []
