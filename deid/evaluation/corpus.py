"""The pictures of an evaluation, by reference: the sources, their labels, and which result belongs to which source."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deid.errors import InputError, PictureError
from deid.evaluation import labels as labelled
from deid.evaluation.labels import Label
from deid.evaluation.settings import Evaluation, Result, place
from deid.privacy.linkage import pairs as linked
from deid.privacy.linkage import reading
from deid.privacy.linkage.reading import Sample
from deid.shards import storage, webdataset
from deid.shards.pictures import Decoded, decode

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
THREADS = 8  # that read pictures
MAX_PIXELS = 200_000_000  # of a picture that is decoded
BY_BACKGROUND = (
    "; pairing: background (study make: --pairing background) finds the pairs of a run of this tool, whose keys are "
    "random"
)


@dataclass(frozen=True)
class Place:
    """Where the bytes of a picture are."""

    uri: str  # of its file, or of the shard
    extension: str  # lower case
    size: int  # bytes
    offset: int | None = None  # in the shard; None: the whole file

    def read(self) -> bytes:
        """The encoded picture.

        Raises:
            DeidError: it is not there any more.
        """
        if self.offset is None:
            return storage.read_bytes(self.uri)
        return storage.read_range(self.uri, self.offset, self.size) if self.size else b""


Places = dict[str, Place]  # by key


@dataclass
class Corpus:
    """What an evaluation looks at."""

    sources: Places
    shards: bool  # the sources are in WebDataset shards
    labels: dict[str, list[Label]] | None  # of each source; None: there are none
    results: dict[str, Places] = field(default_factory=dict)  # by treatment: by the key of the source
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)  # by treatment: how many were paired, ...
    unlabelled: int = 0  # pictures that were left out since they have no label

    def shown(self, show: str) -> set[str]:
        """Keys of the pictures that a report with this setting (`Evaluation.show`) may show."""
        if show == "all":
            return set(self.sources)
        if show == "none" or self.labels is None:
            return set()
        return {key for key, faces in self.labels.items() if all(label.show for label in faces)}


def read(evaluation: Evaluation) -> Corpus:
    """The sources with their labels, and the results that are there already; pictures are listed, not read.

    Only the pairing by background reads them.

    Raises:
        InputError: no pictures, labels that are wrong or of no picture, or results of which none can be paired.
    """
    sources, shards = pictures(place(evaluation.source.uri), "source")
    labels, unlabelled = None, 0
    if evaluation.source.labels is not None:
        labels = _by_key(labelled.read(place(evaluation.source.labels)), sources)
        unlabelled = len(sources) - len(labels)
        sources = {key: sources[key] for key in labels}
    corpus = Corpus(sources, shards, labels, unlabelled=unlabelled)
    for result in evaluation.results:
        corpus.results[result.name], corpus.notes[result.name] = _result(result, sources)
    return corpus


def pictures(uri: str, what: str) -> tuple[Places, bool]:
    """Pictures below a folder or prefix by key, sorted, and whether they are in shards.

    Where there are shards (.tar) they count alone, and keys are those of their samples; else all picture files at any
    depth, and keys are their names without the ending.

    Raises:
        InputError: there are none, or two of one key.
    """
    files = storage.list_files(uri)
    tars = [file for file in files if file.uri.endswith(".tar")]
    found: Places = {}
    twice = 0
    for key, where in _in_shards(tars) if tars else _in_folder(files):
        twice += key in found
        found[key] = where
    if twice:
        raise InputError(
            f"{what}: {twice} pictures have the name of another one; each needs a name of its own"
        )
    if not found:
        raise InputError(
            f"{what}: no pictures below {uri} ({', '.join(ENDINGS)}, or in WebDataset shards, .tar)"
        )
    return dict(sorted(found.items())), bool(tars)


def _in_folder(files: Iterable[storage.Object]) -> Iterable[tuple[str, Place]]:
    for file in files:
        name = PurePosixPath(file.uri)
        if name.suffix.lower() in ENDINGS:
            yield name.stem, Place(file.uri, name.suffix.lower()[1:], file.size)


def _in_shards(tars: Iterable[storage.Object]) -> Iterable[tuple[str, Place]]:
    for tar in tars:
        for row in webdataset.scan(tar).to_pylist():
            if not row["reason"]:
                yield row["key"], Place(tar.uri, row["extension"], row["size"], row["offset"])


def _by_key(labels: Iterable[Label], sources: Mapping[str, Place]) -> dict[str, list[Label]]:
    found: dict[str, list[Label]] = {}
    lost = []
    for number, label in enumerate(labels, 2):
        found.setdefault(label.key, []).append(label)
        lost += [] if label.key in sources else [number]
    if lost:
        raise InputError(f"source.labels: line {lost[0]}: no picture has this key ({len(lost)} such lines)")
    return found


def _result(result: Result, sources: Places) -> tuple[Places, dict[str, Any]]:
    where = f"results: {result.name}"
    found, _ = pictures(place(result.uri), where)
    if result.pairing == "key":
        of = {key: key for key in sources if key in found}
    elif result.pairing == "background":
        of = by_background(sources, found)
    else:
        of = {key: name for key, name in pairing(place(result.pairing), where).items() if key in sources}
    return paired(of, found, sources, where, result.pairing)


def paired(
    of: Mapping[str, str], found: Places, sources: Places, where: str, pairing: str
) -> tuple[Places, dict[str, Any]]:
    """Results by the key of their source, and how many there are.

    of: key of the result by key of the source. where: names the result in errors.

    Raises:
        InputError: none is paired.
    """
    made = {key: found[name] for key, name in of.items() if name in found}
    if not made:
        hint = BY_BACKGROUND if pairing == "key" else ""
        raise InputError(
            f"{where}: none of its {len(found)} pictures could be paired with a source (pairing: {pairing}){hint}"
        )
    numbers = {"sources": len(sources), "results": len(found), "paired": len(made)}
    return made, numbers | {"sources without result": len(sources) - len(made)}


def pairing(uri: str, where: str) -> dict[str, str]:
    """Key of the result by key of the source, of a CSV file with the columns key and result.

    Raises:
        InputError: the file is wrong, or names a key or a result twice.
    """
    rows = labelled.table(uri, f"{where}: pairing (key, background, or a CSV)", (("key",), ("result",)))
    for name in ("key", "result"):
        given = [row[name] for row in rows if row[name]]
        if len(set(given)) < len(given):
            raise InputError(f"{where}: pairing: {len(given) - len(set(given))} lines name a {name} again")
    return {row["key"]: row["result"] for row in rows if row["key"] and row["result"]}


def by_background(sources: Places, results: Places) -> dict[str, str]:
    """Key of the result by key of the source, where each is the other's nearest by what faces leave as it was."""
    found = linked.find(*(_samples(side) for side in (sources, results)))
    return {a.key: b.key for a, b in zip(found.source, found.output, strict=True)}


def _samples(places: Places) -> list[Sample]:
    def vector(where: Place) -> NDArray[np.float32] | None:
        return reading.vector(where.read())

    with ThreadPoolExecutor(THREADS) as pool:
        vectors = pool.map(vector, places.values())
        return [
            Sample(key, 0, number, where.size, 0, vector)
            for number, ((key, where), vector) in enumerate(zip(places.items(), vectors, strict=True))
        ]


def decoded(data: bytes) -> Decoded | None:
    """None where it is no picture."""
    try:
        return decode(data, MAX_PIXELS)
    except PictureError:
        return None
