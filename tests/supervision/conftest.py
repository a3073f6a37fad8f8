"""Plain tracebacks in the captured log: the pretty ones take longer than the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def plain_log() -> Iterator[None]:
    before = structlog.get_config()
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback, colors=False)
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])
    yield
    structlog.configure(**before)
