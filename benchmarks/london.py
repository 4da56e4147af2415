"""Re-identification on the Face Research Lab London Set (CC BY 4.0): 60 people, smiling probes, neutral enrolments.

    python -m benchmarks.london --data FOLDER

The 120 photographs go as WebDataset shards into the embedded S3 server, through the job, for both ways of
matching and three sizes of the replaced region. De-identified smiling probes are then compared with clear
neutral enrolments, by the pipeline's own embedder and by a recognizer that the pipeline never uses; clear
probes and random pairs are the controls. Figures go to `results/london.json` and, as Markdown, to the screen;
contact sheets show real people and go to a folder outside the repository.

DeBruine and Jones 2017, doi.org/10.6084/m9.figshare.5047666.v5.
"""

import argparse
import functools
import io
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.common import Photograph
from deid.config import Config, Part, parse
from deid.demo.run import environment
from deid.demo.s3server import S3Server
from deid.evaluation import utility
from deid.evaluation.recognizers import (
    EmbedderRecognizer,
    OnnxRecognizer,
    Recognizer,
    RecognizerConfig,
    largest,
    templates,
)
from deid.evaluation.reid import Templates
from deid.evaluation.table import Table, build
from deid.interfaces import Face, Picture
from deid.pipeline import cluster, parts, trace
from deid.pipeline.run import RunResult, run
from deid.shards import pictures, storage, tables

METHODS, SCALES = ("nearest", "distant"), (1.0, 1.3, 1.5)
SEED = 20_251
SHARDS = 4


@dataclass
class Treatment:
    """One run of the job over all photographs."""

    name: str
    result: RunResult
    audit: list[dict[str, Any]]  # one row a face
    output: dict[str, bytes]  # encoded result by key of the source


class Attack:
    """The detector and the recognizers of the attacker, and what they make of pictures."""

    def __init__(self, config: Config, data: Path) -> None:
        stage = config.stages.analyse.model_copy(update={"threads": 2})
        plain = config.model_copy(update={"detector": Part(name="centerface", options={"enlarge": 1})})
        self._detector = parts.build(
            plain, "detector", stage
        )  # the faces are large: enlarging finds no others
        mesher, embedder = parts.build(config, "mesher", stage), parts.build(config, "embedder", stage)
        self.recognizers: list[Recognizer] = [
            EmbedderRecognizer(embedder, f"{config.embedder.name}, the pipeline's own", mesher=mesher),
            OnnxRecognizer(mobilefacenet(data), threads=2),
        ]
        self.face = functools.cache(self._face)

    def _face(self, encoded: bytes) -> Face | None:
        """The largest face of an encoded picture."""
        return largest(self._detector.detect([decode(encoded)])[0])

    def templates(self, chosen: list[Photograph], encoded: dict[str, bytes]) -> dict[str, Templates]:
        """By recognizer, of the photographs that have an encoded picture."""
        there = [p for p in chosen if p.key in encoded]
        found = ((decode(encoded[p.key]), self.face(encoded[p.key])) for p in there)
        return templates(self.recognizers, found, np.array([p.subject for p in there]))


def main() -> None:
    arguments = parser().parse_args()
    scratch = common.outside_repository(arguments.scratch)
    photographs = common.london(arguments.data)
    clear = {p.key: p.path.read_bytes() for p in photographs}
    treatments = anonymize(clear, list(itertools.product(arguments.methods, arguments.scales)), scratch)
    attack = Attack(configuration(METHODS[0], SCALES[0]), arguments.data)
    kept = [usefulness(attack, clear, treatment) for treatment in treatments]
    tables = tabulate(attack, photographs, clear, treatments)
    for treatment in treatments:
        sheet(scratch, treatment, clear)
    figures = {
        "machine": common.machine(),
        "photographs": len(photographs),
        "runs": kept,
        "tables": {name: made.as_dict() for name, made in tables.items()},
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "london.json").write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    print(markdown(kept, tables))
    print(f"\nContact sheets (real people, keep them private): {scratch}")
    if not all(made.valid for made in tables.values()) or not all(
        row["complete"] and paired(row) for row in kept
    ):
        raise SystemExit(
            "a control failed, or a face was not found, or something but its one face was: see above"
        )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    common.add_data_argument(made, required=True)
    made.add_argument("--scratch", type=Path, help="folder for contact sheets; default: a temporary one")
    made.add_argument("--results", type=Path, default=common.REPOSITORY / "benchmarks" / "results")
    made.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    made.add_argument("--scales", nargs="+", type=float, default=SCALES)
    return made


