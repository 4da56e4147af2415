"""Parquet and image folders on the real S3 server: ranged reads, versions, and tables that are looked for."""

import pyarrow as pa
import pytest

from deid.shards import folder, parquet, storage
from deid.shards.formats import Layout
from tests.conftest import S3
from tests.unit.privacy import outputs
from tests.unit.privacy.outputs import EXTRA, NAMES, POLICY

LAYOUT = Layout(pictures=NAMES, masks=POLICY.masks)


@pytest.fixture
def bucket(s3: S3) -> str:
    return f"s3://{s3.bucket()}"


def test_parquet(bucket: str) -> None:
    data = parquet.write(outputs.samples(), POLICY, NAMES, EXTRA, row_group_size=2)
    storage.write_bytes(f"{bucket}/in/a.parquet", data)
    (file,) = storage.list_files(f"{bucket}/in")
    assert storage.find(file.uri) == file
    index = parquet.scan(file, LAYOUT)
    read = {number: picture for number, picture, _, reason in parquet.read(index, LAYOUT) if not reason}
    expected = [picture for sample in outputs.samples() for _, _, picture in sample.pictures]
    assert [read[number] for number in range(len(index))] == expected
    storage.write_bytes(file.uri, data + b" ", overwrite=True)
    assert {reason for *_, reason in parquet.read(index, LAYOUT)} == {"record_changed"}
    storage.delete(file.uri)
    assert storage.find(file.uri) is None
    assert {reason for *_, reason in parquet.read(index, LAYOUT)} == {"record_changed"}


def test_a_parquet_file_that_changes_while_it_is_read(bucket: str) -> None:
    data = parquet.write(outputs.samples(), POLICY, NAMES, EXTRA, row_group_size=2)
    storage.write_bytes(f"{bucket}/in/a.parquet", data)
    (file,) = storage.list_files(f"{bucket}/in")
    index = parquet.scan(file, LAYOUT)
    results = parquet.read(index, LAYOUT)
    first = next(results)
    storage.write_bytes(file.uri, data[:-1] + b"?", overwrite=True)
    found = [first, *results]
    assert sorted(number for number, *_ in found) == list(range(len(index)))
    assert found[0][3] == ""
    assert found[-1][1:] == (b"", {}, "record_changed")


def test_folders(bucket: str) -> None:
    for name, data in {
        "metadata.csv": b"file_name,n\na.jpg,1\ncats/b.png,2\ngone.jpg,3\n",
        "a.jpg": b"1",
        "cats/b.png": b"22",
        "cats/b.mask.png": b"mask",
        "cats/empty.jpg": b"",
    }.items():
        storage.write_bytes(f"{bucket}/in/{name}", data)
    layout = Layout(root=f"{bucket}/in", masks=("mask.png",))
    tables = [folder.scan(file, layout) for file in storage.list_files(f"{bucket}/in")]
    index = pa.concat_tables(tables)
    assert list(zip(index["key"].to_pylist(), index["reason"].to_pylist(), strict=True)) == [
        ("a.jpg", ""), ("cats/b.png", ""), ("cats/empty.jpg", ""), ("gone.jpg", "no_image")
    ]  # fmt: skip
    storage.write_bytes(f"{bucket}/in/a.jpg", b"another", overwrite=True)
    assert list(folder.read(index.slice(0, 3), layout)) == [
        (0, b"", {}, "record_changed"),
        (1, b"22", {"json": b'{"folder": "cats", "n": 2}', "mask.png": b"mask"}, ""),
        (2, b"", {"json": b'{"folder": "cats"}'}, ""),
    ]
