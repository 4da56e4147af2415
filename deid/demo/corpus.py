"""The demonstration corpus: WebDataset shards of fictional people, made from a seed, with their ground truth apart.

A sample has a picture (.jpg or .png), a sidecar .json (a made-up name, a caption, a class label) and a .cls. Some
pictures carry EXIF: orientation, author, place, thumbnail. The last picture is the portrait of Eileen Collins
(NASA, public domain) that scikit-image ships.
"""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from deid.demo import backgrounds, exif, scene
from deid.demo.people import LICENCES, Person, Studio, cast
from deid.errors import InputError
from deid.gallery import store as gallery_store
from deid.interfaces import Picture
from deid.models.store import Store
from deid.shards import webdataset

RECIPE_VERSION = "1"  # raise it when the code draws other pictures
ASTRONAUT_BOX = (177.0, 66.6, 273.1, 175.8)  # px of the 512 px portrait, bounds of the face mesh
PORTRAIT_EVERY = 7  # one picture in so many is a portrait with its own background
EXIF_EVERY, PNG_EVERY, GREY_EVERY = 3, 8, 29
ORIENTATIONS = (6, 1, 3, 8)
GROUP_SIZES = (1, 2, 1, 3, 2, 1, 4, 1)  # people in a picture, in turn
ASPECTS = {  # by the number of people
    1: ((4, 3), (3, 2), (1, 1), (3, 4), (2, 3)),
    2: ((4, 3), (3, 2), (1, 1), (16, 9)),
    3: ((3, 2), (16, 9)),
    4: ((16, 9), (2, 1)),
}
PORTRAIT_ASPECTS = ((3, 4), (4, 5), (1, 1), (5, 4))
PORTRAIT_MOST = 1500  # px, long side of a portrait: one and a half times what the generator draws
ASTRONAUT = "portrait_astronaut"  # key of the one picture of a real person
LABELS = "labels.csv"  # of the ground truth, as `deid evaluate` reads it
ALBUMS = ("holiday", "office", "wedding", "street")
WORDS = ("Nobody", "One person", "Two people", "Three people", "Four people")
PLACES = dict(
    zip(
        backgrounds.KINDS,
        (
            *("at a painted wall", "in a studio", "in a garden", "in town at night", "in the open"),
            *("before a brick wall", "before a fence", "before a curtain", "in a room"),
        ),
        strict=True,
    )
)

Progress = Callable[[int, int], None]  # pictures done, pictures in all


@dataclass(frozen=True)
class Recipe:
    """What makes a corpus, beside the models and the default gallery."""

    seed: int = 20260101
    pictures: int = 65  # the portrait of the astronaut included
    shards: int = 4
    people: int = 26
    takes: int = 3  # photographs of one person, at most
    candidates: int = 40  # draws on which the silhouettes are fitted
    least: int = 400  # px, long side
    most: int = 2000


@dataclass(frozen=True)
class Truth:
    """One picture's ground truth, in pixels of the upright picture."""

    width: int
    height: int
    boxes: list[list[float]]  # x0, y0, x1, y1: bounds of the face mesh
    subjects: list[int]  # one for each box


@dataclass(frozen=True)
class Sample:
    key: str
    members: dict[str, bytes]  # by extension
    truth: Truth


@dataclass(frozen=True)
class Corpus:
    folder: Path
    shards: list[Path]
    truth: dict[str, Truth]  # by key of the sample

    @property
    def faces(self) -> int:
        return sum(len(picture.boxes) for picture in self.truth.values())


def digest(recipe: Recipe) -> str:
    """SHA-256 (hex) of all that the corpus is made from."""
    members = Store(LICENCES).registry.model("mobilestylegan").members
    models = {member.name: member.sha256 for member in members}
    whole = [RECIPE_VERSION, asdict(recipe), models, gallery_store.digest(None)]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def make(folder: Path, recipe: Recipe | None = None, progress: Progress | None = None) -> Corpus:
    """The corpus in `folder`: as it stands there when this very recipe made it, else made anew.

    Raises:
        ModelError: models are missing, or too few of the drawn people can be used.
    """
    recipe = recipe or Recipe()
    made_from = digest(recipe)
    mark = folder / "recipe.sha256"
    if not mark.is_file() or mark.read_bytes().strip() != made_from.encode():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write(folder, recipe, progress or (lambda done, total: None))
        mark.write_text(f"{made_from}\n")
    corpus = load(folder)
    (folder / LABELS).write_text(_labels(corpus), encoding="utf-8")
    return corpus


def load(folder: Path) -> Corpus:
    """The corpus that stands in `folder`.

    Raises:
        InputError: there is none.
    """
    try:
        raw = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder}: holds no demonstration corpus; remove it and run again") from None
    return Corpus(folder, sorted(folder.glob("*.tar")), {key: Truth(**value) for key, value in raw.items()})


def _write(folder: Path, recipe: Recipe, progress: Progress) -> None:
    made = []
    for sample in samples(recipe):
        made.append(sample)
        progress(len(made), recipe.pictures)
    for number in range(recipe.shards):
        part = made[number :: recipe.shards]
        data = webdataset.write_shard((sample.key, sample.members) for sample in part)
        (folder / f"raw-{number:05d}.tar").write_bytes(data)
    truth = {sample.key: asdict(sample.truth) for sample in made}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")


def _labels(corpus: Corpus) -> str:
    """The ground truth as CSV, a line a face; `show` is for fictional people alone."""
    sink = io.StringIO()
    lines = csv.writer(sink, lineterminator="\n")
    lines.writerow(("key", "subject", "x0", "y0", "x1", "y1", "show"))
    for key, truth in corpus.truth.items():
        for box, subject in zip(truth.boxes, truth.subjects, strict=True):
            lines.writerow((key, subject, *box, "no" if key == ASTRONAUT else "yes"))
    return sink.getvalue()


