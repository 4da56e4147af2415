"""The job on a Ray cluster of two nodes: it spreads, loses one, or a process, and ends with each picture once."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deid.shards import storage
from tests.conftest import S3
from tests.e2e import corpus
from tests.faults.jobs import Ended, Job
from tests.faults.nodes import Nodes

PICTURES = 60
STAGES = {"analyse": {"actors": 2, "cpus": 0.5}, "generate": {"cpus": 0.3}, "compose": {"cpus": 0.4}}


@pytest.fixture
def job(s3: S3, tmp_path: Path) -> Job:
    picture = corpus.encoded(corpus.portrait(600))
    shard = corpus.tar([(f"{n:03}.jpg", picture) for n in range(PICTURES)])
    changes = {"assignment": {"mode": "per-face"}, "unit_size": 2, "stages": STAGES}
    return Job(tmp_path, f"s3://{s3.bucket()}", {"0.tar": shard}, changes)


def interrupted(job: Job, nodes: Nodes, fault: Callable[[], None]) -> Ended:
    """The job on the cluster, with `fault` once the first units are committed."""
    running = job.start(**nodes.environment)
    while not [name for name in job.names("state") if "/commits/" in name]:
        assert running.going(), running.end().err[-3000:]
        time.sleep(0.3)
    fault()
    assert running.going(), "it was over before the fault"
    return running.end()


def whole(job: Job, ended: Ended) -> None:
    assert ended.code == 0, ended.err[-4000:]
    manifest = job.manifest()
    counts = manifest["counts"]
    assert (counts["pictures_in"], counts["pictures_out"]) == (PICTURES, PICTURES), manifest["quarantine"]
    keys = job.keys(manifest)
    assert (len(keys), set(keys.values())) == (PICTURES, {1})


def test_a_run_spreads_over_two_nodes_and_outlives_the_loss_of_one(job: Job, tmp_path: Path) -> None:
    with Nodes(tmp_path, cpus=2, nodes=2) as nodes:
        spread: list[int] = []

        def lose() -> None:
            spread.extend(len(nodes.workers(node)) for node in (0, 1))
            nodes.kill(1)

        ended = interrupted(job, nodes, lose)
    assert min(spread) >= 1, f"stages ran on one node alone: {spread}"
    whole(job, ended)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ray::MapWorker", "ray::"])
def test_processes_that_are_killed_cost_no_picture(job: Job, tmp_path: Path, kind: str) -> None:
    """Actors of the stages; all processes that work, those that read and write and Ray's own actors among them."""
    with Nodes(tmp_path, cpus=2, nodes=1) as nodes:
        killed: list[str] = []

        def kill() -> None:
            for process in nodes.workers(0, kind):
                killed.append(process.name())
                process.send_signal(signal.SIGKILL)

        ended = interrupted(job, nodes, kill)
    assert killed
    whole(job, ended)
    progress = json.loads(storage.read_bytes(f"{job.bucket}/state/{job.manifest()['run']}.progress.json"))
    assert (progress["state"], progress["counts"]["pictures_out"]) == ("done", PICTURES)
