"""Image folders: which files are pictures, what a table says of them, and what is written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deid import records
from deid.config import Metadata
from deid.errors import ConfigError, InputError
from deid.shards import folder, released, storage
from deid.shards.formats import INDEX, Layout, Sample


def put(root: Path, files: dict[str, bytes | str]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)


def indexed(root: Path, **layout: Any) -> pa.Table:
    options = Layout(root=str(root), **layout)
    tables = [folder.scan(file, options) for file in storage.list_files(str(root))]
    assert all(table.schema.equals(INDEX) for table in tables)
    return pa.concat_tables([INDEX.empty_table(), *tables])


def described(table: pa.Table) -> dict[str, Any]:
    """What is said of each picture that is not refused, by its key."""
    found = {}
    keys = table["key"].to_pylist()
    for row, _, beside, reason in folder.read(table, Layout()):
        if not table["reason"][row].as_py() and not reason:
            found[keys[row]] = json.loads(beside.get("json", b"null"))
    return found


def refused(table: pa.Table) -> list[tuple[str, str]]:
    pairs = zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return [pair for pair in pairs if pair[1]]


def test_what_is_a_picture(tmp_path: Path) -> None:
    files = {
        "a.jpg": "1", "b/c.JPEG": "22", "b/d/e.v2.png": "333", "noname": "4", "x.heic": "5", "empty.png": "",
        "a.txt": "no", "b/a.json": "no", ".hidden.jpg": "no", ".git/x.jpg": "no", "b/._a.jpg": "no", "movie.mp4": "no",
    }  # fmt: skip
    put(tmp_path, files)
    table = indexed(tmp_path)
    assert table["key"].to_pylist() == ["a.jpg", "b/c.JPEG", "b/d/e.v2.png", "empty.png", "noname", "x.heic"]
    assert table["extension"].to_pylist() == ["jpg", "jpeg", "png", "png", "", "heic"]
    assert set(table["name"].to_pylist() + table["reason"].to_pylist()) == {""}
    read = list(folder.read(table, Layout()))
    assert [(n, data) for n, data, _, _ in read] == list(enumerate([b"1", b"22", b"333", b"", b"4", b"5"]))
    assert described(table) == {
        "a.jpg": None, "b/c.JPEG": {"folder": "b"}, "b/d/e.v2.png": {"folder": "d"}, "empty.png": None,
        "noname": None, "x.heic": None,
    }  # fmt: skip


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


ROWS = [
    {"file_name": "a.jpg", "label": 3, "light": "day", "score": 0.5, "indoor": True},
    {"file_name": "b/c.jpg", "label": 4, "light": "night, wet", "score": 1e-3, "indoor": False},
]
CSV = 'file_name,label,light,score,indoor,empty\r\na.jpg,3,day,0.5,True,\r\nb/c.jpg,4,"night, wet",1e-3,False,\r\n'
TABLES = {
    "metadata.csv": CSV,
    "metadata.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "metadata.parquet": parquet(ROWS),
}


@pytest.mark.parametrize("name", list(TABLES))
def test_tables_of_every_kind_say_the_same(tmp_path: Path, name: str) -> None:
    put(tmp_path, {"a.jpg": "1", "b/c.jpg": "2", name: TABLES[name]})
    table = indexed(tmp_path)
    assert refused(table) == []
    fields = [{key: value for key, value in row.items() if key != "file_name"} for row in ROWS]
    assert described(table) == {"a.jpg": fields[0], "b/c.jpg": {"folder": "b"} | fields[1]}


def test_the_nearest_table_counts_and_a_picture_may_have_no_row(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "metadata.csv": "file_name,n\na.jpg,1\nin/b.jpg,2\n",
            "in/metadata.jsonl": '{"file_name": "./b.jpg", "n": 3, "folder": "mine"}\n\n',
            **dict.fromkeys(["a.jpg", "in/b.jpg", "in/c.jpg", "in/deep/d.jpg", "other/e.jpg"], "x"),
        },
    )
    assert described(indexed(tmp_path)) == {
        "a.jpg": {"n": 1},
        "in/b.jpg": {"n": 3, "folder": "mine"},
        "in/c.jpg": {"folder": "in"},
        "in/deep/d.jpg": {"folder": "deep"},
        "other/e.jpg": {"folder": "other"},
    }


def test_rows_of_missing_files_and_rows_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    rows = "file_name,n\na.jpg,1\na.jpg,2\nb.jpg,1\nb.jpg,1\ngone.jpg,5\n../up.jpg,6\n"
    put(tmp_path, {"in/metadata.csv": rows, "in/a.jpg": "1", "in/b.jpg": "2", "up.jpg": "3"})
    table = indexed(tmp_path)
    assert refused(table) == [
        ("in/a.jpg", "ambiguous"),
        ("in/../up.jpg", "no_image"),
        ("in/gone.jpg", "no_image"),
    ]
    assert described(table) == {"in/b.jpg": {"n": 1, "folder": "in"}, "up.jpg": None}
    assert {"ambiguous", "no_image"} <= set(records.QUARANTINE)


def test_what_a_table_names_and_is_no_picture_has_a_row(tmp_path: Path) -> None:
    rows = "file_name,n\na.jpg,1\nb.tga,2\nc.ppm,3\nd.txt,4\n.e.jpg,5\na.mask.png,6\n"
    put(tmp_path, {"in/metadata.csv": rows, **dict.fromkeys(["in/a.jpg", "in/b.tga", "in/c.ppm"], "1")})
    put(tmp_path, dict.fromkeys(["in/d.txt", "in/.e.jpg", "in/a.mask.png"], "1"))
    table = indexed(tmp_path, masks=("mask.png",))
    assert refused(table) == [("in/.e.jpg", "no_image"), ("in/d.txt", "no_image")]
    assert good_keys(table) == ["in/a.jpg", "in/b.tga", "in/c.ppm"]


def good_keys(table: pa.Table) -> list[str]:
    pairs = zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return [key for key, reason in pairs if not reason]


def test_a_table_of_another_name(tmp_path: Path) -> None:
    put(tmp_path, {"labels.csv": "file_name,n\na.jpg,1\n", "metadata.csv": "broken", "a.jpg": "1"})
    assert described(indexed(tmp_path, metadata_table="labels.csv")) == {"a.jpg": {"n": 1}}
    put(tmp_path / "two", {"labels.xls": "?", "a.jpg": "1"})
    with pytest.raises(InputError, match=r"is a \.csv, \.jsonl or \.parquet file"):
        indexed(tmp_path / "two", metadata_table="labels.xls")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("metadata.csv", "name,n\nanna.jpg,1\n"),
        ("metadata.csv", "file_name,n\nanna.jpg,1,2\n"),
        ("metadata.csv", 'file_name,n\n"anna.jpg,1\n'),
        ("metadata.csv", b"file_name\n\xff\xfe.jpg\n"),
        ("metadata.jsonl", '{"file_name": "anna.jpg"}\n{"file_na'),
        ("metadata.jsonl", '["anna.jpg"]\n'),
        ("metadata.jsonl", '{"file_name": 7}\n'),
        ("metadata.jsonl", '{"x": ' + "[" * 100_000),
        ("metadata.parquet", "no parquet"),
        ("metadata.parquet", parquet([{"file_name": None, "anna": 1}])),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, data: bytes | str) -> None:
    put(tmp_path, {name: data, "anna.jpg": "1"})
    with pytest.raises(
        InputError, match=rf"a table of metadata cannot be read as {name.split('.')[1]}"
    ) as caught:
        indexed(tmp_path)
    assert "anna" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_tables_in_one_folder_are_one_line(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"metadata.csv": CSV, "metadata.jsonl": TABLES["metadata.jsonl"], "a.jpg": "1", "b/c.jpg": "2"},
    )
    with pytest.raises(InputError, match="a folder has two tables"):
        indexed(tmp_path)
    assert described(indexed(tmp_path, metadata_table="metadata.csv"))["a.jpg"]["label"] == 3


def test_a_changed_or_missing_file_is_a_changed_record(tmp_path: Path) -> None:
    put(tmp_path, {"a.jpg": "1", "b.jpg": "2", "c.jpg": "3"})
    table = indexed(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"another")
    (tmp_path / "b.jpg").unlink()
    read = list(folder.read(table, Layout()))
    assert read == [(0, b"", {}, "record_changed"), (1, b"", {}, "record_changed"), (2, b"3", {}, "")]


def test_masks_lie_beside_their_pictures(tmp_path: Path) -> None:
    put(tmp_path, {"a.jpg": "1", "a.mask.png": "mask", "b.jpg": "2", "c.jpg": "3", "c.mask.png": ""})
    table = indexed(tmp_path, masks=("mask.png",))
    assert table["key"].to_pylist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert [beside for _, _, beside, _ in folder.read(table, Layout())] == [{"mask.png": b"mask"}, {}, {}]
    assert indexed(tmp_path)["key"].to_pylist() == ["a.jpg", "a.mask.png", "b.jpg", "c.jpg", "c.mask.png"]


POLICY = Metadata(
    sidecar_fields={"kind": {"type": "str", "free": True}, "boxes": "boxes"},
    members={"cls": "int"},
    masks=["mask.png"],
)
UNIT = "f" * 32
SAMPLES = [
    Sample(
        "a" * 32, (("", "jpg", b"1"), ("left", "png", b"2")), {"kind": "cat", "cls": 1}, {"mask.png": b"m"}
    ),
    Sample("b" * 32, (("", "png", b"3"),), {"kind": "a cat", "boxes": [[1.0, 2.0, 3.0, 4.0]]}),
    Sample("c" * 32, (("", "webp", b"4"), ("anna", "png", b"5"))),
    Sample("d" * 32, (("", "jpg", b"6"),), {"kind": "cat"}),
]


def written(samples: Sequence[Sample] = SAMPLES, class_field: str | None = "kind") -> dict[str, bytes]:
    return dict(folder.write(samples, UNIT, POLICY, ("left",), 1, class_field))


def test_what_is_written(tmp_path: Path) -> None:
    objects = written()
    assert list(objects) == sorted(objects)
    assert {name: data for name, data in objects.items() if not name.endswith(folder.TABLE)} == {
        f"images/cat/{UNIT}/{'a' * 32}.jpg": b"1",
        f"images/cat/{UNIT}/{'a' * 32}.left.png": b"2",
        f"masks/mask/{UNIT}/{'a' * 32}.png": b"m",
        f"images/all/{UNIT}/{'b' * 32}.png": b"3",
        f"images/all/{UNIT}/{'c' * 32}.webp": b"4",
        f"images/all/{UNIT}/{'c' * 32}.1.png": b"5",
        f"images/cat/{UNIT}/{'d' * 32}.jpg": b"6",
    }
    table = pq.read_table(pa.BufferReader(objects[f"images/cat/{UNIT}/{folder.TABLE}"]))
    row = {
        "file_name": f"{'a' * 32}.jpg",
        "left_file_name": f"{'a' * 32}.left.png",
        "image_1_file_name": None,
    }
    assert table.to_pylist()[0] == row | {"id": "a" * 32, "cls": 1, "boxes": None, "kind": "cat"}
    schemas = {
        pq.read_schema(pa.BufferReader(objects[name])) for name in objects if name.endswith(folder.TABLE)
    }
    assert len(schemas) == 1
    assert objects == written()
    assert b"anna" not in b"".join(objects.values())


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    put(tmp_path, {name: data for name, data in written().items() if name.startswith("images/")})
    table = indexed(tmp_path)
    assert refused(table) == []
    found = {key.split("/")[-1]: fields for key, fields in described(table).items()}
    assert found["a" * 32 + ".jpg"]["kind"] == "cat"
    assert found["b" * 32 + ".png"]["boxes"] == [[1.0, 2.0, 3.0, 4.0]]
    assert found["c" * 32 + ".webp"] == {
        "folder": UNIT,
        "id": "c" * 32,
        "image_1_file_name": "c" * 32 + ".1.png",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cat", "cat"), (7, "7"), (-7, "-7"), (True, "True"), ("a cat", "all"), ("../up", "all"), ("a/b", "all"),
        ("", "all"), (None, "all"), (1.5, "all"), ([1.0], "all"), ("x" * 101, "all"), ("kät", "all"),
        ("train", "trainx"), ("my_test", "my_testx"), ("val-2", "valx-2"), ("valley", "valley"), ("Test", "Test"),
    ],
)  # fmt: skip
def test_a_class_is_a_plain_name_that_is_no_split(value: object, expected: str) -> None:
    assert folder.class_name({"kind": value}, "kind") == expected
    assert folder.class_name({"kind": value}, None) == folder.class_name({}, "kind") == "all"


def test_the_writer_refuses_what_has_no_place() -> None:
    for sample in (
        Sample("a.b", (("", "jpg", b""),)),
        Sample("a", (("", "jpg", b""),), {"name": "Anna"}),
        Sample("a", (("", "jpg", b""),), {}, {"other.png": b""}),
        Sample("a", (("x", "jpg", b""), ("y", "jpg", b""))),
    ):
        with pytest.raises(ValueError, match="sample"):
            written([sample])
    with pytest.raises(ConfigError, match="called like a split"):
        released.files_schema(POLICY, ("train",), 0)
    with pytest.raises(ConfigError, match="file_name: the output has a column"):
        released.files_schema(Metadata(sidecar_fields={"file_name": {"type": "str", "free": True}}), (), 0)
