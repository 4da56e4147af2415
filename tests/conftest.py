"""The real S3 server, once a test session, for every test that asks for it."""

import itertools
from collections.abc import Iterator

import pytest

from deid.demo.s3server import S3Server


class S3:
    """The running server: its AWS settings, and a fresh bucket whenever one is asked for."""

    def __init__(self, server: S3Server) -> None:
        self.environment = server.environment()
        self._server, self._numbers = server, itertools.count()

    def bucket(self) -> str:
        """Name of a new, empty bucket."""
        name = f"test-{next(self._numbers)}"
        self._server.create_bucket(name)
        return name


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The server; this process uses it by its AWS settings from now on."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as settings:
        settings.delenv("AWS_PROFILE", raising=False)
        for name, value in server.environment().items():
            settings.setenv(name, value)
        yield S3(server)
