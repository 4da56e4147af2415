"""A source that says something unique in every place that can say anything, and parts that tell what they see."""

import base64
import hashlib
import io
import json
import logging
import os
import secrets
import tarfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.ExifTags import GPS, IFD, Base
from PIL.PngImagePlugin import PngInfo

from deid.demo import corpus as demo
from deid.demo import exif
from deid.faces.detect import CenterFaceDetector
from deid.faces.embed import DlibEmbedder
from deid.interfaces import Detections, Face, Picture
from deid.models.store import default_store
from deid.privacy.leaks import Needle, vector_encodings
from tests.e2e import corpus

RECIPE = demo.Recipe(seed=7, pictures=5, shards=1, people=3, takes=2, candidates=8, most=800)
TEXT, FOLDER = (
    "DEID_TEST_TEXT",
    "DEID_TEST_FOLDER",
)  # environment: what TellingDetector tells; where embeddings go
_MAKER, _COMMENT, _XP_TITLE = 0x927C, 0x9286, 0x9C9B


@dataclass
class Source:
    """Shards by their path below the input, and all that may not be found of them."""

    shards: dict[str, bytes] = field(default_factory=dict)
    needles: dict[str, Needle] = field(default_factory=dict)

    def text(self, place: str) -> str:
        """A word that nothing else holds, plain ASCII; it is a needle from now on."""
        word = "cny" + base64.b32encode(secrets.token_bytes(10)).decode().lower()
        self.needles[place] = word
        return word

    def data(self, place: str, data: bytes) -> bytes:
        """Bytes that nothing else holds; they are a needle from now on."""
        self.needles[place] = data
        return data

    def hashed(self, place: str, data: bytes) -> bytes:
        """A file's bytes, of which no plain hash may be found either."""
        for name in ("md5", "sha256"):
            digest = hashlib.new(name, data, usedforsecurity=False).digest()
            self.needles[f"{name} of {place}"] = digest
        return data


def make(folder: Path) -> Source:
    """Two shards with faces and metadata, one that is damaged; `folder` is for the demo's corpus."""
    source = Source()
    faces = [picture for picture in people(folder) if min(picture.size) >= 200]
    key = source.text("sample key")
    first = [
        (f"{source.text('folder in a shard')}/{key}.jpg", told_jpeg(source, faces[0])),
        (f"{key}.json", sidecar(source, "nested")),
        (f"{key}.cls", source.text("member .cls").encode()),
        (f"{key}.txt", source.text("member .txt").encode()),
        (f"{key}.caption", source.text("member .caption").encode()),
        *named(source, "key of a PNG", "png", told_png(source, faces[1])),
        *named(source, "key of a WebP", "webp", told_webp(source, faces[2])),
    ]
    second = [
        *named(source, "key of a portrait", "jpg", corpus.encoded(corpus.portrait(300))),
        *broken(source, faces[0]),
    ]
    shard = f"{source.text('folder of a shard')}/{source.text('name of a shard')}.tar"
    source.shards[shard] = tar(source, first)
    source.shards[f"{source.text('name of another shard')}.tar"] = tar(source, second, links=True)
    whole = tar(source, [(f"{source.text('key in a damaged shard')}{n}.jpg", first[0][1]) for n in range(2)])
    source.shards[f"{source.text('name of a damaged shard')}.tar"] = whole[: int(len(whole) * 0.7)]
    for name, data in source.shards.items():
        source.hashed(f"shard {name}", data)
    return source


def named(source: Source, place: str, extension: str, picture: bytes) -> list[tuple[str, bytes]]:
    """A sample that says who it shows: somebody of its own."""
    key = source.text(place)
    who = json.dumps({"who": source.text(f"subject, {place}")}).encode()
    return [(f"{key}.{extension}", picture), (f"{key}.json", who)]


