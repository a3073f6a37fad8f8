"""Long sweeps and their short version: which cases CI runs each time, and which only make test-thorough."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def with_some(cases: Iterable[str], each_time: Callable[[str], bool]) -> list[Any]:
    """For ``parametrize``: all of them; those that are not for ``each_time`` are ``thorough``."""
    return [case if each_time(case) else pytest.param(case, marks=pytest.mark.thorough) for case in cases]
