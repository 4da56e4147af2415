"""Parquet shards that hold anything but what the job writes: each is found and named."""

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deid.config import Metadata
from deid.privacy import verify_parquet
from deid.shards import parquet, released
from tests.unit.privacy import outputs
from tests.unit.privacy.outputs import EXTRA, NAMES, POLICY

Rows = list[dict[str, Any]]
SCHEMA = released.schema(POLICY, NAMES, EXTRA, True)


def shard(struct: bool = True, count: int = 6) -> bytes:
    return parquet.write(outputs.samples(count), POLICY, NAMES, EXTRA, struct, row_group_size=4)


def faults(data: bytes, allowed: Metadata = POLICY, names: tuple[str, ...] = NAMES) -> list[str]:
    return verify_parquet.read(data, allowed, names).faults


def edited(edit: Callable[[Rows], Any]) -> bytes:
    rows = pq.read_table(io.BytesIO(shard())).to_pylist()
    edit(rows)
    return released.to_bytes([rows[:4], rows[4:]], SCHEMA)


def foreign(schema: pa.Schema = SCHEMA, store_schema: bool = False) -> bytes:
    """The same table in another schema."""
    sink = io.BytesIO()
    rows = pq.read_table(io.BytesIO(shard())).to_pylist()
    plain = schema.remove_metadata()
    with pq.ParquetWriter(sink, plain, store_schema=store_schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=plain))
        writer.add_key_value_metadata(schema.metadata or {})
    return sink.getvalue()


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("count", [0, 6])
def test_what_the_job_writes_has_no_faults(struct: bool, count: int) -> None:
    found = verify_parquet.read(shard(struct, count), POLICY, NAMES)
    assert found.faults == []
    assert found.keys == [f"{number:032x}" for number in range(count)]
    assert found.pictures == (12 if count else 0)


def key(rows: Rows) -> None:
    rows[1]["id"] = "anna"


def path(rows: Rows) -> None:
    rows[0]["image"]["path"] = "anna.jpg"


def replaced(at: int, column: str, data: bytes, extension: str) -> Callable[[Rows], None]:
    def edit(rows: Rows) -> None:
        name = {"image": "", "image_1": "1"}.get(column, column)
        rows[at][column] = released.cell(rows[at]["id"], name, extension, data, True)

    return edit


def field(name: str, value: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[0].update({name: value})


ID = "0" * 32


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (key, "a row has no plain key"),
        (path, f"row {ID}, image has another path than its key gives"),
        (replaced(0, "image", outputs.commented(), "png"), f"row {ID}, image holds a tEXt chunk"),
        (replaced(0, "left", outputs.commented(), "png"), f"row {ID}, left holds a tEXt chunk"),
        (replaced(0, "image_1", b"Anna", "png"), f"row {ID}, image_1 is no picture that the job writes"),
        (replaced(0, "mask", outputs.commented(), "png"), f"row {ID}, mask holds a tEXt chunk"),
        (
            replaced(0, "mask", outputs.picture(1, "png"), "png"),
            f"row {ID}, mask is no label map of its picture",
        ),
        (replaced(0, "mask", outputs.mask(31), "png"), f"row {ID}, mask is no label map of its picture"),
        (field("label", 21), f"row {ID} has a field that metadata.sidecar_fields does not let pass: label"),
        (field("kind", "Anna"), f"row {ID} has a field that metadata.sidecar_fields does not let pass: kind"),
        (field("score", float("nan")), "does not let pass: score"),
        (field("boxes", [[1.0, 2.0, 3.0]]), "does not let pass: boxes"),
        (lambda rows: rows[1].update(image=None), f"row {1:032x} has no picture"),
    ],
)
def test_a_value_that_the_job_would_not_write(edit: Callable[[Rows], None], words: str) -> None:
    (fault,) = faults(edited(edit))
    assert words in fault


def test_the_policy_is_that_of_the_release() -> None:
    other = "has other columns or metadata than the job writes"
    less = {"sidecar_fields": {"label": "int"}, "members": {"cls": "int"}}
    assert faults(shard(), Metadata(**less)) == [other]
    assert faults(shard(), POLICY, ()) == [other]
    assert faults(shard(), POLICY.model_copy(update={"masks": ()})) == [other]
    assert faults(shard(), Metadata(sidecar_fields={"image": "int"})) == [other]


def test_columns_and_metadata_that_the_job_does_not_write() -> None:
    other = "has other columns or metadata than the job writes"
    more = SCHEMA.append(pa.field("name", pa.string()))
    said = SCHEMA.with_metadata({**SCHEMA.metadata, b"author": b"Anna"})
    loose = pa.schema([pa.field("id", pa.string()), *list(SCHEMA)[1:]], SCHEMA.metadata)
    for schema in (more, said, loose, SCHEMA.remove_metadata()):
        assert other in faults(foreign(schema))
    assert other in faults(foreign(store_schema=True))
    assert faults(foreign()) == ["is not written as the job writes it"]


@pytest.mark.parametrize(
    "options",
    [
        {"write_page_checksum": False},
        {"compression": "snappy"},
        {"row_group_size": 3},
        {"use_dictionary": True},
    ],
)
def test_the_same_table_in_other_bytes(options: dict[str, Any]) -> None:
    rows = pq.read_table(io.BytesIO(shard())).to_pylist()
    same = {
        "compression": "zstd", "use_dictionary": False, "write_page_checksum": True, "row_group_size": 4,
        "write_batch_size": 64,
    } | options  # fmt: skip
    sink = io.BytesIO()
    size = same.pop("row_group_size")
    with pq.ParquetWriter(sink, SCHEMA.remove_metadata(), store_schema=False, **same) as writer:
        for start in range(0, len(rows), size):
            batch = pa.Table.from_pylist(rows[start : start + size], schema=SCHEMA.remove_metadata())
            writer.write_table(batch)
        writer.add_key_value_metadata(SCHEMA.metadata)
    # row groups of three are what another row_group_size gives, so they are no fault
    expected = [] if "row_group_size" in options else ["is not written as the job writes it"]
    assert faults(sink.getvalue()) == expected


def test_bytes_that_belong_to_no_column() -> None:
    data = shard()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    hidden = data[:-footer] + b"Anna was here" + data[-footer:]
    assert faults(hidden) == ["has bytes beside its columns"]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all" * 9, shard()[:-1], shard()[:300]])
def test_what_is_no_parquet(data: bytes) -> None:
    assert faults(data) == ["cannot be read as Parquet"]


def test_one_flipped_byte_is_found() -> None:
    data = shard(count=2)
    for position in range(0, len(data), 41):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        assert faults(bytes(flipped)), position
