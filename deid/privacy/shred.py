"""Delete everything below a folder or an S3 prefix, one object before all others, and look that nothing is left."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions

from deid.errors import PromiseError
from deid.shards.retry import ShortRead, code, explain, retry

_BATCH = 1000  # objects that one request may delete
_WITHOUT_VERSIONS = ("AccessDenied", "NotImplemented", "MethodNotAllowed")


def everything(uri: str, first: str = "", but: Collection[str] = ()) -> dict[str, Any]:
    """Delete all below `uri`, the object named `first` before all others, and what is named in `but` not at all.

    Returns:
        storage ("local" or "s3"), objects and bytes deleted (each version counts), versions (whether older versions
        were looked for), left (0), and not_promised, in words.

    Raises:
        PromiseError: something is left.
        InputError, StorageError: it cannot be deleted.
    """
    if not uri.startswith("s3://"):
        return _local(Path(uri.removeprefix("file://")), first, but)
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return _s3(bucket, prefix.rstrip("/") + "/" if prefix.strip("/") else "", first, but)


def _local(folder: Path, first: str, but: Collection[str]) -> dict[str, Any]:
    try:
        key, size, count = folder / first, 0, 0
        if first and key.exists():
            size, count = key.lstat().st_size, 1
            key.unlink()
        if folder.is_dir():
            _sync(folder)  # the key is gone from the disk before anything else is
        for parent, folders, names in os.walk(folder, topdown=False):
            for name in names:
                path = Path(parent, name)
                if path.relative_to(folder).as_posix() in but:
                    continue
                size, count = size + path.lstat().st_size, count + 1
                path.unlink()
            for name in folders:
                path = Path(parent, name)
                if path.is_symlink():
                    path.unlink()
                elif not any(path.iterdir()):
                    path.rmdir()
        kept = {folder / name for name in but}
        kept |= {parent for name in list(kept) for parent in name.parents}
        left = sum(1 for path in folder.rglob("*") if path not in kept)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise explain(error, "deleting on this machine's file system") from None
    _check(left)
    return {
        "storage": "local",
        "objects": count,
        "bytes": size,
        "versions": False,
        "left": left,
        "not_promised": [
            "files were unlinked: their ciphertext stays on the disk until it is written over, and in any backup"
        ],
    }


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check(left: int) -> None:
    if left:
        raise PromiseError(
            f"{left} objects are left after the run's folder was deleted; look for a job that still runs and for "
            "object locks, then delete it by hand"
        )


def _s3(bucket: str, prefix: str, first: str, but: Collection[str]) -> dict[str, Any]:
    where, kept = f"s3://{bucket}", {prefix + name for name in but}

    def unwanted() -> tuple[list[tuple[str, str | None, int]], bool]:
        entries, whole = retry(lambda _: _list(bucket, prefix), where)
        return [entry for entry in entries if entry[0] not in kept], whole

    found, versions = unwanted()
    found.sort(key=lambda entry: entry[0] != prefix + first)
    head = [entry for entry in found if entry[0] == prefix + first]
    for batch in [head, *(found[n : n + _BATCH] for n in range(len(head), len(found), _BATCH))]:
        if batch:
            _delete(bucket, batch)
    left, _ = unwanted()
    _check(len(left))
    return {
        "storage": "s3",
        "objects": len(found),
        "bytes": sum(size for _, _, size in found),
        "versions": versions,
        "left": 0,
        "not_promised": _UNSURE
        if versions
        else [*_UNSURE, "older versions were not looked for: the server refused"],
    }


_UNSURE = ["replicas and backups of the bucket, and what the storage provider keeps, are out of reach"]


def _client() -> Any:
    return boto3.session.Session().client(
        "s3",
        config=botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=60),
    )


def list_objects(bucket: str, prefix: str) -> list[tuple[str, int]]:
    """Key and bytes of every object whose key begins with `prefix`, as the server has them."""
    return retry(lambda _: _current(bucket, prefix), f"s3://{bucket}")


def _current(bucket: str, prefix: str) -> list[tuple[str, int]]:
    pages = list(_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix))
    _whole(pages)
    return [(item["Key"], item["Size"]) for page in pages for item in page.get("Contents", [])]


def _list(bucket: str, prefix: str) -> tuple[list[tuple[str, str | None, int]], bool]:
    """Key, version and bytes of everything there, delete markers too, and whether versions could be listed."""
    try:
        pages = list(_client().get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix))
    except botocore.exceptions.ClientError as error:
        if code(error) not in _WITHOUT_VERSIONS:
            raise
        return [(key, None, size) for key, size in _current(bucket, prefix)], False
    _whole(pages)
    items = [item for page in pages for kind in ("Versions", "DeleteMarkers") for item in page.get(kind, [])]
    return [(item["Key"], item.get("VersionId"), item.get("Size", 0)) for item in items], True


def _whole(pages: list[Any]) -> None:
    if any(
        "IsTruncated" not in page for page in pages
    ):  # an answer without a body, which botocore takes for empty
        raise ShortRead


def _delete(bucket: str, batch: list[tuple[str, str | None, int]]) -> None:
    objects = [{"Key": key} | ({"VersionId": version} if version else {}) for key, version, _ in batch]
    what = {"Objects": objects, "Quiet": True}
    retry(lambda _: _client().delete_objects(Bucket=bucket, Delete=what), f"s3://{bucket}")