def configuration(method: str, scale: float) -> Config:
    """A repeatable run; everything else is as the product's defaults are."""
    return parse(
        {
            "input": {"uri": "s3://raw/london"},
            "output": {"uri": f"s3://out/{method}-{scale}"},
            "state": f"s3://state/{method}-{scale}",
            "assignment": {"mode": "per-face"},
            "models": {"accept": ["clean", "permissive", "restricted"]},
            "match": {"method": method},
            "region": {"kind": "face", "scale": scale},
            "seed": SEED,
        }
    )


def mobilefacenet(data: Path) -> RecognizerConfig:
    """MobileFaceNet trained on MS-Celeb-1M, github.com/foamliu/MobileFaceNet (Apache-2.0)."""
    return RecognizerConfig(
        path=str(data / "recognizers" / "mobilefacenet_ms1m.onnx"),
        name="MobileFaceNet (MS-Celeb-1M), never used by the pipeline",
        size=112,
        template=((38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20)),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        colours="rgb",
        metric="cosine",
    )


def anonymize(clear: dict[str, bytes], choices: list[tuple[str, float]], scratch: Path) -> list[Treatment]:
    """Run the job once for each way of matching and size of region, from shards in the S3 server."""
    with S3Server(scratch / "s3") as server, environment(server.environment()):
        for bucket in ("raw", "out", "state"):
            server.create_bucket(bucket)
        common.pack({key: ("jpg", data) for key, data in clear.items()}, "s3://raw/london", SHARDS)
        with cluster.session(configuration(*choices[0]).cluster):
            return [treat(method, scale) for method, scale in choices]


def treat(method: str, scale: float) -> Treatment:
    config = configuration(method, scale)
    result = run(config)
    output = {pair.key: pair.after for pair in trace.pairs(config, result) if pair.after}
    audits = storage.list_files(storage.join(result.output, "audit"), "*.parquet", required=True)
    rows = [
        row
        for audit in audits
        for row in pyarrow.parquet.read_table(io.BytesIO(storage.read_bytes(audit.uri))).to_pylist()
    ]
    return Treatment(f"{method}, region x {scale}", result, rows, output)


def tabulate(
    attack: Attack, photographs: list[Photograph], clear: dict[str, bytes], treatments: list[Treatment]
) -> dict[str, Table]:
    """A table by recognizer, and by recognizer with impostors of the same gender and ethnicity only."""
    neutral, smiling = ([p for p in photographs if p.expression == e] for e in ("neutral", "smiling"))
    groups = {p.subject: p.group for p in photographs}
    enrolled, probes = attack.templates(neutral, clear), attack.templates(smiling, clear)
    treated = {t.name: attack.templates(smiling, t.output) for t in treatments}
    made = {}
    for recognizer, within in itertools.product(attack.recognizers, (False, True)):
        name = recognizer.name + (" (impostors of the same gender and ethnicity)" if within else "")
        made[name] = build(
            name,
            recognizer.metric,
            enrolled[recognizer.name],
            probes[recognizer.name],
            {key: value[recognizer.name] for key, value in treated.items()},
            np.random.default_rng(SEED),
            groups,
            within,
        )
    return made


def paired(row: dict[str, Any]) -> bool:
    return bool(row["own_source_by_clothes"] >= 0.98 * row["pictures_out"])


