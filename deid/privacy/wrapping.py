"""What a run key is wrapped with, so that it can lie beside what it opens: a key file, or a key in AWS KMS."""

import base64
import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.config
import botocore.exceptions
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from deid.errors import ConfigError, DeidError, StorageError
from deid.shards.retry import code

KEY_BYTES = 32
_KMS = "aws-kms://"
_PURPOSE = {"purpose": "deid run key"}  # encryption context of KMS, which its log shows
_KMS_BUSY = (
    "ThrottlingException",
    "LimitExceededException",
    "DependencyTimeoutException",
    "KMSInternalException",
)

T = TypeVar("T")


def kind(state_key: str | None) -> str:
    """What the setting asks for: "memory" (nothing), "file" or "aws-kms".

    Raises:
        ConfigError: none of them.
    """
    if state_key is None:
        return "memory"
    if state_key.startswith(_KMS) and state_key != _KMS:
        return "aws-kms"
    if "://" in state_key:
        raise ConfigError(f"state_key: {state_key}: give a key file (deid keys new FILE) or {_KMS}KEY_ID")
    return "file"


def wrap(state_key: str) -> tuple[bytes, bytes]:
    """A fresh run key (32 bytes), and the same wrapped: by AES key wrap (RFC 3394) or by KMS.

    Raises:
        ConfigError: `state_key` cannot be used.
        StorageError: KMS did not answer.
    """
    if kind(state_key) == "aws-kms":
        return _generate(state_key.removeprefix(_KMS))
    key = secrets.token_bytes(KEY_BYTES)
    return key, aes_key_wrap(_read_key_file(state_key), key)


def unwrap(state_key: str, wrapped: bytes) -> bytes:
    """The run key that `wrap` gave with the same `state_key`.

    Raises:
        ConfigError: it is another one, or cannot be used, or `wrapped` is damaged.
        StorageError: KMS did not answer.
    """
    if kind(state_key) == "aws-kms":
        return _decrypt(state_key.removeprefix(_KMS), wrapped)
    try:
        return aes_key_unwrap(_read_key_file(state_key), wrapped)
    except (InvalidUnwrap, ValueError):
        raise ConfigError(
            f"state_key: {state_key} is not the key file that the run began with, or key.json is damaged"
        ) from None


def new_key_file(path: str | Path) -> None:
    """Write a key file: 32 random bytes in base64, for its owner alone.

    Raises:
        ConfigError: something is there already, or it cannot be written.
    """
    write_private(path, base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")


def write_private(path: str | Path, data: bytes, mode: int = 0o600) -> None:
    """A new local file, by default for its owner alone.

    Raises:
        ConfigError: something is there already, or it cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
    except FileExistsError:
        raise ConfigError(f"{path}: is there already and is not overwritten; give another name") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def read_private(path: str | Path, setting: str) -> bytes:
    """A local file that others must not be able to read (as ssh asks of its keys: of files of one's own).

    Raises:
        ConfigError: missing, unreadable, or open to group or others; names `setting`.
    """
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
                raise ConfigError(f"{setting}: {path} can be read by others; run: chmod 600 {path}")
            return file.read()
    except OSError as error:
        make = "; make one with: deid keys new FILE" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{setting}: {path}: {error.strerror}{make}") from None


def _read_key_file(path: str) -> bytes:
    data = read_private(path, "state_key")
    with contextlib.suppress(ValueError):
        key = base64.b64decode(data.strip(), validate=True)
        if len(key) == KEY_BYTES:
            return key
    raise ConfigError(f"state_key: {path} is no key file; make one with: deid keys new FILE")


def _generate(key_id: str) -> tuple[bytes, bytes]:
    """A fresh run key, and the same wrapped, from KMS."""
    answer = _kms(
        lambda client: client.generate_data_key(KeyId=key_id, KeySpec="AES_256", EncryptionContext=_PURPOSE)
    )
    return answer["Plaintext"], answer["CiphertextBlob"]


def _decrypt(key_id: str, wrapped: bytes) -> bytes:
    answer = _kms(
        lambda client: client.decrypt(KeyId=key_id, CiphertextBlob=wrapped, EncryptionContext=_PURPOSE)
    )
    plain: bytes = answer["Plaintext"]
    return plain


def _kms(call: Callable[[Any], T]) -> T:
    """The answer of KMS, under the standard AWS settings, tried again where that may help."""
    settings = botocore.config.Config(
        retries={"mode": "standard", "total_max_attempts": 6}, connect_timeout=10, read_timeout=30
    )
    try:
        return call(boto3.session.Session().client("kms", config=settings))
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, ValueError) as error:
        raise _explain(error) from None


def _explain(error: Exception) -> DeidError:
    if isinstance(error, botocore.exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= 500 or code(error) in _KMS_BUSY:
            return StorageError(f"state_key: KMS asks to try again ({code(error)})")
        return ConfigError(
            f"state_key: KMS refuses ({code(error)}); check the key's name and state, AWS_REGION, and that the "
            "credentials may kms:GenerateDataKey and kms:Decrypt"
        )
    if isinstance(error, botocore.exceptions.HTTPClientError | botocore.exceptions.ConnectionError):
        return StorageError(
            "state_key: KMS does not answer; check AWS_REGION, AWS_ENDPOINT_URL and the network"
        )
    return ConfigError(
        f"state_key: {type(error).__name__}; check the AWS credentials, AWS_REGION and AWS_ENDPOINT_URL"
    )
