"""Apparent sex and age by an unrelated network, face-api, in Node: `jobs/label_attributes.mjs` says what to install."""

import csv
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.observing import decode

SCRIPT = common.REPOSITORY / "jobs" / "label_attributes.mjs"
JPEG = b"\xff\xd8\xff"


class Teacher:
    """P(male) and age in years of encoded pictures; NaN without a face. Answers are kept in `folder` by hash.

    node: folder in which the script's packages are installed, outside the repository.
    """

    def __init__(self, node: Path, folder: Path) -> None:
        self.node, self.folder = node, folder
        folder.mkdir(parents=True, exist_ok=True)

    def labels(self, encoded: Iterable[bytes | None]) -> NDArray[np.float64]:
        """[N, 2] P(male) and age, of pictures in the order given; NaN for None."""
        wanted = list(encoded)
        new = {name: data for data in wanted if data and not self._path(name := _name(data)).exists()}
        if new:
            self._ask(new)
        rows = [json.loads(self._path(_name(data)).read_text()) if data else None for data in wanted]
        return np.array([row or (np.nan, np.nan) for row in rows], np.float64)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _ask(self, new: dict[str, bytes]) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            for name, data in new.items():
                (Path(place) / f"{name}.jpg").write_bytes(_jpeg(data))
            answer = Path(place) / "labels.csv"
            subprocess.run(["node", SCRIPT, place, answer], cwd=self.node, check=True)
            with open(answer, newline="") as file:
                said = {Path(row["file"]).stem: row for row in csv.DictReader(file)}
        for name in new:
            row = said.get(name)
            found = [float(row["sex_probability"]), float(row["age"])] if row else None
            self._path(name).write_text(json.dumps(found))


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _jpeg(data: bytes) -> bytes:
    """The picture as a JPEG, which is all that the script reads."""
    if data.startswith(JPEG):
        return data
    return cv2.imencode(".jpg", decode(data)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
