"""Runs of the job in processes of their own, as an operator starts them, on the real S3 server."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deid.privacy import wrapping
from deid.shards import storage
from deid.shards.formats import Layout
from deid.shards.webdataset import read, scan

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 400


@dataclass
class Job:
    """A configuration on buckets of its own, and whatever the job says when it runs."""

    folder: Path
    bucket: str  # s3://...
    shards: dict[str, bytes]
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, data in self.shards.items():
            storage.write_bytes(f"{self.bucket}/raw/{name}", data, overwrite=True)
        wrapping.new_key_file(self.folder / "state.key")
        settings = {
            "input": {"uri": f"{self.bucket}/raw"},
            "output": {"uri": f"{self.bucket}/out"},
            "state": f"{self.bucket}/state",
            "state_key": str(self.folder / "state.key"),
            "models": {"accept": ["clean", "permissive", "restricted"]},
            "unit_size": 3,
            "anonymizer": "solid",
            "region": {"kind": "face"},
            "gate": {"enabled": False},
        }
        self.config.write_text(yaml.safe_dump(settings | self.changes))

    @property
    def config(self) -> Path:
        return self.folder / "run.yaml"

    def environment(self) -> dict[str, str]:
        """Without the test session's own Ray."""
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        return kept | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def start(self, *arguments: str, **environment: str) -> "Running":
        """Start it, or Python with other arguments; what it says goes to files, since a full pipe would stop it."""
        command = [sys.executable, *(arguments or ["jobs/anonymize.py", str(self.config)])]
        said = self.folder / f"said-{len(list(self.folder.glob('said-*')))}"
        said.mkdir()
        with open(said / "out", "wb") as out, open(said / "err", "wb") as err:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=self.environment() | environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return Running(process, said)

    def run(self, *arguments: str, **environment: str) -> "Ended":
        return self.start(*arguments, **environment).end()

    def killed(self, module: str, function: str, number: int = 1, when: str = "after") -> "Ended":
        """Run it until it is killed at a call of this function of the driver."""
        given = ("-m", "tests.faults.killed", str(self.config), module, function, str(number), when)
        ended = self.run(*given)
        assert ended.code == -9, ended.err[-3000:]
        self.expire()
        return ended

    def expire(self) -> None:
        """The lease of a run that is gone, as if its time had passed."""
        for file in storage.list_files(f"{self.bucket}/state/lease"):
            entry = json.loads(storage.read_bytes(file.uri))
            storage.write_bytes(file.uri, json.dumps(entry | {"expires": 0}).encode(), overwrite=True)

    def names(self, below: str) -> set[str]:
        base = f"{self.bucket}/{below}/"
        return {file.uri.removeprefix(base) for file in storage.list_files(base)}

    def manifest(self) -> dict[str, Any]:
        """Of the one release that is there."""
        (name,) = [name for name in self.names("out") if name.endswith("manifest.json")]
        made: dict[str, Any] = json.loads(storage.read_bytes(f"{self.bucket}/out/{name}"))
        return made

    def keys(self, manifest: dict[str, Any]) -> Counter[str]:
        """Keys of output samples, by the shards that the manifest names, and how often each is there."""
        shards = [e["name"] for e in manifest["objects"] if e["name"].startswith("shards/")]
        found: Counter[str] = Counter()
        for name in shards:
            (file,) = storage.list_files(f"{self.bucket}/out/{manifest['run']}", name)
            index = scan(file, Layout())
            assert not any(reason for *_, reason in read(index, Layout()))
            found.update(index["key"].to_pylist())
        return found


@dataclass(frozen=True)
class Running:
    process: "subprocess.Popen[bytes]"
    said: Path

    def going(self) -> bool:
        return self.process.poll() is None

    def out(self) -> str:
        return (self.said / "out").read_text()

    def end(self) -> "Ended":
        """Wait for it."""
        code = self.process.wait(LIMIT_S)
        return Ended(code, self.out(), (self.said / "err").read_text())


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def told(self) -> str:
        """The one line for the user."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("deid: ")]
        return line

    def counts(self) -> dict[str, Any]:
        line = next(line for line in self.out.splitlines() if line.startswith('{"run"'))
        counts: dict[str, Any] = json.loads(line)
        return counts
