"""Shards: what is written is read again, and no damage passes without a word."""

import io
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import webdataset as peer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deid import records
from deid.shards import storage, tar, webdataset
from deid.shards.formats import INDEX, Layout

Members = Sequence[tuple[str, bytes]]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def archive(members: Members, kind: int = tarfile.GNU_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind) as target:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def scan(folder: Path, data: bytes) -> pa.Table:
    storage.write_bytes(str(folder / "a.tar"), data, overwrite=True)
    (file,) = storage.list_files(str(folder), "a.tar")
    return webdataset.scan(file)


def contents(table: pa.Table) -> list[tuple[bytes, dict[str, bytes], str]]:
    """Picture, sidecars and reason of each record, in the order of the table."""
    found = sorted(webdataset.read(table))
    assert [row for row, *_ in found] == list(range(len(table)))
    return [(picture, sidecars, reason) for _, picture, sidecars, reason in found]


def good(table: pa.Table) -> pa.Table:
    return table.filter(pa.array([not reason for reason in table["reason"].to_pylist()]))


SAMPLES = [
    (f"{n:03d}", {"jpg": bytes([n]) * (700 + 300 * n), "json": b"{}", "cls": b"%d" % n}) for n in range(6)
]

keys = st.text("abcXYZ019-_", min_size=1, max_size=40)
extensions = st.sampled_from(["jpg", "png", "webp", "json", "cls"])
samples = st.lists(
    st.tuples(keys, st.dictionaries(extensions, st.binary(max_size=3000), min_size=1)),
    max_size=8,
    unique_by=lambda sample: sample[0],
)


@QUICK
@given(samples)
def test_round_trip(tmp_path: Path, given_samples: list[tuple[str, dict[str, bytes]]]) -> None:
    table = scan(tmp_path, webdataset.write_shard(given_samples))
    assert table.schema.equals(INDEX)
    expected = []
    for key, members in given_samples:
        pictures = [(ext, data) for ext, data in members.items() if ext in ("jpg", "png", "webp")]
        sidecars = {ext: data for ext, data in members.items() if ext in ("json", "cls")}
        expected += [(key, ext, "", data, sidecars) for ext, data in pictures] or [
            (key, "", "no_image", b"", {})
        ]
    names = [table[name].to_pylist() for name in ("key", "extension", "reason")]
    found = [(*row, *read[:2]) for row, read in zip(zip(*names, strict=True), contents(table), strict=True)]
    assert [row for row in found if not row[2]] == [row for row in expected if not row[2]]
    assert [row[:3] for row in found] == [row[:3] for row in expected]


@QUICK
@given(st.lists(st.tuples(st.text("abé/", min_size=1, max_size=300), st.binary(max_size=900)), max_size=5))
def test_long_and_foreign_names_of_both_dialects(tmp_path: Path, named: list[tuple[str, bytes]]) -> None:
    members = [(f"{n}{name.strip('/')}.jpg", data) for n, (name, data) in enumerate(named)]
    members = [(name, data) for name, data in members if "//" not in name]
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        table = scan(tmp_path, archive(members, kind))
        assert table["key"].to_pylist() == [name.removesuffix(".jpg") for name, _ in members]
        assert [picture for picture, *_ in contents(table)] == [data for _, data in members]


def _extended(kind: bytes, *records: bytes) -> bytes:
    """A PAX header; of each record the length is put before it."""
    data = b""
    for record in records:
        length = len(record) + 2
        while len(b"%d %b\n" % (length, record)) != length:
            length += 1
        data += b"%d %b\n" % (length, record)
    info = tarfile.TarInfo("x")
    info.size, info.type = len(data), kind
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tar.BLOCK)


def test_extended_headers_cost_what_they_are_long_and_nothing_stays_of_them(tmp_path: Path) -> None:
    many = _extended(b"x", *[b"a=b"] * 100_000, b"path=p.jpg")
    kept = _extended(b"g", *(b"comment%d=%b" % (n, b"c" * 9) for n in range(9)))
    start = time.process_time()
    table = scan(tmp_path, many + kept + archive([("a.jpg", b"1")]))
    assert time.process_time() - start < 2
    assert table.select(["key", "reason"]).to_pylist() == [{"key": "p", "reason": ""}]
    assert tar._pax(kept[512:]) == {}
    sparse = _extended(b"x", b"GNU.sparse.major=1")
    assert scan(tmp_path, sparse + archive([("a.jpg", b"1")]))["reason"].to_pylist() == ["shard_damaged"]


@pytest.mark.parametrize(
    "data", [b"path=p\n", b" 5 a=b\n", b"99 a=b\n", b"6 a=b ", b"5 ab\n", b"0 a=b\n", b"1"]
)
def test_a_broken_extended_header_is_damage(data: bytes) -> None:
    with pytest.raises(tar.Damage):
        tar._pax(data)


