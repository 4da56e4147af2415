"""Files and objects behind one small set of functions: local paths and `s3://bucket/key` alike.

Endpoint, region and credentials of S3 come from the standard AWS settings (environment, profile, instance role).
Writes are atomic: a reader sees a whole object or none. Errors never name an object, since names may be the source's.
"""

import contextlib
import fnmatch
import functools
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
import pyarrow as pa
import pyarrow.fs

from deid.errors import ConfigError, InputError, StorageError
from deid.shards import multipart
from deid.shards.client import client as _client
from deid.shards.retry import ShortRead, code, explain, retry

_TEMPORARY = ".deid-part-"  # prefix of a local file that is still being written
_PROBE = ".deid-probe-"  # prefix of an object that is written to see whether it can be
_PRECONDITION = ("PreconditionFailed", "412")


@dataclass(frozen=True)
class Object:
    """A file or object as it was listed."""

    uri: str
    size: int  # bytes
    version: str  # S3: ETag; local: time of change (ns) and size


LISTED = pa.schema(
    [("uri", pa.string()), ("size", pa.int64()), ("version", pa.string())]
)  # fields of `Object`


class ObjectChanged(InputError):
    """The object is not the one that was listed."""


class AlreadyThere(StorageError):
    """Something else already stands under the name, and overwriting was not asked for."""


def join(uri: str, *names: str) -> str:
    """`names` below `uri`."""
    return "/".join([uri.rstrip("/"), *(name.strip("/") for name in names)])


def filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """A pyarrow file system and the path in it.

    pyarrow takes credentials from the standard AWS settings but no endpoint from them
    (apache/arrow#49643, #44119; look again after pyarrow 26), so endpoint and region come from botocore.
    """
    bucket, key = _split(uri)
    if not bucket:
        return pyarrow.fs.LocalFileSystem(), os.path.abspath(key)
    meta = retry(lambda _: _client().meta, f"s3://{bucket}")
    options: dict[str, Any] = {"region": meta.region_name} if meta.region_name else {}
    if ".amazonaws.com" not in meta.endpoint_url:
        scheme, _, host = meta.endpoint_url.partition("://")
        options |= {"endpoint_override": host, "scheme": scheme}
    return pyarrow.fs.S3FileSystem(**options), f"{bucket}/{key}"


def list_files(uri: str, pattern: str = "*", required: bool = False) -> list[Object]:
    """Files at any depth below `uri`, sorted by name.

    Args:
        pattern: shell pattern for the base name, or for the path below `uri` where it has a "/"; several stand
            with "|" between.
        required: finding none is an `InputError`; a bucket that does not exist always is.
    """
    found = list_table(uri, pattern)
    chosen = [Object(**row) for row in found.to_pylist()]
    if required and not chosen:
        raise InputError(f"{uri.rstrip('/')}: nothing named {pattern} there")
    return chosen


def list_table(uri: str, pattern: str = "*") -> pa.Table:
    """The same as rows of `LISTED`, in a memory of about 100 bytes a file."""
    bucket, key = _split(uri)
    pages = _pages_s3(bucket, key) if bucket else iter([retry(lambda _: _list_local(key), uri)])
    tables = [LISTED.empty_table()]
    for page in pages:
        chosen = [
            {"uri": f"{uri.rstrip('/')}/{name}", "size": size, "version": version}  # a key may begin with "/"
            for name, size, version in page
            if _matches(name, pattern)
        ]
        tables.append(pa.Table.from_pylist(chosen, schema=LISTED))
    return pa.concat_tables(tables).combine_chunks().sort_by("uri")


def _matches(name: str, pattern: str) -> bool:
    return any(
        fnmatch.fnmatchcase(name if "/" in one else name.rpartition("/")[2], one)
        for one in pattern.split("|")
    )


def find(uri: str) -> Object | None:
    """The file or object as a listing would give it; None where there is none."""
    bucket, key = _split(uri)
    if not bucket:
        return retry(lambda _: _find_local(uri, key), "this machine's file system")

    def head(_: int) -> Object | None:
        try:
            answer = _client().head_object(Bucket=bucket, Key=key)
        except botocore.exceptions.ClientError as error:
            if code(error) in ("404", "NoSuchKey"):
                return None
            raise
        return Object(uri, answer["ContentLength"], answer["ETag"].strip('"'))

    return retry(head, f"s3://{bucket}")


def exists(uri: str) -> bool:
    """Whether the file or object is there."""
    return find(uri) is not None


def read_bytes(uri: str) -> bytes:
    """The whole content."""
    return _read(uri, None, None, None)


def read_range(uri: str, start: int, length: int, version: str | None = None) -> bytes:
    """Exactly `length` > 0 bytes from `start` on.

    Raises:
        ObjectChanged: the object is shorter, or `version` is given and it has another.
    """
    return _read(uri, start, length, version)


def write_bytes(uri: str, data: bytes, overwrite: bool = False) -> None:
    """Write in one step: a reader sees the whole or nothing. Large objects go to S3 in parts.

    Raises:
        AlreadyThere: the name is taken and `overwrite` is false.
    """
    bucket, key = _split(uri)
    if bucket and len(data) > multipart.PART:
        if not multipart.put(bucket, key, data, overwrite):
            raise AlreadyThere(f"s3://{bucket}: an object is already there and is not overwritten")
    elif bucket:
        retry(lambda attempt: _put(bucket, key, data, overwrite, attempt), f"s3://{bucket}")
    else:
        try:
            _write_local(Path(key), data, overwrite)
        except OSError as error:  # such an error does not pass by waiting
            raise explain(error, "writing to this machine's file system") from None


