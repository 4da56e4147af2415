"""Storage through a bad network, by a proxy before the real S3 server: each operation ends right, or says why not."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deid.demo.s3server import S3Server
from deid.errors import InputError, StorageError
from deid.shards import multipart, retry, storage, webdataset
from deid.shards.client import client
from tests.faults.proxy import Proxy

BROKEN = ("500", "slow_down", "reset_answer", "lost_answer", "outage")


@pytest.fixture
def bucket(s3: Any) -> str:
    return f"s3://{s3.bucket()}"


@pytest.fixture
def proxy(bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way of this process to the server from here on."""
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    with Proxy(s3.environment["AWS_ENDPOINT_URL"]) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", made.url)
        yield made


@pytest.mark.parametrize("kind", BROKEN)
def test_reads_and_listings_end_right(bucket: str, proxy: Proxy, kind: str) -> None:
    data = os.urandom(1 << 20)
    storage.write_bytes(f"{bucket}/a", data)
    for action, expected in (
        (lambda: storage.read_bytes(f"{bucket}/a"), data),
        (lambda: storage.read_range(f"{bucket}/a", 7, 9_000), data[7:9_007]),
        (lambda: [file.size for file in storage.list_files(bucket)], [len(data)]),
        (lambda: storage.exists(f"{bucket}/a"), True),
        (lambda: storage.exists(f"{bucket}/b"), False),
    ):
        before = proxy.injected[kind]
        proxy.inject(kind, times=5)
        assert action() == expected
        assert proxy.injected[kind] - before == 5


@pytest.mark.parametrize("kind", [*BROKEN, "reset_upload"])
def test_conditional_writes_end_right(bucket: str, proxy: Proxy, kind: str) -> None:
    """Not as `AlreadyThere`, when an attempt whose answer was lost had written it."""
    data = os.urandom(1 << 20)
    proxy.inject(kind, times=3, methods=("PUT",))
    storage.write_bytes(f"{bucket}/a", data)
    assert proxy.injected[kind] == 3
    assert storage.read_bytes(f"{bucket}/a") == data
    proxy.inject(kind, times=3, methods=("PUT",))
    with pytest.raises(storage.AlreadyThere):
        storage.write_bytes(f"{bucket}/a", b"another")
    assert proxy.injected[kind] == 6
    assert storage.read_bytes(f"{bucket}/a") == data


