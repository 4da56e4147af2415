"""Storage and shards against the real S3 server."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow.fs
import pytest

from deid.errors import InputError, StorageError
from deid.shards import retry, storage, webdataset

CANARY = "canary-9b40"


@pytest.fixture
def bucket(s3: Any) -> str:
    return f"s3://{s3.bucket()}"


def test_write_read_list_delete(bucket: str) -> None:
    data = os.urandom(3 << 20)
    uri = storage.join(bucket, "raw", "deep", "a.tar")
    storage.write_bytes(uri, data)
    storage.write_bytes(storage.join(bucket, "rawest", "b.tar"), b"not below raw")
    storage.write_bytes(storage.join(bucket, "raw", "c d#?%.txt"), b"")
    assert storage.exists(uri)
    assert not storage.exists(bucket + "/raw/b.tar")
    assert storage.read_bytes(uri) == data
    assert storage.read_range(uri, 1000, 70_000) == data[1000:71_000]
    (file,) = storage.list_files(bucket + "/raw", "*.tar")
    assert (file.uri, file.size) == (uri, len(data))
    assert storage.read_range(uri, 0, 10, file.version) == data[:10]
    assert storage.read_bytes(bucket + "/raw/c d#?%.txt") == b""
    assert len(storage.list_files(bucket)) == 3
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_more_objects_than_one_page_of_a_listing(bucket: str) -> None:
    for number in range(1005):
        storage.write_bytes(f"{bucket}/{number:04d}", b"")
    assert [file.uri for file in storage.list_files(bucket)] == [f"{bucket}/{n:04d}" for n in range(1005)]


def test_a_name_that_is_taken_stays_what_it_is(bucket: str) -> None:
    uri = f"{bucket}/a"
    storage.write_bytes(uri, b"first")
    with pytest.raises(storage.AlreadyThere):
        storage.write_bytes(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    storage.write_bytes(uri, b"third", overwrite=True)
    assert storage.read_bytes(uri) == b"third"


def test_of_many_writers_one_wins(bucket: str) -> None:
    uri, outcomes = f"{bucket}/lease", list[str]()

    def write(number: int) -> None:
        try:
            storage.write_bytes(uri, b"%d" % number)
            outcomes.append(f"{number}")
        except storage.AlreadyThere:
            outcomes.append("refused")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[1:] == ["refused"] * 7
    assert storage.read_bytes(uri).decode() == min(outcomes)


def test_an_object_that_changed_or_went_is_noticed(bucket: str) -> None:
    uri = f"{bucket}/a"
    storage.write_bytes(uri, b"0123456789")
    (file,) = storage.list_files(bucket)
    storage.write_bytes(uri, b"9876543210", overwrite=True)
    with pytest.raises(storage.ObjectChanged):
        storage.read_range(uri, 0, 4, file.version)
    for start, length in ((8, 4), (20, 4)):
        with pytest.raises(storage.ObjectChanged):
            storage.read_range(uri, start, length)
    storage.delete(uri)
    with pytest.raises(storage.ObjectChanged):
        storage.read_range(uri, 0, 4, file.version)


def test_errors_name_the_setting_and_no_object(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such object") as caught:
        storage.read_bytes(f"{bucket}/{CANARY}")
    assert CANARY not in str(caught.value)
    with pytest.raises(InputError, match=r"nothing named \*.tar"):
        storage.list_files(f"{bucket}/none", "*.tar", required=True)
    with pytest.raises(InputError, match="no such bucket"):
        storage.list_files("s3://no-such-bucket-here")
    with pytest.raises(InputError, match="no such bucket"):
        storage.write_bytes("s3://no-such-bucket-here/a", b"")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match="AWS_SECRET_ACCESS_KEY"):
        storage.list_files(bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    with pytest.raises(InputError, match="access key"):
        storage.list_files(bucket)


def test_no_credentials_and_no_server(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as settings:
        settings.delenv("AWS_ACCESS_KEY_ID")
        settings.delenv("AWS_SECRET_ACCESS_KEY")
        settings.setenv("AWS_EC2_METADATA_DISABLED", "true")
        settings.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        settings.setenv("AWS_CONFIG_FILE", os.devnull)
        with pytest.raises(InputError, match="no usable AWS credentials"):
            storage.list_files(bucket)
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL"):
        storage.list_files(bucket)


@pytest.mark.parametrize("way", ["environment", "profile"])
def test_pyarrow_uses_the_same_endpoint(
    bucket: str, way: str, s3: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    if way == "profile":
        lines = [
            "[profile other]",
            f"endpoint_url = {s3.environment['AWS_ENDPOINT_URL']}",
            "region = us-east-1",
            f"aws_access_key_id = {s3.environment['AWS_ACCESS_KEY_ID']}",
            f"aws_secret_access_key = {s3.environment['AWS_SECRET_ACCESS_KEY']}",
        ]
        (tmp_path / "config").write_text("\n".join(lines))
        (tmp_path / "credentials").write_text("\n".join(["[other]", *lines[3:]]))
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_PROFILE", "other")
    storage.write_bytes(f"{bucket}/below/a", b"abc")
    files, path = storage.filesystem(f"{bucket}/below")
    assert [info.size for info in files.get_file_info(pyarrow.fs.FileSelector(path))] == [3]
    with files.open_input_file(f"{path}/a") as stream:
        assert stream.read() == b"abc"


class Cutting:
    """A proxy on the way to the server that breaks the first connections off after some bytes of the answer."""

    def __init__(self, target: str, cuts: int, after: int) -> None:
        host, port = target.removeprefix("http://").split(":")
        self.target, self.cuts, self.after = (host, int(port)), cuts, after
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(self.target)
            limit = self.after if self.connections <= self.cuts else None
            threading.Thread(target=self._pump, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, limit), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        try:
            while (limit is None or passed < limit) and (data := source.recv(65_536)):
                data = data if limit is None else data[: limit - passed]
                sink.sendall(data)
                passed += len(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@pytest.fixture
def cutting(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a proxy, and sends this process's requests through it."""
    made: list[Cutting] = []

    def start(cuts: int, after: int) -> Cutting:
        made.append(Cutting(s3.environment["AWS_ENDPOINT_URL"], cuts, after))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", made[-1].url)
        return made[-1]

    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    yield start
    for proxy in made:
        proxy.listener.close()


