"""Shared names: does any text of the output hold part of a name or value of the source?

Compared are letters and digits alone, lower case, in pieces of at least 6, and the source's also as hexadecimal digits
and as Base64. Text of the output that looks random (ids, hashes, signatures) shares short pieces with anything, so
there a piece has to be so long that none is expected.
"""

import ast
import base64
import hashlib
import importlib.resources
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from deid.privacy.linkage.line import Finding, binomial_limit, information
from deid.privacy.linkage.reading import Hashes

LENGTH = 6  # characters of a piece
ACCIDENT = 1e-5  # expected number of accidental pieces in ids, at most
MOST = 500_000  # strings that are kept of a side
_LEAST = (LENGTH, 8, 2 * LENGTH)  # the same as it is, in Base64 and in hexadecimal digits
_ID_HEX, _ID_ANY = 16, 40  # characters from which hexadecimal digits, or Base64, look random
_HASH = 16  # hexadecimal digits of a hash that are compared
_PLAIN = re.compile("[^0-9a-z]+")
_HEX = re.compile(rf"(?<![0-9a-zA-Z])[0-9a-fA-F]{{{_ID_HEX},}}(?![0-9a-zA-Z])")
_CODE = re.compile(rf"[A-Za-z0-9+/_-]{{{_ID_ANY},}}={{0,2}}")
# A version of a library, the day of the run, and a name that every run writes.
_FIXED = re.compile(r"v?\d+(\.\w+)+(\+\w+)?|\d{4}-\d\d-\d\d|part-\d{5}\.parquet")
_KNOWN = (
    "records.py",
    "config.py",
    "privacy",
    "pipeline",
)  # of the package: where the words of a run come from


def squeeze(text: str) -> str:
    """Letters (a to z) and digits alone, lower case."""
    return _PLAIN.sub("", text.lower())


def pieces(text: str, length: int) -> set[str]:
    return {text[start : start + length] for start in range(len(text) - length + 1)}


@dataclass
class Texts:
    """Different texts, at most `MOST`."""

    kept: dict[str, str] = field(default_factory=dict)  # and where each was found first
    lost: int = 0

    def add(self, text: str, place: str = "") -> None:
        if text in self.kept or len(text) < LENGTH:
            return
        if len(self.kept) >= MOST:
            self.lost += 1
        else:
            self.kept[text] = place


@dataclass
class Written:
    """Texts of the output by what they look like."""

    readable: Texts = field(default_factory=Texts)
    ids: Texts = field(default_factory=Texts)  # hexadecimal digits
    codes: Texts = field(default_factory=Texts)  # Base64
    allowed: Texts = field(default_factory=Texts)  # of fields that the configuration lets pass

    def add(self, text: str, place: str) -> None:
        rest = []
        for word in text.split():
            if _CODE.fullmatch(word) and word != word.lower() and any(c.isdigit() for c in word):
                self.codes.add(squeeze(word), place)
                continue
            for found in _HEX.findall(word):
                self.ids.add(found.lower(), place)
            rest.append("/".join(p for p in _HEX.sub("/", word).split("/") if not _FIXED.fullmatch(p)))
        for part in " ".join(rest).split("/"):
            self.readable.add(squeeze(part), place)


def words() -> Iterator[str]:
    """Names and texts that the program itself holds, docstrings apart: a run may write them whatever its source."""
    package = importlib.resources.files("deid")
    yield package.joinpath("models", "registry.yaml").read_text("utf-8")
    yield from ("parquet-cpp-arrow version", "BEGIN PUBLIC KEY", "END PUBLIC KEY")  # of the formats
    folders = [package.joinpath(name) for name in _KNOWN]
    files = [f for place in folders for f in ([place] if place.is_file() else place.iterdir())]
    for file in files:
        if file.name.endswith(".py"):
            yield from _words(ast.parse(file.read_text("utf-8")))


