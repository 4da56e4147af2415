"""Faces a second for each stage alone, for a plain loop and for the Ray job over the same pictures; peak memory.

    python -m benchmarks.speed (--data FOLDER | --shards URI) [--pictures 64]

The pictures are the London photographs, or with --shards those of any shards, such as the demo's. They lie
in 4 shards, and four times over in 16 shards, on the local disk. The plain loop is one Python process with
two threads a network: the job's own parts, one after the other, picture by picture, over the 4 shards,
shards written too; no Ray, no copies between stages. The job is `deid.pipeline.run.run` in a process of its
own, over 4 and over 16 shards; its memory is the sum of PSS over its whole process tree. Its rate is given
gross (actors started, models loaded and all units written; Ray's own start apart), and at the margin: the
faces and seconds of 16 shards less those of 4, which leaves start and end out, as the loop's rate leaves
out its loading of models. Figures go to `results/speed.json` and, as Markdown, to the screen.
"""

import argparse
import collections
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import common, levels
from benchmarks.memory import Peak
from deid.config import Config, parse
from deid.errors import FaceError
from deid.pipeline.compose import Compose
from deid.pipeline.rows import Row
from deid.pipeline.run import run, secret_of
from deid.pipeline.stages import Analyse, Generate, decode
from deid.shards import pictures, storage, webdataset
from deid.surrogates import ladder

SEED = 20_251
FEW, MANY = 4, 16
THREADS = 2
STAGES = (
    "decode",
    "detect",
    "mesh",
    "embed",
    "segment",
    "match, steer, trials",
    "generate",
    "look at the surrogate",
    "spare",
    "composite and gate",
    "encode",
)


class PlainLoop:
    """The job's own parts in one process, one after the other, with the seconds spent in each."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.analyse, self.generate = Analyse(config), Generate(config, secret_of(config))
        self.compose = Compose(config)
        self.reset()

    def reset(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.pictures, self.faces, self.replaced = 0, 0, 0

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begun

    def shard(self, file: storage.Object, target: str) -> None:
        """Read one shard, replace every face, write one shard."""
        index = webdataset.scan(file)
        samples = []
        for position, image, _, _ in webdataset.read(index):
            row = Row(0, position, position, image, index["extension"][position].as_py())
            samples.append((f"{position:06d}", {row.extension: self.picture(row)}))
        storage.write_bytes(target, webdataset.write_shard(samples))

    def picture(self, row: Row) -> bytes:
        with self.timed("decode"):
            pixels = decode(row, self.config)
        if pixels is None:
            raise SystemExit(f"a picture of the corpus cannot be read: {row.reason}")
        with self.timed("detect"):
            detections = self.analyse.detector.detect([pixels])[0]
        with self.timed("mesh"):
            row.faces = self.analyse.meshed(pixels, detections)
        with self.timed("embed"):
            self.analyse.embed([(row, pixels)])
        with self.timed("segment"):
            self.analyse.segment([(pixels, face) for face in row.faces if not face.failure])
        for number, face in enumerate(row.faces):
            self.generate.start(face)
            if ladder.pending(face, "surrogate"):
                self.surrogate(row, number)
        self.generate.fill([row])  # what stands on lower rungs; none does in portraits
        with self.timed("spare"):
            self.generate.spare([row])
        with self.timed("composite and gate"):
            result = self.compose.result(row, pixels)
        if result is None:
            raise SystemExit(f"a picture of the corpus is in quarantine: {row.reason}")
        with self.timed("encode"):
            encoded = pictures.encode(result, row.extension, self.config.output.quality)
        self.pictures += 1
        self.faces += len(row.faces)
        self.replaced += sum(face.status == "replaced" for face in row.faces)
        return encoded

    def surrogate(self, row: Row, number: int) -> None:
        face = row.faces[number]
        try:
            with self.timed("match, steer, trials"):
                style = self.generate.style(row, number)
            with self.timed("generate"):
                rendered = self.generate.render([(face, style)])[0]
            with self.timed("look at the surrogate"):
                self.generate.place(face, rendered)
        except FaceError as error:
            ladder.lower(face, error.reason)


def configuration(
    folder: Path, shards: int, unit_size: int, threads: int | None = None, mode: str = "per-face"
) -> Config:
    """The product's defaults, with as many pictures a unit as a shard holds."""
    stage = (
        {} if threads is None else {name: {"threads": threads} for name in ("analyse", "generate", "compose")}
    )
    return parse(
        {
            "input": {"uri": str(folder / f"raw-{shards}")},
            "output": {"uri": str(folder / f"out-{shards}")},
            "state": str(folder / f"state-{shards}"),
            "models": {"accept": ["clean", "permissive", "restricted"]},
            "unit_size": unit_size,
            "assignment": {"mode": mode},
            "seed": SEED,
            "stages": stage,
        }
    )


