"""What leaves a stage says where it failed and of which kind, and nothing that it worked on."""

import logging
import pickle
import traceback

import botocore.exceptions
import pyarrow as pa
import pytest
from PIL import UnidentifiedImageError

from deid import log as logs
from deid.errors import FaceError, InputError
from deid.pipeline import shield
from deid.pipeline.shield import StageFailure, shielded
from deid.shards import tar
from deid.shards.storage import Object

NAME = "raw/jane-doe.tar"


class Stage:
    run = "5f0c"

    @shielded("analyse")
    def __call__(self, table: pa.Table, error: Exception) -> None:
        jane_doe = NAME  # noqa: F841 - a value of a frame
        raise error


FOREIGN = [
    FileNotFoundError(2, "No such file or directory", NAME),
    botocore.exceptions.ClientError({"Error": {"Code": "404", "Message": NAME}}, NAME),
    UnidentifiedImageError(f"cannot identify image file '{NAME}'"),
    pa.ArrowInvalid(f"{NAME}: not Parquet"),
    KeyError(NAME),
    FaceError("match_failed"),
    ExceptionGroup(NAME, [ValueError(NAME)]),
]


@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
def test_a_foreign_exception_leaves_as_ours(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(StageFailure) as caught:
        Stage()(pa.table({"unit": [7]}), error)
    told = str(caught.value)
    assert told.startswith(f"run=5f0c unit=7 stage=analyse: {type(error).__name__} at ")
    whole = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(caught.value.args)
    assert "jane" not in whole.replace("jane_doe = NAME", "")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert b"jane" not in pickle.dumps(caught.value)
    assert type(error).__name__ in caplog.text


def test_our_own_pass_as_they_are() -> None:
    @shielded("read")
    def read(unit: int) -> None:
        try:
            raise OSError(NAME)
        except OSError as error:
            raise InputError("s3://bucket: no such object") from error

    with pytest.raises(InputError, match="no such object") as caught:
        read(3)
    assert type(caught.value) is InputError
    assert "jane" not in "".join(traceback.format_exception(caught.value))


def test_the_lines_of_our_own_code_are_named() -> None:
    @shielded("scan")
    def scan() -> None:
        list(tar.Reader(Object("/nowhere", "many", "")))  # type: ignore[arg-type]

    with pytest.raises(StageFailure, match=r"^stage=scan: \w+ at .*shards/tar\.py:\d+ \(\w+\)"):
        scan()


def test_a_result_passes_and_so_do_the_context_and_the_name() -> None:
    @shielded("write")
    def write(unit: int) -> str:
        """Write."""
        return logs.where()

    assert write(unit=4) == "unit=4 stage=write"
    assert write.__name__ == "write"
    assert logs.where() == ""


def test_debug_local_keeps_the_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(logs.DEBUG_LOCAL, "1")
    with pytest.raises(StageFailure, match="jane"):
        Stage()(pa.table({"unit": [7]}), ValueError(NAME))
    assert "Traceback" in caplog.text


def test_a_generator_is_refused_since_its_body_runs_later() -> None:
    with pytest.raises(TypeError, match="generator"):

        @shielded("read")
        def read() -> object:
            yield 1


def test_the_end_of_the_process_is_no_failure() -> None:
    @shielded("read")
    def read() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()


def test_outside_of_our_code_is_said() -> None:
    with pytest.raises(ValueError) as caught:
        int("jane")
    assert shield.place(caught.value) == "outside deid"
