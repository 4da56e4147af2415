"""What surrogates keep and what they give away, on the Face Research Lab London Set (CC BY 4.0): one table.

    python -m benchmarks.surrogates --data FOLDER                                   # runs the job first
    python -m benchmarks.surrogates --data FOLDER --config-override match.k=9 ...    # the same, other settings
    python -m benchmarks.surrogates --data FOLDER --results-folder NAME=FOLDER ...   # any tool's pictures

A folder of results holds one picture a source, <key>.jpg or <key>.png, the key being the source's name without its
ending. Give the same `--scratch` folder again and no picture is looked at twice. Enrolled: the clear neutral
photographs; probed: the smiling ones. Figures go to `--json`; contact sheets show real people and go to the scratch
folder.

DeBruine and Jones 2017, doi.org/10.6084/m9.figshare.5047666.v5.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, observing, surrogates_jobs, surrogates_report
from benchmarks.common import Photograph
from benchmarks.london import SEED, configuration, mobilefacenet
from benchmarks.observing import Observing, decode
from benchmarks.teacher import Teacher
from deid.evaluation import expression, groups, skin, surrogates
from deid.evaluation.observe import Observation
from deid.evaluation.seam import Seam, seam
from deid.evaluation.surrogates import Figure
from deid.evaluation.table import Table, build

ENDINGS = (".jpg", ".png")


@dataclass
class Treatment:
    """De-identified pictures of one way to make them."""

    name: str
    output: dict[str, bytes]  # encoded result by key of the source
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Clear:
    """The sources, and what was seen in them."""

    photographs: list[Photograph]
    encoded: dict[str, bytes]
    seen: dict[str, Observation]
    smile_threshold: float
    smile_accuracy: float  # balanced, of the threshold on these pictures

    @classmethod
    def of(cls, photographs: list[Photograph], eyes: Observing) -> "Clear":
        encoded = {p.key: p.path.read_bytes() for p in photographs}
        seen = {key: eyes.plain(data) for key, data in encoded.items()}
        smiles = expression.smile(np.array([seen[p.key].mesh for p in photographs]))
        labels = np.array([p.expression == "smiling" for p in photographs])
        return cls(photographs, encoded, seen, *expression.threshold(smiles, labels))

    def keys(self, expression: str) -> list[str]:
        return [p.key for p in self.photographs if p.expression == expression]

    def groups(self) -> dict[str, groups.Group]:
        """Of each subject; the tone is that of the clear neutral photograph."""
        neutral = [p for p in self.photographs if p.expression == "neutral"]
        return groups.attribute_groups(
            {p.subject: p.group[0] for p in neutral},
            {p.subject: p.age for p in neutral},
            {p.subject: float(skin.ita(self.seen[p.key].lab)) for p in neutral},
        )


def main() -> None:
    arguments = parser().parse_args()
    scratch = common.outside_repository(arguments.scratch)
    photographs = common.london(arguments.data)
    config = configuration("distant", 1.3)
    eyes = Observing(observing.build(config, mobilefacenet(arguments.data)), scratch / "observations")
    clear = Clear.of(photographs, eyes)
    treatments = asked(arguments, clear, scratch)
    teacher = Teacher(arguments.face_api, scratch / "teacher") if arguments.face_api else None
    kept = {t.name: measure(t, clear, eyes, teacher) for t in treatments}
    tables = attack(treatments, clear, eyes, arguments.resamples)
    made = surrogates_report.report(clear, kept, tables, {t.name: t.notes for t in treatments})
    if arguments.json:
        arguments.json.write_text(json.dumps(made, indent=1, allow_nan=False) + "\n")
    print(surrogates_report.markdown(made))
    if arguments.sheets:
        for treatment in treatments:
            surrogates_report.sheets(scratch / "sheets", treatment.name, clear.encoded, treatment.output)
        print(f"\nContact sheets (real people, keep them private): {scratch / 'sheets'}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    common.add_data_argument(made, required=True)
    made.add_argument(
        "--scratch", type=Path, help="folder for observations and sheets; default: a temporary one"
    )
    made.add_argument("--results-folder", action="append", default=[], metavar="NAME=FOLDER")
    made.add_argument(
        "--config-override",
        action="append",
        default=[],
        metavar="SECTION.SETTING=VALUE,...",
        help="a run each",
    )
    made.add_argument(
        "--face-api", type=Path, help="folder with the packages of jobs/label_attributes.mjs, outside of here"
    )
    made.add_argument(
        "--partial", action="store_true", help="pictures that are not there do not count as failures"
    )
    made.add_argument(
        "--sheets", action="store_true", help="contact sheets of everybody, into the scratch folder"
    )
    made.add_argument("--json", type=Path, help="file for the figures")
    made.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    return made


def asked(arguments: argparse.Namespace, clear: Clear, scratch: Path) -> list[Treatment]:
    """The folders of results that were named; else, or with overrides too, what the job makes."""
    made = [folder(*given.rsplit("=", 1), partial=arguments.partial) for given in arguments.results_folder]
    wanted = dict(surrogates_jobs.override(given) for given in arguments.config_override)
    if not made and not wanted:
        wanted = surrogates_jobs.configurations()
    runs = surrogates_jobs.run_all(wanted, clear.encoded, scratch) if wanted else {}
    return made + [Treatment(name, *given) for name, given in runs.items()]


def folder(name: str, path: str, partial: bool = False) -> Treatment:
    """The pictures in a folder, with the notes that a run of the job left there.

    Raises:
        SystemExit: there are none.
    """
    files = {f.stem: f for f in sorted(Path(path).iterdir()) if f.suffix in ENDINGS}
    if not files:
        raise SystemExit(f"{path}: holds no pictures <key>.jpg or <key>.png")
    noted = Path(path) / surrogates_jobs.NOTES
    notes = json.loads(noted.read_text()) if noted.exists() else {}
    return Treatment(
        name, {key: file.read_bytes() for key, file in files.items()}, notes | {"partial": partial}
    )


def measure(
    treatment: Treatment, clear: Clear, eyes: Observing, teacher: Teacher | None = None
) -> dict[str, Figure]:
    """Every metric of `surrogates.METRICS` over the pictures of a treatment."""
    partial = treatment.notes.get("partial")
    chosen = [p for p in clear.photographs if not partial or p.key in treatment.output]
    after, seams = [], []
    for photograph in chosen:
        data = treatment.output.get(photograph.key)
        after.append(Observation() if data is None else eyes.plain(data))
        source = clear.encoded[photograph.key]
        seams.append(Seam() if data is None else seam(decode(source), decode(data)))
    before = [clear.seen[p.key] for p in chosen]
    values = surrogates.compare(before, after, seams, clear.smile_threshold)
    if teacher is not None:
        said = teacher.labels(clear.encoded[p.key] for p in chosen)
        now = teacher.labels(treatment.output.get(p.key) for p in chosen)
        values |= {"sex_teacher": surrogates.same(said[:, 0] - 0.5, now[:, 0] - 0.5)}
        values |= {"age_teacher": np.abs(said[:, 1] - now[:, 1])}
    subjects = np.array([p.subject for p in chosen])
    return surrogates.summarize(values, subjects, np.random.default_rng(SEED))


def attack(treatments: list[Treatment], clear: Clear, eyes: Observing, resamples: int) -> dict[str, Table]:
    """A table by recognizer, over all impostors and over those of the same sex, age band and skin-tone band."""
    subjects, by_subject = {p.key: p.subject for p in clear.photographs}, clear.groups()
    smiling = clear.keys("smiling")
    seen = {"grey heads": {key: eyes.grey(clear.encoded[key]) for key in smiling}}
    for t in treatments:
        seen[t.name] = {key: eyes.plain(data) for key, data in t.output.items() if key in smiling}
    made = {}
    for recognizer in eyes.observer.recognizers:

        def of(keys: list[str], some: dict[str, Observation], name: str = recognizer.name) -> Any:
            return observing.templates(name, keys, some, subjects)

        treated = {name: of(probed(smiling, some, name, treatments), some) for name, some in seen.items()}
        for within in (False, True):
            title = recognizer.name + (surrogates_report.WITHIN if within else "")
            made[title] = build(
                title,
                recognizer.metric,
                of(clear.keys("neutral"), clear.seen),
                of(smiling, clear.seen),
                treated,
                np.random.default_rng(SEED),
                by_subject,
                within,
                resamples,
            )
    return made


def probed(
    smiling: list[str], some: dict[str, Observation], name: str, treatments: list[Treatment]
) -> list[str]:
    """Keys that a treatment is probed with: all, or of a partial one those that are there."""
    partial = any(t.name == name and t.notes.get("partial") for t in treatments)
    return [key for key in smiling if key in some or not partial]


if __name__ == "__main__":
    main()
