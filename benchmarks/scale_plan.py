"""Listing, ledger and plan of a million shards: seconds, and the peak of the process that does it.

    python -m benchmarks.scale_plan [--shards 10000 100000 1000000]

The shards are simulated: a server on the loopback interface answers ListObjectsV2 with pages of a thousand names, as S3
does but without its delay; each shard is said to have 256 MB, and taken to have 1,000 pictures. Measured for each
number in a process of its own, with the job's own code: listing them through boto3, asking a ledger of no run and one
that took all of them what is new, cutting them into windows under a secret, and the plan's table with a walk over its
units. What tasks find in a window cannot be made of so many shards: its row of counts is made up, a group of units a
window, as of tar shards. Nor is what tasks do in it: scan its shards, write its units; no more than a window is in one.

Figures go to `results/scale_plan.json` and, as Markdown, to the screen.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks import common
from benchmarks.scale import peak_kib

SIZE = 256 * 10**6  # bytes a shard
PICTURES = 1000  # a shard
UNIT = 1000  # pictures
PAGE = 1000  # names
SECRET = b"s" * 32
STEPS = (
    "list", "ledger: compare, empty", "ledger: record", "ledger: compare, all known", "windows", "plan and its units",
)  # fmt: skip
_ENTRY = (
    "<Contents><Key>raw/part={0:05}/{1:09}.tar</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&quot;{1:032x}&quot;</ETag><Size>{2}</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


class Pages(BaseHTTPRequestHandler):
    """ListObjectsV2 of `shards` objects that do not exist."""

    protocol_version = "HTTP/1.1"
    shards = 0

    def do_GET(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        start = int(query.get("continuation-token", ["0"])[0])
        stop = min(start + PAGE, self.shards)
        more = f"<NextContinuationToken>{stop}</NextContinuationToken>" if stop < self.shards else ""
        names = "".join(_ENTRY.format(number // PAGE, number, SIZE) for number in range(start, stop))
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>lake</Name>'
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{names}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def serve(shards: int) -> None:
    """Serve the pages, and print the port, until this process is ended."""
    Pages.shards = shards
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


@contextlib.contextmanager
def served(shards: int) -> Iterator[dict[str, str]]:
    """The environment in which S3 is such a server."""
    command = [sys.executable, "-m", "benchmarks.scale_plan", "--serve", str(shards)]
    with subprocess.Popen(command, cwd=common.REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(process.stdout.readline())}",
                "AWS_ACCESS_KEY_ID": "nobody",
                "AWS_SECRET_ACCESS_KEY": "nothing",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        finally:
            process.terminate()


def measure(folder: Path) -> dict[str, Any]:
    """Seconds of each step over what S3 lists, with the state in `folder`; the process's memory before and at its
    peak."""
    from deid import config
    from deid.pipeline import ledger
    from deid.pipeline import plan as planning
    from deid.privacy import wrapping

    settings = config.parse(
        {"input": {"uri": "s3://lake/raw"}, "output": {"uri": "out"}, "state": str(folder / "state")}
        | {"unit_size": UNIT}
    )
    seconds: dict[str, float] = {}
    peaks: dict[str, int] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = call()
        seconds[name], peaks[name] = time.perf_counter() - begun, peak_kib()
        return result

    wrapping.new_key_file(folder / "key")
    start = peak_kib()
    listed = timed("list", lambda: planning.shards(settings))
    book = ledger.open(settings.state, str(folder / "key"))
    new = timed("ledger: compare, empty", lambda: book.compare(listed)).new
    if len(new) != len(listed):
        raise SystemExit(f"{len(new)} of {len(listed)} shards are new to an empty ledger")
    timed("ledger: record", lambda: book.record("first", listed))
    known = timed("ledger: compare, all known", lambda: book.compare(listed)).known
    if known != len(listed):
        raise SystemExit(f"{known} of {len(listed)} shards are known to a ledger that took all")
    size = int(settings.input.window_gib * 2**30)
    held = timed("windows", lambda: [len(table) for _, table in planning.windows(listed, size, SECRET)])
    if sum(held) != len(listed):
        raise SystemExit(f"{sum(held)} of {len(listed)} shards are in the windows")
    units = timed("plan and its units", lambda: planned(held))
    return {
        "shards": len(listed), "windows": len(held), "units": units, "seconds": seconds, "peaks_kib": peaks,
        "start_kib": start,
    }  # fmt: skip


def planned(held: list[int]) -> int:
    """Units of a plan whose windows hold so many shards, each asked for once, as many at a time as the passes do."""
    from deid.pipeline import passes
    from deid.pipeline import plan as planning
    from deid.privacy.vault import Vault

    rows = [
        {
            "groups": [1] * (shards * PICTURES // UNIT),
            "pictures": shards * PICTURES,
            "bytes": shards * SIZE,
            "refused": 0,
            "reasons": [],
            "several": 1,
        }
        for shards in held
    ]
    plan = planning.Plan(Vault("", SECRET), pa.Table.from_pylist(rows, schema=planning.WINDOWS), "")
    waves = range(0, plan.units, passes.WAVE)
    return sum(len(plan.groups(range(plan.units)[start : start + passes.WAVE])) for start in waves)


def markdown(figures: dict[str, Any]) -> str:
    machine, rows = figures["machine"], figures["rows"]
    lines = [
        f"{machine['cores']} cores ({machine['cpu']}), load average before: {machine['load_average_before']}.",
        "",
        "| | " + " | ".join(f"{row['shards']:,} shards" for row in rows) + " |",
        "|---|" + "---|" * len(rows),
        "| windows | " + " | ".join(f"{row['windows']:,}" for row in rows) + " |",
        "| units | " + " | ".join(f"{row['units']:,}" for row in rows) + " |",
    ]
    for name in STEPS:
        lines.append(f"| {name}, s | " + " | ".join(f"{row['seconds'][name]:.1f}" for row in rows) + " |")
    for name in STEPS:
        above = [(row["peaks_kib"][name] - row["start_kib"]) / 1024 for row in rows]
        lines.append(f"| peak up to {name}, MiB | " + " | ".join(f"{mib:,.0f}" for mib in above) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--folder", type=Path, help="measure here, with the state in it, and print JSON")
    parser.add_argument("--serve", type=int, help="serve the list of so many shards")
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
        return
    if given.folder is not None:
        print(json.dumps(measure(given.folder)))
        return
    figures: dict[str, Any] = {"machine": common.machine(), "rows": []}
    for shards in given.shards:
        with tempfile.TemporaryDirectory() as place, served(shards) as environment:
            command = [sys.executable, "-m", "benchmarks.scale_plan", "--folder", place]
            done = subprocess.run(
                command, cwd=common.REPOSITORY, env=os.environ | environment, capture_output=True, text=True
            )
        if done.returncode:
            raise SystemExit(f"it ended with {done.returncode}:\n{done.stderr[-2000:]}")
        figures["rows"].append(json.loads(done.stdout.splitlines()[-1]))
        print(figures["rows"][-1], flush=True)
    results = common.REPOSITORY / "benchmarks" / "results" / "scale_plan.json"
    results.write_text(json.dumps(figures, indent=2) + "\n")
    print(markdown(figures))


if __name__ == "__main__":
    main()
