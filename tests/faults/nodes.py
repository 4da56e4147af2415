"""A Ray cluster of several nodes on this machine, each a process group of its own that can be killed."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psutil

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Nodes:
    """Runs while the context lasts; `environment` is that of a driver."""

    def __init__(self, folder: Path, cpus: int, nodes: int) -> None:
        self.folder, self.cpus, self.count = folder, cpus, nodes
        self.port = free_port()
        self.session = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie there
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            "RAY_ADDRESS": f"127.0.0.1:{self.port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def __enter__(self) -> "Nodes":
        try:
            head = [
                "--head",
                f"--port={self.port}",
                "--include-dashboard=false",
                f"--temp-dir={self.session}",
            ]
            self.start(*head)
            self.wait(1)
            for number in range(1, self.count):
                self.start(f"--address=127.0.0.1:{self.port}")
                self.wait(number + 1)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *arguments: str) -> None:
        command = [RAY, "start", "--block", f"--num-cpus={self.cpus}", "--object-store-memory=200000000"]
        others = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with open(self.folder / f"node{len(self.processes)}.log", "wb") as log:
            process = subprocess.Popen(
                [*command, *arguments],
                env=others | {k: v for k, v in self.environment.items() if k != "RAY_ADDRESS"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)

    def wait(self, nodes: int, limit_s: float = 180) -> None:
        """Until so many nodes are in the cluster."""
        question = "import ray; ray.init(logging_level='ERROR'); print(sum(n['Alive'] for n in ray.nodes()))"
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            done = subprocess.run(
                [sys.executable, "-c", question],
                env=os.environ | self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.stdout.strip() == str(nodes):
                return
            if self.processes[-1].poll() is not None:
                break
            time.sleep(1)
        logs = "".join(path.read_text()[-1000:] for path in self.folder.glob("node*.log"))
        raise TimeoutError(f"{done.stdout} of {nodes} nodes: {done.stderr[-500:]} {logs}")

    def workers(self, node: int, name: str = "ray::MapWorker") -> list[psutil.Process]:
        """Processes of a node whose title begins with `name`: actors of stages unless another is given.

        Without Ray's two agents: a node ends with either of them (`kill`).
        """
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                title = " ".join(process.info["cmdline"] or [])
                ours = title.startswith(name) and not title.startswith(AGENTS)
                if ours and os.getsid(process.pid) == self.processes[node].pid:
                    found.append(process)
        return found

    def kill(self, node: int) -> None:
        """All processes of a node at once, as when the machine goes."""
        session = self.processes[node].pid
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == session:
                    process.send_signal(signal.SIGKILL)
        self.processes[node].wait(20)

    def stop(self) -> None:
        for node in reversed(range(len(self.processes))):
            self.kill(node)
        shutil.rmtree(self.session, ignore_errors=True)
