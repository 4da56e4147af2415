"""What the benchmarks share: the data folder, packing pictures into shards, contact sheets, the machine in words."""

import argparse
import csv
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from deid.interfaces import Picture
from deid.shards import storage, webdataset

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Photograph:
    """One picture of the Face Research Lab London Set, with its labels."""

    key: str  # file name without its ending
    path: Path
    subject: str
    expression: str
    group: tuple[str, str]  # gender and ethnicity as the people gave them
    age: float  # years, as the people gave it; NaN where they did not


def add_data_argument(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("DEID_DATA"),
        required=required and "DEID_DATA" not in os.environ,
        help="folder that holds london/ and recognizers/; default: DEID_DATA",
    )


def london(data: Path) -> list[Photograph]:
    """The photographs of `london/labels.csv`, in its order."""
    folder = data / "london"
    with open(folder / "labels.csv", newline="") as file:
        return [
            Photograph(
                key=Path(row["file"]).stem,
                path=folder / row["file"],
                subject=row["subject"],
                expression=row["expression"],
                group=(row["gender"], row["ethnicity"]),
                age=float("nan" if row["age"] == "NA" else row["age"]),
            )
            for row in csv.DictReader(file)
        ]


def pack(pictures: Mapping[str, tuple[str, bytes]], uri: str, shards: int) -> None:
    """Write pictures (key: extension, bytes) as `shards` WebDataset shards below `uri`."""
    keys = sorted(pictures)
    for number in range(shards):
        samples = [(key, {pictures[key][0]: pictures[key][1]}) for key in keys[number::shards]]
        storage.write_bytes(storage.join(uri, f"{number:05d}.tar"), webdataset.write_shard(samples))


def outside_repository(folder: Path | None) -> Path:
    """A folder for pictures of real people: the one asked for, or a fresh temporary one; never in the repository."""
    chosen = Path(tempfile.mkdtemp(prefix="deid-")) if folder is None else folder.resolve()
    if REPOSITORY in (chosen, *chosen.parents):
        raise SystemExit(
            f"{folder}: pictures of real people do not go into the repository; choose another folder"
        )
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def contact_sheet(path: Path, rows: Iterable[Iterable[Picture]], height: int = 300) -> None:
    """Write rows of pictures, scaled to one height (px), as a JPEG."""
    strips = []
    for row in rows:
        scaled = [
            cv2.resize(p, (round(p.shape[1] * height / p.shape[0]), height), interpolation=cv2.INTER_AREA)
            for p in row
        ]
        strips.append(np.concatenate(scaled, axis=1))
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips]
    cv2.imwrite(str(path), np.concatenate(padded)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def machine() -> dict[str, Any]:
    """The machine in words, and how busy it was when this was called."""
    with open("/proc/cpuinfo") as file:
        names = {line.partition(":")[2].strip() for line in file if line.startswith("model name")}
    return {
        "cpu": ", ".join(sorted(names)) or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