def plain(folder: Path, unit_size: int) -> dict[str, Any]:
    """The loop over the few shards, after one picture to warm up."""
    config = configuration(folder, FEW, unit_size, THREADS)
    begun = time.perf_counter()
    loop = PlainLoop(config)
    files = storage.list_files(config.input.uri, "*.tar")
    first = next(webdataset.read(webdataset.scan(files[0]).slice(0, 1)))
    loop.picture(Row(0, 0, 0, first[1], "jpg"))
    loop.reset()
    loading = time.perf_counter() - begun
    begun = time.perf_counter()
    for number, file in enumerate(files):
        loop.shard(file, str(folder / "plain" / f"{number}.tar"))
    return {
        "loading_seconds": loading,
        "seconds": time.perf_counter() - begun,
        "pictures": loop.pictures,
        "faces": loop.faces,
        "replaced": loop.replaced,
        "stages": {name: loop.seconds[name] for name in STAGES},
    }


def job(folder: Path, shards: int, unit_size: int, mode: str = "per-face") -> dict[str, Any]:
    """The job in a process of its own, and the peak of its tree's memory."""
    config = configuration(folder, shards, unit_size, mode=mode)
    given, answer = folder / "config.json", folder / "answer.json"
    given.write_text(config.model_dump_json())
    command = [sys.executable, "-m", "benchmarks.speed", "--job", str(given), str(answer)]
    with open(folder / "job.log", "wb") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=common.REPOSITORY)
        with Peak(process.pid, interval=1.0) as peak:
            code = process.wait()
    if code:
        raise SystemExit(f"the job ended with {code}:\n{(folder / 'job.log').read_text()[-2000:]}")
    return {
        **json.loads(answer.read_text()),
        "wall_seconds": time.perf_counter() - begun,
        "peak_pss_mib": peak.bytes / 2**20,
        "processes": peak.processes,
        "sampling_seconds": peak.cost,
    }


def child(given: Path, answer: Path) -> None:
    """What `job` starts."""
    result = run(parse(json.loads(given.read_text())))
    answer.write_text(json.dumps({"seconds": result.seconds, **result.manifest["counts"]}))


def corpus(data: Path | None, uri: str | None) -> dict[str, tuple[str, bytes]]:
    """Pictures by key: extension and bytes."""
    if uri is not None:
        files = storage.list_files(uri, "*.tar", required=True)
        found = [(index["extension"][n].as_py(), image)
                 for index in map(webdataset.scan, files) for n, image, _, _ in webdataset.read(index)]  # fmt: skip
        return {f"{number:06d}": value for number, value in enumerate(found)}
    if data is not None:
        return {p.key: ("jpg", p.path.read_bytes()) for p in common.london(data)}
    raise SystemExit("--shards URI, --data FOLDER or DEID_DATA must say where the pictures are")


def derived(loop: dict[str, Any], few: dict[str, Any], many: dict[str, Any]) -> dict[str, Any]:
    """Rates in faces a second, and the job's share of the loop's."""
    rate = loop["faces"] / loop["seconds"]
    gross = {FEW: few["faces"] / few["seconds"], MANY: many["faces"] / many["seconds"]}
    margin = (many["faces"] - few["faces"]) / (many["seconds"] - few["seconds"])
    return {
        "loop_faces_per_second": rate,
        **{f"job_{shards}_faces_per_second": value for shards, value in gross.items()},
        "job_marginal_faces_per_second": margin,
        **{f"job_{shards}_of_loop": value / rate for shards, value in gross.items()},
        "job_marginal_of_loop": margin / rate,
    }


