"""Nothing that the source says is found in what a run leaves: output, state, logs, Ray's session, temporary files."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from deid import config as configuration
from deid.pipeline.run import secret_of
from deid.privacy.leaks import Needle, search
from deid.shards import storage
from tests.e2e import canaries

ROOT = Path(__file__).parents[2]
LIMIT_S = 560


@dataclass
class Ended:
    """A run that is over, what it left, and what may not be found in it."""

    folder: Path
    ray: Path  # Ray's sessions
    process: subprocess.CompletedProcess[str]
    needles: Mapping[str, Needle]
    own: Mapping[str, Needle]  # of the run itself: its secret, and the embeddings of faces
    sampled: Mapping[str, bytes] = field(default_factory=dict)  # of state and output while it ran

    @property
    def streams(self) -> dict[str, bytes]:
        return {"stdout": self.process.stdout.encode(), "stderr": self.process.stderr.encode()}

    def below(self, name: str) -> Path:
        return self.folder / name


class Sampler(threading.Thread):
    """Keeps what stands below a folder from time to time, until it is stopped."""

    def __init__(self, *folders: Path) -> None:
        super().__init__(daemon=True)
        self.folders, self.found, self.over = folders, dict[str, bytes](), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.25):
            for folder in self.folders:
                for path in folder.rglob("*"):
                    self.keep(path)

    def keep(self, path: Path) -> None:
        try:
            status = path.stat()
            name = f"{path} {status.st_size} {status.st_mtime_ns}"
            if name not in self.found:
                self.found[name] = path.read_bytes() if path.is_file() else b""
        except OSError:  # gone meanwhile
            return


def settings(raw: str, folder: Path, **changes: Any) -> dict[str, Any]:
    base = {
        "input": {"uri": raw},
        "output": {"uri": str(folder / "out")},
        "state": str(folder / "state"),
        "models": {"accept": ["clean", "permissive", "restricted"]},
        "unit_size": 4,
        "detector": {"name": "tests.e2e.canaries:TellingDetector"},
        "embedder": {"name": "tests.e2e.canaries:RecordingEmbedder"},
        "assignment": {"subject": "who", "k": 2, "smallest": 8},
        "metadata": {
            "members": {"cls": "int"},
            "sidecar_fields": {
                "label": "int",
                "score": {"type": "float", "round": 0.05},
                "light": {"type": "str", "values": ["day", "night"]},
            },
        },
        "limits": {"max_quarantine_fraction": 1.0},
        "seed": 11,
    }
    return base | changes


def command(folder: Path, ray: Path, told: str, config: dict[str, Any], *options: str) -> Ended:
    """`deid run`, in a process of its own, with a Ray of its own."""
    for name in ("tmp", "embeddings"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "DEID_TEST"))
    }
    environment |= {
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": str(ray),
        "RAY_raylet_start_wait_time_s": "300",
        "TMPDIR": str(folder / "tmp"),
        "OMP_NUM_THREADS": "1",
        canaries.TEXT: told,
        canaries.FOLDER: str(folder / "embeddings"),
    }
    sampler = Sampler(folder / "state", folder / "out")
    sampler.start()
    done = subprocess.run(
        [sys.executable, "-m", "deid.cli", "run", *options, str(path)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    sampler.over.set()
    sampler.join()
    secret: Needle = secret_of(configuration.parse(config))
    own = {"run secret": secret} | dict(canaries.embeddings(folder / "embeddings"))
    return Ended(folder, ray, done, {}, own, sampler.found)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> canaries.Source:
    return canaries.make(tmp_path_factory.mktemp("people") / "corpus")


@pytest.fixture(scope="module")
def raw(source: canaries.Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / source.text("path of the input")
    for name, data in source.shards.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        source.needles[f"time of {name}"] = str(path.stat().st_mtime_ns)
    return folder


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """Below /tmp: the path of a socket may have about 100 characters."""
    path = Path(tempfile.mkdtemp(prefix="deid-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def ended(
    source: canaries.Source, raw: Path, ray_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Ended:
    folder = tmp_path_factory.mktemp("run")
    told = source.text("told by the detector")
    done = command(folder, ray_folder, told, settings(str(raw), folder))
    done.needles = source.needles
    return done


def test_every_canary_stands_in_the_source(source: canaries.Source, raw: Path) -> None:
    found = {hit.needle for hit in [*search(raw, source.needles), *search({str(raw): b""}, source.needles)]}
    outside = {
        name for name in source.needles if name.startswith(("time of", "md5 of", "sha256 of", "told by"))
    }
    assert found | outside == set(source.needles)


def test_the_run_ends_well_and_meets_every_case(ended: Ended) -> None:
    assert ended.process.returncode == 0, ended.process.stdout + ended.process.stderr
    for reason in ("truncated_image", "not_an_image", "empty", "no_image", "unsafe_member", "shard_damaged"):
        assert f"not out: {reason}" in ended.process.stdout
    assert "not out: detector_failed" in ended.process.stdout
    assert len(ended.own) > 4, "no embeddings were recorded"
    logs = [path for path in ended.ray.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(b"stage=detect" in path.read_bytes() for path in logs)
    assert any(b"PIL.Image" in path.read_bytes() for path in logs), (
        "what the library said is not where it was"
    )


def test_output_and_its_names(ended: Ended) -> None:
    assert search(ended.below("out"), {**ended.needles, **ended.own}) == []


def test_stdout_and_stderr(ended: Ended) -> None:
    assert search(ended.streams, {**ended.needles, **ended.own}) == []


def test_ray_session_and_logs(ended: Ended) -> None:
    assert any(ended.ray.iterdir())
    assert search(ended.ray, {**ended.needles, **ended.own}) == []


def test_temporary_files(ended: Ended) -> None:
    assert search(ended.below("tmp"), {**ended.needles, **ended.own}) == []


def test_state_after_the_run(ended: Ended) -> None:
    assert search(ended.below("state"), {**ended.needles, **ended.own}) == []


def test_state_and_output_while_it_runs(ended: Ended) -> None:
    assert ended.sampled
    assert search(ended.sampled, {**ended.needles, **ended.own}) == []


@pytest.fixture(scope="module")
def failed(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ended]]:
    """Runs that end early: a part cannot be loaded, and the exception of another library says of what."""
    folders = []

    def run(told: str, *options: str) -> Ended:
        folders.append(Path(tempfile.mkdtemp(prefix="deid-", dir="/tmp")))
        folder = tmp_path_factory.mktemp("failed")
        broken = {"detector": {"name": "tests.e2e.canaries:BrokenDetector"}}
        return command(folder, folders[-1], told, settings(str(raw), folder, **broken), *options)

    yield run
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_run_that_fails_says_where_and_of_which_kind_and_no_name(
    failed: Callable[..., Ended], source: canaries.Source
) -> None:
    done = failed(source.text("told by what cannot be loaded"))
    assert done.process.returncode == 1, done.process.stderr
    assert re.search(r"^deid: .*stage=\w+: OSError at .*\.py:\d+ \(\w+\)", done.process.stderr, re.MULTILINE)
    for place in (done.streams, done.ray, done.below("tmp")):
        assert search(place, {**source.needles, "run secret": done.own["run secret"]}) == []


@pytest.mark.slow
def test_debug_local_alone_shows_it_so_it_would_have_been_found(
    failed: Callable[..., Ended], source: canaries.Source
) -> None:
    told = "Zo\u00eb " + source.text("told under --debug-local")
    done = failed(told, "--debug-local")
    assert done.process.returncode == 1
    assert {hit.needle for hit in search(done.streams, {"told": told})} == {"told"}
    assert {hit.needle for hit in search(done.ray, {"told": told})} == {"told"}


@pytest.mark.slow
def test_nothing_is_found_after_a_run_on_s3(
    source: canaries.Source, s3: Any, tmp_path: Path, ray_folder: Path
) -> None:
    uris = {name: f"s3://{s3.bucket()}" for name in ("raw", "out", "state")}
    raw = f"{uris['raw']}/{source.text('prefix of the input')}"
    for name, data in source.shards.items():
        storage.write_bytes(storage.join(raw, name), data)
        source.needles[f"ETag of {name}"] = storage.list_files(raw, name)[0].version
    places = {"output": {"uri": f"{uris['out']}/run"}, "state": f"{uris['state']}/run"}
    done = command(tmp_path, ray_folder, source.text("told on S3"), settings(raw, tmp_path, **places))
    assert done.process.returncode == 0, done.process.stdout + done.process.stderr
    out = {entry.uri: storage.read_bytes(entry.uri) for entry in storage.list_files(uris["out"])}
    assert any(name.endswith("manifest.json") for name in out)
    for place in (out, done.streams, ray_folder, done.below("tmp")):
        assert search(place, {**source.needles, **done.own}) == []