def samples(recipe: Recipe) -> Iterator[Sample]:
    """The samples of a corpus, in order; the same bytes for the same recipe on the same machine."""
    studio = Studio()
    people = cast(studio, recipe.seed, recipe.people, recipe.takes, recipe.candidates)
    deck = _deck(np.random.default_rng((recipe.seed, 2)), people)
    for number in range(recipe.pictures - 1):
        rng = np.random.default_rng((recipe.seed, 3, number))
        yield _sample(rng, number, recipe, studio, people, deck)
    yield _astronaut(np.random.default_rng((recipe.seed, 4)), recipe)


def _deck(rng: np.random.Generator, people: Sequence[Person]) -> Iterator[tuple[int, int]]:
    """Person and take, for ever: everyone once, in a random order, then everyone again with his next take."""
    turn = 0
    while True:
        for person in rng.permutation(len(people)):
            yield int(person), turn % len(people[person].takes)
        turn += 1


def _deal(deck: Iterator[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """`count` different people from the deck."""
    hand: dict[int, int] = {}
    while len(hand) < count:
        person, take = next(deck)
        hand.setdefault(person, take)
    return list(hand.items())


def _sample(
    rng: np.random.Generator,
    number: int,
    recipe: Recipe,
    studio: Studio,
    people: Sequence[Person],
    deck: Iterator[tuple[int, int]],
) -> Sample:
    alone = number % PORTRAIT_EVERY == 0
    hand = _deal(deck, 1 if alone else GROUP_SIZES[number % len(GROUP_SIZES)])
    aspects = PORTRAIT_ASPECTS if alone else ASPECTS[len(hand)]
    size = _size(rng, aspects, recipe.least, min(recipe.most, PORTRAIT_MOST) if alone else recipe.most)
    takes = [people[person].takes[take] for person, take in hand]
    kind = int(rng.integers(len(backgrounds.KINDS)))
    look = studio.photograph(takes[0].style, 2 * takes[0].picture.shape[0]) if alone else None
    if look is not None:
        shown = [0]
        pixels, boxes = scene.portrait(rng, look.picture, look.mesh, size)
        caption = "A portrait"
    else:
        pixels, boxes, shown = scene.compose(rng, takes, _layout(rng, len(hand)), kind, size)
        caption = f"{WORDS[len(shown)]} {PLACES[backgrounds.KINDS[kind]]}"
    cast_shown = [people[hand[position][0]] for position in shown]
    key = f"{ALBUMS[number % len(ALBUMS)]}_{cast_shown[0].name.split()[0].lower()}_{number:04d}"
    if number % GREY_EVERY == 5:
        pixels = _grey(pixels)
    extension, data = _encode(rng, number, pixels, cast_shown[0].name)
    subjects = [person.subject for person in cast_shown]
    names = ", ".join(person.name for person in cast_shown)
    return _complete(key, extension, data, pixels, boxes, subjects, names, caption, kind)


def _layout(rng: np.random.Generator, count: int) -> str:
    if count == 1:
        return str(rng.choice(["alone", "alone", "parapet"]))
    return str(rng.choice(["group", "group", "parapet", "depth"]))


def _size(
    rng: np.random.Generator, aspects: Sequence[tuple[int, int]], least: int, most: int
) -> tuple[int, int]:
    """Width and height; long sides are spread evenly on a log scale."""
    across, down = aspects[int(rng.integers(len(aspects)))]
    long = float(np.exp(rng.uniform(np.log(least), np.log(most))))
    return round(long * across / max(across, down)), round(long * down / max(across, down))


def _grey(pixels: Picture) -> Picture:
    level = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat(np.round(level)[..., None].astype(np.uint8), 3, axis=2)


def _encode(rng: np.random.Generator, number: int, pixels: Picture, author: str) -> tuple[str, bytes]:
    sink = io.BytesIO()
    grey = (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    if number % PNG_EVERY == 4:
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", author)
        Image.fromarray(pixels).save(sink, "png", pnginfo=text, compress_level=3)
        return "png", sink.getvalue()
    options: dict[str, Any] = {"quality": int(rng.integers(84, 96))}
    if number % EXIF_EVERY == 1:
        orientation = ORIENTATIONS[number // EXIF_EVERY % len(ORIENTATIONS)]
        options["exif"] = exif.block(pixels, orientation, author, rng)
        pixels = exif.stored(pixels, orientation)
    Image.fromarray(pixels[..., 0] if grey else pixels).save(sink, "jpeg", **options)
    return "jpg", sink.getvalue()


def _complete(
    key: str,
    extension: str,
    data: bytes,
    pixels: Picture,
    boxes: NDArray[np.float32],
    subjects: list[int],
    name: str,
    caption: str,
    label: int,
) -> Sample:
    sidecar = json.dumps({"name": name, "caption": caption, "label": label}, ensure_ascii=False)
    members = {extension: data, "json": sidecar.encode(), "cls": str(label).encode()}
    height, width = pixels.shape[:2]
    rounded = [[round(float(value), 1) for value in box] for box in boxes]
    return Sample(key, members, Truth(width, height, rounded, subjects))


def _astronaut(rng: np.random.Generator, recipe: Recipe) -> Sample:
    from skimage import data

    pixels = np.asarray(data.astronaut(), np.uint8)
    encoded = _encode(rng, 0, pixels, "NASA")
    box, caption = np.array([ASTRONAUT_BOX], np.float32), "Portrait of an astronaut"
    name, label = "Eileen Collins", len(backgrounds.KINDS)
    return _complete(ASTRONAUT, *encoded, pixels, box, [recipe.people], name, caption, label)
