"""Makes the sex and age heads of `deid.faces.attributes` from generated faces and a teacher's labels; development only.

    python jobs/train_attributes.py draw FACES --count 2300              # candidates of the default gallery, 256 px
    node jobs/label_attributes.mjs FACES labels.csv                      # the teacher: file,sex_probability,age
    python jobs/train_attributes.py embed FACES faces.npz
    python jobs/train_attributes.py fit faces.npz labels.csv HEADS.safetensors [--test OTHER.npz OTHER.csv]
    python jobs/train_attributes.py measure PHOTOGRAPHS.npz labels.csv   # columns file, gender, age, ethnicity

and, of consented photographs and what their people said of themselves, the heads of the clean chain:

    python jobs/train_attributes.py embed PHOTOGRAPHS photographs.npz
    python jobs/train_attributes.py fit-people photographs.npz labels.csv HEADS.safetensors # file, subject, gender, age

The same embeddings and labels give the same heads.
"""

import argparse
import csv
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deid.faces.attributes import DIM, UNKNOWN, AttributeHeads, sex_class
from deid.faces.detect import CenterFaceDetector
from deid.faces.embed import DlibEmbedder
from deid.faces.mesh import FaceMesher
from deid.gallery.build import Recipe, draw_styles, mean_style
from deid.interfaces import Face, Picture
from deid.models.store import default_store
from deid.surrogates.generator import MobileStyleGANGenerator
from deid.training.heads import FOLDS, VIEWS, figures, fit_heads, hold_out

Array = NDArray[np.floating[Any]]
SIDE = 256  # px, of a drawn face


def draw(folder: Path, first: int, count: int, seed: int) -> None:
    """Write generated faces as JPEG: the gallery's candidates `first` to `first + count - 1` under a seed."""
    recipe = Recipe(seed=seed)
    files = default_store().files("mobilestylegan")
    generator = MobileStyleGANGenerator(files, threads=2, size=2 * SIDE, heads=False)
    centre = mean_style(generator, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        style = draw_styles(generator, recipe, np.array([number]), centre)
        small = cv2.resize(generator.generate(style)[0], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{number:05}.jpg"), small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])


class Eyes:
    """From a picture to the embedding of its largest face, with the parts that the job runs."""

    def __init__(self) -> None:
        store = default_store()
        self.detector = CenterFaceDetector(store.files("centerface"), threshold=0.3, enlarge=1.0)
        self.mesher = FaceMesher(store.files("facemesh"))
        self.embedder = DlibEmbedder(store.files("dlib_resnet"))

    def __call__(self, picture: Picture) -> NDArray[np.float32]:
        """Embedding [128]; NaN where no face is found."""
        found = self.detector.detect([picture])[0]
        if not len(found):
            return np.full(DIM, np.nan, np.float32)
        meshes, _ = self.mesher.mesh(picture, found)
        largest = int(np.argmax(found.boxes[:, 3] - found.boxes[:, 1]))
        face = Face(
            found.boxes[largest], float(found.scores[largest]), found.points[largest], meshes[largest]
        )
        return self.embedder.embed([picture], [[face]])[0][0]


def embed(folder: Path, output: Path) -> None:
    """Write names [N] and embeddings float32 [N, views, 128] of a folder's JPEGs; NaN where no face is found."""
    eyes, rows = Eyes(), []
    files = sorted(file.name for file in folder.glob("*.jpg"))
    for number, file in enumerate(files):
        picture = decode(np.fromfile(folder / file, np.uint8))[..., ::-1].copy()
        small = degrade(picture, np.random.default_rng(zlib.crc32(file.encode())))
        rows.append([eyes(view) for view in (picture, picture[:, ::-1].copy(), small)])
        if (number + 1) % 100 == 0:
            print(f"embedded {number + 1} of {len(files)}", flush=True)
    np.savez(output, files=np.array(files), embeddings=np.array(rows, np.float32))


def read(embeddings: Path, labels: Path) -> tuple[Array, list[dict[str, str]]]:
    """Embeddings [N, views, 128] and label rows [N] of the labelled pictures whose face is found in every view."""
    with np.load(embeddings) as file:
        vectors = dict(zip(file["files"].tolist(), file["embeddings"].astype(np.float64), strict=True))
    with labels.open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if np.isfinite(vectors.get(row["file"], np.nan)).all()]
    return np.stack([vectors[row["file"]] for row in rows]), rows


def read_teacher(embeddings: Path, labels: Path) -> tuple[Array, Array, Array]:
    """Embeddings [N, views, 128], and the teacher's P(male) [N] and ages [N]."""
    vectors, rows = read(embeddings, labels)
    sex, age = (np.array([float(row[name]) for row in rows]) for name in ("sex_probability", "age"))
    return vectors, sex, age


def degrade(picture: Picture, rng: np.random.Generator) -> Picture:
    """The picture as of a distant face: a tenth to under a half of its size, JPEG quality 40 to 94, enlarged again."""
    scale = rng.uniform(0.1, 0.45)
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])
    height, width = picture.shape[:2]
    return np.asarray(cv2.resize(decode(data), (width, height)), np.uint8)


