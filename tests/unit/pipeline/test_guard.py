import logging
from collections.abc import Sequence

import pytest

from deid import log as logs
from deid.pipeline.guard import attempt, attempt_batch


def test_only_the_item_that_raises_fails() -> None:
    def reciprocal(items: Sequence[int]) -> list[float]:
        return [1 / item for item in items]

    assert attempt_batch("x", reciprocal, [1, 2, 0, 4]) == [1, 0.5, None, 0.25]
    assert attempt_batch("x", reciprocal, [0]) == [None]
    assert attempt_batch("x", reciprocal, []) == []


def test_a_part_that_returns_too_few_results_is_not_believed() -> None:
    assert attempt_batch("x", lambda items: list(items)[:1], [1, 2]) == [1, 2]
    assert attempt_batch("x", lambda items: [], [1, 2]) == [None, None]


def test_the_text_of_an_exception_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    def leak() -> None:
        raise ValueError("holiday-of-jane-doe.jpg")

    with caplog.at_level(logging.DEBUG):
        assert attempt("decode", leak) is None
    assert "ValueError" in caplog.text
    assert "jane" not in caplog.text


def test_the_stage_is_in_the_context(caplog: pytest.LogCaptureFixture) -> None:
    seen = []
    assert attempt("mesh", lambda: seen.append(logs.where())) is None
    assert seen == ["stage=mesh"]
