"""The command as a user types it: one clear line for each mistake, and the documented exit code."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from deid.gallery import store
from deid.shards import storage
from tests.e2e import corpus
from tests.unit.video import clips

DEID = str(Path(sys.executable).with_name("deid"))
ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if not path.name.startswith("evaluate"))


def deid(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    env = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        [DEID, *arguments], capture_output=True, text=True, check=False, timeout=120, env=env
    )


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    storage.write_bytes(str(tmp_path / "raw" / "0.tar"), corpus.tar([("a.jpg", b"x")]))
    return {
        "input": {"uri": str(tmp_path / "raw")},
        "output": {"uri": str(tmp_path / "out")},
        "state": str(tmp_path / "state"),
        "models": {"accept": ["clean", "permissive", "restricted"]},
    }


def write(tmp_path: Path, settings: dict[str, object]) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_help_answers_at_once() -> None:
    deid("--help")  # byte code
    begun = time.perf_counter()
    done = deid("--help")
    assert done.returncode == 0
    assert "Exit codes" in done.stdout
    assert time.perf_counter() - begun < 2, "a heavy import crept in"


def test_help_imports_nothing_heavy() -> None:
    code = "import deid.cli, sys; print([m for m in ('torch', 'ray', 'cv2', 'pyarrow', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plan_says_what_a_run_would_do_and_writes_nothing(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    done = deid("plan", write(tmp_path, settings))
    assert done.returncode == 0, done.stderr
    for part in ("1 shards", "mobilestylegan", "distant, the mean of 5", "analyse actors"):
        assert part in done.stdout
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_plan_accepts_the_shipped_configurations(path: Path, tmp_path: Path) -> None:
    """With a local folder in the place of their buckets."""
    settings = yaml.safe_load(path.read_text())
    storage.write_bytes(str(tmp_path / "raw" / "0.tar"), corpus.tar([("a.jpg", b"x")]))
    storage.write_bytes(str(tmp_path / "raw" / "0.mp4"), clips.clip())
    settings["input"]["uri"] = str(tmp_path / "raw")
    settings["output"]["uri"], settings["state"] = str(tmp_path / "out"), str(tmp_path / "state")
    settings["models"].pop("mirror", None)
    done = deid("plan", write(tmp_path, settings))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"match": {"kk": 3}}, 2, ["match.kk", "did you mean match.k"]),
        ({"detector": {"name": "yolo"}}, 2, ["detector.name", "centerface"]),
        ({"detector": {"name": "no.such:Thing"}}, 2, ["detector.name", "no.such:Thing"]),
        ({"models": {"accept": ["clean"]}}, 3, ["models.accept"]),
        ({"gallery": "absent.parquet"}, 3, ["absent.parquet"]),
        ({"match": {"k": 2000}}, 2, ["match.k", "2000"]),
        ({"input": {"uri": "no/such/folder"}}, 4, ["no/such/folder"]),
    ],
)
def test_a_mistake_is_one_line_and_its_code(
    tmp_path: Path, settings: dict[str, object], change: dict[str, object], code: int, words: list[str]
) -> None:
    done = deid("plan", write(tmp_path, settings | change))
    assert done.returncode == code, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("deid: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def test_a_missing_configuration_and_a_wrong_option() -> None:
    assert deid("run", "absent.yaml").returncode == 2
    done = deid("run", "--frobnicate")
    assert done.returncode == 2
    assert "frobnicate" in done.stderr


def test_models_list_names_class_and_lineage_at_100_columns() -> None:
    done = deid("models", "list", COLUMNS="100")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert "\u2026" not in done.stdout  # nothing is cut
    rows = {line.split()[0]: line.split() for line in lines if line[:3].strip()}
    assert rows["mobilestylegan"][1:4] == ["restricted", "stylegan2", "(weights)"]
    assert rows["attributes_clean"][1:4] == ["clean", "london", "(pictures)"]
    assert "commercial use, by class" in done.stdout


def test_gallery_show() -> None:
    done = deid("gallery", "show")
    assert done.returncode == 0
    assert f"{len(store.load(None)):,}" in done.stdout


@pytest.mark.parametrize(
    ("change", "environment"),
    [
        ({"input": {"uri": "s3://bucket/raw"}}, {}),
        ({"cluster": {"address": "ray://head:10001"}}, {}),
        ({}, {"RAY_ADDRESS": "head:6379"}),
    ],
)
def test_debug_local_is_refused_where_others_would_see_it(
    tmp_path: Path, settings: dict[str, object], change: dict[str, object], environment: dict[str, str]
) -> None:
    done = deid("run", "--debug-local", write(tmp_path, settings | change), **environment)
    assert done.returncode == 2
    assert done.stderr.startswith("deid: --debug-local: ")
