"""The whole job, as an operator starts it, while the storage below it fails: nothing is lost, and the line says why."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deid.demo.s3server import S3Server
from deid.shards import storage
from tests.e2e import corpus
from tests.faults.jobs import Job
from tests.faults.proxy import Proxy

ONE_PASS = {"assignment": {"mode": "per-face"}}
SHARDS = {
    f"{n}.tar": corpus.tar(
        [(f"{corpus.CANARY}{n}{m}.jpg", corpus.encoded(corpus.landscape())) for m in range(5)]
    )
    for n in range(2)
}


class Lake(S3Server):
    """A server that is started again with the credentials that it had, and knows a second identity.

    Args:
        guest: actions of the second identity.
    """

    def __init__(self, folder: Path, guest: tuple[str, ...] = (), like: "Lake | None" = None) -> None:
        super().__init__(folder)
        self.guest = guest
        if like is not None:
            self.access_key, self.secret_key = like.access_key, like.secret_key

    def _write_identities(self) -> Path:
        path = super()._write_identities()
        made = json.loads(path.read_text())
        keys = [{"accessKey": "guest", "secretKey": "guest" * 8}]
        made["identities"].append({"name": "guest", "credentials": keys, "actions": list(self.guest)})
        path.write_text(json.dumps(made))
        return path


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts a server, and a proxy before it that this process and the jobs use."""
    ends = []
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)

    def start(guest: tuple[str, ...] = ()) -> tuple[Lake, Proxy]:
        server = Lake(tmp_path / "server", guest)
        server.__enter__()
        proxy = Proxy(server.endpoint)
        proxy.__enter__()
        ends.extend([server.stop, lambda: proxy.__exit__()])
        settings = server.environment() | {"AWS_ENDPOINT_URL": proxy.url, "AWS_ENDPOINT_URL_S3": proxy.url}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        server.create_bucket("lake")
        return server, proxy

    yield start
    for end in reversed(ends):
        end()


def whole(job: Job) -> None:
    """Each picture is out, once."""
    manifest = job.manifest()
    assert manifest["counts"]["pictures_in"] == manifest["counts"]["pictures_out"] == 10
    assert manifest["quarantine"] == {}
    found = job.keys(manifest)
    assert len(found) == 10
    assert set(found.values()) == {1}


def test_a_bad_network_costs_nothing(lake: Any, tmp_path: Path) -> None:
    _, proxy = lake()
    job = Job(tmp_path, "s3://lake", SHARDS, ONE_PASS)
    for kind in ("500", "slow_down", "reset_answer", "lost_answer", "outage"):
        proxy.inject(kind, share=0.06)
    proxy.inject("reset_upload", share=0.06, methods=("PUT",))
    ended = job.run()
    proxy.clear()
    assert ended.code == 0, ended.err[-3000:]
    assert all(proxy.injected[kind] for kind in ("500", "slow_down", "reset_answer", "lost_answer", "outage"))
    assert sum(proxy.injected.values()) >= 20
    whole(job)


def test_a_server_that_is_started_again_is_waited_for(lake: Any, tmp_path: Path) -> None:
    first, proxy = lake()
    job = Job(tmp_path, "s3://lake", SHARDS, ONE_PASS)
    before, down = proxy.requests["PUT"], list[float]()

    def restart() -> None:
        while proxy.requests["PUT"] < before + 8:
            time.sleep(0.01)
        began = time.monotonic()
        proxy.inject("outage")
        first.stop()
        second = Lake(first.folder, like=first)
        second.__enter__()
        first._process, second._process = second._process, None  # its end is the fixture's
        proxy.target = second.endpoint
        proxy.clear()
        down.append(time.monotonic() - began)

    thread = threading.Thread(target=restart)
    thread.start()
    ended = job.run()
    thread.join()
    assert ended.code == 0, ended.err[-3000:]
    assert proxy.injected["outage"]
    assert down[0] > 1
    whole(job)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_outage_of_the_output_ends_the_run_and_the_same_command_goes_on(lake: Any, tmp_path: Path) -> None:
    _, proxy = lake()
    job = Job(tmp_path, "s3://lake", SHARDS, ONE_PASS)
    proxy.inject("slow_down", methods=("PUT",), path="/shards/")
    ended = job.run()
    assert ended.code == 5, ended.err[-3000:]
    assert ended.told() == "deid: s3://lake: the S3 server asks to try again (SlowDown)"
    assert corpus.CANARY not in ended.err + ended.out
    assert proxy.injected["slow_down"] >= 10
    proxy.clear()
    assert not [name for name in job.names("out") if name.endswith("manifest.json")]
    again = job.run()
    assert again.code == 0, again.err[-3000:]
    whole(job)


def test_an_output_that_is_not_there_or_cannot_be_written_is_told_at_once(lake: Any, tmp_path: Path) -> None:
    server, _ = lake(("Read", "List", "Write:state"))
    server.create_bucket("state")
    job = Job(tmp_path, "s3://lake", SHARDS, ONE_PASS | {"output": {"uri": "s3://elsewhere/out"}})
    ended = job.run()
    assert ended.code == 4
    assert ended.told().startswith(
        "deid: output.uri: s3://elsewhere/out cannot be written: s3://elsewhere: no such bucket"
    )
    text = job.config.read_text()
    job.config.write_text(text.replace("elsewhere", "lake").replace("state: s3://lake", "state: s3://state"))
    ended = job.run(AWS_ACCESS_KEY_ID="guest", AWS_SECRET_ACCESS_KEY="guest" * 8)
    assert ended.code == 4
    assert "cannot be written: s3://lake: access denied: the credentials need" in ended.told()
    assert storage.list_files("s3://state") == [], "nothing was begun"
    assert job.names("out") == set()
