import pytest

from deid.evaluation import learning


@pytest.fixture
def one_thread():
    """Networks learn in one thread, as they do in an evaluation."""
    with learning.one_thread():
        yield