def check_writable(uri: str) -> None:
    """Write something below `uri` and delete it again.

    Raises:
        InputError, StorageError: it cannot be done, with the reason.
    """
    place = join(uri, _PROBE + secrets.token_hex(8))
    write_bytes(place, b"")
    delete(place)


def delete(uri: str) -> None:
    """Remove the file or object; none there is no error."""
    bucket, key = _split(uri)
    if bucket:
        retry(lambda _: _client().delete_object(Bucket=bucket, Key=key), f"s3://{bucket}")
    else:
        retry(lambda _: Path(key).unlink(missing_ok=True), "this machine's file system")


def _split(uri: str) -> tuple[str, str]:
    """Bucket ("" for a local path) and key or path."""
    scheme, found, rest = uri.partition("://")
    if not found:
        return "", uri
    if scheme == "file":
        return "", rest
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ConfigError(f"{scheme}://: storage is a local path or s3://bucket/prefix")
    return bucket, key


def _pages_s3(bucket: str, prefix: str) -> Iterator[list[tuple[str, int, str]]]:
    """Name, size and version of objects, a thousand a page; a page that fails is asked for again."""
    prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
    more: dict[str, str] = {}
    while True:
        page = retry(functools.partial(_list_s3, bucket, prefix, more), f"s3://{bucket}")
        items = [item for item in page.get("Contents", []) if not item["Key"].endswith("/")]
        yield [(item["Key"][len(prefix) :], item["Size"], item["ETag"].strip('"')) for item in items]
        if not page["IsTruncated"]:
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _list_s3(bucket: str, prefix: str, more: dict[str, str], _attempt: int) -> dict[str, Any]:
    page: dict[str, Any] = _client().list_objects_v2(Bucket=bucket, Prefix=prefix, **more)
    if "IsTruncated" not in page:  # botocore takes an answer without a body for an empty one
        raise ShortRead
    return page


def _list_local(folder: str) -> list[tuple[str, int, str]]:
    found, seen, unnamed = [], set[str](), 0

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for parent, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link led here again
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in names:
            path = Path(parent, name)
            if name.startswith(_TEMPORARY) or not path.is_file():
                continue
            if any("\ud800" <= letter <= "\udfff" for letter in str(path.relative_to(folder))):
                unnamed += 1
                continue
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                status = path.stat()
                found.append((path.relative_to(folder).as_posix(), status.st_size, _version(status)))
    if unnamed:
        raise InputError(f"{folder}: the names of {unnamed} files there are not UTF-8; rename them")
    return found


def _find_local(uri: str, path: str) -> Object | None:
    if not os.path.isfile(path):
        return None
    status = os.stat(path)
    return Object(uri, status.st_size, _version(status))


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}"


def _read(uri: str, start: int | None, length: int | None, version: str | None) -> bytes:
    bucket, key = _split(uri)
    where = f"s3://{bucket}" if bucket else "reading from this machine's file system"
    if bucket:
        data = retry(lambda _: _get(bucket, key, start, length, version), where)
    else:
        data = retry(lambda _: _read_local(key, start or 0, -1 if length is None else length, version), where)
    if length is not None and len(data) != length:
        raise ObjectChanged(f"{where}: an object is shorter than when it was listed")
    return data


def _get(bucket: str, key: str, start: int | None, length: int | None, version: str | None) -> bytes:
    options = {"IfMatch": f'"{version}"'} if version else {}
    if start is not None and length is not None:
        options["Range"] = f"bytes={start}-{start + length - 1}"
    try:
        answer = _client().get_object(Bucket=bucket, Key=key, **options)
    except botocore.exceptions.ClientError as error:
        gone = version is not None and code(error) == "NoSuchKey"
        if gone or code(error) in (*_PRECONDITION, "InvalidRange", "416"):
            raise ObjectChanged(f"s3://{bucket}: an object is not the one that was listed") from None
        raise
    with contextlib.closing(answer["Body"]) as body:
        data: bytes = body.read()
    if len(data) != answer.get("ContentLength"):  # none where the cut was in the headers
        raise ShortRead
    return data


def _read_local(path: str, start: int, length: int, version: str | None) -> bytes:
    if version and not os.path.exists(path):
        raise ObjectChanged("reading from this machine's file system: a file that was listed is gone")
    with open(path, "rb") as file:
        if version and _version(os.fstat(file.fileno())) != version:
            raise ObjectChanged(
                "reading from this machine's file system: a file is not the one that was listed"
            )
        file.seek(start)
        return file.read(length)


def _put(bucket: str, key: str, data: bytes, overwrite: bool, attempt: int) -> None:
    try:
        _client().put_object(Bucket=bucket, Key=key, Body=data, **({} if overwrite else {"IfNoneMatch": "*"}))
    except botocore.exceptions.ClientError as error:
        if code(error) not in _PRECONDITION:
            raise
        # an attempt whose answer was lost may have written it
        # (asked with tries of its own: else each attempt must get through twice)
        if attempt == 0 or read_bytes(f"s3://{bucket}/{key}") != data:
            raise AlreadyThere(f"s3://{bucket}: an object is already there and is not overwritten") from None


def _write_local(path: Path, data: bytes, overwrite: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(_TEMPORARY + secrets.token_hex(8))
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            part.replace(path)
        else:
            os.link(part, path)
    except FileExistsError:
        raise AlreadyThere("a file is already there and is not overwritten") from None
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
