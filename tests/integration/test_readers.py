"""Output of every format, read by the programs that users read it with."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import ray
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image

from deid.config import Metadata
from deid.shards import folder, parquet, pictures, webdataset
from deid.shards.formats import Sample
from tests.unit.privacy import outputs
from tests.unit.privacy.outputs import EXTRA, NAMES, POLICY

SAMPLES = outputs.samples()
BY_KEY = {sample.key: sample for sample in SAMPLES}
FIELDS = ("label", "score", "indoor", "kind", "boxes", "cls", "txt")
UNITS = ("ab" * 16, "cd" * 16)
# https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html: IMG_EXTENSIONS
TORCHVISION = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Hugging Face's package, offline and with a cache of its own."""
    with pytest.MonkeyPatch.context() as settings:
        settings.setenv("HF_HUB_OFFLINE", "1")
        settings.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        settings.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("hf-cache")))
        import datasets

        datasets.disable_progress_bars()
        yield datasets


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=150 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two Parquet shards: the first has pictures alone, so none of its fields has a value."""
    poor = [Sample(sample.key, sample.pictures) for sample in SAMPLES if not sample.fields]
    rich = [sample for sample in SAMPLES if sample.fields]
    for name, some in (("a", poor), ("b", rich)):
        (tmp_path / f"{name}.parquet").write_bytes(parquet.write(some, POLICY, NAMES, EXTRA))
    return tmp_path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Image folders of two units."""
    for unit, some in zip(UNITS, (SAMPLES[:3], SAMPLES[3:]), strict=True):
        for name, data in folder.write(some, unit, POLICY, NAMES, EXTRA, "kind"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
    return tmp_path


def pixels(sample: Sample, number: int = 0) -> NDArray[np.uint8]:
    return pictures.decode(sample.pictures[number][2], 10**6).pixels


def rgb(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


def check(rows: list[dict[str, Any]], names: tuple[str, ...] = FIELDS) -> None:
    """Rows as `datasets` gives them: pictures are decoded, and every field is there or null."""
    assert sorted(row["id"] for row in rows) == sorted(BY_KEY)
    for row in rows:
        sample = BY_KEY[row["id"]]
        assert np.array_equal(rgb(row["image"]), pixels(sample))
        assert {name: row[name] for name in names} == {name: sample.fields.get(name) for name in names}
        for number, name in enumerate(("left", "image_1"), start=1):
            if sample.fields:
                assert np.array_equal(rgb(row[name]), pixels(sample, number))
            else:
                assert row[name] is None


def test_datasets_reads_parquet(datasets: Any, shards: Path) -> None:
    read = datasets.load_dataset("parquet", data_dir=str(shards), split="train")
    assert {name for name, kind in read.features.items() if isinstance(kind, datasets.Image)} == {
        "image", "left", "image_1", "mask"
    }  # fmt: skip
    rows = list(read)
    check(rows)
    masks = {row["id"]: row["mask"] for row in rows}
    for key, sample in BY_KEY.items():
        mask = masks[key]
        assert (mask is None) == (not sample.masks)
        if mask is not None:
            assert np.array_equal(
                np.asarray(mask), np.asarray(Image.open(io.BytesIO(sample.masks["mask.png"])))
            )
    streamed = datasets.load_dataset("parquet", data_dir=str(shards), split="train", streaming=True)
    check(list(streamed))


def test_datasets_reads_image_folders(datasets: Any, files: Path) -> None:
    for place in (files, files / "images"):
        read = datasets.load_dataset("imagefolder", data_dir=str(place))
        assert list(read) == ["train"]
        check(list(read["train"]))


def test_datasets_takes_no_class_for_a_split(datasets: Any, tmp_path: Path) -> None:
    """Of a folder `images/train` beside others it would read that alone."""
    policy = Metadata(sidecar_fields={"kind": {"type": "str", "free": True}})
    kinds = ("train", "car", "my-test", "val_2")
    some = [Sample(f"{n:032x}", SAMPLES[n].pictures[:1], {"kind": kind}) for n, kind in enumerate(kinds)]
    for name, data in folder.write(some, UNITS[0], policy, class_field="kind"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    read = datasets.load_dataset("imagefolder", data_dir=str(tmp_path))
    assert {name: sorted(row["kind"] for row in rows) for name, rows in read.items()} == {
        "train": sorted(kinds)
    }
    classes, _ = image_folder(tmp_path / "images")
    assert classes == ["car", "my-testx", "trainx", "valx_2"]


def test_the_parquet_that_datasets_writes_is_read(datasets: Any, tmp_path: Path) -> None:
    encoded = [outputs.picture(number, "png") for number in range(4)]
    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "objects": {"bbox": datasets.List(datasets.List(datasets.Value("float32")))},
            "sound": datasets.Value("binary"),
        }
    )
    columns = {
        "photo": [{"bytes": data, "path": "/home/anna.png"} for data in encoded],
        "label": ["dog", "cat", "dog", "dog"],
        "objects": [{"bbox": [[1, 2, 3, n]]} for n in range(4)],
        "sound": [b"anna"] * 4,
    }
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "x.parquet"))
    (file,) = parquet.storage.list_files(str(tmp_path))
    found = list(parquet.read(parquet.scan(file, parquet.Layout()), parquet.Layout()))
    assert [data for _, data, _, _ in found] == encoded
    assert found[0][2] == {"json": b'{"label": 1, "objects": {"bbox": [[1.0, 2.0, 3.0, 0.0]]}}'}


