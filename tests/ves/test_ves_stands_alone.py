"""The protocol is useful without the server: it imports nothing of ours and nothing that talks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VES = Path(__file__).parents[2] / "ves"
LIBRARIES = {"msgspec", "orjson", "rfc8785", "nacl", "cryptography"}
THEIR_PARTS = {"_cffi_backend", "cffi", "_openssl", "_sodium", "typing_extensions"}
FORBIDDEN = {"trio", "asyncio", "asyncpg", "quart", "httpx", "hypercorn"}
SCRIPT = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import importlib, pathlib
for path in sorted(pathlib.Path(sys.argv[1], "ves").glob("*.py")):
    importlib.import_module(f"ves.{path.stem}" if path.stem != "__init__" else "ves")
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


@pytest.fixture(scope="module")
def imported() -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(VES.parent)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(run.stdout.split())


def test_ves_imports_the_standard_library_and_its_five_libraries_only(imported: set[str]) -> None:
    ours_and_theirs = {name for name in imported if name not in sys.stdlib_module_names}
    assert {"ves", "msgspec", "nacl"} <= ours_and_theirs
    assert ours_and_theirs <= {"ves"} | LIBRARIES | THEIR_PARTS


def test_ves_pulls_in_nothing_that_talks_or_waits(imported: set[str]) -> None:
    assert not imported & FORBIDDEN


def test_every_module_says_what_it_is_for_and_the_package_itself_is_empty() -> None:
    assert (VES / "__init__.py").read_text() == ""
    for path in VES.glob("*.py"):
        if path.stem != "__init__":
            assert path.read_text().startswith('"""'), path
