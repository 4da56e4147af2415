"""What of an evaluation may be written down: numbers that JSON knows, settings without paths, no name of the source."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from deid.errors import PromiseError
from deid.evaluation.settings import Evaluation, place
from deid.privacy import leaks
from deid.privacy.unpack import SHORTEST

LEFT_OUT = "(left out: a path)"
SHOWN = (
    "title", "made", "deid", "source", "treatments", "chosen", "recognizers", "machine", "seconds", "seconds_looking",
    "thresholds", "digest", "unpaired",
)  # fmt: skip


def strict(value: Any) -> Any:
    """The same for strict JSON: None for numbers that are not finite, lists for arrays, texts for keys.

    Raises:
        TypeError: there is something that JSON does not know.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): strict(inner) for key, inner in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(
        value, bytes | bytearray | memoryview
    ):
        return [strict(inner) for inner in (sorted(value) if isinstance(value, set | frozenset) else value)]
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def described(about: Mapping[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """What the report says of the evaluation itself: the `SHOWN` of `about`, None for what it lacks, and no path in any
    setting."""
    usual = {"title": evaluation.title, "thresholds": evaluation.thresholds.model_dump()}
    found = {name: about.get(name, usual.get(name)) for name in SHOWN} | {"k": evaluation.k}
    return {
        name: strict(value if name == "title" else _without_paths(value)) for name, value in found.items()
    }


def check(payload: Any, evaluation: Evaluation, hidden: Collection[str] = ()) -> None:
    """Make sure that no text of the payload holds a path of the configuration, or a name that must stay hidden.

    hidden: keys of source pictures and names of people. Looked for are those that would not stand there by chance:
    of eight bytes or more, and not one plain word in lower case.

    Raises:
        PromiseError: one of them is there.
    """
    text = "\n".join(_texts(payload)).encode(errors="replace")
    if any(path.encode() in text for path in _paths(evaluation)):
        raise PromiseError("the report would name a path of its configuration; nothing was written")
    names = {name for name in hidden if len(name.encode()) >= SHORTEST and not _plain_word(name)}
    needles = {str(number): {"utf-8": name.encode()} for number, name in enumerate(sorted(names))}
    if needles and leaks.search({"": text}, needles):
        raise PromiseError("the report would name a picture or a person of the source; nothing was written")


def _paths(evaluation: Evaluation) -> set[str]:
    """Every place that the configuration names, as it stands there and in full; not those of one word."""
    named = [evaluation.source.uri, evaluation.source.labels, evaluation.output, *evaluation.recognizers]
    named += [result.uri for result in evaluation.results]
    named += [result.pairing for result in evaluation.results if result.pairing not in ("key", "background")]
    given = {path.rstrip("/") for path in named if path}
    return {path for path in given | set(map(place, given)) if "/" in path.strip("./")}


def _plain_word(name: str) -> bool:
    return name.isalpha() and name.islower()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _without_paths(value: Any) -> Any:
    if isinstance(value, PurePath) or (isinstance(value, str) and ("/" in value or "\\" in value)):
        return LEFT_OUT
    if isinstance(value, Mapping):
        return {key: _without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(inner) for inner in value]
    return value