def test_pyarrow_reads_parquet(shards: Path) -> None:
    table = pyarrow.dataset.dataset(shards, format="parquet").to_table()
    assert {row["id"]: row["image"]["bytes"] for row in table.to_pylist()} == {
        key: sample.pictures[0][2] for key, sample in BY_KEY.items()
    }
    plain = pq.read_table(io.BytesIO(parquet.write(SAMPLES, POLICY, NAMES, EXTRA, struct=False)))
    assert plain.schema.field("image").type == pa.binary()
    assert plain["image"].to_pylist() == [sample.pictures[0][2] for sample in SAMPLES]


def test_ray_reads_parquet(cluster: None, shards: Path) -> None:
    rows = ray.data.read_parquet(str(shards)).take_all()
    assert {row["id"]: row["image"]["bytes"] for row in rows} == {
        key: sample.pictures[0][2] for key, sample in BY_KEY.items()
    }


def test_ray_reads_image_folders(cluster: None, files: Path) -> None:
    kinds = ["jpg", "png", "webp"]  # it passes over WebP unless it is told
    read = ray.data.read_images(str(files / "images"), include_paths=True, mode="RGB", file_extensions=kinds)
    rows = read.take_all()
    found = {Path(row["path"]).stem: row["image"] for row in rows}
    assert len(found) == len(rows) == 12
    for key, sample in BY_KEY.items():
        assert np.array_equal(found[key], pixels(sample))


def tar(path: Path) -> None:
    samples = []
    for sample in SAMPLES:
        members = {
            extension if not name else f"{name}.{extension}": data
            for name, extension, data in sample.pictures
        }
        members |= dict(sample.masks)
        if "cls" in sample.fields:
            members["cls"] = str(sample.fields["cls"]).encode()
        samples.append((sample.key, members))
    path.write_bytes(webdataset.write_shard(samples))


def test_webdataset_and_ray_read_tars(cluster: None, tmp_path: Path) -> None:
    tar(tmp_path / "a.tar")
    read = {
        sample["__key__"]: sample for sample in wds.WebDataset([str(tmp_path / "a.tar")], shardshuffle=False)
    }
    rows = ray.data.read_webdataset(str(tmp_path / "a.tar"), decoder=None).take_all()
    assert sorted(read) == sorted(row["__key__"] for row in rows) == sorted(BY_KEY)
    for found in (read, {row["__key__"]: row for row in rows}):
        for key, sample in BY_KEY.items():
            _, extension, data = sample.pictures[0]
            assert found[key][extension] == data
            if sample.fields:
                assert found[key]["left.jpg"] == sample.pictures[1][2]
                assert found[key]["mask.png"] == sample.masks["mask.png"]


def image_folder(root: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """Classes, and path and class of each picture, as torchvision's ImageFolder finds them (`make_dataset`)."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    found = []
    for number, name in enumerate(classes):
        for parent, _, names in sorted(os.walk(root / name, followlinks=True)):
            found += [
                (f"{parent}/{base}", number) for base in sorted(names) if base.lower().endswith(TORCHVISION)
            ]
    return classes, found


def test_torchvision_finds_the_classes(files: Path) -> None:
    classes, found = image_folder(files / "images")
    assert classes == ["all", "cat", "dog"]
    assert len(found) == 12  # further pictures are of the class too; masks lie elsewhere
    for path, number in found:
        sample = BY_KEY[Path(path).name.partition(".")[0]]
        assert classes[number] == sample.fields.get("kind", "all")
        assert rgb(Image.open(path)).shape == (outputs.HEIGHT, outputs.WIDTH, 3)
