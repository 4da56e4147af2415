"""The linkage attack: silent on sound runs, and each leak found by its own line."""

import base64
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from deid.demo import exif
from deid.errors import InputError
from deid.privacy import keys
from deid.privacy.linkage import Line, attack
from deid.shards import storage
from tests.unit.privacy import linked
from tests.unit.privacy.linked import UNIT, Item, Leak, Photo


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Photo]]:
    folder = tmp_path_factory.mktemp("source")
    return folder, linked.corpus(folder, 0)


def flagged(lines: list[Line]) -> set[str]:
    return {line.name for line in lines if line.above}


def chunks(photos: list[Photo], size: int = UNIT) -> list[list[Photo]]:
    return [photos[start : start + size] for start in range(0, len(photos), size)]


def in_order(photos: list[Photo], secret: bytes) -> list[list[Photo]]:
    return chunks(photos)


def by_shard(photos: list[Photo], secret: bytes) -> list[list[Photo]]:
    shards = [[p for p in photos if p.shard == n] for n in sorted({p.shard for p in photos})]
    return [[shard[n] for n in keys.permutation(secret, len(shard))] for shard in shards]


def sorted_units(photos: list[Photo], secret: bytes) -> list[list[Photo]]:
    order = [photos[n] for n in keys.permutation(secret, len(photos))]
    return [sorted(unit, key=lambda photo: photo.number) for unit in chunks(order)]


def with_sidecar(text: Callable[[Photo], str]) -> Callable[[Item], dict[str, bytes]]:
    return lambda item: item.members | {"json": b'{"label": 3, "tags": ["%b"]}' % text(item.photo).encode()}


def with_picture(change: Callable[[Image.Image, Photo], bytes]) -> Callable[[Item], dict[str, bytes]]:
    def members(item: Item) -> dict[str, bytes]:
        name = item.photo.extension
        return item.members | {name: change(Image.open(io.BytesIO(item.members[name])), item.photo)}

    return members


def thumbnail(image: Image.Image, photo: Photo) -> bytes:
    block = exif.block(photo.pixels[::4, ::4], 1, "", np.random.default_rng(photo.number))
    return saved(image, photo, exif=block)


