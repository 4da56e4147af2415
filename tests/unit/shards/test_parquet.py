"""Parquet shards: every row is accounted for, nothing but what was asked for is read, and nothing else is written."""

import datetime
import decimal
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deid import records
from deid.config import Metadata
from deid.errors import ConfigError, InputError
from deid.shards import parquet, released, storage
from deid.shards.formats import INDEX, Layout, Sample

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ANY = Layout()


def put(folder: Path, table: pa.Table | bytes, **options: Any) -> storage.Object:
    sink = io.BytesIO()
    if isinstance(table, bytes):
        sink.write(table)
    else:
        pq.write_table(table, sink, **options)
    storage.write_bytes(str(folder / "a.parquet"), sink.getvalue(), overwrite=True)
    (file,) = storage.list_files(str(folder), "a.parquet")
    return file


def indexed(folder: Path, table: pa.Table | bytes, layout: Layout = ANY, **options: Any) -> pa.Table:
    found = parquet.scan(put(folder, table, **options), layout)
    assert found.schema.equals(INDEX)
    return found


def contents(table: pa.Table, layout: Layout = ANY) -> list[tuple[bytes, dict[str, Any], str]]:
    """Picture, sidecars and reason of each record, in the order of the table; the .json taken apart."""
    found = sorted(parquet.read(table, layout), key=lambda result: result[0])
    assert [row for row, *_ in found] == list(range(len(table)))
    return [
        (picture, {k: json.loads(v) if k == "json" else v for k, v in beside.items()}, reason)
        for _, picture, beside, reason in found
    ]


def good(table: pa.Table) -> pa.Table:
    return table.filter(pa.array([not reason for reason in table["reason"].to_pylist()], pa.bool_()))


def pictures(count: int) -> list[bytes]:
    return [b"picture %d " % n * (n + 1) for n in range(count)]


cells = st.none() | st.binary(max_size=60)


@QUICK
@given(st.lists(st.tuples(cells, cells), max_size=12), st.integers(1, 5), st.booleans(), st.booleans())
def test_every_row_is_a_picture_or_has_a_reason(
    tmp_path: Path, rows: list[tuple[bytes | None, bytes | None]], group: int, struct: bool, stats: bool
) -> None:
    def column(at: int) -> pa.Array:
        values = [row[at] for row in rows]
        if struct:
            return pa.array(
                [None if v is None else {"bytes": v, "path": "/home/anna.jpg"} for v in values], STRUCT
            )
        return pa.array(values, pa.binary())

    table = pa.table({"image": column(0), "left": column(1), "n": pa.array(range(len(rows)), pa.int64())})
    layout = Layout(pictures=("left",))
    found = indexed(tmp_path, table, layout, row_group_size=group, write_statistics=stats)
    expected = []
    for number, row in enumerate(rows):
        expected += [(number, name, v) for name, v in zip(("", "left"), row, strict=True) if v is not None]
        if row == (None, None):
            expected.append((number, "", None))
    places = zip(
        found["sample"].to_pylist(), found["name"].to_pylist(), found["reason"].to_pylist(), strict=True
    )
    assert [(n, name, not reason) for n, name, reason in places] == [
        (n, name, v is not None) for n, name, v in expected
    ]
    read = contents(good(found), layout)
    assert read == [(v, {"json": {"n": n}}, "") for n, _, v in expected if v is not None]


