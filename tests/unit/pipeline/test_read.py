"""Reading a unit: what passes beside the pictures, what is counted, and the keyed hash of the person's name."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from deid import config
from deid.config import Metadata
from deid.pipeline import rows
from deid.pipeline.read import read_units
from deid.pipeline.rows import Row
from deid.privacy import keys, metadata
from deid.shards import storage, webdataset
from tests.e2e import corpus

SECRET = b"s" * 32


def named(secret: bytes, field: str, sidecar: bytes | None) -> bytes:
    value = metadata.subject(sidecar, field)
    return b"" if value is None else keys.subject(secret, value)


@pytest.fixture
def wanted(tmp_path: Path) -> pa.Table:
    members = [
        ("a.jpg", b"picture a"),
        ("a.json", b'{"who": "Jane", "label": 7, "note": "secret"}'),
        ("a.cls", b"3"),
        ("b.jpg", b"picture b"),
        ("b.json", b'{"who": null, "label": "high"}'),
        ("c.jpg", b"picture c"),
    ]
    storage.write_bytes(str(tmp_path / "0.tar"), corpus.tar(members))
    records = webdataset.scan(storage.list_files(str(tmp_path))[0])
    return records.append_column("unit_sample", pa.array(range(len(records)), pa.int32()))


def read(
    wanted: pa.Table, options: Metadata, subject: Callable[[bytes | None], bytes] | None = None
) -> list[Row]:
    settings = config.parse({"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state"})
    settings = settings.model_copy(update={"metadata": options})
    return rows.from_table(read_units([wanted], [0], settings, subject))


def test_listed_fields_pass_and_the_others_are_counted(wanted: pa.Table) -> None:
    found = read(wanted, Metadata(sidecar_fields={"label": "int"}, members={"cls": "int"}))
    assert [json.loads(row.sidecar) for row in found] == [{"label": 7, "cls": 3}, {}, {}]
    assert [json.loads(row.dropped) for row in found] == [{"other": 2}, {"label": 1, "other": 1}, {}]
    assert [row.subject for row in found] == [b"", b"", b""]


def test_what_has_too_many_bytes_is_not_read(wanted: pa.Table) -> None:
    given = {"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state"}
    given |= {"metadata": {"members": {"cls": "int"}, "sidecar_fields": {"label": "int"}}}
    settings = config.parse(given | {"limits": {"max_bytes": 9}})
    a, b, _ = rows.from_table(read_units([wanted], [0], settings))
    assert (a.image, a.reason, json.loads(a.sidecar)) == (b"picture a", "", {"cls": 3})
    assert (json.loads(a.dropped), json.loads(b.dropped)) == ({"unread": 1}, {"unread": 1})
    settings = config.parse(given | {"limits": {"max_bytes": 8}})
    found = rows.from_table(read_units([wanted], [0], settings))
    assert {(row.image, row.reason) for row in found} == {(b"", "too_large")}


def test_what_cannot_pass_is_not_read(wanted: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[pa.Table] = []
    whole = webdataset.read
    monkeypatch.setattr(webdataset, "read", lambda table, how: (asked.append(table), whole(table, how))[1])
    found = read(wanted, Metadata())
    assert asked[0]["sidecars"].to_pylist() == [[], [], []]
    assert [json.loads(row.dropped) for row in found] == [{"unread": 2}, {"unread": 1}, {}]
    assert {row.sidecar for row in found} == {"{}"}


def test_the_persons_name_is_hashed_and_does_not_pass(wanted: pa.Table) -> None:
    found = read(wanted, Metadata(), partial(named, SECRET, "who"))
    assert [row.subject for row in found] == [keys.subject(SECRET, "Jane"), b"", b""]
    assert {row.sidecar for row in found} == {"{}"}
    assert [json.loads(row.dropped) for row in found] == [{"other": 3, "unread": 1}, {"other": 2}, {}]
    assert all("Jane" not in str(vars(row)) for row in found)
