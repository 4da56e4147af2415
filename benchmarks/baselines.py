"""What blur and pixelation leave for a recognizer, beside the ladder's lower rungs, on the London Set.

    python -m benchmarks.baselines --data FOLDER

The 60 smiling photographs go through the stages in one process, once for each anonymizer and strength; enrolled are
the 60 clear neutral ones. The attacker knows where each face was (its place is taken from the clear picture), since a
face that no detector finds again is not yet a face that nobody recognizes. Figures go to `results/baselines.json` and,
as Markdown, to the screen.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, london
from benchmarks.common import Photograph
from deid.config import Config, parse
from deid.evaluation.recognizers import templates
from deid.evaluation.reid import Templates
from deid.evaluation.table import build
from deid.pipeline.compose import Compose
from deid.pipeline.rows import Row
from deid.pipeline.stages import Analyse, Generate

CHOICES: dict[str, dict[str, Any]] = {
    **{
        f"blur, sigma {s}": {"anonymizer": "blur", "classic": {"blur_sigma": s}}
        for s in (0.05, 0.1, 0.15, 0.3)
    },
    **{
        f"pixelate, {n} blocks": {"anonymizer": "pixelate", "classic": {"pixelate_blocks": n}}
        for n in (16, 8, 4)
    },
    "ksame-pixel": {"anonymizer": "ksame-pixel"},
    "surrogate": {"anonymizer": "surrogate"},
    "solid": {"anonymizer": "solid"},
}


def main() -> None:
    arguments = parser().parse_args()
    photographs = common.london(arguments.data)
    people = sorted({p.subject for p in photographs})[: arguments.people]
    photographs = [p for p in photographs if p.subject in people]
    neutral, smiling = ([p for p in photographs if p.expression == e] for e in ("neutral", "smiling"))
    clear = {p.key: p.path.read_bytes() for p in photographs}
    attack = london.Attack(configuration({}), arguments.data)
    analysed = analyse(smiling, clear)
    generate = Generate(configuration({}), bytes(32))
    treated: dict[str, dict[str, Templates]] = {}
    for name in arguments.choices:
        output = anonymized(analysed, generate, configuration(CHOICES[name]))
        treated[name] = seen(attack, smiling, clear, output)
    enrolled, probes = seen(attack, neutral, clear, clear), seen(attack, smiling, clear, clear)
    tables = {
        recognizer.name: build(
            recognizer.name,
            recognizer.metric,
            enrolled[recognizer.name],
            probes[recognizer.name],
            {name: found[recognizer.name] for name, found in treated.items()},
            np.random.default_rng(london.SEED),
            {p.subject: p.group for p in photographs},
            False,
        )
        for recognizer in attack.recognizers
    }
    figures = {
        "machine": common.machine(),
        "tables": {name: made.as_dict() for name, made in tables.items()},
    }
    (arguments.results / "baselines.json").write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    print("\n\n".join(f"### {name}\n\n{made.markdown()}" for name, made in tables.items()))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    common.add_data_argument(made, required=True)
    made.add_argument("--results", type=Path, default=common.REPOSITORY / "benchmarks" / "results")
    made.add_argument("--people", type=int, default=60, help="the first so many")
    made.add_argument("--choices", nargs="+", choices=list(CHOICES), default=list(CHOICES), metavar="CHOICE")
    return made


def configuration(settings: dict[str, Any]) -> Config:
    base = london.configuration("distant", 1.3).model_dump()  # per-face: one pass
    return parse(base | settings)


def analyse(chosen: list[Photograph], encoded: dict[str, bytes]) -> dict[str, Row]:
    """By key, the photographs with their faces found, meshed and embedded."""
    stage = Analyse(configuration({}))
    rows = {p.key: Row(0, number, 0, encoded[p.key], "jpg") for number, p in enumerate(chosen)}
    for row in rows.values():
        stage.analyse([row])
    return rows


def anonymized(analysed: dict[str, Row], generate: Generate, config: Config) -> dict[str, bytes]:
    """By key, the encoded results."""
    generate.config, compose = config, Compose(config)
    rows = {key: copy.deepcopy(row) for key, row in analysed.items()}
    for row in rows.values():
        for face in row.faces:
            generate.start(face)
        generate.fill([row])
        compose.compose(row)
        got = {face.anonymizer for face in row.faces}
        if got != {config.anonymizer}:
            raise SystemExit(f"asked for {config.anonymizer}, and faces got {', '.join(sorted(got))}")
    return {key: row.result for key, row in rows.items()}


def seen(
    attack: london.Attack, chosen: list[Photograph], clear: dict[str, bytes], encoded: dict[str, bytes]
) -> dict[str, Templates]:
    """Templates by recognizer, each face taken from where it is in the clear picture."""
    found = ((london.decode(encoded[p.key]), attack.face(clear[p.key])) for p in chosen)
    return templates(attack.recognizers, found, np.array([p.subject for p in chosen]))


if __name__ == "__main__":
    main()
