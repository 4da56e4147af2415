"""The ledger on the real S3 server."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from deid.errors import ConfigError
from deid.pipeline import ledger
from deid.privacy import wrapping
from deid.shards import storage


@pytest.fixture
def bucket(s3: Any) -> str:
    return f"s3://{s3.bucket()}"


def listed(bucket: str) -> pa.Table:
    files = storage.list_files(f"{bucket}/raw")
    return pa.table(
        {
            "uri": [file.uri for file in files],
            "version": [file.version for file in files],
            "size": [file.size for file in files],
        },
        schema=ledger.SCHEMA,
    )


def test_a_ledger_of_what_is_really_listed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PART_ROWS", 2)
    keys = [tmp_path / name for name in ("state.key", "other.key")]
    for key in keys:
        wrapping.new_key_file(key)
    for name in "abcde":
        storage.write_bytes(f"{bucket}/raw/{name}.tar", name.encode())
    ledger.open(f"{bucket}/state", str(keys[0])).record("0a", listed(bucket))
    storage.write_bytes(f"{bucket}/raw/b.tar", b"other", overwrite=True)
    storage.write_bytes(f"{bucket}/raw/f.tar", b"f")
    storage.delete(f"{bucket}/raw/c.tar")
    book = ledger.open(f"{bucket}/state", str(keys[0]))
    found = book.compare(listed(bucket))
    assert found.new["uri"].to_pylist() == [f"{bucket}/raw/f.tar"]
    assert found.changed["uri"].to_pylist() == [f"{bucket}/raw/b.tar"]
    assert found.changed["old_size"].to_pylist() == [1]
    assert found.changed["new_size"].to_pylist() == [5]
    assert (found.known, found.gone) == (3, 1)
    book.forget("0a")
    assert len(book.compare(listed(bucket)).new) == 5
    assert [file.uri for file in storage.list_files(f"{bucket}/state")] == [f"{bucket}/state/ledger/key.json"]
    with pytest.raises(ConfigError, match="not the key file"):
        ledger.open(f"{bucket}/state", str(keys[1]))