def decode(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels [H, W, 3] of an encoded picture, channels in the order of the encoder."""
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def fit(embeddings: Path, labels: Path, output: Path, test: list[Path] | None) -> None:
    heads, held_out = fit_heads(*read_teacher(embeddings, labels))
    heads.save(output)
    show(f"{FOLDS}-fold cross-validation", held_out)
    show("uncertain band of P(male)", dict(zip(("low", "high"), heads.sex_band, strict=True)))
    if test:
        others, sex, age = read_teacher(*test)
        predicted = heads.predict(others.reshape(-1, DIM))
        p, years = (predicted[name].reshape(len(sex), VIEWS) for name in ("sex", "age"))
        show("other generated faces", figures(p, years, sex, age, heads.sex_band))


def fit_people(embeddings: Path, labels: Path, output: Path) -> None:
    """Heads from photographs and what the people said of themselves; each figure by heads that never saw the person."""
    vectors, rows = read(embeddings, labels)
    sex = np.array([float(row["gender"] == "male") for row in rows])
    age = np.array([float(row["age"]) if row["age"].isdigit() else np.nan for row in rows])
    _, person = np.unique([row["subject"] for row in rows], return_inverse=True)
    heads, held_out = fit_heads(vectors, sex, age, person)
    heads.save(output)
    show("without the person", held_out)
    show("uncertain band of P(male)", dict(zip(("low", "high"), heads.sex_band, strict=True)))
    held = hold_out(vectors, sex, age, person)
    by_group(held.sex[:, 0], held.age[:, 0], held.band, rows)


def measure(embeddings: Path, labels: Path, path: Path | None) -> None:
    """Print agreement with self-reported labels, whole and by group. Only measures: nothing is fitted here."""
    vectors, rows = read(embeddings, labels)
    heads = AttributeHeads.load(path)
    predicted = heads.predict(vectors[:, 0])
    by_group(predicted["sex"], predicted["age"], heads.sex_band, rows)


def by_group(sex: Array, years: Array, band: Array, rows: list[dict[str, str]]) -> None:
    """Print how P(male) [N] and years [N] agree with self-reported labels, whole and by group."""
    answer = sex_class(sex, band)
    male = np.array([row["gender"] == "male" for row in rows])
    age = np.array([float(row["age"]) if row["age"].isdigit() else np.nan for row in rows])
    for name, group in groups(rows).items():
        known, error = group & (answer != UNKNOWN), (years - age)[group]
        values = {
            "sex_accuracy": ((sex > 0.5) == male)[group].mean(),
            "sex_answered": known.sum() / group.sum(),
            "sex_wrong_answers": (answer != male)[known].sum(),
            "age_mean_absolute_error": np.nanmean(np.abs(error)),
            "age_bias": np.nanmean(error),
            "age_error_of_one_constant": np.nanmean(np.abs(age - np.nanmedian(age))[group]),
        }
        show(f"{name}: {group.sum()} pictures", values)


def groups(rows: list[dict[str, str]]) -> dict[str, NDArray[np.bool_]]:
    """Masks [N] by the value of each label that groups the pictures."""
    masks = {"all": np.ones(len(rows), np.bool_)}
    for column in ("gender", "ethnicity", "expression"):
        for value in sorted({row.get(column, "") for row in rows} - {""}):
            masks[f"{column} {value}"] = np.array([row[column] == value for row in rows])
    return masks


def show(title: str, values: dict[str, Any]) -> None:
    print(title, *(f"  {name}: {value:.3f}" for name, value in values.items()), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    drawing = verb(verbs, "draw", draw, "folder")
    drawing.add_argument("--first", type=int, default=0)
    drawing.add_argument("--count", type=int, default=2300)
    drawing.add_argument("--seed", type=int, default=1)
    verb(verbs, "embed", embed, "folder", "output")
    fitting = verb(verbs, "fit", fit, "embeddings", "labels", "output")
    fitting.add_argument("--test", type=Path, nargs=2, help="embeddings and labels of other generated faces")
    verb(verbs, "fit-people", fit_people, "embeddings", "labels", "output")
    measuring = verb(verbs, "measure", measure, "embeddings", "labels")
    measuring.add_argument("--heads", dest="path", type=Path, help="default: those in the package")
    arguments = vars(parser.parse_args())
    arguments.pop("call")(**arguments)


def verb(verbs: Any, name: str, call: Callable[..., None], *paths: str) -> argparse.ArgumentParser:
    """A parser for one verb, with its positional paths."""
    parser: argparse.ArgumentParser = verbs.add_parser(name)
    parser.set_defaults(call=call)
    for path in paths:
        parser.add_argument(path, type=Path)
    return parser


if __name__ == "__main__":
    main()
