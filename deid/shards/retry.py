"""The one retry border of storage, and what its failures mean to the user."""

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

import botocore.exceptions as boto

from deid import log as logs
from deid.errors import DeidError, InputError, StorageError
from deid.shards.client import renew

ATTEMPTS = 10  # half a minute in the mean: a server that is started again is waited for
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 15.0
QUIET = 3  # attempts that fail without a word
RENEWALS = 2  # times that refused credentials are read afresh: they may have been changed during the run

T = TypeVar("T")

log = logs.logger(__name__)

_CREDENTIALS = "check AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the instance role"
_REFUSED = {
    "AccessDenied": "access denied: the credentials need s3:ListBucket, s3:GetObject and, for state and output, "
    "s3:PutObject and s3:DeleteObject there",
    "InvalidAccessKeyId": f"the access key is not known there; {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key is wrong; {_CREDENTIALS}",
    "ExpiredToken": f"the session token has expired; {_CREDENTIALS}",
    "InvalidToken": f"the session token is wrong; {_CREDENTIALS}",
    "NoSuchBucket": "no such bucket; check the name in the configuration, and AWS_ENDPOINT_URL",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION",
    "NoSuchKey": "no such object",
    "404": "no such object, or no such bucket",
    "403": "access denied; check the credentials and their permissions",
    "301": "the bucket is in another region; set AWS_REGION",
}
_TRY_AGAIN = {
    "ConditionalRequestConflict",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "SlowDown",
}
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.ProfileNotFound,
    boto.TokenRetrievalError,
    boto.UnauthorizedSSOTokenError,
)
_STALE = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "403",  # of a HEAD, which has no body to say more
}


class ShortRead(Exception):
    """Fewer bytes arrived than were promised."""


def code(error: BaseException) -> str:
    """S3's error code; "" for another kind of error."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, boto.ClientError) else ""


def retry(action: Callable[[int], T], where: str) -> T:
    """The result of `action(attempt)`, tried again as a whole, with full jitter, while its failure may pass.

    Credentials that are refused are read afresh, and tried again.

    Args:
        action: the whole operation, request and body; gets the number of the attempt, from 0.
        where: what an error calls the place; no name of an object of the source.

    Raises:
        InputError: trying again does not help.
        StorageError: it did not help.
    """
    for attempt in range(ATTEMPTS):
        try:
            return action(attempt)
        except (boto.BotoCoreError, boto.ClientError, ShortRead, OSError) as error:
            failure, stale = explain(error, where), _stale(error)
        if stale:
            renew()
        if isinstance(failure, InputError) and not (stale and attempt < RENEWALS):
            raise failure from None
        if attempt + 1 < ATTEMPTS:
            if attempt == QUIET:
                log.warning("%s; tried again for a while", failure)
            time.sleep(random.uniform(0, min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**attempt)))
    raise failure from None


def _stale(error: BaseException) -> bool:
    return isinstance(error, _NO_CREDENTIALS) or code(error) in _STALE


def explain(error: BaseException, where: str) -> DeidError:
    """The failure for the user; `StorageError` when it may pass. Names no object: they may be the source's."""
    if isinstance(error, _NO_CREDENTIALS):
        return InputError(f"{where}: no usable AWS credentials; {_CREDENTIALS}")
    if isinstance(error, boto.EndpointConnectionError | boto.ConnectTimeoutError | boto.ProxyConnectionError):
        return StorageError(f"{where}: the S3 server does not answer; check AWS_ENDPOINT_URL and the network")
    if isinstance(error, boto.SSLError):
        return StorageError(f"{where}: TLS failed; check AWS_ENDPOINT_URL (http or https) and AWS_CA_BUNDLE")
    if isinstance(error, boto.ClientError):
        name = code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if name in _REFUSED:
            return InputError(f"{where}: {_REFUSED[name]}")
        if name in _TRY_AGAIN or status == 429 or status >= 500:
            return StorageError(f"{where}: the S3 server asks to try again ({name})")
        return InputError(f"{where}: the S3 server refuses the request ({name}, status {status})")
    if isinstance(error, boto.ParamValidationError | boto.NoRegionError | boto.InvalidConfigError):
        return InputError(f"{where}: {type(error).__name__}; check the bucket's name and AWS_REGION")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"{where}: no such file or folder")
    if isinstance(error, IsADirectoryError):
        return InputError(f"{where}: a folder stands where a file is expected")
    if isinstance(error, PermissionError):
        return InputError(f"{where}: access denied; check the permissions of the folder")
    if isinstance(error, OSError) and error.errno:  # not its own text, into which libraries put names
        return StorageError(f"{where}: {os.strerror(error.errno)}")
    return StorageError(f"{where}: the transfer broke off ({type(error).__name__})")
