"""What grows with a corpus and what does not: memory of the driver and of its workers.

    python -m benchmarks.scale audit [--faces 10000 100000 1000000] [--before COMMIT]
    python -m benchmarks.scale job [--shards 4 16 64] [--two-passes]

audit: the end of a run (the independent count of people, then the release of the audit) over the state of units that
were never processed (`benchmarks/scale_state.py`). Its tasks run in two processes, as Ray would run them; each step is
started anew. With --before the same state goes through the code of another commit that did all of it in the driver (up
to 948b2e2), and what comes out is compared.

job: a whole run of the command line over 4 to 64 shards of 32 pictures of 160 px, in units of 32, region face, gate
off: faces greyed out in one pass, or, with --two-passes, replaced by averages that five named people share. Every half
second the memory of all its processes is read and put down to what they are: driver, workers by what they do, Ray's
own. Each figure is the largest that one process had; PSS, as shared pages would count again in every process.

Figures go to `results/scale_*.json`, for jobs beside those over other numbers, and, as Markdown, to the screen.
"""

import argparse
import collections
import hashlib
import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
import skimage.data
from PIL import Image

from benchmarks import common, memory
from deid.shards import storage, webdataset

STEPS = ("count", "release")
WORKERS = 2
PICTURES = 32  # a shard
SIDE = 160  # px
PEOPLE = 40  # in two passes, by name
K, APART = 5, 0.6
RAYS = (
    "DashboardAgent", "RuntimeEnvAgent", "ActorLocationTracker", "_AutoscalingCoordinatorActor", "_StatsActor",
)  # fmt: skip
# What the driver did before, of the state at argv[2]; prints the same as `step`.
BEFORE = """
import hashlib, io, json, sys, time
from pathlib import Path
import pyarrow.compute as pc, pyarrow.parquet as pq
from deid.pipeline import publish
from deid.privacy import audit, check
from deid.privacy.vault import Vault
from deid import config
step, folder, units = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
vault, settings = Vault(str(folder / "state"), b"k" * 32), config.parse({"input": {"uri": "raw"},
    "output": {"uri": "out"}, "state": "state", "assignment": {"k": %d, "apart": %r}})
people = {int(name): number for name, number in json.loads((folder / "people.json").read_text()).items()}
def peak_kib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
start, begun = peak_kib(), time.perf_counter()
if step == "count":
    found = publish.recount(settings, vault, units).summary()
else:
    raw = [audit.classed(publish.raw_audit(vault, unit), people, %d) for unit in range(units)]
    parts = dict(audit.parts(audit.release(raw, %d)))
    audit.summary(raw, %d, {})
    found = [data for _, data in sorted(parts.items())]
answer = {"seconds": time.perf_counter() - begun, "start_kib": start, "peak_kib": peak_kib()}
if step == "release":
    digest = hashlib.sha256()
    for data in found:
        table = pq.ParquetFile(io.BytesIO(data)).read()
        for row in pc.binary_join_element_wise(*table.columns, ",").to_pylist():
            digest.update(row.encode() + bytes([10]))
    found = digest.hexdigest()
print(json.dumps(answer | {"found": found}))
""" % (K, APART, K, K, K)  # noqa: UP031 - its braces are the script's own


