"""Privacy against naturalness, over kinds and sizes of region and margins: a plot of `benchmarks.surrogates`.

    python -m benchmarks.tradeoff benchmarks/results/tradeoff.json docs/img/tradeoff.png

Across: AUC of a recognizer that the pipeline never uses, against all impostors (.5 is chance). Up: how much
stronger gradients are along a seam than in the source (1 is no seam, 1.2 is the most that is asked; far below 1 is
a blurred rim). Bars are 95 % intervals over people.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DEFAULT = "region.kind=head,match.margin=0.85"
UNSEEN = "never used"
STYLES = {
    "region.kind=head": ("o", "#0072b2"),
    "region.kind=face": ("s", "#d55e00"),
    "anonymizer": ("^", "#555555"),
}


def points(made: dict[str, Any]) -> list[tuple[str, dict[str, float], dict[str, float]]]:
    """Name, AUC (value, low, high) and seam of each treatment of a table's JSON."""
    table = next(v for name, v in made["tables"].items() if UNSEEN in name and "impostors" not in name)
    return [
        (name, table["rows"][name]["auc"], treatment["figures"]["seam"])
        for name, treatment in made["treatments"].items()
    ]


def draw(made: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    for name, privacy, seam in points(made):
        mark, colour = next(style for start, style in STYLES.items() if name.startswith(start))
        error = [[[v["value"] - v["low"]], [v["high"] - v["value"]]] for v in (privacy, seam)]
        axes.errorbar(privacy["value"], seam["value"], error[1], error[0], mark, color=colour, capsize=3)
        label = name.replace("region.kind=", "").replace("region.", "").replace("match.", "")
        bold = "bold" if name == DEFAULT else "normal"
        axes.annotate(
            label, (privacy["value"], seam["value"]), (6, 5), textcoords="offset points", weight=bold, size=8
        )
    axes.axvline(0.5, color="#888888", linestyle=":", label="chance")
    axes.axhline(1.2, color="#888888", linestyle="--", label="asked: at most")
    axes.set_xlabel("AUC of a recognizer never used by the pipeline (lower: more private)")
    axes.set_ylabel("gradient along the seam, result over source")
    axes.set_title("60 people, smiling probes against clear neutral enrolments; the default is bold")
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("figures", type=Path, help="JSON of benchmarks.surrogates with several treatments")
    parser.add_argument("plot", type=Path, help="PNG to write")
    options = parser.parse_args()
    draw(json.loads(options.figures.read_text()), options.plot)


if __name__ == "__main__":
    main()
