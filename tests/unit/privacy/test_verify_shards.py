"""Runs that were signed by the right key and yet whose shards break a promise: each is found and named."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from deid import config
from deid.privacy import verify_shards
from deid.shards import webdataset
from tests.unit.privacy.sealed import Sealed, picture

NONE = config.Metadata()
ID = "a0" * 16


@pytest.fixture
def run(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path / "run").make()


def repacked(data: bytes, edit: Callable[[tarfile.TarInfo, bytes], bytes | None]) -> bytes:
    """The tar with one edit of headers and contents; None drops a member."""
    sink = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as given,
        tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as made,
    ):
        for number, info in enumerate(given.getmembers()):
            file = given.extractfile(info)
            assert file
            content: bytes | None = file.read()
            if number == 0:
                content = edit(info, content or b"")
            if content is not None:
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mtime", 1_700_000_000, "mtime is 1700000000, not 0"),
        ("uid", 1000, "uid is 1000, not 0"),
        ("gid", 1000, "gid is 1000, not 0"),
        ("mode", 0o600, "mode is 384, not 420"),
        ("uname", "anna", "uname is 'anna', not ''"),
        ("gname", "staff", "gname is 'staff', not ''"),
        ("type", tarfile.SYMTYPE, "type is b'2', not b'0'"),
        ("linkname", "somewhere", "its header is not as the job writes it"),
        ("devmajor", 7, None),  # is not written for plain files
    ],
)
def test_a_header_that_says_more_than_name_and_size(
    run: Sealed, name: str, value: Any, words: str | None
) -> None:
    def edit(info: tarfile.TarInfo, content: bytes) -> bytes:
        setattr(info, name, value)
        return b"" if name == "type" else content

    shard = run.shards[0]
    run.reseal({shard: repacked(run.objects[shard], edit)})
    if words is None:
        assert run.faults() == {}
    else:
        assert any(words in fault for fault in run.faults()[shard])


def test_pax_headers_and_bytes_between_members(run: Sealed) -> None:
    shard = run.shards[0]
    data = bytearray(run.objects[shard])
    size = int(bytes(data[124:135]), 8)
    assert size % 512
    data[512 + size] = 1
    found = verify_shards.read(bytes(data), config.Metadata())
    assert any("bytes between it and the next" in fault for fault in found.faults)
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {"comment": "taken by Anna"}
        info.size = len(picture(1, "png"))
        made.addfile(info, io.BytesIO(picture(1, "png")))
    assert any("type is b'x'" in fault for fault in verify_shards.read(sink.getvalue(), NONE).faults)


@pytest.mark.parametrize("cut", [1, 511, 512, 700, 10_240, 20_000])
def test_a_shard_that_is_cut_short(run: Sealed, cut: int) -> None:
    shard = run.shards[0]
    data = run.objects[shard]
    end = data.rstrip(b"\0")
    run.reseal({shard: data[: len(end) + 400 - cut] if cut < 10_000 else data[:-cut]})
    assert "the tar cannot be read to its end" in run.faults()[shard]


@pytest.mark.parametrize("size", [0, 512, 1023])
def test_a_shard_without_its_whole_end(size: int) -> None:
    data = webdataset.write_shard([(ID, {"png": picture(1, "png")})])
    (member,) = tarfile.open(fileobj=io.BytesIO(data)).getmembers()  # noqa: SIM115
    end = 512 + -(-member.size // 512) * 512
    assert verify_shards.read(data[: end + 1024], NONE).faults == []
    assert verify_shards.read(data[: end + size], NONE).faults == ["the tar cannot be read to its end"]


@pytest.mark.parametrize("tail", [b"hidden", b"\0" * 512 + b"x" * 512])
def test_bytes_behind_the_end_of_a_shard(run: Sealed, tail: bytes) -> None:
    shard = run.shards[0]
    run.reseal({shard: run.objects[shard] + tail})
    assert run.faults() == {shard: ["the tar cannot be read to its end"]}


@pytest.mark.parametrize(
    "name",
    [
        "a.b.jpg",
        "a b.jpg",
        "sub/a.jpg",
        "ä.jpg",
        ".jpg",
        "a",
        "a.exe",
        "../a.jpg",
        "a.JPG",
        "anna.jpg",
        ID + ".JPG",
        ID + ".exe",
        ID[1:] + ".jpg",
        ID + "0.jpg",
        ID.upper() + ".jpg",
        f"sub/{ID}.jpg",
        f"{ID}.x.jpg",
    ],
)
def test_a_key_that_is_not_plain(run: Sealed, name: str) -> None:
    def edit(info: tarfile.TarInfo, content: bytes) -> bytes:
        info.name = name
        return content

    shard = run.shards[0]
    run.reseal({shard: repacked(run.objects[shard], edit)})
    found = run.faults()
    assert f"member {name} has no plain name" in found[shard]
    assert found["shards"] == ["have 35 pictures, the manifest counts 36"]


def test_a_key_that_is_there_twice(run: Sealed) -> None:
    one, other = run.shards[:2]
    with tarfile.open(fileobj=io.BytesIO(run.objects[one])) as first:
        key = first.getnames()[0].partition(".")[0]

    def edit(info: tarfile.TarInfo, content: bytes) -> bytes:
        info.name = f"{key}.{info.name.partition('.')[2]}"
        return content

    run.reseal({other: repacked(run.objects[other], edit)})
    assert f"key {key} is there twice in the release" in run.faults()[other]


def test_a_sample_without_its_picture(run: Sealed) -> None:
    data = webdataset.write_shard(
        [(ID, {"jpg": picture(1, "jpg"), "json": b"{}"}), ("b" * 32, {"cls": b"1"})]
    )
    found = verify_shards.read(data, config.Metadata(members={"cls": "int"}))
    assert (found.keys, found.faults) == ([ID], ["1 samples have no picture"])
    run.reseal({run.shards[0]: data})
    assert "1 samples have no picture" in run.faults()[run.shards[0]]


@pytest.mark.parametrize(
    ("extension", "content", "words"),
    [
        ("json", {"label": 1}, None),
        ("json", {"label": "Anna"}, "does not let pass: label"),
        ("json", b'{"label": "Anna", "label": 1}', "is not written as the job writes it"),
        ("json", b'{"label": 1} ', "is not written as the job writes it"),
        ("json", {"label": True}, "does not let pass: label"),
        ("json", {"caption": "Anna"}, "does not let pass: caption"),
        ("json", {"rate": 1.5}, None),
        ("json", [1], "is no JSON object"),
        ("json", b"{", "is no JSON object"),
        ("json", b"[" * 9999, "is no JSON object"),
        ("cls", b"12", None),
        ("cls", b"Anna", "is not allowed by metadata.members"),
    ],
)
def test_fields_beside_a_picture_are_on_the_allow_list(
    extension: str, content: Any, words: str | None
) -> None:
    allowed = config.Metadata(sidecar_fields={"label": "int", "rate": "float"}, members={"cls": "int"})
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    found = list(verify_shards.sidecar(data, extension, allowed))
    assert [words in fault for fault in found] == [True] if words else found == []


def encoded(kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(sink, kind, **options)
    return sink.getvalue()


def exif() -> bytes:
    made = Image.Exif()
    made[0x010E] = "Anna at home"
    return made.tobytes()


def text() -> PngImagePlugin.PngInfo:
    made = PngImagePlugin.PngInfo()
    made.add_text("Author", "Anna")
    return made


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk before its end; its checksum does not matter here."""
    data = encoded("PNG")
    return data[:-12] + len(content).to_bytes(4, "big") + kind + content + bytes(4) + data[-12:]


ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("extension", "data", "words"),
    [
        ("jpg", encoded("JPEG", exif=exif()), "holds an APP1 block (Exif)"),
        ("jpg", encoded("JPEG", xmp=b"<x/>"), "holds an APP1 block (http)"),
        ("jpg", encoded("JPEG", icc_profile=ICC), "holds an APP2 block (ICC_PROFILE)"),
        ("jpg", encoded("JPEG", comment=b"Anna"), "holds a comment"),
        ("jpg", encoded("JPEG", dpi=(300, 300)), "has a JFIF header with more"),
        ("jpg", encoded("JPEG") + b"trailer", "has bytes behind its end"),
        ("jpg", encoded("JPEG")[:-2], "cannot be read to its end"),
        ("jpg", encoded("JPEG")[:60], "cannot be read to its end"),
        ("jpg", encoded("PNG"), "cannot be read to its end"),
        ("jpg", b"", "cannot be read to its end"),
        ("png", encoded("PNG", pnginfo=text()), "holds a tEXt chunk"),
        ("png", encoded("PNG", exif=exif()), "holds a eXIf chunk"),
        ("png", encoded("PNG", dpi=(300, 300)), "holds a pHYs chunk"),
        ("png", encoded("PNG", icc_profile=ICC), "holds a iCCP chunk"),
        ("png", chunk(b"tIME", bytes(7)), "holds a tIME chunk"),
        ("png", chunk(b"zzZz", b"Anna"), "holds a zzZz chunk"),
        ("png", encoded("PNG") + b"x", "has bytes behind its end"),
        ("png", encoded("PNG")[:-1], "cannot be read to its end"),
        ("webp", encoded("WEBP", exif=exif()), "holds a EXIF chunk"),
        ("webp", encoded("WEBP", xmp=b"<x/>"), "holds a XMP chunk"),
        ("webp", encoded("WEBP", icc_profile=ICC), "holds a ICCP chunk"),
        ("webp", encoded("WEBP") + b"xx", "has bytes behind its end"),
        ("webp", encoded("WEBP")[:-2], "cannot be read to its end"),
        ("webp", b"RIFF", "cannot be read to its end"),
    ],
)  # fmt: skip
def test_what_a_picture_holds_beside_pixels(extension: str, data: bytes, words: str) -> None:
    assert any(words in fault for fault in verify_shards.picture(data, extension))


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_pictures_as_the_job_writes_them_are_plain(extension: str) -> None:
    for number in range(6):
        assert list(verify_shards.picture(picture(number, extension), extension)) == []
    for options in ({"progressive": True}, {"quality": 30}, {"restart_marker_rows": 1}):
        assert list(verify_shards.picture(encoded("JPEG", **options), "jpg")) == []


