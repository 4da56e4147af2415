"""Processes of the job that end in the middle of the work: none of it is lost, and what ends them is found."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from deid.errors import StorageError
from deid.pipeline import careful, trace
from deid.pipeline import run as pipeline
from tests.e2e import corpus
from tests.faults.test_run_faults import balanced, job, quarantine, two_faces


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Any:
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=300 * 2**20)
    yield
    ray.shutdown()


def many(count: int) -> dict[str, bytes]:
    members = [(f"p{n}.jpg", corpus.encoded(corpus.portrait(200 + n))) for n in range(count)]
    return {"0.tar": corpus.tar(members)}


def test_a_picture_that_ends_the_process_is_quarantined_and_all_others_go_out(tmp_path: Path) -> None:
    """Two of them in one unit, and one in another."""
    grey = corpus.encoded(corpus.portrait(256).convert("L"))
    shards = {f"{n}.tar": data for n, data in enumerate([two_faces()["0.tar"], many(9)["0.tar"]])}
    shards["2.tar"] = corpus.tar([(f"grey{n}.jpg", grey) for n in range(3)])
    config = job(tmp_path, shards, detector={"name": "tests.faults.parts:DetectorThatDiesOfGrey"})
    result = pipeline.run(config)
    assert quarantine(config, result) == {f"grey{n}": "crashed" for n in range(3)}
    counts = balanced(result)
    assert (counts["pictures_in"], counts["pictures_out"], counts["pictures_dropped"]) == (15, 12, 3)
    assert counts["faces"] == 11
    assert result.manifest["quarantine"] == {"crashed": 3}
    assert {pair.key for pair in trace.pairs(config, result) if pair.after} == {
        *"abc",
        *(f"p{n}" for n in range(9)),
    }


def workers(stage: str) -> list[psutil.Process]:
    """Processes of this session's Ray that are at work on `stage`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if f"MapBatches({stage})).submit" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize("stage", [pytest.param("Analyse", marks=pytest.mark.slow), "Compose"])
def test_a_process_that_is_killed_costs_nothing(tmp_path: Path, stage: str) -> None:
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        while not killed and not stop.is_set():
            for process in workers(stage):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        config = job(tmp_path, many(20))
        result = pipeline.run(config)
    finally:
        stop.set()
        thread.join()
    assert killed
    assert quarantine(config, result) == {}
    counts = balanced(result)
    assert counts["pictures_in"] == counts["pictures_out"] == counts["faces"] == 20


def test_a_process_that_always_ends_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job(tmp_path, two_faces(), detector={"name": "tests.faults.parts:DetectorThatDiesAtOnce"})
    monkeypatch.setattr("deid.pipeline.passes.RESTARTS", 2)  # the way is the same, the wait is shorter
    with pytest.raises(StorageError, match=r"^stage analyse: its process ended 30 times; .*memory") as caught:
        pipeline.run(config)
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert careful.RESTARTS == 30
    assert not list((tmp_path / "out").rglob("*"))