def usefulness(attack: Attack, clear: dict[str, bytes], treatment: Treatment) -> dict[str, Any]:
    """Whether every face was found and replaced, and is still found where it was."""
    counts = treatment.result.manifest["counts"]
    replaced = {row["output_id"] for row in treatment.audit if row["status"] == "replaced"}
    summary = storage.read_bytes(storage.join(treatment.result.output, "summary.parquet"))
    reasons = {
        row["value"]: row["faces"]
        for row in tables.from_bytes(summary).to_pylist()
        if row["name"] == "reason" and row["value"] != "none"
    }
    overlap, shift, lost = [], [], 0
    for key, data in treatment.output.items():
        before, after = attack.face(clear[key]), attack.face(data)
        if before is None or after is None:
            lost += 1
            continue
        overlap.append(utility.agreement(before.box[None], after.box[None])[0])
        shift.append(utility.landmark_error(before.points[None], after.points[None])[0])
    return {
        "treatment": treatment.name,
        "pictures": len(clear),
        "pictures_out": len(treatment.output),
        "pictures_with_a_face_replaced": len(replaced),
        "faces": counts["faces"],
        "replaced": counts["replaced"],
        "below_the_first_rung": reasons,
        "complete": len(replaced) == len(treatment.output) == len(clear) == counts["replaced"],
        "own_source_by_clothes": sum(closest_by_clothes(clear, treatment.output)),
        "face_not_found_again": lost,
        "box_iou_median": round(float(np.median(overlap)), 3) if overlap else None,
        "landmark_error_median": round(float(np.median(shift)), 3) if shift else None,
        "seconds": round(treatment.result.seconds, 1),
    }


def closest_by_clothes(clear: dict[str, bytes], output: dict[str, bytes]) -> list[bool]:
    """Whether the lower quarter of each result, which no surrogate reaches, is closest to its own source's.

    The control of the pairing: results paired with other people's sources would look perfectly anonymous.
    """

    def strip(data: bytes) -> NDArray[np.float32]:
        pixels = decode(data)
        return cv2.resize(pixels[pixels.shape[0] * 3 // 4 :], (64, 16), interpolation=cv2.INTER_AREA).astype(
            np.float32
        )

    sources, keys = np.stack([strip(data) for data in clear.values()]), list(clear)
    return [
        keys[int(np.abs(sources - strip(data)).mean((1, 2, 3)).argmin())] == key
        for key, data in output.items()
    ]


def markdown(kept: list[dict[str, Any]], tables: dict[str, Table]) -> str:
    """All tables for RESULTS.md."""
    lines = [
        "| run | pictures with a face replaced | faces replaced | covered | own source by clothes (pairing control) "
        "| face found again | box IoU, median "
        "| landmarks moved, median (eye distances) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in kept:
        lines.append(
            f"| {row['treatment']} | {row['pictures_with_a_face_replaced']}/{row['pictures']} "
            f"| {row['replaced']}/{row['faces']} | {sum(row['covered'].values())} "
            f"| {row['own_source_by_clothes']}/{row['pictures_out']} "
            f"| {row['pictures_out'] - row['face_not_found_again']}/{row['pictures_out']} "
            f"| {row['box_iou_median']} | {row['landmark_error_median']} |"
        )
    return "\n".join(lines) + "".join(f"\n\n### {name}\n\n{made.markdown()}" for name, made in tables.items())


def sheet(folder: Path, treatment: Treatment, clear: dict[str, bytes], count: int = 12) -> None:
    """Source beside result for a few people."""
    keys = sorted(treatment.output)[:: max(1, len(treatment.output) // count)][:count]
    pairs = [[decode(clear[key]), decode(treatment.output[key])] for key in keys]
    rows = [[picture for pair in pairs[at : at + 3] for picture in pair] for at in range(0, len(pairs), 3)]
    common.contact_sheet(folder / f"{treatment.name.replace(', region x ', '-')}.jpg", rows)


def decode(data: bytes) -> Picture:
    return pictures.decode(data, common.MAX_PIXELS).pixels


if __name__ == "__main__":
    main()