def peak_kib() -> int:
    """Peak of this process's resident set; getrusage would count what started it, too."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


def noted(function: Callable[[Any], Any], job: Any) -> tuple[Any, int]:
    return function(job), peak_kib()


largest = [0]  # peak of a worker, KiB


def pooled(function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
    """`map` in WORKERS processes, results in order, few jobs ahead: as `deid.pipeline.cluster.spread`."""
    waiting: collections.deque[Future[Any]] = collections.deque()
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        for job in jobs:
            waiting.append(pool.submit(noted, function, job))
            if len(waiting) > 2 * WORKERS:
                result, largest[0] = _taken(waiting)
                yield result
        while waiting:
            result, largest[0] = _taken(waiting)
            yield result


def _taken(waiting: collections.deque[Future[Any]]) -> tuple[Any, int]:
    result, peak = waiting.popleft().result()
    return result, max(largest[0], peak)


def step(name: str, folder: Path) -> dict[str, Any]:
    """One step over the state: seconds, memory of this process before and at its peak, of a worker, what came out."""
    from benchmarks import scale_state
    from deid import config
    from deid.pipeline import publish
    from deid.privacy import audit, audit_release, suppress

    settings = config.parse(
        {"input": {"uri": "raw"}, "output": {"uri": "out"}, "state": "state"}
        | {"assignment": {"k": K, "apart": APART}}
    )
    vault, commits = scale_state.vault(folder), pq.read_table(folder / "commits.parquet")
    people = {int(n): number for n, number in json.loads((folder / "people.json").read_text()).items()}
    start, begun = peak_kib(), time.perf_counter()
    found: Any
    commit = publish.Commits(vault)
    if name == "count":
        found = publish.recount(settings, commit, commits, pooled).summary()
    else:
        rows = [
            faces + 1 for faces in commits["faces"].to_pylist()
        ]  # one more for the picture that was dropped
        units = commits["unit"].to_pylist()
        classes, output = audit.classes(people, K), str(folder / "out")
        parts, counts, rule = audit_release.release(
            vault, commit.audit, units, rows, classes, K, output, pooled
        )
        suppress.summary(counts, rule, K, {})
        found = [Path(output, part["name"]) for part in parts]
    seconds, peak = time.perf_counter() - begun, peak_kib()
    if name == "release":
        found = digest(found)
    return {
        "seconds": seconds,
        "start_kib": start,
        "peak_kib": peak,
        "worker_kib": largest[0],
        "found": found,
    }


def digest(parts: list[Path]) -> str:
    """SHA-256 of all rows of the audit, wherever one part ends."""
    found = hashlib.sha256()
    for part in parts:
        for row in pc.binary_join_element_wise(*pq.ParquetFile(part).read().columns, ",").to_pylist():
            found.update(row.encode() + b"\n")
    return found.hexdigest()


def child(arguments: list[str], folder: Path) -> dict[str, Any]:
    """What a Python process that is started in `folder` prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"a step ended with {done.returncode}:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def audit_figures(faces: list[int], before: str | None) -> dict[str, Any]:
    """Every step over states of so many faces each, before and now."""
    from benchmarks import scale_state

    figures: dict[str, Any] = {"machine": common.machine(), "rows": []}
    with tempfile.TemporaryDirectory() as place:
        old = Path(place, "old")
        if before is not None:
            old.mkdir()
            command = f"git archive {before} deid | tar -x -C {old}"
            subprocess.run(command, shell=True, check=True, cwd=common.REPOSITORY)
        for number in faces:
            folder = Path(place, str(number))
            commits = scale_state.write(folder, number)
            pq.write_table(commits, folder / "commits.parquet")
            (folder / "people.json").write_text(json.dumps(scale_state.people_behind(number)))
            for name in STEPS:
                row: dict[str, Any] = {"step": name, "faces": number}
                row["now"] = child(["-m", "benchmarks.scale", "step", name, str(folder)], common.REPOSITORY)
                if before is not None:
                    row["before"] = child(["-c", BEFORE, name, str(folder), str(len(commits))], old)
                figures["rows"].append(row)
                print(audit_markdown({**figures, "rows": [row]}).splitlines()[-1], flush=True)
    return figures


