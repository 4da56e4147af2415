"""Strength against utility over k, margin, region and anonymizer, on London (CC BY 4.0): what `deid recommend` reads.

    python -m benchmarks.tradeoff --data FOLDER --scratch FOLDER
    python -m benchmarks.tradeoff --data FOLDER --scratch FOLDER --only default "k 2"

One run of the job over all 120 photographs for each setting of `GRID`; the pictures are kept in the scratch folder, so
a stopped benchmark goes on where it was. Then all of them, and the baselines of `deid evaluate`, are attacked and
measured as that does it: enrolled are the neutral photographs, probes the smiling ones. Figures go to
deid/evaluation/data/tradeoff.json, plots to docs/img/.

DeBruine and Jones 2017, doi.org/10.6084/m9.figshare.5047666.v5.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import common, surrogates_jobs
from benchmarks.london import SEED, mobilefacenet
from deid.config import Config, Options
from deid.errors import DeidError
from deid.evaluation import attacks, corpus, look, options, tradeoff
from deid.evaluation.faces import Faces
from deid.evaluation.sections import Section, as_dict
from deid.evaluation.settings import Evaluation, Result, Source
from deid.pipeline import cluster

ATTRIBUTION = (
    "Figures on the Face Research Lab London Set, DeBruine, L., and Jones, B. (2017), version 5, CC BY 4.0, "
    "doi.org/10.6084/m9.figshare.5047666.v5; settings were chosen while looking at these people."
)
SAID = ("faces", "replaced", "below_the_first_rung", "people")  # of a run's notes
DEFAULT = "default"  # k = 5, heads, margin .85, shared looks
GRID: dict[str, Options] = {
    DEFAULT: {},
    "k 2": {"assignment": {"k": 2}},
    "k 10": {"assignment": {"k": 10}},
    "margin 1.0": {"match": {"margin": 1.0}},
    "face, scale 1.3": {"region": {"kind": "face", "scale": 1.3}},
    "own looks": {"assignment": {"looks": "own"}},
}


def main() -> None:
    arguments = parser().parse_args()
    scratch = common.outside_repository(arguments.scratch)
    encoded = {p.key: p.path.read_bytes() for p in common.london(arguments.data)}
    kept, refused = run_all(arguments.only or list(GRID), encoded, scratch)
    if arguments.only_runs:
        return
    asked = evaluation(arguments.data, kept, scratch, arguments.resamples)
    with cluster.session(asked.cluster):
        cluster.configure(asked.cluster)
        looked = look.look(asked, corpus.read(asked))
    section = measured(looked.faces, asked, looked.notes)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(evidence(section, kept, refused), indent=1, allow_nan=False) + "\n")
    for plot in section.plots:
        (arguments.plots / f"{plot.id}.png").write_bytes(plot.png)
    print(markdown(section))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    common.add_data_argument(parser, required=True)
    parser.add_argument(
        "--scratch", type=Path, help="folder for pictures and observations; default: a temporary one"
    )
    parser.add_argument(
        "--only", nargs="*", choices=list(GRID), metavar="NAME", help="these settings of the grid"
    )
    parser.add_argument("--only-runs", action="store_true", help="run the job, and measure another time")
    root = common.REPOSITORY
    parser.add_argument("--json", type=Path, default=root / "deid" / "evaluation" / "data" / "tradeoff.json")
    parser.add_argument("--plots", type=Path, default=root / "docs" / "img")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    return parser


def run_all(
    names: list[str], encoded: dict[str, bytes], scratch: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """The folder with the pictures of each setting, and why the job refused the others."""
    kept, refused = {}, {}
    for name in names:
        try:
            kept[name] = made(name, encoded, scratch)
        except DeidError as error:
            refused[name] = str(error)
            print(f"{name}: {error}", file=sys.stderr)
    return kept, refused


def made(name: str, encoded: dict[str, bytes], scratch: Path) -> Path:
    """The folder with the pictures of a setting, by a run of the job where it is not there yet."""
    work = scratch / "runs" / surrogates_jobs.slug(name)
    kept = work / "results" / surrogates_jobs.slug(name)
    if not (kept / surrogates_jobs.NOTES).exists():  # written last: what a stopped run left is made anew
        shutil.rmtree(work, ignore_errors=True)
        surrogates_jobs.run_all({name: GRID[name]}, encoded, work)
        shutil.rmtree(work / "s3")
    return kept


def evaluation(data: Path, kept: dict[str, Path], scratch: Path, resamples: int) -> Evaluation:
    """The kept pictures, against the pipeline's own recognizer and one that it never uses."""
    recognizer = scratch / "recognizer.yaml"
    recognizer.write_text(yaml.safe_dump(mobilefacenet(data).model_dump(mode="json")))
    return Evaluation(
        title="Face Research Lab London Set, neutral and smiling photographs of one day",
        source=Source(uri=str(data / "london"), labels=str(data / "london" / "labels.csv")),
        output=str(scratch / "report"),
        results=tuple(Result(name=name, uri=str(folder)) for name, folder in kept.items()),
        chosen=DEFAULT if DEFAULT in kept else None,
        k=Config.model_fields["assignment"].default.k if DEFAULT in kept else None,
        recognizers=(str(recognizer),),
        resamples=resamples,
        seed=SEED,
    )


def measured(faces: Faces, asked: Evaluation, notes: dict[str, dict[str, Any]]) -> Section:
    """The trade-off, by the attacks that `deid evaluate` makes."""
    told = {name: notes.get(name, {}) for name in faces.treated}
    left_out = {"input", "output", "state", "models"}
    for name in set(GRID) & set(told):
        settings = options.configured(GRID[name]).model_dump(mode="json", exclude=left_out)
        told[name] = told[name] | {"settings": settings}
    privacy = attacks.privacy(faces, asked, told, np.random.default_rng(SEED))
    return tradeoff.tradeoff([privacy], faces, asked, told)


def evidence(section: Section, kept: dict[str, Path], refused: dict[str, str]) -> dict[str, Any]:
    """As `deid recommend` reads it; with what the job said of each run."""
    notes = {name: json.loads((folder / surrogates_jobs.NOTES).read_text()) for name, folder in kept.items()}
    said = {name: {key: told[key] for key in SAID if key in told} for name, told in notes.items()}
    return {
        "attribution": ATTRIBUTION,
        "machine": common.machine(),
        "runs": said,
        "refused": refused,
        "sections": {section.id: as_dict(section)},
    }


def markdown(section: Section) -> str:
    """The table for RESULTS.md."""
    table = section.tables[0]
    lines = [
        f"| {table.row_title} | {' | '.join(c.title for c in table.columns)} |",
        "|---" * (1 + len(table.columns)) + "|",
    ]
    for name, row in table.rows.items():
        cells = [
            f"{row[c.id].value:.3f} ({row[c.id].low:.3f} to {row[c.id].high:.3f})" for c in table.columns
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *table.notes])


if __name__ == "__main__":
    main()
