"""Whether k people behind a surrogate keep a recognizer at 1/k, on the Face Research Lab London Set (CC BY 4.0).

    python -m benchmarks.ksame --data FOLDER --json FILE [--scratch FOLDER]

One release of all photographs for each k, and two for comparison: `keyed-random`, a pseudonym a person, and `per-face`,
which shares nothing: what it lets through the parrot attack, the kept attributes give away alone. Three attacks by two
recognizers, one of which the pipeline never uses:

- forward: enrolled are clear neutral photographs, probed de-identified smiling ones.
- reverse: enrolled are de-identified neutral photographs, probed clear smiling ones.
- parrot: both are de-identified (Newton, Sweeney and Malin 2005): who shares a surrogate should be one of k.

DeBruine and Jones 2017, doi.org/10.6084/m9.figshare.5047666.v5.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, observing, surrogates_jobs
from benchmarks.london import SEED, configuration, mobilefacenet
from benchmarks.observing import Observing
from benchmarks.surrogates import Clear
from deid.evaluation.observe import Observation
from deid.evaluation.reid import Result, Templates, compare, permuted, reidentify

KS = (2, 5, 10)
OTHERS = ("assignment.mode=keyed-random", "assignment.mode=per-face")
CLEAR, RANDOM = "clear", "random pairs"
ATTACKS = ("forward", "reverse", "parrot")


def limit(k: int, people: int) -> float:
    """1/k and the half of a 95 % interval of such a share among so many people."""
    share = 1 / k
    return share + 1.96 * math.sqrt(share * (1 - share) / people)


def attacks(
    clear: Clear, eyes: Observing, treatments: dict[str, dict[str, bytes]], resamples: int
) -> dict[str, dict[str, dict[str, Result]]]:
    """Results by recognizer, attack and treatment; with the controls."""
    subjects, groups = {p.key: p.subject for p in clear.photographs}, clear.groups()
    neutral, smiling = clear.keys("neutral"), clear.keys("smiling")
    seen = {name: {key: eyes.plain(data) for key, data in made.items()} for name, made in treatments.items()}
    found: dict[str, dict[str, dict[str, Result]]] = {}
    for recognizer in eyes.observer.recognizers:

        def of(keys: list[str], some: dict[str, Observation], name: str = recognizer.name) -> Templates:
            return observing.templates(name, keys, some, subjects)

        def run(enrolled: Templates, probes: Templates, metric: Any = recognizer.metric) -> Result:
            rng = np.random.default_rng(SEED)
            return reidentify(compare(enrolled, probes, metric, groups), rng, resamples)

        plain = of(neutral, clear.seen), of(smiling, clear.seen)
        rows: dict[str, dict[str, Result]] = {}
        for attack in ATTACKS:
            rows[attack] = {
                CLEAR: run(*plain),
                RANDOM: run(plain[0], permuted(plain[1], np.random.default_rng(SEED))),
            }
            for name, some in seen.items():
                enrolled = plain[0] if attack == "forward" else of(neutral, some)
                probes = plain[1] if attack == "reverse" else of(smiling, some)
                rows[attack][name] = run(enrolled, probes)
        found[recognizer.name] = rows
    return found


def row(name: str, result: Result, k: int | None) -> dict[str, Any]:
    most = None if k is None else round(limit(k, result.subjects), 3)
    return {
        "treatment": name,
        "rank1": [round(v, 3) for v in (result.rank1.value, result.rank1.low, result.rank1.high)],
        "auc": [round(v, 3) for v in (result.auc.value, result.auc.low, result.auc.high)],
        "furthest": round(result.furthest.value, 3),
        "not_found": result.failures_to_acquire,
        "probes": result.probes,
        "people": result.subjects,
        "limit": most,
        "met": None if most is None else bool(result.rank1.value <= most),
        "chance": round(result.chance, 4),
        "chance_attributes": round(result.chance_attributes, 4),
    }


def markdown(made: dict[str, Any]) -> str:
    lines = []
    for recognizer, by_attack in made["attacks"].items():
        lines += [
            f"**{recognizer}**",
            "",
            "| attack | release | rank-1 | asked | AUC | no face |",
            "|---|---|---|---|---|---|",
        ]
        for attack, rows in by_attack.items():
            for entry in rows:
                value, low, high = entry["rank1"]
                asked = (
                    ""
                    if entry["limit"] is None
                    else f"{entry['limit']:.3f} {'met' if entry['met'] else 'MISSED'}"
                )
                area = "{:.3f} ({:.3f} to {:.3f})".format(*entry["auc"])
                lines.append(
                    f"| {attack} | {entry['treatment']} | {value:.3f} ({low:.3f} to {high:.3f}) | {asked} | {area} | "
                    f"{entry['not_found']}/{entry['probes']} |"
                )
        first = by_attack[ATTACKS[0]][0]
        lines += [
            "",
            f"{first['people']} people; chance {first['chance']}, of one who knows sex, age and skin tone "
            f"{first['chance_attributes']}.",
            "",
        ]
    lines += [
        "| release | surrogates | people behind each: least, median | across attributes | faces replaced |",
        "|---|---|---|---|---|",
    ]
    for name, notes in made["releases"].items():
        people = notes["people"]
        lines.append(
            f"| {name} | {people.get('surrogates', '')} | {people.get('min', '')}, {people.get('median', '')} | "
            f"{people.get('across_attributes', '')} | {notes['replaced']}/{notes['faces']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    common.add_data_argument(parser, required=True)
    parser.add_argument(
        "--scratch", type=Path, help="folder for pictures and observations; default: a temporary one"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--k", type=int, nargs="*", default=KS)
    parser.add_argument("--others", nargs="*", default=OTHERS, help="other settings to compare with")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    arguments = parser.parse_args()
    scratch = common.outside_repository(arguments.scratch)
    photographs = common.london(arguments.data)
    eyes = Observing(
        observing.build(configuration("distant", 1.3), mobilefacenet(arguments.data)),
        scratch / "observations",
    )
    clear = Clear.of(photographs, eyes)
    ks = {f"assignment.k={k}": k for k in arguments.k}
    wanted = dict(surrogates_jobs.override(name) for name in (*ks, *arguments.others))
    runs = surrogates_jobs.run_all(wanted, clear.encoded, scratch)
    found = attacks(clear, eyes, {name: made for name, (made, _) in runs.items()}, arguments.resamples)
    result = {
        "attacks": {
            recognizer: {
                attack: [row(name, value, ks.get(name)) for name, value in rows.items()]
                for attack, rows in by_attack.items()
            }
            for recognizer, by_attack in found.items()
        },
        "releases": {name: notes for name, (_, notes) in runs.items()},
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    print(markdown(result))


if __name__ == "__main__":
    main()
