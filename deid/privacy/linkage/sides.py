"""All that the attack takes from the source corpus, and from the output folder of a run."""

import io
import json
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deid.errors import InputError
from deid.privacy.linkage import containers, names, reading
from deid.privacy.linkage.line import Finding
from deid.privacy.linkage.names import Texts, Written
from deid.privacy.linkage.reading import Hashes, Member, Reservoir
from deid.shards import folder, storage

_TEXT = 1 << 16  # bytes of a text that are looked at
_KIND = re.compile("(shards|images|masks)/")  # names of objects with samples
_TIFF = 1 << 12  # bytes at either end of a file of another format


@dataclass
class Source:
    pictures: Reservoir
    shards: list[int] = field(default_factory=list)  # pictures in each
    texts: Texts = field(default_factory=Texts)
    parts: Hashes = field(
        default_factory=Hashes
    )  # of pictures, of their large blocks, of other large members
    content: Hashes = field(default_factory=Hashes)  # hashes without a key of pictures

    def add(self, member: Member) -> None:
        for text in (*reading.header_texts(member.info), member.info.name, member.key):
            self.texts.add(text)
        if member.is_picture:
            self.pictures.offer(member, len(self.shards) - 1)
            self.shards[-1] += 1
            blocks = containers.blocks(member.data)
            for value in (reading.digest(member.data), *reading.large_blocks(blocks)):
                self.parts.add(value)
            for value in names.hashes(member.data):
                self.content.add(value)
            for text in _texts(blocks):
                self.texts.add(text)
        else:
            if len(member.data) >= reading.SMALLEST:
                self.parts.add(reading.digest(member.data))
            for _, text in reading.json_texts(member.data[:_TEXT], keys=False, numbers=True):
                self.texts.add(text)


def _texts(blocks: list[containers.Block]) -> list[str]:
    """Readable text in what a picture holds beside its pixels."""
    data = [block.data for block in blocks if block.kind == "extra"]
    data += [block.data[:_TIFF] + block.data[-_TIFF:] for block in blocks if block.kind == "other"]
    data += [b.data for b in blocks if b.kind == "icc" and not containers.standard_profile(b.data)]
    return [text for part in data for text in containers.texts(part)]


def read_source(uri: str, most: int) -> Source:
    """The corpus: shards below `uri`, and the names of all that is there.

    Raises:
        InputError: there are none.
    """
    found = Source(Reservoir(most))
    for part in uri.partition("://")[2].split("/") if "://" in uri else uri.split("/"):
        found.texts.add(part)
    files = storage.list_files(uri, required=True)
    for file in files:
        for part in file.uri[len(uri) :].split("/"):
            found.texts.add(part)
        if file.uri.endswith((".csv", ".jsonl")):
            for line in storage.read_bytes(file.uri).splitlines():
                for _, text in reading.json_texts(line[:_TEXT], keys=False, numbers=True):
                    found.texts.add(text)
    for _, members in reading.shards(files):
        found.shards.append(0)
        for member in members:
            found.add(member)
    if not found.shards:
        raise InputError(
            "linkage: no shards below the folder of the source (tars, Parquet files or folders with pictures)"
        )
    return found


