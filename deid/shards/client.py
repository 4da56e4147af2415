"""The S3 client of this process, for the AWS settings and the credentials of the moment."""

import datetime
import functools
import os
from typing import Any

import boto3
import botocore.config
import botocore.session
import botocore.utils

from deid.errors import ConfigError


def client() -> Any:
    """A boto3 client; endpoint, region and credentials come from the standard AWS settings."""
    return _client_for(tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))))


def renew() -> None:
    """Read credentials afresh from now on: boto3 reads a credentials file, and a credential process that names no
    expiry, once a client."""
    _client_for.cache_clear()


@functools.lru_cache(maxsize=4)
def _client_for(_settings: tuple[tuple[str, str], ...]) -> Any:
    """It makes one attempt, since `retry` repeats body and all."""
    once = botocore.config.Config(
        retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=60, max_pool_connections=16
    )
    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    try:
        return boto3.session.Session(botocore_session=session).client("s3", config=once)
    except ValueError as error:
        raise ConfigError(f"AWS_ENDPOINT_URL or the profile's endpoint_url: {error}") from None


def _timestamp(value: Any) -> datetime.datetime:
    """As botocore parses it, which for a listing takes most of the time (botocore 1.44)."""
    if isinstance(value, str) and value.endswith("Z"):
        try:
            return datetime.datetime.fromisoformat(value)
        except ValueError:
            pass
    found: datetime.datetime = botocore.utils.parse_timestamp(value)
    return found