def test_records_are_read_in_any_order_by_whole_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [bytes([n]) * 300_000 for n in range(40)]
    table = pa.table({"image": images, "wide": [b"w" * 100_000] * 40, "n": list(range(40))})
    found = indexed(tmp_path, table, row_group_size=10, compression="none", use_dictionary=False)
    assert found["group"].to_pylist() == [n // 10 for n in range(40)]
    assert all(290_000 < size < 310_000 for size in found["size"].to_pylist())
    calls: list[int] = []
    fetch = storage.read_range

    def counted(uri: str, start: int, length: int, version: str | None = None) -> bytes:
        calls.append(length)
        return fetch(uri, start, length, version)

    monkeypatch.setattr(storage, "read_range", counted)
    order = [35, 3, 31, 0, 39]
    read = contents(found.take(pa.array(order)))
    assert read == [(images[n], {"json": {"n": n}}, "") for n in order]
    assert 6_000_000 < sum(calls) < 6_500_000  # two groups' pictures, not the wide column


def test_what_was_taken_from_the_record_is_not_read(tmp_path: Path) -> None:
    table = pa.table({"image": pictures(2), "n": [1, 2], "cls": [3, 4]})
    found = indexed(tmp_path, table)
    assert [entry["name"] for entry in found["sidecars"][0].as_py()] == ["json", "cls"]
    bare = [{**row, "sidecars": []} for row in found.to_pylist()]
    assert contents(pa.Table.from_pylist(bare, schema=INDEX)) == [(image, {}, "") for image in pictures(2)]


def test_a_path_never_passes_and_is_no_picture(tmp_path: Path) -> None:
    images = [{"bytes": b"1", "path": "anna.jpg"}, {"bytes": None, "path": "anna.jpg"}, None]
    table = pa.table({"image": pa.array(images, STRUCT), "n": [1, 2, 3]})
    found = indexed(tmp_path, table)
    assert found["reason"].to_pylist() == ["", "no_image", "no_image"]
    assert contents(found)[0] == (b"1", {"json": {"n": 1}}, "")
    assert [reason for *_, reason in contents(found)] == ["", "no_image", "no_image"]
    assert "anna" not in str(found.to_pylist()) + str(contents(found))


def test_other_columns_become_json(tmp_path: Path) -> None:
    columns = {
        "image": pa.array([b"x", b"y"]),
        "thumbnail": pa.array([b"secret", b"secret"]),
        "audio": pa.array([{"bytes": b"secret", "path": "anna.wav"}] * 2, STRUCT),
        "nested": pa.array([{"a": [1, None], "b": {"c": "ü"}}, None]),
        "boxes": pa.array([[[1.5, 2.0, float("nan"), float("inf")]], []]),
        "score": pa.array([float("nan"), 0.5]),
        "time": pa.array([datetime.datetime(2024, 2, 29, 12, 0, 0, 5), None]),
        "zone": pa.array([0, 1], pa.timestamp("ns", "UTC")),
        "far": pa.array([2**62, 0], pa.timestamp("ms")),
        "day": pa.array([datetime.date(2024, 2, 29), None]),
        "price": pa.array([decimal.Decimal("1.25"), None]),
        "label": pa.array(["cat", "dog"]).dictionary_encode(),
        "none": pa.nulls(2),
        "mapped": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "dotted.name": pa.array([1, 2]),
        "image.name": pa.array([3, 4]),
    }
    read = contents(indexed(tmp_path, pa.table(columns)))
    assert [picture for picture, *_ in read] == [b"x", b"y"]
    assert read[0][1]["json"] == {
        "nested": {"a": [1, None], "b": {"c": "ü"}},
        "boxes": [[1.5, 2.0, None, None]],
        "time": "2024-02-29T12:00:00.000005",
        "zone": "1970-01-01T00:00:00+00:00",
        "day": "2024-02-29",
        "price": 1.25,
        "label": "cat",
        "mapped": [["k", 1]],
        "dotted.name": 1,
        "image.name": 3,
    }
    assert read[1][1]["json"]["far"] == "1970-01-01T00:00:00"
    assert b"secret" not in str(read).encode()


def test_class_text_and_masks_are_sidecars_of_their_own(tmp_path: Path) -> None:
    masks = pa.array([{"bytes": b"mask", "path": "anna.png"}, None], STRUCT)
    columns = {"image": [b"1", b"2"], "mask": masks, "cls": [7, None], "txt": ["a dög", None]}
    layout = Layout(masks=("mask.png",))
    read = contents(indexed(tmp_path, pa.table(columns), layout), layout)
    assert read == [(b"1", {"cls": b"7", "txt": "a dög".encode(), "mask.png": b"mask"}, ""), (b"2", {}, "")]


def hugging_face(**features: object) -> dict[str, str]:
    return {"huggingface": json.dumps({"info": {"features": features}})}


@pytest.mark.parametrize(
    ("columns", "metadata", "layout", "expected"),
    [
        (["jpg", "x"], None, ANY, ["jpg"]),
        (["x", "image_2", "image", "image_1"], None, ANY, ["image", "image_2", "image_1"]),
        (["jpg", "image"], None, ANY, ["image"]),
        (["x", "y"], None, Layout(image_columns=("y", "x")), ["y", "x"]),
        (["image", "mask"], None, Layout(masks=("mask.png",)), ["image"]),
        (["image", "left"], None, Layout(pictures=("left",)), ["image", "left"]),
        (["x", "image"], hugging_face(x={"_type": "Image"}, image={"_type": "Value"}), ANY, ["x"]),
        (["x", "image"], {"huggingface": "no json"}, ANY, ["image"]),
        (["x", "image"], {"huggingface": "[1]"}, ANY, ["image"]),
    ],
)
def test_the_columns_of_pictures(
    tmp_path: Path, columns: list[str], metadata: Any, layout: Layout, expected: list[str]
) -> None:
    table = pa.table({name: [name.encode()] for name in columns}).replace_schema_metadata(metadata)
    read = contents(indexed(tmp_path, table, layout), layout)
    assert [picture.decode() for picture, *_ in read] == expected


@pytest.mark.parametrize(
    ("table", "layout", "words"),
    [
        (pa.table({"anna": [b"1"]}), ANY, "set input.image_column"),
        (pa.table({"image": ["text"]}), ANY, "set input.image_column"),
        (pa.table({"image": [[b"1"]]}), ANY, "set input.image_column"),
        (pa.table([[b"1"], [b"2"]], ["image", "image"]), ANY, "set input.image_column"),
        (pa.table({"anna": [b"1"]}), Layout(image_columns=("bert",)), "input.image_column"),
        (pa.table({"anna": ["1"]}), Layout(image_columns=("anna",)), "input.image_column"),
    ],
)
def test_no_column_of_pictures_is_one_line_without_names(
    tmp_path: Path, table: pa.Table, layout: Layout, words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        indexed(tmp_path, table, layout)
    assert "anna" not in str(caught.value)
    assert "\n" not in str(caught.value)


WHOLE = pa.table({"image": pictures(30), "n": list(range(30))})


@QUICK
@given(st.data())
def test_a_cut_anywhere_is_damage(tmp_path: Path, data: st.DataObject) -> None:
    file = put(tmp_path, WHOLE, row_group_size=10)
    whole = Path(file.uri).read_bytes()
    found = indexed(tmp_path, whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert found["reason"].to_pylist() == ["shard_damaged"]


@QUICK
@given(st.data())
def test_a_flipped_byte_anywhere_never_passes_for_another_picture(
    tmp_path: Path, data: st.DataObject
) -> None:
    file = put(tmp_path, WHOLE, row_group_size=10, write_page_checksum=True)
    whole = bytearray(Path(file.uri).read_bytes())
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    whole[data.draw(st.integers(0, len(whole) - 1 - footer))] ^= 1 << data.draw(st.integers(0, 7))
    found = indexed(tmp_path, bytes(whole))
    read = contents(found)
    assert {reason for *_, reason in read} <= {"", "shard_damaged"}
    for (picture, _, reason), expected in zip(read, pictures(30), strict=len(read) == 30):
        assert reason or picture == expected


def test_a_damaged_row_group_costs_its_own_records(tmp_path: Path) -> None:
    table = pa.table({"image": pictures(30)})
    options = {"use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    file = put(tmp_path, table, row_group_size=10, **options)
    data = bytearray(Path(file.uri).read_bytes())
    chunk = pq.ParquetFile(file.uri).metadata.row_group(1).column(0)
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    read = contents(indexed(tmp_path, bytes(data)))
    assert [reason for *_, reason in read] == [""] * 10 + ["shard_damaged"] * 10 + [""] * 10
    assert [picture for picture, *_ in read] == pictures(10) + [b""] * 10 + pictures(30)[20:]


def _varint(count: int) -> bytes:
    """As Thrift's compact protocol has it, in which footers are written."""
    left, digits = 2 * count, b""
    while left > 127:
        left, digits = left >> 7, digits + bytes([left & 127 | 128])
    return digits + bytes([left])


def _recounted(data: bytes, old: int, new: int, place: int | None = None) -> bytes:
    """The file with another count in its footer: everywhere, or in this place alone."""
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    parts = data[end:-8].split(_varint(old))
    marks = [_varint(new if place in (None, n) else old) for n in range(len(parts) - 1)] + [b""]
    footer = b"".join(part + mark for part, mark in zip(parts, marks, strict=True))
    return data[:end] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def test_a_footer_that_lies_about_its_rows_is_damage(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array([b"x"] * 999, pa.binary())}), sink)
    data = sink.getvalue()
    assert len(good(indexed(tmp_path, data))) == 999
    for rows in (300_000, 2**50):
        lie = _recounted(data, 999, rows)
        assert pq.read_metadata(io.BytesIO(lie)).row_group(0).num_rows == rows
        assert indexed(tmp_path, lie)["reason"].to_pylist() == ["shard_damaged"]
    apart = 0
    for place in range(5):  # of the file, of a column (thrice), of a row group
        lie = _recounted(data, 999, 1000, place)
        group = pq.read_metadata(io.BytesIO(lie)).row_group(0)
        if group.num_rows != group.column(0).num_values:
            apart += 1
            assert indexed(tmp_path, lie)["reason"].to_pylist() == ["shard_damaged"]
    assert apart == 2


def test_a_changed_or_missing_file_is_changed_records(tmp_path: Path) -> None:
    found = indexed(tmp_path, WHOLE)
    put(tmp_path, WHOLE.slice(1))
    assert contents(found) == [(b"", {}, "record_changed")] * 30
    (tmp_path / "a.parquet").unlink()
    assert contents(found) == [(b"", {}, "record_changed")] * 30


def test_an_empty_file_is_sound(tmp_path: Path) -> None:
    assert len(indexed(tmp_path, WHOLE.slice(0, 0))) == 0


def test_every_reason_is_a_quarantine_code() -> None:
    assert {"no_image", "shard_damaged", "record_changed"} <= set(records.QUARANTINE)


POLICY = Metadata(
    sidecar_fields={
        "label": "int",
        "score": "float",
        "indoor": "bool",
        "light": {"type": "str", "values": ["day", "night"]},
        "boxes": "boxes",
        "points": {"type": "points", "depth": 3},
    },
    members={"cls": "int", "txt": "free"},
    masks=["mask.png"],
)
SAMPLES = [
    Sample(
        "a" * 32,
        (("", "jpg", b"one"), ("left", "png", b"two"), ("anna", "webp", b"three")),
        {"label": 3, "score": 0.5, "indoor": True, "light": "day", "boxes": [[1.0, 2.0, 3.0, 4.0]],
         "points": [[[1.0, 2.0]]], "cls": 9, "txt": "a dög"},
        {"mask.png": b"mask"},
    ),
    Sample("b" * 32, (("", "png", b"four"),)),
    Sample("c" * 32, (("anna", "png", b"five"), ("bert", "png", b"six")), {"label": -1}),
]  # fmt: skip


def written(samples: list[Sample], **options: Any) -> bytes:
    return parquet.write(samples, POLICY, ("left",), 2, **options)


@pytest.mark.parametrize("struct", [True, False])
def test_what_is_written_is_read_again(tmp_path: Path, struct: bool) -> None:
    layout = Layout(pictures=("left",), masks=("mask.png",))
    found = indexed(tmp_path, written(SAMPLES, struct=struct, row_group_size=2), layout)
    places = list(zip(*(found[name].to_pylist() for name in ("sample", "name", "group")), strict=True))
    names = ["", "left", "image_1", "", "image_1", "image_2"]
    assert places == list(zip([0, 0, 0, 1, 2, 2], names, [0, 0, 0, 0, 1, 1], strict=True))
    read = contents(found, layout)
    assert [picture for picture, *_ in read] == [b"one", b"two", b"three", b"four", b"five", b"six"]
    fields = {name: value for name, value in SAMPLES[0].fields.items() if name not in ("cls", "txt")}
    beside = {"json": {"id": "a" * 32, **fields}, "cls": b"9", "txt": "a dög".encode(), "mask.png": b"mask"}
    assert [sidecars for _, sidecars, _ in read[:3]] == [beside] * 3


def test_the_schema_does_not_depend_on_the_rows() -> None:
    schemas = [pq.ParquetFile(io.BytesIO(written(some))) for some in ([], SAMPLES[1:2], SAMPLES)]
    assert {str(file.schema_arrow) + str(file.metadata.metadata) for file in schemas} == {
        str(schemas[0].schema_arrow) + str(schemas[0].metadata.metadata)
    }
    names = [
        "id",
        "image",
        "left",
        "image_1",
        "image_2",
        "mask",
        "cls",
        "txt",
        "boxes",
        "indoor",
        "label",
        "light",
    ]
    assert schemas[0].schema_arrow.names == [*names, "points", "score"]


def test_the_bytes_are_the_same_and_hold_no_metadata_but_the_features() -> None:
    assert written(SAMPLES) == written(SAMPLES)
    metadata = pq.ParquetFile(io.BytesIO(written(SAMPLES))).metadata
    assert set(metadata.metadata) == {b"huggingface"}
    assert metadata.created_by == f"parquet-cpp-arrow version {pa.__version__}"
    assert pq.ParquetFile(io.BytesIO(written(SAMPLES, struct=False))).metadata.metadata is None
    assert b"anna" not in written(SAMPLES) + written(SAMPLES, struct=False)
    paths = pq.read_table(io.BytesIO(written(SAMPLES)))["image_1"].to_pylist()
    assert [path and path["path"] for path in paths] == ["a" * 32 + ".1.webp", None, "c" * 32 + ".1.png"]


def test_row_groups_are_of_the_size_asked_for_and_end_early_for_many_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = [Sample(f"{n:032x}", (("", "jpg", b"x" * 1000),)) for n in range(10)]

    def sizes(**options: Any) -> list[int]:
        metadata = pq.ParquetFile(io.BytesIO(written(many, **options))).metadata
        return [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]

    assert sizes(row_group_size=4) == [4, 4, 2]
    monkeypatch.setattr(parquet, "_GROUP", 2500)
    assert sizes(row_group_size=4) == [3, 3, 3, 1]


@pytest.mark.parametrize("key", ["", "a.b", "../a", "a/b", "a b"])
def test_the_writer_refuses_keys_that_are_not_plain(key: str) -> None:
    with pytest.raises(ValueError, match="plain"):
        written([Sample(key, ())])


def test_the_writer_refuses_what_has_no_column() -> None:
    with pytest.raises(ValueError, match="twice"):
        written([SAMPLES[0], SAMPLES[0]])
    with pytest.raises(ValueError, match="more than 2"):
        written([Sample("a", (("x", "jpg", b""), ("y", "jpg", b""), ("z", "jpg", b"")))])
    with pytest.raises(ValueError, match="twice"):
        written([Sample("a", (("left", "jpg", b""), ("left", "jpg", b"")))])
    with pytest.raises(ValueError, match="does not know"):
        written([Sample("a", (("", "jpg", b""),), {"name": "Anna"})])
    with pytest.raises(ValueError, match="does not know"):
        written([Sample("a", (("", "jpg", b""),), {}, {"other.png": b""})])


def test_two_columns_of_one_name_are_a_mistake_of_the_configuration() -> None:
    for policy in (Metadata(sidecar_fields={"image": "int"}), Metadata(masks=["id.png"])):
        with pytest.raises(ConfigError, match=r"(image|id): the output has a column of this name"):
            released.schema(policy, (), 0, True)
