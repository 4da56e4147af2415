"""Image folders that hold anything but what the job writes: each is found and named."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deid.config import Metadata
from deid.privacy import verify_folder
from deid.shards import folder, released
from tests.unit.privacy import outputs
from tests.unit.privacy.outputs import EXTRA, NAMES, POLICY

UNIT = "ab" * 16
SCHEMA = released.files_schema(POLICY, NAMES, EXTRA)
FIRST, SECOND = f"{0:032x}", f"{1:032x}"
CATS, ALL = f"images/cat/{UNIT}", f"images/all/{UNIT}"
TABLE = f"{CATS}/{folder.TABLE}"
MASK = f"masks/mask/{UNIT}/{FIRST}.png"


def written() -> dict[str, bytes]:
    return dict(folder.write(outputs.samples(), UNIT, POLICY, NAMES, EXTRA, "kind"))


def found(objects: dict[str, bytes], allowed: Metadata = POLICY) -> list[tuple[str, str]]:
    """All faults: name of the object, fault."""
    parts = {name: verify_folder.read(name, data, allowed, NAMES, "kind") for name, data in objects.items()}
    single = [(name, fault) for name, part in parts.items() for fault in part.faults]
    return single + list(verify_folder.together(parts))


def test_what_the_job_writes_has_no_faults() -> None:
    assert found(written()) == []
    assert dict(folder.write([], UNIT, POLICY)) == {}
    parts = {name: verify_folder.read(name, data, POLICY, NAMES, "kind") for name, data in written().items()}
    tables = [part for name, part in parts.items() if verify_folder.TABLE.fullmatch(name)]
    assert sorted(key for part in tables for key in part.keys) == [f"{number:032x}" for number in range(6)]
    assert sum(part.pictures for part in parts.values()) == 12


@pytest.mark.parametrize(
    "name",
    [
        "images/cat/x.jpg", f"images/cat/{UNIT}/anna.jpg", f"images/Anna B/{UNIT}/{FIRST}.jpg",
        f"images/cat/{UNIT}/{FIRST}.gif", f"images/{UNIT}/{FIRST}.jpg", f"images/cat/{UNIT}/{FIRST}.anna.jpg",
        f"images/cat/{UNIT}/metadata.csv", f"masks/anna/{UNIT}/{FIRST}.png", f"masks/mask/{UNIT}/{FIRST}.jpg",
    ],
)  # fmt: skip
def test_a_name_that_the_job_would_not_give(name: str) -> None:
    faults = found(written() | {name: outputs.picture(1, "jpg")})
    assert (name, "has no plain name") in faults


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        (f"{ALL}/{SECOND}.png", outputs.commented(), "holds a tEXt chunk"),
        (MASK, outputs.commented(), "holds a tEXt chunk"),
        (MASK, outputs.picture(1, "png"), "is no label map of its picture, as metadata.masks lets pass"),
        (MASK, outputs.mask(31), "is no label map of its picture"),
        (f"masks/mask/{UNIT}/{'f' * 32}.png", outputs.mask(), "is the mask of no picture"),
        (f"{ALL}/{'f' * 32}.png", outputs.picture(1, "png"), "is not named by its table"),
        (f"{CATS}/{SECOND}.png", outputs.picture(1, "png"), "is not named by its table"),
        (TABLE, b"no parquet", "cannot be read as Parquet"),
    ],
)
def test_an_object_that_the_job_would_not_write(name: str, data: bytes, words: str) -> None:
    assert (name, words) in found(written() | {name: data})


def test_an_object_that_is_gone() -> None:
    objects = written()
    del objects[f"{CATS}/{FIRST}.left.jpg"]
    assert found(objects) == [(f"{CATS}/{FIRST}.left.jpg", "is named by its table and not there")]
    objects = {name: data for name, data in written().items() if name != TABLE}
    assert {fault for _, fault in found(objects)} == {"is not named by its table"}


def edited(edit: Callable[[list[dict[str, Any]]], Any], schema: pa.Schema = SCHEMA) -> list[tuple[str, str]]:
    objects = written()
    rows = pq.read_table(pa.BufferReader(objects[TABLE])).to_pylist()
    edit(rows)
    return found(objects | {TABLE: released.to_bytes([rows], schema)})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("label", 21, f"row {FIRST} has a field that metadata.sidecar_fields does not let pass: label"),
        ("kind", "dog", f"row {FIRST} is of another class than its folder"),
        ("id", "anna", "a row has no plain key"),
    ],
)
def test_a_row_that_the_job_would_not_write(field: str, value: Any, words: str) -> None:
    assert (TABLE, words) in edited(lambda rows: rows[0].update({field: value}))


def test_a_row_with_another_picture_or_none() -> None:
    def swap(rows: list[dict[str, Any]]) -> None:
        rows[0]["id"], rows[1]["id"] = rows[1]["id"], rows[0]["id"]

    assert (f"{CATS}/{FIRST}.jpg", "is named in the row of another key") in edited(swap)
    none = dict.fromkeys(("file_name", "left_file_name", "image_1_file_name"))
    assert (TABLE, f"row {FIRST} has no picture") in edited(lambda rows: rows[0].update(none))


def test_columns_that_the_job_does_not_write() -> None:
    other = (TABLE, "has other columns or metadata than the job writes")
    assert other in edited(lambda rows: None, SCHEMA.append(pa.field("name", pa.string())))
    assert other in edited(lambda rows: None, SCHEMA.with_metadata({"author": "Anna"}))
    assert other in found(written(), Metadata(masks=["mask.png"]))
