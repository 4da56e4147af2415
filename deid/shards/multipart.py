"""Large objects in parts: nothing is seen under the name before all parts are there, and a cut costs one part."""

import contextlib
from typing import Any

import botocore.exceptions

from deid.errors import DeidError
from deid.shards.client import client
from deid.shards.retry import code, retry

PART = 64 << 20  # bytes; S3 takes 10,000 parts


def put(bucket: str, key: str, data: bytes, overwrite: bool) -> bool:
    """Write `data` in parts; whether it is there now, False: the name is taken and `overwrite` is false.

    A failure takes its parts back. Those of a process that was killed stay, unseen, until a lifecycle rule of the
    bucket (AbortIncompleteMultipartUpload) removes them; so do uploads whose start was not answered, without parts.
    """
    where, place = f"s3://{bucket}", {"Bucket": bucket, "Key": key}
    place["UploadId"] = retry(lambda _: client().create_multipart_upload(**place)["UploadId"], where)
    try:
        parts = [_part(where, place, n, data) for n in range(-(-len(data) // PART))]
        done = retry(lambda attempt: _complete(place, parts, data, overwrite, attempt), where)
    except BaseException:
        _abort(where, place)
        raise
    if not done:
        _abort(where, place)
    return done


def _part(where: str, place: dict[str, str], number: int, data: bytes) -> dict[str, Any]:
    piece = data[number * PART : (number + 1) * PART]
    answer = retry(lambda _: client().upload_part(PartNumber=number + 1, Body=piece, **place), where)
    sums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
    sums.pop("ChecksumType", None)
    return {"PartNumber": number + 1, "ETag": answer["ETag"], **sums}


def _complete(
    place: dict[str, str], parts: list[dict[str, Any]], data: bytes, overwrite: bool, attempt: int
) -> bool:
    """Whether the object stands under its name; an attempt before, whose answer was lost, may have put it there."""
    condition = {} if overwrite else {"IfNoneMatch": "*"}
    try:
        client().complete_multipart_upload(MultipartUpload={"Parts": parts}, **place, **condition)
    except botocore.exceptions.ClientError as error:
        taken = code(error) in ("PreconditionFailed", "412")
        if not taken and not (attempt and code(error) == "NoSuchUpload"):
            raise
        return attempt > 0 and _holds(place, data)
    return True


def _holds(place: dict[str, str], data: bytes) -> bool:
    """The object under the name is `data`."""
    position = 0
    answer = client().get_object(Bucket=place["Bucket"], Key=place["Key"])
    with contextlib.closing(answer["Body"]) as body:
        for piece in body.iter_chunks(8 << 20):
            if data[position : position + len(piece)] != piece:
                return False
            position += len(piece)
    return position == len(data)


def _abort(where: str, place: dict[str, str]) -> None:
    with contextlib.suppress(DeidError):  # what went wrong before is what the user is told
        retry(lambda _: client().abort_multipart_upload(**place), where)