def test_a_lost_answer_of_another_writer_is_a_refusal(bucket: str, proxy: Proxy) -> None:
    """Two writers at once, answers lost at random: one is told that it wrote, and its bytes stand there."""
    proxy.inject("lost_answer", share=0.5, methods=("PUT",))
    for number in range(10):
        uri, won = f"{bucket}/{number}", list[bytes]()

        def write(data: bytes, uri: str = uri, won: list[bytes] = won) -> None:
            try:
                storage.write_bytes(uri, data)
                won.append(data)
            except storage.AlreadyThere:
                pass

        threads = [threading.Thread(target=write, args=(b"%d" % n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [storage.read_bytes(uri)]
    assert proxy.injected["lost_answer"] > 5


def test_an_outage_that_stays_is_one_line(bucket: str, proxy: Proxy) -> None:
    proxy.inject("outage")
    with pytest.raises(StorageError, match=rf"^{bucket}: the transfer broke off|does not answer"):
        storage.read_bytes(f"{bucket}/name-of-somebody")
    assert proxy.injected["outage"] == retry.ATTEMPTS
    proxy.clear()
    proxy.inject("slow_down")
    with pytest.raises(StorageError, match=rf"^{bucket}: the S3 server asks to try again \(SlowDown\)$"):
        storage.write_bytes(f"{bucket}/name-of-somebody", b"a")


def test_a_slow_server_is_waited_for(bucket: str, proxy: Proxy) -> None:
    proxy.inject("late", delay=0.5, times=2)
    began = time.monotonic()
    storage.write_bytes(f"{bucket}/a", b"a")
    assert storage.read_bytes(f"{bucket}/a") == b"a"
    assert time.monotonic() - began >= 1
    assert proxy.injected["late"] == 2


def test_a_shard_is_scanned_and_read_whole(bucket: str, proxy: Proxy) -> None:
    samples = [(f"{n:03d}", {"jpg": os.urandom(100_000), "json": b"{}"}) for n in range(200)]
    storage.write_bytes(f"{bucket}/a.tar", webdataset.write_shard(samples))
    (file,) = storage.list_files(bucket)
    for kind in BROKEN:
        proxy.inject(kind, times=1, methods=("GET",))
    table = webdataset.scan(file)
    assert table["reason"].to_pylist() == [""] * 200
    for kind in BROKEN:
        proxy.inject(kind, times=1, methods=("GET",))
    found = sorted(webdataset.read(table))
    assert [picture for _, picture, *_ in found] == [members["jpg"] for _, members in samples]
    assert proxy.injected == dict.fromkeys(BROKEN, 2)


# Large objects.


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(multipart, "PART", 5 << 20)  # S3's least
    return multipart.PART


def left_over(bucket: str) -> list[Any]:
    """Uploads that were neither completed nor aborted."""
    found: list[Any] = client().list_multipart_uploads(Bucket=bucket.removeprefix("s3://")).get("Uploads", [])
    return found


@pytest.mark.parametrize("kind", ["", *BROKEN, "reset_upload"])
def test_a_large_object_goes_in_parts(bucket: str, proxy: Proxy, small_parts: int, kind: str) -> None:
    data = os.urandom(2 * small_parts + 123)
    if kind:
        proxy.inject(kind, times=2, path="uploads", methods=("POST",))
        proxy.inject(kind, times=2, path="partNumber=2", methods=("PUT",))
        proxy.inject(kind, times=2, path="uploadId", methods=("POST",))
    storage.write_bytes(f"{bucket}/a", data)
    assert proxy.injected[kind] == (6 if kind else 0)
    assert storage.read_bytes(f"{bucket}/a") == data
    # a part is sent again, and not the whole
    assert proxy.requests["PUT"] == 3 + (2 if kind else 0)
    proxy.clear()
    with pytest.raises(storage.AlreadyThere):
        storage.write_bytes(f"{bucket}/a", data[::-1])
    assert storage.read_bytes(f"{bucket}/a") == data
    storage.write_bytes(f"{bucket}/a", data[::-1], overwrite=True)
    assert storage.read_bytes(f"{bucket}/a") == data[::-1]
    unheard = 2 if kind in ("lost_answer", "reset_answer") else 0  # starts of uploads, which have no parts
    assert len(left_over(bucket)) == unheard


def test_a_large_object_that_fails_leaves_nothing(bucket: str, proxy: Proxy, small_parts: int) -> None:
    proxy.inject("reset_upload", path="partNumber=3")
    with pytest.raises(StorageError):
        storage.write_bytes(f"{bucket}/a", os.urandom(3 * small_parts))
    assert proxy.injected["reset_upload"] == retry.ATTEMPTS
    assert not storage.exists(f"{bucket}/a")
    assert left_over(bucket) == []


# Credentials that change during the run.


@pytest.mark.parametrize("way", ["file", "process"])
def test_credentials_that_rotate_are_read_again(tmp_path: Path, monkeypatch: Any, way: str) -> None:
    """The server forgets the old keys; the profile's file, or what its process prints, has new ones."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    credentials, process = tmp_path / "credentials", tmp_path / "keys.json"
    config = ["[default]", "region = us-east-1"]
    if way == "process":
        reader = f"import sys; sys.stdout.write(open({str(process)!r}).read())"
        script = tmp_path / "print_keys.py"
        script.write_text(reader)
        config.append(f"credential_process = {sys.executable} {script}")
    (tmp_path / "config").write_text("\n".join(config))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def rotate(server: S3Server) -> None:
        keys = {"AccessKeyId": server.access_key, "SecretAccessKey": server.secret_key}
        if way == "process":
            process.write_text(json.dumps({"Version": 1, **keys}))
        else:
            lines = [
                f"aws_access_key_id = {server.access_key}",
                f"aws_secret_access_key = {server.secret_key}",
            ]
            credentials.write_text("\n".join(["[default]", *lines]))

    with S3Server(tmp_path / "server") as first, Proxy(first.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        rotate(first)
        first.create_bucket("raw")
        storage.write_bytes("s3://raw/a", b"kept")
        first.stop()
        with S3Server(tmp_path / "server") as second:
            proxy.target = second.endpoint
            with pytest.raises(InputError, match="access key"):
                storage.read_bytes("s3://raw/a")
            rotate(second)
            assert storage.read_bytes("s3://raw/a") == b"kept"
            storage.write_bytes("s3://raw/b", b"new")
            assert storage.exists("s3://raw/b")