def audit_markdown(figures: dict[str, Any]) -> str:
    machine = figures["machine"]
    lines = [
        f"{machine['cores']} cores ({machine['cpu']}), load average before: {machine['load_average_before']}; "
        f"tasks in {WORKERS} processes. Memory is the peak of the resident set.",
        "",
        "| step | faces | driver before, s | driver now, s with its tasks | driver before, above its start | now "
        "| a worker now | same result |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["rows"]:
        now, before = row["now"], row.get("before")
        lines.append(
            f"| {row['step']} | {row['faces']:,} | {_seconds(before)} | {_seconds(now)} | {_above(before)} "
            f"| {_above(now)} | {now['worker_kib'] / 1024:,.0f} MiB | {_same(before, now)} |"
        )
    return "\n".join(lines)


def _seconds(entry: dict[str, Any] | None) -> str:
    return "" if entry is None else f"{entry['seconds']:.1f}"


def _above(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    return f"{(entry['peak_kib'] - entry['start_kib']) / 1024:,.0f} of {entry['peak_kib'] / 1024:,.0f} MiB"


def _same(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    return "" if before is None else "yes" if before["found"] == now["found"] else "no"


def role(title: str) -> str:
    """What a process of a job is, by its command line."""
    if title.startswith("ray::"):
        words = [w for w in re.findall(r"\w+", title)[1:] if w not in ("MapWorker", "MapBatches")]
        name = words[0] if words else "starting"
        return "Ray" if name in RAYS else f"worker {name}"
    if any(name in title for name in ("raylet", "gcs_server", "plasma", "monitor", "agent")):
        return "Ray"
    return "other"


class Roles(threading.Thread):
    """Samples the processes below `pid`: the largest PSS of one process of each role, and of all together."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peaks, self.ended = pid, collections.Counter[str](), threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            total, ray = 0, 0
            for pid in memory.tree(self.pid):
                try:
                    title = " ".join(psutil.Process(pid).cmdline())
                except psutil.Error:
                    continue
                size = memory.pss(pid)
                name = "driver" if pid == self.pid else role(title)
                total, ray = total + size, ray + (size if name == "Ray" else 0)
                self.peaks[name] = max(self.peaks[name], size)
            self.peaks["Ray, together"] = max(self.peaks["Ray, together"], ray)
            self.peaks["all together"] = max(self.peaks["all together"], total)


def corpus(folder: Path, shards: int) -> None:
    """Shards of small pictures, each of the public-domain portrait of scikit-image, and each another one."""
    portrait = Image.fromarray(skimage.data.astronaut()).crop((100, 0, 356, 256)).resize((SIDE, SIDE))
    rng = np.random.default_rng(shards)
    for number in range(shards):
        samples = []
        for n in range(PICTURES):
            noisy = np.asarray(portrait, np.int16) + rng.integers(-8, 9, (SIDE, SIDE, 3))
            sink = io.BytesIO()
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(sink, "JPEG")
            person = json.dumps({"person": f"p{rng.integers(PEOPLE)}"}).encode()
            samples.append((f"{number:04}-{n:03}", {"jpg": sink.getvalue(), "json": person}))
        data = webdataset.write_shard(samples)
        storage.write_bytes(storage.join(str(folder), f"{number:05}.tar"), data)


def job_figures(shards: list[int], passes: int) -> dict[str, Any]:
    """A run over each number of shards; with the rows of runs before over other numbers, or in other passes."""
    figures: dict[str, Any] = {"machine": common.machine(), "rows": []}
    if (before := results("job")).exists():
        figures["rows"] = json.loads(before.read_text())["rows"]
    for number in shards:
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            corpus(folder / "raw", number)
            pool = {"actors": 1, "cpus": 0.5, "threads": 1}
            settings = {
                "input": {"uri": str(folder / "raw")},
                "output": {"uri": str(folder / "out")},
                "state": str(folder / "state"),
                "models": {"accept": ["clean", "permissive", "restricted"]},
                "unit_size": PICTURES,
                "region": {"kind": "face"},
                "gate": {"enabled": False},
                "anonymizer": "solid" if passes == 1 else "ksame-pixel",
                "assignment": {"mode": "per-face"} if passes == 1 else {"k": K, "subject": "person"},
                "stages": dict.fromkeys(("analyse", "generate", "compose"), pool),
            }
            given = folder / "config.yaml"
            given.write_text(json.dumps(settings))  # JSON is YAML
            begun = time.perf_counter()
            with open(folder / "log", "wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", "from deid.cli import main; main()", "run", str(given)],
                    stdout=log,
                    stderr=log,
                    cwd=common.REPOSITORY,
                )
                roles = Roles(process.pid)
                roles.start()
                code = process.wait()
                roles.ended.set()
                roles.join()
            if code:
                raise SystemExit(f"the job ended with {code}:\n{(folder / 'log').read_text()[-2000:]}")
            seconds = time.perf_counter() - begun
        row: dict[str, Any] = {
            "passes": passes,
            "shards": number,
            "pictures": number * PICTURES,
            "load": load,
        }
        row |= {"seconds": seconds, "mib": {name: n / 2**20 for name, n in roles.peaks.items()}}
        print(row, flush=True)
        others = [r for r in figures["rows"] if (r["passes"], r["shards"]) != (passes, number)]
        figures["rows"] = sorted([*others, row], key=lambda r: (r["passes"], r["shards"]))
        save("job", figures)
    return figures


def results(command: str) -> Path:
    return common.REPOSITORY / "benchmarks" / "results" / f"scale_{command}.json"


def save(command: str, figures: dict[str, Any]) -> None:
    results(command).write_text(json.dumps(figures, indent=2) + "\n")


def job_markdown(figures: dict[str, Any]) -> str:
    """A table for each number of passes; the last column is the most shards against the fewest."""
    machine, parts = figures["machine"], []
    for passes in sorted({row["passes"] for row in figures["rows"]}):
        rows = [row for row in figures["rows"] if row["passes"] == passes]
        lines = [
            f"| {passes} pass{'es' * (passes > 1)} | "
            + " | ".join(f"{row['shards']} shards" for row in rows)
            + f" | {rows[-1]['shards']} to {rows[0]['shards']} |",
            "|---|" + "---|" * (len(rows) + 1),
            "| pictures | " + " | ".join(f"{row['pictures']:,}" for row in rows) + " | |",
            "| load average before | " + " | ".join(f"{row['load']:.1f}" for row in rows) + " | |",
            "| whole command, s | " + " | ".join(f"{row['seconds']:.0f}" for row in rows) + " | |",
        ]
        for name in sorted({name for row in rows for name in row["mib"]}):
            sizes = [row["mib"].get(name, 0) for row in rows]
            ratio = f"{sizes[-1] / sizes[0]:.2f}" if sizes[0] else ""
            lines.append(f"| {name} | " + " | ".join(f"{mib:,.0f}" for mib in sizes) + f" | {ratio} |")
        parts.append("\n".join(lines))
    first = f"{machine['cores']} cores ({machine['cpu']}). Largest PSS of one process, MiB."
    return "\n\n".join([first, *parts])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    audit = commands.add_parser("audit")
    audit.add_argument("--faces", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    audit.add_argument("--before", help="commit that is measured as well")
    job = commands.add_parser("job")
    job.add_argument("--shards", type=int, nargs="+", default=[4, 16, 64])
    job.add_argument("--two-passes", action="store_true")
    one = commands.add_parser("step")
    one.add_argument("name", choices=STEPS)
    one.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.command == "step":
        print(json.dumps(step(given.name, given.folder)))
        return
    if given.command == "audit":
        figures = audit_figures(given.faces, given.before)
        save("audit", figures)
        print(audit_markdown(figures))
    else:
        print(job_markdown(job_figures(given.shards, 2 if given.two_passes else 1)))


if __name__ == "__main__":
    main()
