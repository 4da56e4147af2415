"""Every input format into every output format, in whole runs: what goes out is what came in, but for the faces."""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from numpy.typing import NDArray
from PIL import Image

from deid import config as configuration
from deid.pipeline import run as pipeline
from deid.privacy import seal, verify
from deid.shards import storage
from deid.shards.formats import Layout
from deid.shards.readers import FORMATS
from tests.e2e import corpus

SIDE, SAMPLES = 240, 5
FACE = np.s_[0:120, 60:160]  # of the portrait: what may be replaced
POLICY = {
    "sidecar_fields": {"label": "int", "boxes": "boxes"},
    "pictures": ["left"],
    "masks": ["mask.png"],
}

KINDS = ("webdataset", "parquet", "folder")
FAST = {
    ("webdataset", "parquet"),
    ("parquet", "folder"),
    ("folder", "webdataset"),
}  # each once in and once out
PAIRS = [
    pytest.param(*pair, marks=() if pair in FAST else pytest.mark.slow)
    for pair in itertools.product(KINDS, KINDS)
]


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()


def png(pixels: NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def sample(number: int) -> dict[str, Any]:
    """A portrait or a landscape, a second picture, a mask, and fields: one passes, one is a box, one names somebody."""
    main = np.array(corpus.portrait(SIDE) if number < 2 else corpus.landscape().resize((SIDE, SIDE)))
    main[0, 0] = (number, 0, 0)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[50:100, 60 : 90 + number] = 7
    left = np.array(corpus.landscape().resize((64, 48)))
    left[0, 0] = (number, 1, 0)
    fields = {"label": number, "boxes": [[1.5, 2.0, 30.0, 40.0 + number]], "who": corpus.CANARY}
    return {"main": main, "left": left, "mask": mask, "fields": fields}


def write(kind: str, folder: Path) -> None:
    """The source."""
    given = [sample(number) for number in range(SAMPLES)]
    folder.mkdir()
    if kind == "webdataset":
        members = []
        for n, one in enumerate(given):
            key = f"{corpus.CANARY}{n}"
            members += [(f"{key}.png", png(one["main"])), (f"{key}.left.png", png(one["left"]))]
            members += [
                (f"{key}.mask.png", png(one["mask"])),
                (f"{key}.json", json.dumps(one["fields"]).encode()),
            ]
        (folder / "0.tar").write_bytes(corpus.tar(members))
    elif kind == "parquet":
        columns = {
            "image": [{"bytes": png(one["main"]), "path": corpus.CANARY} for one in given],
            "left": [{"bytes": png(one["left"]), "path": None} for one in given],
            "mask": [{"bytes": png(one["mask"]), "path": None} for one in given],
            **{name: [one["fields"][name] for one in given] for name in ("label", "boxes", "who")},
        }
        pq.write_table(pa.table(columns), folder / "0.parquet", row_group_size=2)
    else:
        rows = []
        for n, one in enumerate(given):
            name = f"{corpus.CANARY}{n}"
            (folder / f"{name}.png").write_bytes(png(one["main"]))
            (folder / f"{name}.mask.png").write_bytes(png(one["mask"]))
            rows.append(json.dumps({"file_name": f"{name}.png", **one["fields"]}))
        (folder / "metadata.jsonl").write_text("\n".join(rows))


def read(kind: str, folder: str) -> list[dict[str, Any]]:
    """Samples of an output, by its own reader: pictures by name, fields, mask."""
    layout = Layout(pictures=("left",), masks=("mask.png",), root=folder)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    pattern = {"folder": "images/*", "parquet": "shards/*"}.get(kind, FORMATS[kind].PATTERN)
    for file in storage.list_files(folder, pattern):
        index = FORMATS[kind].scan(file, layout)
        rows = index.to_pylist()
        for number, data, beside, reason in FORMATS[kind].read(index, layout):
            assert not reason
            row = rows[number]
            key = (
                row["key"].rpartition("/")[2].partition(".")[0] if kind == "folder" else row["uri"],
                row["sample"],
            )
            one = found.setdefault(key, {"pictures": {}, "fields": {}, "mask": None})
            name = row["name"] or (".left" in row["key"] and kind == "folder" and "left") or ""
            one["pictures"][name] = np.array(Image.open(io.BytesIO(data)))
            one["fields"] = json.loads(beside.get("json") or "{}")
            if "mask.png" in beside:
                one["mask"] = np.array(Image.open(io.BytesIO(beside["mask.png"])))
    return list(found.values())


def job(folder: Path, given: str, to: str, **changes: Any) -> configuration.Config:
    base = {
        "input": {
            "uri": str(folder / "raw"),
            "format": given,
            "image_columns": ["image", "left"] if given == "parquet" else [],
        },
        "output": {"uri": str(folder / "out"), "format": to, "row_group": 2},
        "state": str(folder / "state"),
        "metadata": POLICY,
        "models": {"accept": ["clean", "permissive", "restricted"]},
        "unit_size": 3,
        "anonymizer": "solid",
        "region": {"kind": "face"},
        "assignment": {"mode": "per-face"},
    }
    return configuration.parse(base | changes)


@pytest.mark.parametrize(("given", "to"), PAIRS)
def test_any_format_becomes_any_other(tmp_path: Path, given: str, to: str) -> None:
    write(given, tmp_path / "raw")
    result = pipeline.run(job(tmp_path, given, to))
    several = 1 if given == "folder" else 2
    counts = result.manifest["counts"]
    assert counts["pictures_in"] == counts["pictures_out"] == SAMPLES * several, result.manifest["quarantine"]
    assert counts["faces"] == counts["covered"] == 2
    found = verify.verify(result.output, seal.load_public(result.public_key))
    assert [str(finding) for finding in found] == []

    samples = read(to, result.output)
    assert len(samples) == SAMPLES
    by_number: dict[int, dict[str, Any]] = {}
    for one in samples:
        for name, pixels in one["pictures"].items():
            number = int(pixels[0, 0, 0])
            known = by_number.setdefault(number, {"pictures": {}, "fields": {}, "mask": None})
            known["pictures"][name] = pixels
            if not name:
                known |= {"fields": one["fields"], "mask": one["mask"]}
    assert sorted(by_number) == list(range(SAMPLES))
    for number, one in by_number.items():
        source = sample(number)
        assert len(one["pictures"]) == several
        main = one["pictures"][""]
        assert main.shape == source["main"].shape
        outside = np.ones(main.shape[:2], bool)
        if number < 2:
            outside[FACE] = False
            assert (main != source["main"]).any(2)[FACE].mean() > 0.1
        np.testing.assert_array_equal(main[outside], source["main"][outside])
        if several > 1:
            np.testing.assert_array_equal(one["pictures"]["left"], source["left"])
        kept = {name: one["fields"].get(name) for name in ("label", "boxes")}
        assert kept == {name: source["fields"][name] for name in kept}
        assert "who" not in one["fields"]
        if to != "folder":
            np.testing.assert_array_equal(one["mask"], source["mask"])
    everything = b"".join(storage.read_bytes(file.uri) for file in storage.list_files(result.output))
    assert corpus.CANARY.encode() not in everything