def _words(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""  # a docstring
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        for name in ("id", "attr", "arg", "name"):
            if isinstance(found := getattr(node, name, None), str):
                yield found


def forms(text: str) -> Iterator[tuple[str, int]]:
    """Ways to write a text of the source, and the characters that a piece of it has at least."""
    yield squeeze(text), _LEAST[0]
    data = text.encode("utf-8", "replace")
    yield data.hex(), _LEAST[2]
    for before in range(3):
        code = base64.b64encode(bytes(before) + data).decode()
        start, end = (0, 2, 3)[before], (before + len(data)) * 8 // 6
        yield squeeze(code[start:end]), _LEAST[1]


def hashes(text: bytes) -> Iterator[int]:
    """The first 64 bits of the usual hashes without a key."""
    for kind in ("md5", "sha1", "sha256"):
        yield int(hashlib.new(kind, text).hexdigest()[:_HASH], 16)


def compare(written: Written, source: Texts, content: Hashes) -> list[Finding]:
    """Pieces of the source's texts in readable text, in ids, and in the fields that may pass.

    content: `hashes` of the source's pictures.
    """
    lost = source.lost + sum(t.lost for t in (written.readable, written.ids, written.codes))
    cut = f"; {lost} further texts were not looked at" if lost else ""
    size = f"{len(source.kept)} texts of the source"
    return [
        _readable(written.readable, source, f"{size}, {len(written.readable.kept)} readable ones{cut}"),
        _ids(written, source, content, size, cut),
        _allowed(written.allowed, source),
    ]


def _readable(readable: Texts, source: Texts, size: str) -> Finding:
    known = {length: set[str]() for length in _LEAST}
    for word in words():
        for length, found in known.items():
            found |= pieces(squeeze(word), length)
    there: dict[int, dict[str, str]] = {length: {} for length in known}
    for text, place in readable.kept.items():
        for length, seen in there.items():
            seen |= dict.fromkeys(pieces(text, length) - known[length], place)
    shared: dict[str, str] = {}
    if any(there.values()):
        for text in source.kept:
            for form, length in forms(text):
                shared |= {p: there[length][p] for p in pieces(form, length) if p in there[length]}
    where = f"; found in: {', '.join(sorted(set(shared.values())))}" if shared else ""
    note = f"different pieces of {LENGTH} and more letters and digits in readable text that are the source's; {size}"
    return Finding("names_text", len(shared), 0, None, note + where)


def _ids(written: Written, source: Texts, content: Hashes, size: str, cut: str) -> Finding:
    letters = sum(len(form) for text in source.kept for form, _ in forms(text))
    hexes, codes = list(written.ids.kept), list(written.codes.kept)
    long = _least(letters * sum(map(len, hexes)), 16)
    longer = _least(letters * sum(map(len, codes)), 32)
    shared = _shared(source, hexes, long) | _shared(source, codes, longer)
    keyless = {value for text in source.kept for value in hashes(text.encode("utf-8", "replace"))}
    windows = [int(piece, 16) for text in hexes for piece in pieces(text, _HASH)]
    values = np.union1d(content.array(), np.fromiter(keyless, np.uint64, len(keyless)))
    hashed = int(np.isin(np.unique(np.array(windows, np.uint64)), values).sum())
    note = (
        f"pieces of {long} and more in hexadecimal ids ({longer} in Base64) that are the source's, and hashes of its "
        f"names and pictures (MD5, SHA-1, SHA-256); {size}, {len(hexes)} ids{cut}"
    )
    return Finding("names_ids", len(shared) + hashed, 2 * ACCIDENT, lambda _: 0.0, note)


def _least(trials: int, alphabet: int) -> int:
    """Characters from which no accidental match is expected among so many pairs of places."""
    length = LENGTH
    while trials / alphabet**length > ACCIDENT:
        length += 1
    return length


def _shared(source: Texts, texts: Iterable[str], length: int) -> set[str]:
    lengths = {max(least, length) for least in _LEAST}
    there = {of: {piece for text in texts for piece in pieces(text, of)} for of in lengths}
    shared: set[str] = set()
    if any(there.values()):
        for text in source.kept:
            for form, least in forms(text):
                of = max(least, length)
                shared |= pieces(form, of) & there[of]
    return shared


def paired(keys: Sequence[tuple[str, str]]) -> Finding:
    """Does the key of a picture hold a piece of its own source's key, however short?

    keys: of source and output, of each pair. Chance: of pairs that do not belong together.
    """
    own = [{p for form, least in forms(key) for p in pieces(form, least)} for key, _ in keys]
    there = [{p for least in _LEAST for p in pieces(squeeze(key), least)} for _, key in keys]
    rng, n, draws = np.random.default_rng(0), len(keys), 20
    found = sum(not a.isdisjoint(b) for a, b in zip(own, there, strict=True))
    turns = rng.integers(1, n, draws).tolist() if n > 1 else []
    strange = sum(not own[i].isdisjoint(there[(i + turn) % n]) for turn in turns for i in range(n))
    share = (strange + 1) / (n * len(turns) + 1)
    note = f"output keys with a piece of {LENGTH} and more of their own source's key, of {n} pairs"
    return Finding("names_paired", found, share * n, binomial_limit(n, share), note)


def _allowed(allowed: Texts, source: Texts) -> Finding:
    there = (
        {piece for text in source.kept for piece in pieces(squeeze(text), LENGTH)} if allowed.kept else set()
    )
    found = sum(not pieces(squeeze(text), LENGTH).isdisjoint(there) for text in allowed.kept)
    share = found / len(allowed.kept) if allowed.kept else 0.0
    note = (
        f"share of {len(allowed.kept)} texts in sidecar fields that hold a piece of the source's, as the "
        "configuration lets them: information"
    )
    return information("names_allowed", share, 0, 1, note)


def allowed_fields(manifest: dict[str, object]) -> set[str]:
    """Sidecar fields and members that the run's configuration lets pass, by its manifest."""
    metadata = json.loads(json.dumps(manifest)).get("config", {}).get("metadata", {})
    return {*metadata.get("sidecar_fields", {}), *(f".{name}" for name in metadata.get("members", {}))}
