"""The job against the real S3 server: what comes out, what does not, and what the counts say."""

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from deid import config as configuration
from deid import records
from deid.faces.detect import CenterFaceDetector
from deid.faces.embed import DlibEmbedder
from deid.faces.mesh import FaceMesher
from deid.interfaces import Face
from deid.models.store import default_store
from deid.pipeline import run as pipeline
from deid.pipeline import trace
from deid.shards import storage
from tests.e2e import corpus

ACCEPT = ["clean", "permissive", "restricted"]


def settings(raw: str, out: str, state: str, **changes: Any) -> configuration.Config:
    base = {
        "input": {"uri": raw},
        "output": {"uri": out},
        "state": state,
        "models": {"accept": ACCEPT},
        "unit_size": 4,
        "assignment": {"mode": "per-face"},
        "metadata": {"sidecar_fields": {"label": "int", "score": "int"}, "members": {"cls": "int"}},
        "limits": {"max_pixels": 20_000_000},
    }
    return configuration.parse(base | changes)


def members(result: pipeline.RunResult) -> dict[str, bytes]:
    """Every member of every output shard that the manifest names."""
    found: dict[str, bytes] = {}
    for entry in result.manifest["objects"]:
        if entry["name"].endswith(".tar"):
            data = storage.read_bytes(storage.join(result.output, entry["name"]))
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for info in archive:
                    assert info.name not in found
                    assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
                    stream = archive.extractfile(info)
                    assert stream is not None
                    found[info.name] = stream.read()
    return found


def audit(result: pipeline.RunResult) -> list[dict[str, Any]]:
    names = [e["name"] for e in result.manifest["objects"] if e["name"].startswith("audit/")]
    tables = [
        pq.read_table(io.BytesIO(storage.read_bytes(storage.join(result.output, name)))) for name in names
    ]
    assert all(table.schema.equals(records.AUDIT, check_metadata=True) for table in tables)
    return [row for table in tables for row in table.to_pylist()]


@pytest.fixture(scope="module")
def ended(s3: Any) -> tuple[configuration.Config, pipeline.RunResult]:
    raw, out, state = (f"s3://{s3.bucket()}" for _ in range(3))
    for name, data in corpus.good_shards().items():
        storage.write_bytes(storage.join(raw, "in", name), data)
    config = settings(f"{raw}/in", f"{out}/out", f"{state}/state", seed=5)
    return config, pipeline.run(config)


@pytest.fixture(scope="module")
def done(ended: tuple[configuration.Config, pipeline.RunResult]) -> pipeline.RunResult:
    return ended[1]


@pytest.fixture(scope="module")
def pairs(ended: tuple[configuration.Config, pipeline.RunResult]) -> list[trace.Pair]:
    return list(trace.pairs(*ended))


@pytest.fixture(scope="module")
def faces() -> Callable[[NDArray[np.uint8]], list[Face]]:
    """The faces of a picture, with mesh and embedding."""
    store = default_store()
    detector = CenterFaceDetector(store.files("centerface"))
    mesher, embedder = FaceMesher(store.files("facemesh")), DlibEmbedder(store.files("dlib_resnet"))

    def look(pixels: NDArray[np.uint8]) -> list[Face]:
        found = detector.detect([pixels])[0]
        meshes, scores = mesher.mesh(pixels, found)
        made = [
            Face(box, float(score), points, mesh=mesh, mesh_score=float(sure))
            for box, score, points, mesh, sure in zip(
                found.boxes, found.scores, found.points, meshes, scores, strict=True
            )
        ]
        for face, vector in zip(made, embedder.embed([pixels], [made])[0], strict=True):
            face.embedding = vector
        return made

    return look


def test_every_picture_and_every_face_is_accounted_for(done: pipeline.RunResult) -> None:
    counts = done.manifest["counts"]
    assert counts["pictures_in"] == counts["pictures_out"] == 6
    assert counts["pictures_quarantined"] == 0
    assert counts["faces"] == counts["replaced"] + counts["covered"] == 6
    assert counts["replaced"] == 6


def test_the_objects_are_those_that_the_manifest_names(done: pipeline.RunResult) -> None:
    listed = {obj.uri: obj.size for obj in storage.list_files(done.output, "*")}
    named = {storage.join(done.output, e["name"]): e["bytes"] for e in done.manifest["objects"]}
    assert listed.keys() - named.keys() == {storage.join(done.output, "manifest.json")}
    for entry in done.manifest["objects"]:
        data = storage.read_bytes(storage.join(done.output, entry["name"]))
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]