@QUICK
@given(st.data())
def test_a_cut_anywhere_gives_what_stood_before_and_a_damage_row(tmp_path: Path, data: st.DataObject) -> None:
    whole = webdataset.write_shard(SAMPLES)
    end = len(whole.rstrip(b"\0")) + 2 * tar.BLOCK  # last payload's padding, then two blocks
    cut = data.draw(st.integers(0, end - tar.BLOCK))
    table = scan(tmp_path, whole[:cut])
    assert table["reason"].to_pylist().count("shard_damaged") == 1
    pictures = [picture for picture, *_ in contents(good(table))]
    assert pictures == [members["jpg"] for _, members in SAMPLES][: len(pictures)]
    with tarfile.open(fileobj=io.BytesIO(whole)) as source:
        ends = [info.offset_data + info.size for info in source if info.name.endswith(".jpg")]
    assert len(pictures) == sum(end <= cut for end in ends)


@pytest.mark.parametrize("member", [3, 7, 17])
def test_a_cut_at_a_member_boundary(tmp_path: Path, member: int) -> None:
    whole = webdataset.write_shard(SAMPLES)
    with tarfile.open(fileobj=io.BytesIO(whole)) as source:
        cut = source.getmembers()[member].offset
    with tarfile.open(fileobj=io.BytesIO(whole[:cut])) as source:
        assert len(source.getmembers()) == member  # the library sees nothing wrong
    table = scan(tmp_path, whole[:cut])
    assert table["reason"].to_pylist()[-1] == "shard_damaged"
    assert len(good(table)) == -(-member // 3)


@pytest.mark.parametrize("byte", [0, 100, 124, 135, 148, 156, 257, 345, 511])
@pytest.mark.parametrize("member", [0, 9])
def test_a_flipped_byte_of_a_header(tmp_path: Path, member: int, byte: int) -> None:
    data = bytearray(webdataset.write_shard(SAMPLES))
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as source:
        data[source.getmembers()[member].offset + byte] ^= 0x04
    table = scan(tmp_path, bytes(data))
    assert table["reason"].to_pylist() == [""] * (member // 3) + ["shard_damaged"]


def test_a_flipped_byte_of_a_picture_after_the_scan_is_a_changed_record(tmp_path: Path) -> None:
    data = bytearray(webdataset.write_shard(SAMPLES))
    table = scan(tmp_path, bytes(data))
    data[table["offset"][2].as_py() + 5] ^= 1
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    (file,) = storage.list_files(str(tmp_path))
    same_version = table.set_column(1, "version", pa.array([file.version] * len(table)))
    assert [reason for *_, reason in contents(same_version)] == ["", "", "record_changed", "", "", ""]
    assert contents(table) == [(b"", {}, "record_changed")] * 6
    path.unlink()
    assert contents(table) == [(b"", {}, "record_changed")] * 6


@pytest.mark.parametrize("data", [b"", b"no archive at all" * 100, b"\0" * 512, b"\0" * 511])
def test_what_is_no_archive_is_damaged(tmp_path: Path, data: bytes) -> None:
    assert scan(tmp_path, data)["reason"].to_pylist() == ["shard_damaged"]


def test_an_archive_behind_an_archive_is_damage(tmp_path: Path) -> None:
    whole = webdataset.write_shard(SAMPLES[:2])
    assert scan(tmp_path, whole + whole)["reason"].to_pylist() == ["", "", "shard_damaged"]


def test_an_empty_archive_is_sound(tmp_path: Path) -> None:
    assert len(scan(tmp_path, webdataset.write_shard([]))) == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jpg", tarfile.SYMTYPE),
        ("a.jpg", tarfile.LNKTYPE),
        ("a.jpg", tarfile.CHRTYPE),
        ("a.jpg", tarfile.FIFOTYPE),
        ("/etc/a.jpg", tarfile.REGTYPE),
        ("../a.jpg", tarfile.REGTYPE),
        ("b/../../a.jpg", tarfile.REGTYPE),
    ],
)
def test_links_devices_and_names_that_lead_out_are_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as target:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "elsewhere"
        target.addfile(info)
        info = tarfile.TarInfo("b.jpg")
        info.size = 3
        target.addfile(info, io.BytesIO(b"abc"))
    table = scan(tmp_path, sink.getvalue())
    assert table["reason"].to_pylist() == ["unsafe_member", ""]
    assert contents(good(table)) == [(b"abc", {}, "")]