def markdown(figures: dict[str, Any]) -> str:
    loop, rates, machine = figures["loop"], figures["rates"], figures["machine"]
    lines = [
        f"{machine['cores']} cores ({machine['cpu']}), load average before: {machine['load_average_before']}; "
        f"{loop['pictures']} pictures, {loop['faces']} faces, {loop['replaced']} replaced.",
        "",
        f"| stage alone ({THREADS} threads) | ms a face | faces a second |",
        "|---|---|---|",
    ]
    for name, seconds in loop["stages"].items():
        lines.append(
            f"| {name} | {1000 * seconds / loop['faces']:.1f} | {loop['faces'] / max(seconds, 1e-9):,.1f} |"
        )
    lines += ["", levels.markdown(figures["levels"], THREADS)]
    lines += [
        "",
        "| run | faces | seconds | faces a second | of the loop | whole command, s | peak memory of the tree (PSS) |",
        "|---|---|---|---|---|---|---|",
        f"| plain loop | {loop['faces']} | {loop['seconds']:.1f} | {rates['loop_faces_per_second']:.2f} | 1 | | |",
    ]
    for shards in (FEW, MANY):
        r, gross = figures[f"job_{shards}"], rates[f"job_{shards}_faces_per_second"]
        lines.append(
            f"| job, {shards} shards | {r['faces']} | {r['seconds']:.1f} | {gross:.2f} "
            f"| {rates[f'job_{shards}_of_loop']:.2f} | {r['wall_seconds']:.1f} "
            f"| {r['peak_pss_mib']:,.0f} MiB in {r['processes']} processes |"
        )
    both = figures["job_two_passes"]
    rate = both["faces"] / both["seconds"]
    lines.append(
        f"| job, {FEW} shards, in two passes (k-same) | {both['faces']} | {both['seconds']:.1f} "
        f"| {rate:.2f} | {rate / rates['loop_faces_per_second']:.2f} "
        f"| {both['wall_seconds']:.1f} | {both['peak_pss_mib']:,.0f} MiB in {both['processes']} processes |"
    )
    lines.append(
        f"| job at the margin ({MANY} less {FEW} shards) | | | {rates['job_marginal_faces_per_second']:.2f} "
        f"| {rates['job_marginal_of_loop']:.2f} | | |"
    )
    return "\n".join(lines)


def rounded(value: Any) -> Any:
    """Floats to four figures after the point, at any depth."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    common.add_data_argument(parser, required=False)
    parser.add_argument(
        "--shards", metavar="URI", help="shards to take the pictures from, such as the demo's"
    )
    parser.add_argument("--pictures", type=int, default=64, help="pictures in the 4 shards")
    parser.add_argument("--results", type=Path, default=common.REPOSITORY / "benchmarks" / "results")
    parser.add_argument("--job", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        child(*arguments.job)
        return
    machine = common.machine()
    chosen = dict(sorted(corpus(arguments.data, arguments.shards).items())[: arguments.pictures])
    unit_size = -(-len(chosen) // FEW)
    with tempfile.TemporaryDirectory(prefix="deid-speed-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        common.pack(chosen, str(folder / f"raw-{FEW}"), FEW)
        copies = {f"{key}-{n}": value for key, value in chosen.items() for n in range(MANY // FEW)}
        common.pack(copies, str(folder / f"raw-{MANY}"), MANY)
        jobs = {f"job_{shards}": job(folder, shards, unit_size) for shards in (FEW, MANY)}
        jobs["job_two_passes"] = job(folder, FEW, unit_size, "k-same")
        loop = plain(folder, unit_size)
    by_level = levels.measure(THREADS)
    rates = derived(loop, jobs[f"job_{FEW}"], jobs[f"job_{MANY}"])
    figures = rounded({"machine": machine, "loop": loop, "levels": by_level, **jobs, "rates": rates})
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "speed.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(markdown(figures))


if __name__ == "__main__":
    main()
