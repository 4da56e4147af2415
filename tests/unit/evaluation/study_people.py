"""People who do not exist, photographed twice each, and others in their place: a small corpus for a study."""

import csv
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deid.evaluation.labels import Label
from deid.evaluation.study.heads import Head
from deid.interfaces import Picture
from tests.unit.surrogates import generated

PEOPLE, AWAY = 7, 100  # the surrogate of an identity is that so far on in the gallery
SECRET = "MAKER-OF-THE-PHOTOGRAPH"  # in the EXIF of every source


@cache
def portrait(number: int, take: int) -> Picture:
    """[256, 256, 3] of an identity of the gallery; its second take is nearer to the mean face."""
    gallery = generated.gallery()
    style = gallery.styles[number]
    if take:
        style = style + np.float32(0.1) * (gallery.mean_style - style)
    return generated.generator().generate(style[None], side=generated.SIDE)[0]


def corpus(folder: Path) -> tuple[Path, Path, Path]:
    """Folders of sources (JPEG with EXIF) and results (PNG), and a CSV of labels."""
    source, result, labels = folder / "clear-photos", folder / "hidden-photos", folder / "labels.csv"
    for place in (source, result):
        place.mkdir()
    rows = []
    for person in range(PEOPLE):
        for take in (0, 1):
            name = f"surname{person}_{take}"
            exif = Image.Exif()
            exif[0x013B] = SECRET
            Image.fromarray(portrait(person, take)).save(source / f"{name}.jpg", quality=95, exif=exif)
            Image.fromarray(portrait(person + AWAY, take)).save(result / f"{name}.png")
            rows.append(
                [
                    f"{name}.jpg",
                    f"surname{person}",
                    ("female", "male")[person % 2],
                    22 + 5 * person,
                    "smiling",
                ]
            )
    with open(labels, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "subject", "sex", "age", "expression"], *rows])
    return source, result, labels


def heads(people: int, takes: int = 2) -> list[Head]:
    """Flat colours instead of heads, each of its own."""
    made = []
    for person in range(people):
        for take in range(takes):
            sex, age = ("female", "male")[person % 2], (20.0, 50.0)[person // 2 % 2]
            number = person * takes + take
            label = Label(f"{number}", f"surname{person}", None, sex, age)
            made.append(Head(number, label, colour(number, 0), colour(number, 128)))
    return made


def colour(number: int, blue: int) -> NDArray[np.uint8]:
    return np.full((8, 8, 3), (number % 16 * 16, number // 16 * 16, blue), np.uint8)