def test_keys_end_at_the_first_dot_of_the_base_name(tmp_path: Path) -> None:
    members = [
        ("v1.0/img.v1.jpg", b"1"),
        ("v1.0/img.v2.JPG", b"2"),
        ("v1.0/img.json", b"{}"),
        ("v1.0/only.txt", b"no picture"),
        ("v1.0/.hidden.jpg", b"has no key"),
        ("v1.0/none", b"has no key"),
        ("v1.0/zero.heic", b"of a format that is not read"),
        ("v1.0/zero.png", b""),
    ]
    table = scan(tmp_path, archive(members))
    keyless = ["v1.0/.hidden.jpg", "v1.0/none"]
    assert table["key"].to_pylist() == ["v1.0/img"] * 2 + ["v1.0/only", *keyless] + ["v1.0/zero"] * 2
    assert table["extension"].to_pylist() == ["jpg", "jpg", "", "", "", "heic", "png"]
    assert table["reason"].to_pylist() == ["", "", "no_image", "no_image", "no_image", "", ""]
    assert webdataset.shared_keys(table) == 2
    pictures = [picture for picture, *_ in contents(good(table))]
    assert pictures == [b"1", b"2", b"of a format that is not read", b""]


def test_names_of_the_layout_are_found_whatever_their_case(tmp_path: Path) -> None:
    members = [("k.jpg", b"1"), ("k.Left.png", b"2"), ("k.Mask.png", b"mask")]
    storage.write_bytes(str(tmp_path / "a.tar"), archive(members))
    (file,) = storage.list_files(str(tmp_path), "a.tar")
    table = webdataset.scan(file, Layout(pictures=("Left",), masks=("Mask.png",)))
    assert table["name"].to_pylist() == ["", "Left"]
    assert contents(table) == [(b"1", {"Mask.png": b"mask"}, ""), (b"2", {"Mask.png": b"mask"}, "")]


def test_pictures_of_formats_that_are_not_read_have_a_row(tmp_path: Path) -> None:
    members = [("k.jpg", b"1"), ("k.b.tga", b"2"), ("k.c.ppm", b"3"), ("k.d.PSD", b"4"), ("k.npy", b"5")]
    table = scan(tmp_path, archive(members))
    assert table["extension"].to_pylist() == ["jpg", "tga", "ppm", "psd"]
    assert [picture for picture, *_ in contents(table)] == [b"1", b"2", b"3", b"4"]


def test_records_of_several_shards_are_read_in_any_order_by_merged_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in range(3):
        members = {f"{n}": {"jpg": bytes([shard, n]) * 400_000} for n in range(4)}
        storage.write_bytes(str(tmp_path / f"{shard}.tar"), webdataset.write_shard(list(members.items())))
    table = pa.concat_tables([webdataset.scan(file) for file in storage.list_files(str(tmp_path))])
    order = np.random.default_rng(4).permutation(len(table))[:9]
    calls: list[Any] = []
    fetch = storage.read_range

    def counted(*arguments: Any) -> bytes:
        calls.append(arguments)
        return fetch(*arguments)

    monkeypatch.setattr(storage, "read_range", counted)
    found = contents(table.take(order))
    assert [picture for picture, *_ in found] == [bytes(divmod(int(n), 4)) * 400_000 for n in order]
    assert len(calls) == 3


def test_the_writer_is_deterministic_and_says_nothing_of_time_or_owner() -> None:
    data = webdataset.write_shard(SAMPLES)
    assert data == webdataset.write_shard(SAMPLES)
    assert data.endswith(bytes(2 * tar.BLOCK))
    with tarfile.open(fileobj=io.BytesIO(data)) as source:
        for info in source:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
            assert (info.mode, info.isreg(), info.pax_headers) == (0o644, True, {})


@pytest.mark.parametrize("key", ["", "a.b", "../a", "/a", "a/b", "a b"])
def test_the_writer_refuses_keys_that_are_not_plain(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        webdataset.write_shard([(key, {"jpg": b""})])


def test_the_writer_refuses_a_key_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        webdataset.write_shard([SAMPLES[0], SAMPLES[0]])


@pytest.mark.parametrize("name", ["left", "1"])
def test_the_writer_refuses_a_mask_in_the_place_of_a_picture(name: str) -> None:
    pictures = {"": ("jpg", b"main"), name: ("png", b"further")}
    with pytest.raises(ValueError, match="one name"):
        webdataset.members(pictures, {}, {f"{name}.png": b"mask"})


def test_the_webdataset_package_reads_what_we_write(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(webdataset.write_shard(SAMPLES))
    found = list(peer.WebDataset([str(tmp_path / "a.tar")], shardshuffle=False))
    assert [(sample["__key__"], sample["jpg"]) for sample in found] == [(key, m["jpg"]) for key, m in SAMPLES]


def test_every_reason_is_a_quarantine_code() -> None:
    assert {"no_image", "unsafe_member", "shard_damaged", "record_changed"} <= set(records.QUARANTINE)
