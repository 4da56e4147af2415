"""What a checker looks at in a run's folder: every object that was signed, in its place, and nothing else."""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deid.errors import InputError
from deid.privacy import shred
from deid.shards import storage

MANIFEST = "manifest.json"
_KINDS = {
    "shard": re.compile(r"shards/[0-9a-f]{32}\.(tar|parquet)"),
    "file": re.compile(r"(images|masks)/[A-Za-z0-9_-]{1,160}/[0-9a-f]{32}/[A-Za-z0-9_.-]{1,120}"),
    "video": re.compile(r"videos/[0-9a-f]{32}\.mp4"),
    "audit": re.compile(r"audit/part-[0-9]{5,9}\.parquet"),
    "summary": re.compile(r"summary\.parquet"),
    "people": re.compile(r"people\.json"),
}
_THREADS = 8  # objects that are read at once, each whole

Faults = Iterator[tuple[str, str]]  # name of the object, fault
Mark = tuple[int, str]  # bytes and SHA-256 (hex) of a content


def kind(name: str) -> str:
    """What an object is, by its name as the job gives it: shard, file, video, audit, summary, people, or ""."""
    return next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(name)), "")


class Signed:
    """The objects that a manifest names.

    Args:
        objects: {name, bytes, sha256} of each.
    """

    def __init__(self, objects: Iterable[Mapping[str, Any]]) -> None:
        self.marks: dict[str, Mark] = {entry["name"]: (entry["bytes"], entry["sha256"]) for entry in objects}
        self._names = {mark: name for name, mark in reversed(self.marks.items())}

    def origin(self, name: str, mark: Mark) -> str:
        """The name under which a content was signed, `name` if it may be that; else "", or `name` if it is signed."""
        if self.marks.get(name) == mark:
            return name
        return self._names.get(mark, name if name in self.marks else "")


@dataclass(frozen=True)
class Found:
    """An object as it was found: its mark, the name under which its content was signed, and what was read in it."""

    mark: Mark
    origin: str
    content: Any


def listing(uri: str) -> dict[str, int]:
    """Bytes by name of everything below the run's folder; -1 for what cannot be an object of a run: a link, a
    device, an empty folder, a name that begins or ends with "/". Unlike `storage.list_files` it passes over nothing.

    Raises:
        InputError: a folder cannot be read.
    """
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        below = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        found = shred.list_objects(bucket, below)
        return {name[len(below) :]: size if name == name.strip("/") else -1 for name, size in found}
    folder = Path(uri.removeprefix("file://"))
    try:
        return dict(_local(folder)) if folder.is_dir() else {}
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}; it cannot be checked") from None


def _local(folder: Path) -> Iterator[tuple[str, int]]:
    def end(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=end):
        below = Path(parent).relative_to(folder).as_posix()
        if not folders and not names and Path(parent) != folder:
            yield f"{below}/", -1
        for name in folders + names:
            path = Path(parent, name)
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                plain = stat.S_ISREG(status.st_mode)
                yield path.relative_to(folder).as_posix(), status.st_size if plain else -1


def read(
    uri: str, files: Mapping[str, int], signed: Signed, look: Callable[[str, bytes], Any]
) -> dict[str, Found]:
    """Every object by its name, read once and whole, `_THREADS` at a time.

    Args:
        look: gets the name under which the content was signed, and the content; what it gives is kept.
    """

    def one(name: str) -> Found:
        data = storage.read_bytes(storage.join(uri, name))
        mark = len(data), hashlib.sha256(data).hexdigest()
        origin = signed.origin(name, mark)
        return Found(mark, origin, look(origin, data) if origin else None)

    names = sorted(name for name, size in files.items() if size >= 0 and name != MANIFEST)
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


def contents(found: Mapping[str, Found], signed: Signed) -> dict[str, Any]:
    """What was read, by the name under which it was signed; of two candidates the one with the right content."""
    best = sorted(found.values(), key=lambda item: signed.marks.get(item.origin) == item.mark)
    return {item.origin: item.content for item in best if item.origin}


def faults(files: Mapping[str, int], found: Mapping[str, Found], signed: Signed) -> Faults:
    """Objects that were changed, removed, added, renamed, or put in another's place, or that no run writes."""
    yield from ((name, "is no object of a run") for name in sorted(signed.marks) if not kind(name))
    strangers = {found[n].mark: n for n in sorted(found.keys() - signed.marks.keys(), reverse=True)}
    moved = set[str]()
    for name in sorted(signed.marks.keys() - files.keys()):
        new = strangers.get(signed.marks[name])
        moved |= {new} if new else set()
        yield name, f"was renamed to {new}" if new else "is missing"
    for name in sorted(files.keys() - signed.marks.keys() - {MANIFEST} - moved):
        yield name, "is not in the manifest: it was added after the run"
    for name in sorted(signed.marks.keys() & files.keys()):
        if name not in found:
            yield name, "is no plain file"
        elif found[name].origin != name:
            yield name, f"its content is that of {found[name].origin}"
        elif found[name].mark != signed.marks[name]:
            audit = ": the audit was edited" if name.startswith("audit/") else ""
            yield name, f"its content is not what was signed{audit}"
