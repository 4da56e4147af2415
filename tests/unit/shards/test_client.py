"""How listings are read."""

import datetime

import botocore.utils
import pytest

from deid.shards import client


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05.678Z",  # S3's listings
        "2026-01-02T03:04:05Z",
        "Fri, 02 Jan 2026 03:04:05 GMT",  # headers
        "2026-01-02T03:04:05.678+01:00",
        "1767323045",
        "20260102T030405.6789012345Z",
    ],
)
def test_times_are_those_of_botocore(text: str) -> None:
    found = client._timestamp(text)
    assert found == botocore.utils.parse_timestamp(text)
    assert found.utcoffset() is not None


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError):
        client._timestamp("soonZ")


def test_a_client_reads_times_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    parser = client.client()._endpoint._response_parser_factory.create_parser("rest-xml")
    assert parser._timestamp_parser is client._timestamp
    assert client._timestamp("2026-01-02T03:04:05Z") == datetime.datetime(
        2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC
    )
