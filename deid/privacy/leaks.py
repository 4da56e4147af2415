"""Search files and objects for what may not be in them, however it is written: the check behind "no trace leads back".

A needle is looked for in every common encoding, in names and contents, and inside of whatever can be unpacked.
"""

import base64
import codecs
import hashlib
import itertools
import json
import os
import unicodedata
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deid.privacy.unpack import SHORTEST, unpacked

_VALUES = 8  # numbers in a row of a vector by which it is known

Needle = str | bytes | Mapping[str, bytes]  # text, bytes, or written forms by their names


@dataclass(frozen=True)
class Hit:
    needle: str  # name of the needle
    encoding: str  # how it was written
    where: str  # file or object, then the containers in it, outermost first, separated by " > "


def encodings(text: str) -> dict[str, bytes]:
    """The text as it may be written, by encoding; also its plain hashes, which lead back to whoever can guess it.

    Raises:
        ValueError: it is so short that it would be found by chance.
    """
    if len(text.encode()) < SHORTEST:
        raise ValueError(f"a needle has at least {SHORTEST} bytes")
    texts = {
        "utf-8": text,
        "reversed": text[::-1],
        "rot13": codecs.encode(text, "rot13"),
        "lower": text.lower(),
        "upper": text.upper(),
        "nfd": unicodedata.normalize("NFD", text),
        "json": json.dumps(text)[1:-1],
        "json-plain": json.dumps(text, ensure_ascii=False)[1:-1],
        "json-all": "".join(f"\\u{unit:04x}" for unit in _utf16_units(text)),
        "percent": urllib.parse.quote(text, safe=""),
        "percent-plus": urllib.parse.quote_plus(text),
        "percent-all": "".join(f"%{byte:02X}" for byte in text.encode()),
        "percent-all-lower": "".join(f"%{byte:02x}" for byte in text.encode()),
        "python": text.encode("unicode_escape").decode(),
        "python-bytes": repr(text.encode())[2:-1],
    }
    found = {name: value.encode() for name, value in texts.items()}
    for name in ("utf-16-le", "utf-16-be", "utf-32-le"):
        found[name] = text.encode(name)
    for name in ("latin-1", "cp1252"):
        found[name] = text.encode(name, "ignore")
    for name in ("utf-8", "utf-16-le"):
        found |= {f"{name} {how}": data for how, data in _packed(text.encode(name)).items()}
    for name in ("md5", "sha1", "sha256"):
        digest = hashlib.new(name, text.encode(), usedforsecurity=False).digest()
        found |= {name: digest, f"{name} hex": digest.hex().encode()}
    return _distinct(found)


def byte_encodings(data: bytes) -> dict[str, bytes]:
    """Bytes (a key, a thumbnail) as they may be written, by encoding.

    Raises:
        ValueError: they are so few that they would be found by chance.
    """
    if len(data) < SHORTEST:
        raise ValueError(f"a needle has at least {SHORTEST} bytes")
    escaped = repr(data)[2:-1].encode()
    return _distinct({"raw": data, "reversed": data[::-1], "python": escaped, **_packed(data)})


def vector_encodings(vector: NDArray[np.floating[Any]]) -> dict[str, bytes]:
    """A vector, such as an embedding, by any `_VALUES` numbers in a row from its start or its middle: as binary
    numbers of 2, 4 and 8 bytes in both byte orders, and as the text of one number with all its digits."""
    found = {}
    for place, start in (("start", 0), ("middle", len(vector) // 2)):
        part = np.asarray(vector[start : start + _VALUES])
        for kind in ("f2", "f4", "f8"):
            for order in ("<", ">"):
                found[f"{order}{kind} {place}"] = part.astype(f"{order}{kind}").tobytes()
        largest = part[int(np.abs(part).argmax())]
        found |= {f"text {place}": str(largest).encode(), f"float {place}": repr(float(largest)).encode()}
    return _distinct({name: data for name, data in found.items() if len(data) >= SHORTEST})


def search(source: Path | Mapping[str, bytes], needles: Mapping[str, Needle]) -> list[Hit]:
    """Every needle that stands in a name or a content, once for each place and encoding.

    Args:
        source: a folder, searched at all depths, or objects by name.
        needles: by a name that hits call them by.
    """
    patterns = _Patterns(needles)
    hits: dict[Hit, None] = {}
    for name, content in _objects(source):
        for where, data in itertools.chain(
            [(f"name {name}", name.encode(errors="surrogateescape"))], unpacked(name, content)
        ):
            hits |= dict.fromkeys(Hit(needle, how, where) for needle, how in patterns.found(data))
    return list(hits)


class _Patterns:
    """All written forms of all needles. By their first eight bytes, most are ruled out in one go."""

    def __init__(self, needles: Mapping[str, Needle]) -> None:
        self.by_start: dict[int, list[tuple[str, str, bytes]]] = {}
        for name, needle in needles.items():
            for how, data in (needle if isinstance(needle, Mapping) else _encoded(needle)).items():
                if len(data) < SHORTEST:
                    raise ValueError(f"{name}, {how}: a needle has at least {SHORTEST} bytes")
                start = int.from_bytes(data[:8], "little")
                self.by_start.setdefault(start, []).append((name, how, data))
        self.starts = np.array(sorted(self.by_start), np.uint64)
        self.likely = np.zeros(1 << 16, np.bool_)  # by the last two of the eight bytes
        self.likely[(self.starts >> np.uint64(48)).astype(np.intp)] = True

    def found(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Name and written form of every needle that stands in the data."""
        starts: set[int] = set()
        for shift in range(min(8, max(0, len(data) - 7))):
            windows = np.frombuffer(data, "<u8", count=(len(data) - shift) // 8, offset=shift)
            windows = windows[self.likely[(windows >> np.uint64(48)).astype(np.intp)]]
            starts.update(windows[np.isin(windows, self.starts)].tolist())
        for start in sorted(starts):
            for name, how, pattern in self.by_start[start]:
                if pattern in data:
                    yield name, how


def _encoded(needle: str | bytes) -> dict[str, bytes]:
    return encodings(needle) if isinstance(needle, str) else byte_encodings(needle)


def _distinct(found: Mapping[str, bytes]) -> dict[str, bytes]:
    """Each written form once, under the first name that it has."""
    first: dict[bytes, str] = {}
    for name, data in found.items():
        if len(data) >= SHORTEST:
            first.setdefault(data, name)
    return {name: data for data, name in first.items()}


def _utf16_units(text: str) -> list[int]:
    data = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def _packed(data: bytes) -> dict[str, bytes]:
    found = {"hex": data.hex().encode(), "HEX": data.hex().upper().encode()}
    for shift in range(3):  # a needle may begin at any of three places in a group of base64
        text = base64.b64encode(bytes(shift) + data)
        sure = text[
            -(-shift * 8 // 6) : (shift + len(data)) * 8 // 6
        ]  # digits that the neighbours have no part in
        found[f"base64 {shift}"] = sure
        found[f"base64url {shift}"] = sure.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def _objects(source: Path | Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Names and contents; of a link its target's name, of a folder no content, and nothing of sockets and devices."""
    if isinstance(source, Mapping):
        yield from source.items()
        return
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_symlink():
            yield name, os.readlink(path).encode(errors="surrogateescape")
        elif path.is_dir():
            yield name, b""
        elif path.is_file():
            yield name, path.read_bytes()
