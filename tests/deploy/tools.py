"""Programs that only these tests use: where they are, or a skip that says how to get them."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def tool(name: str, how: str = "make .venv/dev.stamp, on Linux x86_64") -> str:
    """Its path. Without it the test is skipped with the reason; in CI it fails."""
    beside = Path(sys.executable).parent / name
    found = (
        str(beside) if beside.exists() else shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    )
    if found is None:
        missing(f"{name} is not installed: {how}")
    return found


def require(module: str) -> None:
    if find_spec(module) is None:
        missing(f"{module} is not installed: it exists for Linux x86_64 only")


def missing(why: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)