def saved(image: Image.Image, photo: Photo, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG" if photo.extension == "jpg" else "PNG", **options)
    return sink.getvalue()


def padded(item: Item) -> dict[str, bytes]:
    """The picture made as long as its source by zeros in a comment or a chunk of text."""
    name = item.photo.extension
    data, size = item.members[name], len(item.photo.members[name])
    if name == "png" or not 4 <= size - len(data) < 65_000:
        return item.members
    gap = size - len(data) - 4
    return item.members | {
        name: data[:2] + b"\xff\xfe" + (gap + 2).to_bytes(2, "big") + bytes(gap) + data[2:]
    }


def aged(data: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=sink, mode="w") as new:
        for info in old:
            info.mtime = 1_700_000_000
            new.addfile(info, old.extractfile(info))
    return sink.getvalue()


def column(name: str, value: Callable[[Photo], str]) -> Callable[[pa.Table, dict[str, Photo]], pa.Table]:
    def change(table: pa.Table, origin: dict[str, Photo]) -> pa.Table:
        values = pa.array([value(origin[key]) for key in table["output_id"].to_pylist()], pa.string())
        if name in table.column_names:
            return table.set_column(table.column_names.index(name), name, values)
        return table.append_column(name, values)

    return change


def audit_in_order(table: pa.Table, origin: dict[str, Photo]) -> pa.Table:
    places = [origin[key].number for key in table["output_id"].to_pylist()]
    return table.take(pa.array(np.argsort(places, kind="stable")))


LEAKS: dict[str, tuple[Leak, str, set[str]]] = {  # the leak, its own line, and lines that it may raise too
    "order kept": (
        Leak(units=in_order, key=lambda p: hashlib.blake2b(b"%d" % p.number).hexdigest()[:32], sort=False,
             shard=lambda unit, name: f"{unit:02x}{name[2:]}"),
        "order", {"order_within", "shards"},
    ),
    "order kept in each shard": (Leak(units=sorted_units, sort=False), "order_within", set()),
    "shards kept together": (Leak(units=by_shard), "shards", {"shard_sizes"}),
    "as many pictures as the source's shards": (Leak(units=by_shard), "shard_sizes", {"shards"}),
    "lengths": (Leak(members=padded), "lengths", {"embedded"}),
    "name in a sidecar": (Leak(members=with_sidecar(lambda p: p.key.upper())), "names_text", set()),
    "part of a name": (Leak(members=with_sidecar(lambda p: "x-" + p.key[5:-7])), "names_text", set()),
    "name in hexadecimal digits": (
        Leak(members=with_sidecar(lambda p: "x" + p.key.encode().hex())), "names_text", set()),
    "name in Base64": (
        Leak(members=with_sidecar(lambda p: base64.b64encode(b"a" + p.key.encode()).decode())),
        "names_text", {"names_ids"}),
    "hex of a name as key": (Leak(key=lambda p: p.key.encode().hex()), "names_ids", {"names_text", "names_paired"}),
    "number as part of a key": (
        Leak(key=lambda p: hashlib.md5(b"%d" % p.number).hexdigest()[:26] + p.key[-6:]), "names_paired", set()),
    "hash of a name as key": (Leak(key=lambda p: hashlib.md5(p.key.encode()).hexdigest()), "names_ids", set()),
    "hash of a picture as key": (
        Leak(key=lambda p: hashlib.sha256(p.members[p.extension]).hexdigest()), "names_ids", set()),
    "folder in the manifest": (
        Leak(manifest=lambda m: m | {"config": m["config"] | {"input": {"uri": "s3://x/Wedding-Kowalski"}}}),
        "names_text", set()),
    "name of a shard as object": (
        Leak(shard=lambda unit, name: f"reception-{unit:05}"), "names_text", set()),
    "thumbnail kept": (Leak(members=with_picture(thumbnail)), "embedded", {"duplicates", "names_text"}),
    "comment kept": (
        Leak(members=with_picture(lambda i, p: saved(i, p, comment=p.key) if p.extension == "jpg" else saved(i, p))),
        "embedded", {"names_text"}),
    "original bytes": (
        Leak(members=lambda i: i.members | ({"png": i.photo.members["png"]} if i.photo.extension == "png" else {})),
        "duplicates", set()),
    "sidecar kept": (
        Leak(members=lambda i: i.members | {"json": i.photo.members["json"]}), "names_text", {"duplicates"}),
    "times": (Leak(tar=aged), "headers", set()),
    "raw index as a column": (
        Leak(audit=column("row", lambda p: str(p.number))), "audit.row.order", {"audit.row.shard"}),
    "raw index in a column": (
        Leak(audit=column("face_size", lambda p: str(p.number))), "audit.face_size.order", {"audit.face_size.shard"}),
    "raw shard as a column": (
        Leak(audit=column("batch", lambda p: "abcd"[p.shard])), "audit.batch.shard", {"audit.batch.order"}),
    "name as a column": (
        Leak(audit=column("person", lambda p: p.key)), "names_text", {"audit.person.name", "audit.person.shard"}),
    "bits of a name in a column": (
        Leak(audit=column("sex", lambda p: ("male", "female")[linked_bit(p)])), "audit.sex.name", set()),
    "audit in the source's order": (Leak(audit=audit_in_order), "audit_rows", set()),
}  # fmt: skip


def linked_bit(photo: Photo) -> int:
    return hashlib.blake2b(photo.key.encode(), digest_size=8).digest()[-1] % 2


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_found_by_its_own_line(name: str, source: tuple[Path, list[Photo]], tmp_path: Path) -> None:
    folder, photos = source
    leak, line, others = LEAKS[name]
    linked.run(tmp_path, photos, 1, leak)
    found = flagged(attack(str(folder), str(tmp_path)))
    assert line in found
    assert found <= {line, *others}


def test_a_sound_run_is_silent_and_says_what_was_looked_at(
    source: tuple[Path, list[Photo]], tmp_path: Path
) -> None:
    folder, photos = source
    linked.run(tmp_path, photos, 2)
    lines = attack(str(folder), str(tmp_path))
    assert not flagged(lines)
    assert all(line.value <= line.limit + 1e-9 for line in lines)
    named = {line.name: line for line in lines}
    assert len(named) == len(lines)
    assert named["pairs"].value > 0.95
    assert "90 pairs among 90 of 90" in named["pairs"].note
    assert named["sizes"].value > 0.5  # size follows the content: information
    assert named["names_allowed"].value == 1  # the place, which the configuration lets pass
    assert attack(str(folder), str(tmp_path)) == lines


def test_a_sample_is_said_to_be_one(source: tuple[Path, list[Photo]], tmp_path: Path) -> None:
    folder, photos = source
    linked.run(tmp_path, photos, 2)
    lines = attack(str(folder), str(tmp_path), most=40)
    assert not flagged(lines)
    note = next(line.note for line in lines if line.name == "pairs")
    assert "40 of 90 source and 40 of 90 output pictures, drawn at random" in note


def test_notes_hold_nothing_of_the_source(source: tuple[Path, list[Photo]], tmp_path: Path) -> None:
    folder, photos = source
    linked.run(tmp_path, photos, 1, LEAKS["name in a sidecar"][0])
    line = next(line for line in attack(str(folder), str(tmp_path)) if line.name == "names_text")
    assert line.value > 100
    assert "sidecar" in line.note
    assert not any(part in line.note for photo in photos for part in photo.key.split("_"))


def test_columns_of_content_are_information_unless_the_order_is_random(
    source: tuple[Path, list[Photo]], tmp_path: Path
) -> None:
    folder, photos = source
    half = len(photos) // 2
    leak = Leak(audit=column("sex", lambda p: ("male", "female")[p.number > half]))
    linked.run(tmp_path, photos, 1, leak)
    assert not flagged(attack(str(folder), str(tmp_path)))
    assert "audit.sex.order" in flagged(attack(str(folder), str(tmp_path), shuffled=True))


def test_pictures_without_a_face_may_be_what_they_were(tmp_path: Path) -> None:
    photos = linked.corpus(tmp_path / "raw", 3)
    lossless = [photo for photo in photos if photo.extension == "png"]
    linked.run(tmp_path / "out", photos, 3)
    line = next(
        line for line in attack(str(tmp_path / "raw"), str(tmp_path / "out")) if line.name == "duplicates"
    )
    assert line.value == 0
    assert 0 < int(line.note.split(";")[1].split()[0]) < len(lossless)


def test_equal_results_do_not_pair(tmp_path: Path) -> None:
    photos = linked.corpus(tmp_path / "raw", 4, (6, 6))
    for photo in photos:
        photo.pixels = photos[0].pixels
    linked.run(tmp_path / "out", photos, 4)
    lines = attack(str(tmp_path / "raw"), str(tmp_path / "out"))
    assert not flagged(lines)
    assert next(line.value for line in lines if line.name == "pairs") < 0.2


def test_what_is_no_corpus_or_no_output(source: tuple[Path, list[Photo]], tmp_path: Path) -> None:
    linked.write(tmp_path / "other" / "a.txt", b"a")
    with pytest.raises(InputError, match="no shards below"):
        attack(str(tmp_path / "other"), str(tmp_path / "other"))
    with pytest.raises(InputError, match=r"no manifest\.json"):
        attack(str(source[0]), str(tmp_path / "other"))


def test_the_attack_reads_from_s3(source: tuple[Path, list[Photo]], tmp_path: Path, s3: Any) -> None:
    folder, photos = source
    linked.run(tmp_path, photos, 2)
    raw, out = (f"s3://{s3.bucket()}/x" for _ in range(2))
    for here, there in ((folder, raw), (tmp_path, out)):
        for path in here.rglob("*.*"):
            storage.write_bytes(storage.join(there, path.relative_to(here).as_posix()), path.read_bytes())
    lines = attack(raw, out)
    assert not flagged(lines)
    assert next(line for line in lines if line.name == "pairs").value > 0.95


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated(tmp_path: Path) -> None:
    alarms = []
    for seed in range(50):
        folder = tmp_path / str(seed)
        photos = linked.corpus(folder / "raw", 100 + seed, (20, 31, 15, 24, 7))
        linked.run(folder / "out", photos, 100 + seed)
        alarms.append(flagged(attack(str(folder / "raw"), str(folder / "out"), shuffled=True)))
    assert not any(alarms), alarms
