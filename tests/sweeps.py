"""Long sweeps and their short version: which cases CI runs each time, and which only make test-thorough."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def with_some(cases: Iterable[str], each_time: Callable[[str], bool]) -> list[Any]:
    """For ``parametrize``: all of them; those that are not for ``each_time`` are ``thorough``."""
    return [case if each_time(case) else pytest.param(case, marks=pytest.mark.thorough) for case in cases]


def some_or_all(each_time: list[str], cases: list[str]) -> list[Any]:
    """For a test that goes through all its cases itself: a short list, and for ``thorough`` the whole one."""
    assert set(each_time) <= set(cases)
    return [
        pytest.param(each_time, id="some"),
        pytest.param(cases, id="all", marks=pytest.mark.thorough),
    ]
