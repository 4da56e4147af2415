"""`jobs/anonymize.py` under `ray job submit`, against a Ray head in a process of its own that asks for a token."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deid.shards import storage
from tests.e2e import cast, corpus

REPOSITORY = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a client of the head; the head is stopped by its process group, others are left alone."""
    dashboard = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--object-store-memory=300000000"]
    ports = [f"--port={free_port()}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    agents = [f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={tmp_path_factory.mktemp('ray')}"]
    log = tmp_path_factory.mktemp("log") / "head.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, *ports, *agents], env=environment, stdout=sink, stderr=sink, start_new_session=True
        )
        try:
            yield environment | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)


def submit(
    environment: dict[str, str], config: Path, job: str = "jobs/anonymize.py"
) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", "submit", "--", sys.executable, str(REPOSITORY / job), str(config)]
    for _ in range(30):  # the head takes a while to listen
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        if "Failed to connect" not in done.stderr + done.stdout:
            return done
        time.sleep(2)
    pytest.fail(f"the head does not answer: {done.stderr[-500:]}")


def test_the_job_runs_on_a_cluster_and_ends_with_its_counts(head: dict[str, str], tmp_path: Path) -> None:
    storage.write_bytes(
        str(tmp_path / "raw" / "0.tar"),
        corpus.tar([("a.jpg", corpus.encoded(corpus.portrait(300))), ("b.jpg", b"no picture")]),
    )
    config = tmp_path / "run.yaml"
    settings = {
        "input": {"uri": str(tmp_path / "raw")},
        "output": {"uri": str(tmp_path / "out")},
        "state": str(tmp_path / "state"),
        "assignment": {"mode": "per-face"},
        "models": {"accept": ["clean", "permissive", "restricted"]},
    }
    config.write_text(yaml.safe_dump(settings))
    done = submit(head, config)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"run"')))
    assert summary["pictures_in"] == 2
    assert (summary["pictures_out"], summary["pictures_quarantined"], summary["replaced"]) == (1, 1, 1)
    assert json.loads((Path(summary["output"]) / "manifest.json").read_text())["counts"]["replaced"] == 1

    config.write_text(yaml.safe_dump(settings | {"models": {"accept": ["clean"]}}))
    refused = submit(head, config)
    assert refused.returncode != 0
    assert "models.accept" in refused.stdout + refused.stderr


@pytest.mark.slow
def test_an_evaluation_runs_on_a_cluster(head: dict[str, str], tmp_path: Path) -> None:
    """A tool that changes nothing is seen through, from a folder of pictures and one of what the tool made of them."""
    labels = ["key,subject,expression"]
    for (person, take), data in cast.photograph(cast.strangers(8), 2).items():
        key = f"{corpus.CANARY}-{person}-{take}"
        labels.append(f"{key},{corpus.CANARY}-{person},{('neutral', 'smiling')[take]}")
        for folder in ("raw", "same"):
            storage.write_bytes(str(tmp_path / folder / f"{key}.jpg"), data)
    (tmp_path / "labels.csv").write_text("\n".join(labels) + "\n")
    config = tmp_path / "evaluate.yaml"
    settings = {
        "source": {"uri": str(tmp_path / "raw"), "labels": str(tmp_path / "labels.csv")},
        "results": [{"name": "nothing", "uri": str(tmp_path / "same")}],
        "baselines": ["solid"],
        "output": str(tmp_path / "report"),
        "resamples": 100,
    }
    config.write_text(yaml.safe_dump(settings))
    done = submit(head, config, "jobs/evaluate.py")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"output"')))
    assert not summary["met"]
    report = Path(summary["output"])
    made = json.loads((report / "evaluation.json").read_text())
    assert made["verdict"]["figures"]["rank1"]["value"] == 1
    assert made["verdict"]["figures"]["found_again"]["value"] == 1
    tables = made["sections"]["utility"]["tables"].values()
    found = [t["rows"]["solid"]["found_again"]["value"] for t in tables if "found_again" in t["columns"]]
    assert found == [0]
    page = (report / "report.html").read_bytes()
    assert len(page) < 10_000_000
    named = [file.name for file in report.rglob("*") if corpus.CANARY.encode() in file.name.encode()]
    assert not named
    for file in report.rglob("*"):
        assert file.is_dir() or corpus.CANARY.encode() not in file.read_bytes()