@dataclass
class Output:
    uri: str
    pictures: Reservoir
    manifest: dict[str, Any]
    source: NDArray[np.uint64]  # sorted hashes of the parts of the source
    shards: list[int] = field(default_factory=list)  # pictures in each
    written: Written = field(default_factory=Written)
    audits: list[str] = field(default_factory=list)  # URIs of the audit's files, by name
    faced: set[int] = field(default_factory=set)  # hashes of the keys that the audit names
    members: int = 0
    embedded: int = 0  # pictures with more than pixels
    copied: int = 0  # members of which a part is the source's
    exempt: int = 0  # of pictures without a face, which encoding the same pixels gives again
    timed: int = 0  # members and files with a time or an owner

    def config(self, *path: str) -> Any:
        value: Any = self.manifest.get("config", {})
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def known(self, values: list[int]) -> bool:
        """Any of the hashes is the source's."""
        if not len(self.source):
            return False
        wanted = np.array(values, np.uint64)
        place = np.searchsorted(self.source, wanted).clip(max=len(self.source) - 1)
        return bool((self.source[place] == wanted).any())

    def add(self, member: Member, allowed: set[str]) -> None:
        self.members += 1
        self.timed += reading.header_faults(member.info)
        for text in reading.header_texts(member.info):
            self.written.add(text, "member header")
        if member.is_picture:
            self.add_picture(member)
            return
        if len(member.data) >= reading.SMALLEST:
            self.copied += self.known([reading.digest(member.data)])
        if f".{member.extension}" in allowed:
            return
        for top, text in reading.json_texts(member.data[:_TEXT], keys=True, numbers=True):
            if top not in allowed:
                self.written.add(text, "sidecar")
            elif text != top:
                self.written.allowed.add(text)

    def add_picture(self, member: Member) -> None:
        self.pictures.offer(member, len(self.shards) - 1)
        self.shards[-1] += 1
        blocks = containers.blocks(member.data)
        self.embedded += any(block.kind in ("extra", "other") for block in blocks)
        for text in _texts(blocks):
            self.written.add(text, "picture metadata")
        if self.known([reading.digest(member.data), *reading.large_blocks(blocks)]):
            quality = self.config("output", "quality") or 95
            bare = reading.digest(member.key.encode()) not in self.faced
            same = bare and reading.fresh(member.data, member.extension, quality)
            self.exempt, self.copied = self.exempt + same, self.copied + (not same)

    def add_table(self, uri: str) -> None:
        """The texts of a Parquet file, and the keys that it names if it is part of the audit."""
        file = pq.ParquetFile(io.BytesIO(storage.read_bytes(uri)))
        schema = file.schema_arrow
        for name, value in (file.metadata.metadata or {}).items():
            if name != b"ARROW:schema":  # its content is the schema
                self.written.add(f"{name.decode()} {value.decode('utf-8', 'replace')}", "Parquet metadata")
        self.written.add(file.metadata.created_by or "", "Parquet metadata")
        for column in schema:
            for name, value in ({column.name.encode(): b""} | (column.metadata or {})).items():
                self.written.add(f"{name.decode()} {value.decode('utf-8', 'replace')}", "Parquet schema")
        if "output_id" in schema.names:
            self.audits.append(uri)
        for batch in file.iter_batches():
            for name, column in zip(schema.names, batch.columns, strict=True):
                for value in column.unique().to_pylist():
                    self.written.add(_text(value), f"column {name}")
                    if name == "output_id":
                        self.faced.add(reading.digest(str(value).encode()))

    def tests(self) -> list[Finding]:
        pictures = f"{self.pictures.seen} output pictures"
        return [
            Finding(
                "embedded",
                self.embedded,
                0,
                None,
                f"output pictures with EXIF, XMP, a comment, a thumbnail, a preview or the like, of {pictures}",
            ),
            Finding(
                "duplicates",
                self.copied,
                0,
                None,
                f"output members that are the source's byte for byte, or hold a segment of {reading.SMALLEST} and "
                f"more bytes that is, of {self.members} members; {self.exempt} further pictures without a face are "
                "what encoding the same pixels gives again",
            ),
            Finding(
                "headers",
                self.timed,
                0,
                None,
                f"members and files with a time or an owner, of {self.members}",
            ),
        ]


def _text(value: object) -> str:
    """A value of a column as text; numbers of fewer than 6 digits hold nothing."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)


def read_output(uri: str, source: Source, most: int) -> Output:
    """The output folder of a run.

    Raises:
        InputError: it holds no manifest.
    """
    files = storage.list_files(uri, required=True)
    base = [file.uri[len(uri) :].strip("/") for file in files]
    if "manifest.json" not in base:
        raise InputError(
            "linkage: no manifest.json in the folder of the output; give the folder of one run that ended"
        )
    manifest = json.loads(storage.read_bytes(storage.join(uri, "manifest.json")))
    found = Output(uri, Reservoir(most), manifest, source.parts.array())
    allowed = names.allowed_fields(manifest)
    for name in base:
        found.written.add(name, "object name")
    shards = [file for file in files if _KIND.match(file.uri[len(uri) :].strip("/"))]
    for file in files:
        if file in shards:
            continue
        if file.uri.endswith(".parquet"):
            found.add_table(file.uri)
        else:
            data = storage.read_bytes(file.uri)
            found.timed += reading.times(data)
            for _, text in reading.json_texts(data, keys=True, numbers=False):
                found.written.add(text, "manifest" if file.uri.endswith("/manifest.json") else "other file")
    for _, members in reading.shards(shards):
        found.shards.append(0)
        for member in members:
            found.add(member, allowed)
    for file in shards:
        if file.uri.endswith(f"/{folder.TABLE}"):
            for member in reading.rows(file, []):
                found.add(member, allowed)
    return found


def rows(uri: str) -> pa.Table:
    """The audit rows of one file."""
    return pq.read_table(io.BytesIO(storage.read_bytes(uri)))
