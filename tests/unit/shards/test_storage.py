"""Storage on this machine's file system, and the retry border."""

import os
from pathlib import Path

import boto3
import botocore.exceptions
import moto
import pytest

from deid.errors import ConfigError, InputError, StorageError
from deid.shards import retry, storage
from deid.video import frames

CANARY = "canary-5d1e"


def test_write_read_list_delete(tmp_path: Path) -> None:
    uri = storage.join(str(tmp_path), "deep", "er", "a.tar")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"0123456789")
    storage.write_bytes(storage.join(str(tmp_path), "b.txt"), b"")
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == b"0123456789"
    assert storage.read_range(uri, 3, 4) == b"3456"
    (file,) = storage.list_files(str(tmp_path), "*.tar")
    assert (file.uri, file.size) == (uri, 10)
    assert [f.size for f in storage.list_files(f"{tmp_path}/")] == [0, 10]
    assert storage.list_files(str(tmp_path), "deep/*.tar") == [file]
    assert storage.list_files(str(tmp_path), "er/*.tar") == []
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_links_that_lead_in_circles_show_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.tar").write_bytes(b"a")
    for name in ("again", "more"):
        (tmp_path / "raw" / name).symlink_to(tmp_path / "raw")
    assert len(storage.list_files(str(tmp_path / "raw"))) == 1


@moto.mock_aws(
    config={"core": {"mock_credentials": False}}
)  # the settings below are put back by pytest alone
def test_a_key_with_an_empty_folder_is_another_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on AWS; SeaweedFS, against which the other tests run, has no such keys."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="raw")
    for key, data in (("a/x.tar", b"one"), ("a//x.tar", b"two")):
        storage.write_bytes(f"s3://raw/{key}", data)
    found = storage.list_files("s3://raw/a", "*.tar")
    assert sorted(storage.read_bytes(file.uri) for file in found) == [b"one", b"two"]


def test_names_that_are_not_utf8_are_said(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"Jos\xe9.tar")).write_bytes(b"a")
    with pytest.raises(InputError, match="1 files there are not UTF-8; rename them"):
        storage.list_files(str(tmp_path))


def test_a_pattern_may_be_several(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.WEBM", "c.txt"):
        (tmp_path / name).write_bytes(b"a")
    found = storage.list_files(str(tmp_path), frames.PATTERN)
    assert [file.uri.rpartition("/")[2] for file in found] == ["a.mp4", "b.WEBM"]


def test_a_name_that_is_taken_stays_what_it_is(tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    storage.write_bytes(uri, b"first")
    with pytest.raises(storage.AlreadyThere):
        storage.write_bytes(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    storage.write_bytes(uri, b"third", overwrite=True)
    assert storage.read_bytes(uri) == b"third"
    assert os.listdir(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="No space left"):
        storage.write_bytes(str(tmp_path / CANARY), b"data")
    assert os.listdir(tmp_path) == []


def test_a_file_that_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    (file,) = storage.list_files(str(tmp_path))
    assert storage.read_range(file.uri, 0, 4, file.version) == b"0123"
    path.write_bytes(b"01234")
    with pytest.raises(storage.ObjectChanged):
        storage.read_range(file.uri, 0, 4, file.version)
    with pytest.raises(storage.ObjectChanged):
        storage.read_range(file.uri, 3, 4)


def test_errors_say_what_is_missing_and_name_no_object(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file") as caught:
        storage.read_bytes(str(tmp_path / CANARY))
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(InputError, match=r"nothing named \*.tar"):
        storage.list_files(str(tmp_path / "nothing"), "*.tar", required=True)
    assert storage.list_files(str(tmp_path / "nothing")) == []
    with pytest.raises(ConfigError, match="gs://"):
        storage.read_bytes("gs://bucket/a")


@pytest.mark.parametrize(
    ("uri", "expected"), [("/", "/a/b"), ("/x/", "/x/a/b"), ("s3://b/p", "s3://b/p/a/b")]
)
def test_join(uri: str, expected: str) -> None:
    assert storage.join(uri, "a", "b") == expected


def test_filesystem_of_a_local_path(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    files, path = storage.filesystem(str(tmp_path / "a"))
    assert files.get_file_info(path).size == 3


def test_what_may_pass_is_tried_again_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)

    def action(attempt: int) -> int:
        if attempt < 3:
            raise retry.ShortRead
        return attempt

    assert retry.retry(action, "here") == 3
    assert len(pauses) == 3
    with pytest.raises(StorageError, match="here: the transfer broke off"):
        retry.retry(lambda _: action(0), "here")
    assert len(pauses) == 3 + retry.ATTEMPTS - 1
    assert all(0 <= pause <= retry.LONGEST_DELAY_S for pause in pauses)


@pytest.mark.parametrize(
    ("name", "status", "kind", "advice"),
    [
        ("AccessDenied", 403, InputError, "s3:GetObject"),
        ("SignatureDoesNotMatch", 403, InputError, "AWS_SECRET_ACCESS_KEY"),
        ("NoSuchBucket", 404, InputError, "AWS_ENDPOINT_URL"),
        ("PermanentRedirect", 301, InputError, "AWS_REGION"),
        ("SlowDown", 503, StorageError, "try again"),
        ("InternalError", 500, StorageError, "try again"),
        ("ConditionalRequestConflict", 409, StorageError, "try again"),
    ],
)
def test_an_answer_of_s3_becomes_one_line(name: str, status: int, kind: type[Exception], advice: str) -> None:
    answer = {"Error": {"Code": name, "Message": CANARY}, "ResponseMetadata": {"HTTPStatusCode": status}}
    failure = retry.explain(botocore.exceptions.ClientError(answer, "GetObject"), "s3://bucket")  # type: ignore[arg-type]
    assert type(failure) is kind
    assert advice in str(failure)
    assert CANARY not in str(failure)
    assert "\n" not in str(failure)


def test_the_text_that_a_library_gives_an_error_of_the_system_is_not_repeated() -> None:
    told = retry.explain(OSError(5, f"cannot read {CANARY}.tar", f"{CANARY}.tar"), "here")
    assert str(told) == "here: Input/output error"
