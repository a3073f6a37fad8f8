"""A server pays only for what it does, in time and in memory: without an anchor for no chain, and never for
the command line."""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.world import ROOT

OF_CHAINS = ("web3", "eth_account", "eth_abi", "trie", "rlp", "coincurve", "pkcs11", "boto3")

OF_COMMANDS = ("cyclopts", "httpx", "sqlite3", "supervisor.commands", "transport.cli.app")


def imported(modules: str, of: tuple[str, ...]) -> str:
    code = f"import sys, {modules}; print([name for name in {of!r} if name in sys.modules])"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return said.stdout.strip()


def test_the_server_imports_nothing_of_chains_until_somebody_anchors() -> None:
    assert imported("supervisor.main, actors.worker, transport.http.app", OF_CHAINS) == "[]"


def test_a_server_that_starts_imports_no_command_line() -> None:
    assert imported("supervisor.main", OF_COMMANDS) == "[]"
