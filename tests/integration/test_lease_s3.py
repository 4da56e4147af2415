"""The lease on the real S3 server, between processes that are killed, stopped, or cut off from the server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deid.demo.s3server import S3Server
from deid.pipeline import lease
from deid.shards import storage

# Says on its standard output what happens to it; argv: state, ttl, and for how long it holds the lease.
HOLDER = """
import sys, time
from deid.pipeline import lease
state, ttl, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
try:
    with lease.hold(state, "child", ttl_s=ttl, skew_s=0.5) as held:
        print("held", flush=True)
        lost = held.lost.wait(seconds)
        try:
            held.check()
            print("still", flush=True)
        except lease.Lost:
            print("lost", lost, flush=True)
except lease.Taken:
    print("taken", flush=True)
"""

# Adds one to a number, five times, each time under the lease: steps are lost if two are in there at once.
COUNTER = """
import sys, time
from deid.pipeline import lease
from deid.shards import storage
state = sys.argv[1]
for _ in range(5):
    while True:
        try:
            with lease.hold(state, "child", ttl_s=20, skew_s=0.5):
                number = int(storage.read_bytes(state + "/number"))
                time.sleep(0.02)
                storage.write_bytes(state + "/number", b"%d" % (number + 1), overwrite=True)
            break
        except lease.Taken:
            time.sleep(0.05)
"""


@pytest.fixture
def state(s3: Any) -> str:
    return f"s3://{s3.bucket()}/state"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python process with this code and these arguments."""
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait(10)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert said(process) == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def expires(state: str) -> float:
    found = lease.holder(state)
    assert found is not None
    return found.expires


def test_of_several_processes_one_gets_an_abandoned_lease(state: str, start: Any) -> None:
    entry = {"owner": "ab" * 16, "run": "gone", "expires": time.time() - 60}
    storage.write_bytes(f"{state}/lease/{7:012d}.json", json.dumps(entry).encode())
    processes = [start(HOLDER, state, 30, 5) for _ in range(4)]
    go(*processes)
    assert sorted(map(said, processes)) == ["held", "taken", "taken", "taken"]


def test_nothing_is_lost_between_processes_that_take_turns(state: str, start: Any) -> None:
    storage.write_bytes(f"{state}/number", b"0")
    processes = [start(COUNTER, state) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert storage.read_bytes(f"{state}/number") == b"15"


def test_after_kill_9_the_next_has_it_at_the_end_and_not_before(state: str, start: Any) -> None:
    process = start(HOLDER, state, 3, 600)
    go(process)
    assert said(process) == "held"
    time.sleep(4)  # longer than its time: it is renewed
    with pytest.raises(lease.Taken), lease.hold(state, "next", skew_s=0.5):
        pytest.fail("two hold it")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    time.sleep(0.5)  # a renewal that was under way may still arrive
    end = expires(state) + 0.5
    taken, refusals = None, set[str]()
    while taken is None:
        try:
            with lease.hold(state, "next", skew_s=0.5) as held:
                taken = time.time()
                held.check()
        except lease.Taken as refused:
            assert time.time() < end + 5, "it is never free"
            refusals.add(str(refused))
            time.sleep(0.05)
    assert end <= taken < end + 3
    (refusal,) = refusals
    assert time.strftime("until %H:%M:%S UTC", time.gmtime(end)) in refusal


def test_a_process_that_stood_still_notices_that_another_has_it(state: str, start: Any) -> None:
    process = start(HOLDER, state, 2, 600)
    go(process)
    assert said(process) == "held"
    process.send_signal(signal.SIGSTOP)
    time.sleep(max(0.0, expires(state) + 0.6 - time.time()))
    with lease.hold(state, "next", skew_s=0.5) as held:
        process.send_signal(signal.SIGCONT)
        assert said(process) == "lost True"
        assert process.wait(10) == 0
        held.check()
        found = lease.holder(state)
        assert found is not None
        assert found.run == "next"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server of its own, to be stopped."""
    with S3Server(tmp_path) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        server.create_bucket("state")
        yield server


def test_a_server_that_stands_still_for_less_than_the_time_is_outlived(server: S3Server) -> None:
    assert server._process is not None
    with lease.hold("s3://state", "first", ttl_s=6, skew_s=0.5) as held:
        begun = time.time()
        os.killpg(server._process.pid, signal.SIGSTOP)
        time.sleep(3)
        os.killpg(server._process.pid, signal.SIGCONT)
        time.sleep(begun + 7 - time.time())
        held.check()
        assert expires("s3://state") > begun + 7


def test_a_server_that_is_gone_ends_it_in_time_and_the_block_without_another_error(server: S3Server) -> None:
    begun = time.time()
    with lease.hold("s3://state", "first", ttl_s=2, skew_s=0.5) as held:
        server.stop()
        assert held.lost.wait(5)
        assert time.time() - begun < 4
        with pytest.raises(lease.Lost):
            held.check()