@pytest.mark.parametrize("after", [0, 20, 50, 200, 300, 400, 600])
def test_a_listing_cut_short_is_fetched_again_as_a_whole(bucket: str, cutting: Any, after: int) -> None:
    for name in "abc":
        storage.write_bytes(f"{bucket}/{name}", b"")
    cutting(cuts=3, after=after)
    assert [file.uri for file in storage.list_files(bucket)] == [f"{bucket}/{name}" for name in "abc"]


@pytest.mark.parametrize("after", [0, 50, 2_000, 500_000])
def test_a_body_cut_short_is_fetched_again_as_a_whole(bucket: str, cutting: Any, after: int) -> None:
    data = os.urandom(1 << 20)
    storage.write_bytes(f"{bucket}/a", data)
    proxy = cutting(cuts=3, after=after)
    assert storage.read_bytes(f"{bucket}/a") == data
    assert proxy.connections == 4
    cutting(cuts=retry.ATTEMPTS, after=after)
    with pytest.raises(StorageError):
        storage.read_bytes(f"{bucket}/a")


def test_a_write_whose_answer_was_lost_is_no_refusal(bucket: str, cutting: Any) -> None:
    cutting(cuts=2, after=0)
    storage.write_bytes(f"{bucket}/a", b"mine")
    assert storage.read_bytes(f"{bucket}/a") == b"mine"


def test_shards_through_a_bad_network_lose_nothing(bucket: str, cutting: Any) -> None:
    samples = [(f"{n:03d}", {"jpg": os.urandom(150_000), "json": b"{}"}) for n in range(80)]
    storage.write_bytes(f"{bucket}/a.tar", webdataset.write_shard(samples))
    (file,) = storage.list_files(bucket)
    cutting(cuts=4, after=5_000_000)
    table = webdataset.scan(file)
    assert set(table["reason"].to_pylist()) == {""}
    cutting(cuts=4, after=3_000_000)
    found = sorted(webdataset.read(table))
    assert [(row, picture) for row, picture, *_ in found] == [
        (n, m["jpg"]) for n, (_, m) in enumerate(samples)
    ]


def test_the_server_keeps_data_and_changes_credentials_between_starts(
    tmp_path: Any, monkeypatch: Any
) -> None:
    from deid.demo.s3server import S3Server

    with S3Server(tmp_path) as first:
        for name, value in first.environment().items():
            monkeypatch.setenv(name, value)
        first.create_bucket("raw")
        storage.write_bytes("s3://raw/a", b"kept")
        process = first._process
    assert process is not None
    assert process.poll() is not None
    with S3Server(tmp_path) as second:
        assert second.secret_key != first.secret_key
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", second.endpoint)
        with pytest.raises(InputError, match="access key"):
            storage.read_bytes("s3://raw/a")
        for name, value in second.environment().items():
            monkeypatch.setenv(name, value)
        assert storage.read_bytes("s3://raw/a") == b"kept"
        began = time.monotonic()
    assert time.monotonic() - began < 10
