"""`deid evaluate` on the Face Research Lab London Set (CC BY 4.0) or on the demo's fictional people, and its time.

    python -m benchmarks.evaluate --data FOLDER london                # the job's defaults beside every baseline
    python -m benchmarks.evaluate --data FOLDER demo --demo .demo     # what `deid demo` left there

The report goes to the scratch folder; its numbers, which name nobody, go to `results/evaluation_<corpus>.json`, and the
trade-off of London into the package, for `deid recommend`. `benchmarks.tradeoff` makes it anew over more settings.

DeBruine and Jones 2017, doi.org/10.6084/m9.figshare.5047666.v5.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from benchmarks import common
from benchmarks.london import mobilefacenet
from benchmarks.tradeoff import ATTRIBUTION
from deid.evaluation import run
from deid.evaluation.settings import Evaluation

EVIDENCE = common.REPOSITORY / "deid" / "evaluation" / "data" / "tradeoff.json"
TABLES = (
    "tradeoff",
    "privacy.chosen",
    "downstream.detector",
    "downstream.expression",
    "composite.hifd",
)  # printed


def main() -> None:
    arguments = parser().parse_args()
    scratch = common.outside_repository(arguments.scratch)
    recognizer = scratch / "recognizer.yaml"
    recognizer.write_text(yaml.safe_dump(mobilefacenet(arguments.data).model_dump(mode="json")))
    given = {"london": london, "demo": demo}[arguments.corpus](arguments)
    shared = {"output": str(scratch / f"report-{arguments.corpus}"), "recognizers": [str(recognizer)]}
    made = run.run(Evaluation.model_validate(shared | given))
    figures = json.loads((Path(made.output) / "evaluation.json").read_text()) | {"machine": common.machine()}
    target = arguments.results / f"evaluation_{arguments.corpus}.json"
    target.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    if arguments.corpus == "london":
        EVIDENCE.write_text(json.dumps(evidence(figures), indent=1, allow_nan=False) + "\n")
    for name, line in made.verdict.lines().items():
        print(f"{name}: {line}")
    for name in TABLES:
        section, _, _ = name.partition(".")
        print(f"\n{name}\n\n{markdown(figures['sections'][section]['tables'][name])}\n")
    print(f"{made.seconds:.0f} s; report {made.output}/report.html (keep it private where it shows people)")


def evidence(figures: dict[str, Any]) -> dict[str, Any]:
    """Of an evaluation of London, what `deid recommend` reads where it is given no file."""
    sections = {"tradeoff": figures["sections"]["tradeoff"]}
    return {"attribution": ATTRIBUTION, "machine": figures["machine"], "sections": sections}


def markdown(table: dict[str, Any]) -> str:
    """A table of an evaluation.json."""
    columns = table["columns"]
    lines = [
        f"| {' | '.join(['', *(column['title'] for column in columns.values())])} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for name, row in table["rows"].items():
        lines.append(f"| {' | '.join([name, *(cell(row.get(column, {})) for column in columns)])} |")
    return "\n".join([*lines, *([f"INVALID: {'; '.join(table['problems'])}"] if table["problems"] else [])])


def cell(found: dict[str, Any]) -> str:
    value, low, high = (found.get(name) for name in ("value", "low", "high"))
    if value is None:
        return str(found.get("text", ""))
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    common.add_data_argument(made, required=True)
    made.add_argument("corpus", choices=("london", "demo"))
    made.add_argument("--scratch", type=Path, help="folder for the report; default: a temporary one")
    made.add_argument("--results", type=Path, default=common.REPOSITORY / "benchmarks" / "results")
    made.add_argument("--demo", type=Path, default=Path(".demo"), help="work folder of `deid demo`")
    return made


def london(arguments: argparse.Namespace) -> dict[str, Any]:
    folder = arguments.data / "london"
    return {
        "title": "De-identification of the Face Research Lab London Set",
        "source": {"uri": str(folder), "labels": str(folder / "labels.csv")},
        "trials": [{"name": "k-same, k = 5 (the default)", "settings": {"assignment": {"k": 5}}}],
        "k": 5,
    }


def demo(arguments: argparse.Namespace) -> dict[str, Any]:
    corpus = arguments.demo / "corpus"
    return {
        "title": "De-identification of the demonstration's fictional people",
        "source": {"uri": str(corpus), "labels": str(corpus / "labels.csv")},
        "results": [
            {
                "name": "k-same, k = 5 (the demo)",
                "uri": str(arguments.demo / "out"),
                "pairing": str(arguments.demo / "pairs.csv"),
            }
        ],
        "k": 5,
        "show": "labelled",
    }


if __name__ == "__main__":
    main()