def people(folder: Path) -> list[Image.Image]:
    """Pictures of the demonstration's fictional people."""
    found = []
    for shard in demo.make(folder, RECIPE).shards:
        with tarfile.open(shard) as archive:
            for info in archive:
                stream = archive.extractfile(info)
                if stream is not None and info.name.endswith((".jpg", ".png")):
                    found.append(Image.open(io.BytesIO(stream.read())).convert("RGB"))
    return found


def sidecar(source: Source, place: str) -> bytes:
    """Fields on the allow-list with values that may not pass, and fields that are not on it."""
    inner = {source.text(f"{place} field"): [source.text(f"{place} value"), {"deep": source.text("deep")}]}
    return json.dumps(
        {
            "label": 3,
            "score": source.text("wrong type of a listed field"),
            "light": source.text("a value that is not listed"),
            "who": source.text("subject"),
            "name": "Zoë " + source.text("name"),
            source.text("field name"): inner,
        },
        ensure_ascii=False,
    ).encode()


def told_jpeg(source: Source, picture: Image.Image) -> bytes:
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{source.text('XMP')}</x:xmpmeta>".encode()
    data = corpus.encoded(
        picture,
        quality=88,
        exif=exif_block(source),
        xmp=xmp,
        icc_profile=profile(source),
        comment=source.text("JPEG comment").encode(),
    )
    data = data[:2] + iptc(source) + data[2:] + source.text("behind the JPEG").encode()
    middle = len(data) // 2
    source.data("pixels of a JPEG", data[middle : middle + 48])
    return source.hashed("a JPEG", data)


def exif_block(source: Source) -> bytes:
    made = Image.Exif()
    made[Base.ImageDescription] = source.text("EXIF ImageDescription")
    made[Base.Artist] = source.text("EXIF Artist")
    made[Base.Software] = source.text("EXIF Software")
    made[_XP_TITLE] = source.text("EXIF XPTitle, UTF-16").encode("utf-16-le")
    inner = made.get_ifd(IFD.Exif)
    inner[_COMMENT] = b"ASCII\0\0\0" + source.text("EXIF UserComment").encode()
    inner[_MAKER] = b"Maker\0" + source.text("EXIF MakerNote").encode()
    degrees = [(secrets.randbelow(10**9), 10_000_019) for _ in range(3)]
    made.get_ifd(IFD.GPSInfo).update(
        {
            GPS.GPSLatitude: tuple(float(a) / b for a, b in degrees),
            GPS.GPSAreaInformation: source.text("EXIF GPS area").encode(),
        }
    )
    noise = np.random.default_rng().integers(0, 255, (160, 120, 3), dtype=np.uint8)
    block = exif._with_thumbnail(made.tobytes(), noise)
    source.data("EXIF thumbnail", block[-400:-352])
    return block


def iptc(source: Source) -> bytes:
    """An APP13 segment with an IPTC caption (IIM 4.2, data set 2:120)."""
    caption = source.text("IPTC caption").encode()
    record = b"\x1c\x02\x78" + len(caption).to_bytes(2, "big") + caption
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(record).to_bytes(4, "big") + record
    body += b"\0" * (len(record) % 2)
    return b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body