def test_a_picture_with_metadata_in_a_shard_is_named(run: Sealed) -> None:
    shard = run.shards[0]
    with tarfile.open(fileobj=io.BytesIO(run.objects[shard])) as made:
        member = made.getnames()[0]
    kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[member.rpartition(".")[2]]
    run.reseal({shard: repacked(run.objects[shard], lambda info, content: encoded(kind, exif=exif()))})
    (fault,) = run.faults()[shard]
    assert fault.startswith(f"member {member} holds")


def grey(width: int = 32) -> bytes:
    sink = io.BytesIO()
    Image.new("L", (width, 24), 3).save(sink, "PNG")
    return sink.getvalue()


SEVERAL = {
    "jpg": picture(1, "jpg"),
    "left.jpg": picture(2, "jpg"),
    "1.png": picture(3, "png"),
    "mask.png": grey(),
    "txt": "a dög".encode(),
}


def several(members: dict[str, bytes], allowed: config.Metadata, names: tuple[str, ...]) -> list[str]:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(f"{ID}.{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    found = verify_shards.read(sink.getvalue(), allowed, names)
    if not found.faults:
        assert (found.keys, found.pictures) == ([ID], 3)
    return [fault.removeprefix(f"member {ID}.") for fault in found.faults]


def test_several_pictures_masks_and_texts_where_they_are_allowed() -> None:
    allowed = config.Metadata(members={"txt": "free"}, masks=["mask.png"])
    assert several(SEVERAL, allowed, ("left",)) == []
    assert several(SEVERAL, allowed, ()) == ["left.jpg has no plain name"]
    assert several(SEVERAL, config.Metadata(members={"txt": "free"}), ("left",)) == [
        "mask.png has no plain name"
    ]
    assert several(SEVERAL, config.Metadata(masks=["mask.png"]), ("left",)) == [
        "txt is not allowed by metadata.members"
    ]
    for name, data, words in (
        ("mask.png", grey(31), "mask.png is no label map of its picture, as metadata.masks lets pass"),
        ("mask.png", encoded("PNG"), "mask.png is no label map of its picture, as metadata.masks lets pass"),
        ("mask.png", encoded("PNG", pnginfo=text()), "mask.png holds a tEXt chunk"),
        ("txt", b"\xff", "txt is not allowed by metadata.members"),
        ("1.png", encoded("PNG", pnginfo=text()), "1.png holds a tEXt chunk"),
        ("x.json", b"{}", "x.json has no plain name"),
    ):
        (fault,) = several(SEVERAL | {name: data}, allowed, ("left",))
        assert fault == words


@pytest.mark.parametrize(
    ("rule", "value", "fine"),
    [
        ("boxes", [[1.0, 2.0, 3.0, 4.0]], True),
        ("boxes", [1.0, 2.0, 3.0, 4.0], False),
        ("boxes", [["Anna"]], False),
        ({"type": "float", "round": 0.5}, 1.5, True),
        ({"type": "float", "round": 0.5}, 1.25, False),
        ({"type": "int", "round": 10}, 1987, False),
    ],
)
def test_a_value_that_did_not_go_through_the_policy(rule: Any, value: Any, fine: bool) -> None:
    allowed = config.Metadata(sidecar_fields={"x": rule})
    assert (list(verify_shards.fields({"x": value}, allowed)) == []) == fine