def test_audit_rows_join_the_output(done: pipeline.RunResult) -> None:
    rows, names = audit(done), members(done)
    keys = {name.partition(".")[0] for name in names}
    assert len(rows) == 6
    assert {row["output_id"] for row in rows} <= keys
    assert {row["status"] for row in rows} == {"replaced"}
    assert {row["k_class"] for row in rows} == {"none"}


def test_only_the_allowed_fields_pass(done: pipeline.RunResult) -> None:
    names = members(done)
    sidecars = [json.loads(data) for name, data in names.items() if name.endswith(".json")]
    assert sorted(fields["label"] for fields in sidecars) == [1, 2, 4]
    assert all(
        fields.keys() == {"label"} for fields in sidecars
    )  # score is a string there, an int was declared
    assert [data for name, data in names.items() if name.endswith(".cls")] == [b"3"]


def test_no_name_or_field_of_the_source_is_in_the_output(done: pipeline.RunResult) -> None:
    everything = [storage.read_bytes(obj.uri) for obj in storage.list_files(done.output, "*")]
    names = [obj.uri for obj in storage.list_files(done.output, "*")]
    text = corpus.CANARY.encode()
    encodings = [
        text,
        text.upper(),
        text.hex().encode(),
        base64.b64encode(text)[:-4],
        text.decode().encode("utf-16le"),
    ]
    for data in [*everything, *(name.encode() for name in names)]:
        assert not any(code in data for code in encodings)
    pixels = [shard[4096:4160] for shard in corpus.good_shards().values()]  # from inside an encoded picture
    assert not any(part in data for part in pixels for data in everything)


def test_no_output_picture_carries_a_metadata_block(done: pipeline.RunResult) -> None:
    for name, data in members(done).items():
        if name.endswith((".jpg", ".png", ".webp")):
            with Image.open(io.BytesIO(data)) as image:
                assert not image.getexif()
                assert not image.info.keys() & {
                    "exif",
                    "icc_profile",
                    "comment",
                    "xmp",
                    "Author",
                    "photoshop",
                }


def test_faces_are_gone_and_the_rest_is_as_it_was(
    pairs: list[trace.Pair], faces: Callable[[NDArray[np.uint8]], list[Face]]
) -> None:
    """Inside each face the picture differs; far from every face it does not, up to re-encoding."""
    changed = 0
    for pair in pairs:
        before, after = pair.source().astype(int), pair.result().astype(int)
        assert before.shape == after.shape
        difference = np.abs(before - after).max(2)
        near = np.zeros(difference.shape, np.uint8)
        for face in faces(pair.source()):
            x0, y0, x1, y1 = (int(value) for value in face.box)
            width, height = x1 - x0, y1 - y0
            cv2.ellipse(near, ((x0 + x1) // 2, (y0 + y1) // 2), (2 * width, 2 * height), 0, 0, 360, 1, -1)
            inner = difference[y0 + height // 4 : y1 - height // 4, x0 + width // 4 : x1 - width // 4]
            assert inner.mean() > 5, "the face is where it was"
            changed += 1
        assert np.percentile(difference[near == 0], 99) <= 16
    assert changed == 6


def test_the_person_is_beyond_the_recognizers_threshold(
    pairs: list[trace.Pair], faces: Callable[[NDArray[np.uint8]], list[Face]]
) -> None:
    """Two pictures of one person lie below 0.6; the source against itself is the control."""
    distances, controls = [], []
    for pair in pairs:
        old, new = faces(pair.source()), faces(pair.result())
        for face in old:
            nearest = min(new, key=lambda other: float(np.abs(other.box - face.box).sum()))
            assert face.embedding is not None
            assert nearest.embedding is not None
            distances.append(float(np.linalg.norm(face.embedding - nearest.embedding)))
            controls.append(float(np.linalg.norm(face.embedding - old[0].embedding)))
    assert len(distances) == 6
    assert max(controls) < 0.5, "all are one person: the recognizer works"
    assert min(distances) > max(controls)
    assert float(np.median(distances)) > 0.6


def test_the_webdataset_package_reads_the_output(done: pipeline.RunResult, tmp_path: Any) -> None:
    import webdataset

    paths = []
    for number, entry in enumerate(e for e in done.manifest["objects"] if e["name"].endswith(".tar")):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(storage.read_bytes(storage.join(done.output, entry["name"])))
        paths.append(str(path))
    samples = list(webdataset.WebDataset(paths, shardshuffle=False).decode("rgb8"))
    assert len(samples) == 6
    assert sum("json" in sample for sample in samples) == 3