def profile(source: Source) -> bytes:
    """An sRGB profile with a description and a copyright of its own, in the place of LittleCMS's."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for place, plain in (("description", "sRGB built-in"), ("copyright", "No copyright, use freely")):
        word = source.text(f"ICC {place}")[: len(plain)]
        source.needles[f"ICC {place}"] = word
        data = data.replace(plain.encode("utf-16-be"), word.ljust(len(plain)).encode("utf-16-be"))
    return data


def told_png(source: Source, picture: Image.Image) -> bytes:
    info = PngInfo()
    info.add_text("Author", source.text("PNG tEXt"))
    info.add_text("Comment", source.text("PNG zTXt") * 3, zip=True)
    info.add_itxt("Title", source.text("PNG iTXt"), "en", source.text("PNG iTXt keyword"))
    made = Image.Exif()
    made[Base.Artist] = source.text("PNG eXIf")
    return source.hashed("a PNG", corpus.encoded(picture, "PNG", pnginfo=info, exif=made))


def told_webp(source: Source, picture: Image.Image) -> bytes:
    made = Image.Exif()
    made[Base.Artist] = source.text("WebP EXIF")
    return source.hashed(
        "a WebP",
        corpus.encoded(picture, "WEBP", exif=made, xmp=source.text("WebP XMP").encode()),
    )


def broken(source: Source, picture: Image.Image) -> list[tuple[str, bytes]]:
    """Pictures that are quarantined, each with a name and a content of its own."""
    whole = told_jpeg_with(source, "EXIF of a truncated picture", picture)
    grey = corpus.encoded(corpus.portrait(256).convert("L"))
    text = f"this is no picture but {source.text('text named .jpg')}"
    return [
        (f"{source.text('key of a truncated picture')}.jpg", whole[: len(whole) // 2]),
        (f"{source.text('key of a text')}.jpg", text.encode()),
        (f"{source.text('key of an empty picture')}.jpg", b""),
        (f"{source.text('key of what the detector hates')}.jpg", grey),
        (f"{source.text('key without a picture')}.json", b"{}"),
        (f"../{source.text('unsafe member')}.jpg", b"x"),
    ]


def told_jpeg_with(source: Source, place: str, picture: Image.Image) -> bytes:
    made = Image.Exif()
    made[Base.Artist] = source.text(place)
    return corpus.encoded(picture, exif=made)


def tar(source: Source, members: Sequence[tuple[str, bytes]], links: bool = False) -> bytes:
    """A pax archive whose headers say something as well."""
    sink = io.BytesIO()
    number = len(source.shards)
    headers = {"comment": source.text(f"pax comment {number}")}
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_234_567_890.25 + number
            info.uname, info.gname = source.text(f"tar uname {name}"), source.text(f"tar gname {name}")
            info.pax_headers = {"LIBARCHIVE.note": source.text(f"pax header {name}")}
            archive.addfile(info, io.BytesIO(data))
        if links:
            info = tarfile.TarInfo(source.text("name of a link") + ".jpg")
            info.type, info.linkname = tarfile.SYMTYPE, "/" + source.text("target of a link")
            archive.addfile(info)
    return sink.getvalue()


def embeddings(folder: Path) -> Mapping[str, Needle]:
    """Needles of all embeddings that RecordingEmbedder wrote."""
    found = {}
    for path in sorted(folder.glob("*.npy")):
        for number, vector in enumerate(np.load(path)):
            found[f"embedding {path.stem} {number}"] = vector_encodings(vector)
    return found


class RecordingEmbedder(DlibEmbedder):
    """Writes what it finds where the test looks for it."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        super().__init__(default_store().files("dlib_resnet"), threads, device)

    def embed(
        self, pictures: Sequence[Picture], faces: Sequence[Sequence[Face]]
    ) -> list[NDArray[np.float32]]:
        found = super().embed(pictures, faces)
        for vectors in found:
            if len(vectors):
                np.save(Path(os.environ[FOLDER]) / f"{secrets.token_hex(8)}.npy", vectors)
        return found


class TellingDetector(CenterFaceDetector):
    """Tells a name of the source, as libraries do, and raises with it for a picture whose channels are equal."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        super().__init__(default_store().files("centerface"), threads, device)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        text = os.environ[TEXT]
        warnings.warn(f"{text} has corrupt EXIF data", stacklevel=1)
        logging.getLogger("PIL.Image").error("cannot read %s", text)
        if any((p[..., 0] == p[..., 1]).all() for p in pictures):
            raise FileNotFoundError(2, "No such file or directory", text)
        return super().detect(pictures)


class BrokenDetector(TellingDetector):
    """Cannot even be loaded, and says of what."""

    def __init__(self, files: Mapping[str, Path], threads: int = 1, device: str = "cpu") -> None:
        raise OSError(5, "Input/output error", os.environ[TEXT])
