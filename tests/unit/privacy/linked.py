"""Small corpora and what a run would make of them, sound or with a leak; "replacing" is a patch in the middle."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from deid import config, records
from deid.demo import exif
from deid.interfaces import Face, Picture
from deid.privacy import audit, keys, manifest
from deid.shards import pictures, webdataset
from tests.unit.privacy import released

UNIT = 16
SETTINGS = config.parse(
    {
        "input": {"uri": "raw"},
        "output": {"uri": "out"},
        "state": "state",
        "unit_size": UNIT,
        "metadata": {
            "sidecar_fields": {"label": "int", "place": {"type": "str", "free": True}},
            "members": {"cls": "int"},
        },
    }
)
BEHIND = {1: 5, 2: 12, 3: 30}  # people by surrogate
FIRST = ("alexandra", "benjamin", "charlotte", "dominik", "eleonore", "friedrich")
LAST = ("abendroth", "bergmann", "cavalcanti", "dimitrov", "escobar", "fitzgerald")


@dataclass
class Photo:
    """One sample of the corpus."""

    key: str
    pixels: Picture
    members: dict[str, bytes]
    number: int  # in the order of the corpus
    shard: int

    @property
    def extension(self) -> str:
        return next(name for name in self.members if name in ("jpg", "png"))


@dataclass
class Item:
    """One sample of the output."""

    photo: Photo
    key: str
    members: dict[str, bytes]


def picture(rng: np.random.Generator) -> Picture:
    coarse = rng.integers(0, 255, (int(rng.integers(3, 9)), int(rng.integers(3, 9)), 3), np.uint8)
    image = Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC)
    noise = rng.normal(0, rng.uniform(0, 9), (72, 96, 3))
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)


def encoded(pixels: Picture, name: str, author: str, rng: np.random.Generator) -> bytes:
    sink = io.BytesIO()
    image = Image.fromarray(pixels)
    if name == "jpg":
        image.save(sink, "JPEG", quality=90, exif=exif.block(pixels, 1, author, rng), comment=f"by {author}")
    else:
        image.save(sink, "PNG")
    return sink.getvalue()


def corpus(folder: Path, seed: int, sizes: Sequence[int] = (20, 31, 15, 24)) -> list[Photo]:
    """WebDataset shards of so many pictures, named after people, with EXIF and sidecars."""
    rng, photos = np.random.default_rng(seed), list[Photo]()
    for shard, size in enumerate(sizes):
        for _ in range(size):
            name = f"{rng.choice(FIRST)}_{rng.choice(LAST)}"
            extension, pixels = "png" if rng.random() < 0.2 else "jpg", picture(rng)
            sidecar = {"name": name, "place": "harbour", "label": 3, "photo": int(rng.integers(10**8, 10**9))}
            members = {
                extension: encoded(pixels, extension, name, rng),
                "json": json.dumps(sidecar).encode(),
                "cls": b"3",
            }
            photos.append(Photo(f"{name}_{rng.integers(10**6):06}", pixels, members, len(photos), shard))
        made = [(photo.key, photo.members) for photo in photos if photo.shard == shard]
        path = folder / "wedding-kowalski" / f"reception-{shard:05}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(webdataset.write_shard(made))
    return photos


def replaced(photo: Photo, rng: np.random.Generator, bare: bool) -> bytes:
    """The picture with a patch in its middle, encoded by the project."""
    pixels = photo.pixels.copy()
    if not bare:
        pixels[20:52, 32:64] = rng.integers(0, 255, 3, np.uint8)
    return pictures.encode(pixels, photo.extension, SETTINGS.output.quality)


@dataclass
class Leak:
    """What goes wrong: each part may be put in the place of the sound one."""

    units: Callable[[list[Photo], bytes], list[list[Photo]]] | None = None
    key: Callable[[Photo], str] | None = None
    members: Callable[[Item], dict[str, bytes]] | None = None
    sort: bool = True  # members of a shard by their key
    tar: Callable[[bytes], bytes] = lambda data: data
    audit: Callable[[pa.Table, dict[str, Photo]], pa.Table] = lambda table, _: table
    manifest: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values
    shard: Callable[[int, str], str] = lambda unit, name: name


def run(folder: Path, photos: list[Photo], seed: int, leak: Leak | None = None) -> None:
    """Write an output folder, sound but for the leak."""
    leak, secret = leak or Leak(), hashlib.sha256(str(seed).encode()).digest()
    rng = np.random.default_rng([seed, 1])
    order = [photos[n] for n in keys.permutation(secret, len(photos))]
    units = [order[start : start + UNIT] for start in range(0, len(order), UNIT)]
    if leak.units:
        units = leak.units(photos, secret)
    raw, commits, origin = [], [], {}
    for number, unit in enumerate(units):
        items, faces = [], []
        for position, photo in enumerate(unit):
            key = leak.key(photo) if leak.key else keys.output_id(secret, number, position)
            bare = bool(rng.random() < 0.15)
            members = {photo.extension: replaced(photo, rng, bare), "cls": b"3"}
            members["json"] = json.dumps({"label": 3, "place": "harbour"}, sort_keys=True).encode()
            item = Item(photo, key, members)
            items.append(dataclasses.replace(item, members=leak.members(item) if leak.members else members))
            faces.append([] if bare else [face(rng) for _ in range(rng.integers(1, 3))])
            origin[key] = photo
        name = leak.shard(number, keys.shard_name(secret, number, b"content"))
        made = [(item.key, item.members) for item in items]
        data = leak.tar(webdataset.write_shard(sorted(made) if leak.sort else made))
        write(folder / "shards" / f"{name}.tar", data)
        table = audit.rows(
            secret,
            number,
            f"shards/{name}.tar",
            (((n, n), of) for n, of in enumerate(faces)),
            [],
            SETTINGS.assignment,
        )
        named = {keys.output_id(secret, number, n): item.key for n, item in enumerate(items)}
        ids = pa.array([named[n] for n in table["output_id"].to_pylist()], pa.string())
        raw.append(
            audit.classed(table.set_column(0, records.AUDIT_RAW.field(0), ids), audit.classes(BEHIND, 5))
        )
        commits.append(commit(number, name, data, faces))
    for name, data in released.parts(leak.audit(released.release(raw, 5), origin)).items():
        write(folder / name, data)
    summary = released.summary(raw, 5, {"pictures": len(photos)})
    write(folder / "audit" / "summary.parquet", audit.to_bytes(summary))
    write(folder / "manifest.json", manifest.to_bytes(leak.manifest(made_manifest(commits, secret))))


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def face(rng: np.random.Generator) -> Face:
    height = float(rng.choice([15, 30, 60, 100, 200]))
    box = np.array([0, 0, height, height], np.float32)
    drawn: dict[str, Any] = {"sex": int(rng.integers(-1, 2)), "age": float(rng.uniform(10, 80))}
    drawn["expression"] = str(rng.choice(["smiling", "neutral"]))
    drawn["surrogate_id"] = int(rng.choice(list(BEHIND)))
    return Face(
        *(box, 0.9, np.zeros((5, 2), np.float32)),
        anonymizer=str(rng.choice(["surrogate", "simple"], p=[0.9, 0.1])),
        gate="passed",
        status="replaced",
        **drawn,
    )


def commit(unit: int, name: str, data: bytes, faces: list[list[Face]]) -> dict[str, Any]:
    found = [face for of in faces for face in of]
    digest = hashlib.sha256(data).hexdigest()
    return {
        **{"unit": unit, "objects": [{"name": f"shards/{name}.tar", "bytes": len(data), "sha256": digest}]},
        **{
            "pictures_in": len(faces),
            "pictures_out": len(faces),
            "pictures_quarantined": 0,
            "pictures_dropped": 0,
        },
        **{"faces": len(found), "replaced": len(found), "covered": 0, "reasons": [], "fields": []},
        "anonymizers": [{"name": "surrogate", "faces": len(found)}],
        "gate": [{"name": "passed", "faces": len(found)}],
    }


def made_manifest(commits: list[dict[str, Any]], secret: bytes) -> dict[str, Any]:
    table = pa.Table.from_pylist(commits, schema=records.COMMIT)
    sums = manifest.counts(table, sum(row["pictures_in"] for row in commits), 0)
    models = {"centerface": {"centerface.onnx": hashlib.sha256(b"centerface").hexdigest()}}
    return manifest.build(SETTINGS, secret.hex()[:16], table, [], sums, {}, models, {}, {})
