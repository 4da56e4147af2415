"""`deid demo`: the main job on a corpus of fictional people, against a real S3 server, measured on its ground truth."""

import csv
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from deid import config as configuration
from deid.config import Config
from deid.demo import corpus as demo_corpus
from deid.demo import sheet
from deid.demo.corpus import Corpus
from deid.demo.measure import Measured, measure
from deid.demo.s3server import S3Server
from deid.evaluation.reid import Result
from deid.pipeline import parts, trace
from deid.pipeline import run as pipeline
from deid.pipeline.run import RunResult
from deid.pipeline.trace import Pair
from deid.shards import storage

BUCKETS = ("raw", "deid", "state")
# The same settings as configs/demo.yaml, which a package installed without the repository lacks.
CONFIG: dict[str, Any] = {
    "input": {"uri": "s3://raw/demo"},
    "output": {"uri": "s3://deid/demo"},
    "state": "s3://state/demo",
    "models": {"accept": ["clean", "permissive", "restricted"]},
    "metadata": {"sidecar_fields": {"label": "int"}, "members": {"cls": "int"}},
    "unit_size": 16,
    "seed": 20260101,
}


def main(workdir: Path, recipe: demo_corpus.Recipe | None = None) -> int:
    """Run the demonstration in `workdir`; exit code 0.

    The corpus stays there for the next time; `out`, `pairs.csv` and `before-after.png` are written anew.

    Raises:
        DeidError: models, storage or the run failed.
    """
    console, begun = Console(), time.perf_counter()
    workdir.mkdir(parents=True, exist_ok=True)
    corpus = _corpus(console, workdir / "corpus", recipe)
    config = configuration.parse(CONFIG, "demo")
    # Not in the work folder: the path of a socket may have about 100 characters.
    with (
        tempfile.TemporaryDirectory(prefix="deid-s3-") as folder,
        S3Server(folder) as server,
        environment(server.environment()),
    ):
        console.print(f"S3 server at {server.endpoint}, bucket raw: {len(corpus.shards)} shards")
        for bucket in BUCKETS:
            server.create_bucket(bucket)
        for shard in corpus.shards:
            storage.write_bytes(storage.join(config.input.uri, shard.name), shard.read_bytes())
        result = pipeline.run(config)
        console.print("measuring against the ground truth ...")
        pairs = list(trace.pairs(config, result))
        measured = _measure(config, pairs, corpus)
        out = _keep(result, workdir / "out")
    _write_pairs(pairs, workdir / "pairs.csv")
    picture = workdir / "before-after.png"
    sheet.save(sheet.contact_sheet(measured.cells, "De-identified: fictional people"), str(picture))
    console.print(_table(corpus, result, measured, time.perf_counter() - begun))
    console.print(f"contact sheet  {picture}\noutput         {out}", soft_wrap=True)
    restricted = [name for name, kind in parts.classes_of(config).items() if kind == "restricted"]
    console.print(
        f"restricted     {', '.join(restricted)}: not for commercial use, see deid models list",
        soft_wrap=True,
    )
    console.print("to measure it  deid evaluate configs/evaluate_demo.yaml", soft_wrap=True)
    return 0


def _corpus(console: Console, folder: Path, recipe: demo_corpus.Recipe | None) -> Corpus:
    recipe = recipe or demo_corpus.Recipe()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("corpus of fictional people", total=recipe.pictures)
        corpus = demo_corpus.make(folder, recipe, lambda done, total: progress.update(task, completed=done))
    console.print(f"corpus: {len(corpus.truth)} pictures, {corpus.faces} faces, in {folder}")
    return corpus


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """These environment variables for a while, here and in every process started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _measure(config: Config, pairs: Sequence[Pair], corpus: Corpus) -> Measured:
    stage = config.stages.analyse.model_copy(update={"threads": os.cpu_count() or 1})
    detector, mesher, embedder = (
        parts.build(config, kind, stage) for kind in ("detector", "mesher", "embedder")
    )
    return measure(pairs, corpus.truth, detector, mesher, embedder)


def _write_pairs(pairs: Sequence[Pair], path: Path) -> None:
    """Which result is of which source, as `deid evaluate` reads it; the people are fictional, the run has a seed."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("key", "result"))
        lines.writerows(sorted((pair.key, pair.output) for pair in pairs if pair.output))


def _keep(result: RunResult, folder: Path) -> Path:
    """A copy of the run's output, so that it outlives the server."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for item in storage.list_files(result.output):
        target = folder / item.uri.removeprefix(result.output).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(storage.read_bytes(item.uri))
    return folder


def _table(corpus: Corpus, result: RunResult, measured: Measured, seconds: float) -> Table:
    counts, found = result.manifest["counts"], measured.recall.total
    table = Table(title="demo", title_justify="left", show_header=False)
    rows = {
        "pictures in": counts["pictures_in"],
        "pictures out": counts["pictures_out"],
        "quarantined": counts["pictures_quarantined"],
        "dropped": counts["pictures_dropped"],
        "faces, ground truth": corpus.faces,
        "found at IoU 0.4": f"{found.found} ({found.recall:.1%})",
        "faces replaced": counts["replaced"],
        "faces covered": counts["covered"],
        "rank-1, clear probes": _share(measured.before),
        "rank-1, de-identified": _share(measured.after),
        "AUC, clear / de-identified": f"{measured.before.auc.value:.3f} / {measured.after.auc.value:.3f}",
        "rank-1 by chance": f"{measured.after.chance:.3f}",
        "seconds, job's stages": f"{result.seconds:.0f}",
        "seconds, everything": f"{seconds:.0f}",
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _share(result: Result) -> str:
    return f"{result.rank1.value:.3f} ({result.probes} probes, {result.subjects} people, the pipeline's own embedder)"
