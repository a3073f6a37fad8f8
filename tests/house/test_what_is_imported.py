"""A server that anchors nothing pays for no chain: neither in time nor in memory."""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.world import ROOT

OF_CHAINS = ("web3", "eth_account", "eth_abi", "trie", "rlp", "coincurve", "pkcs11", "boto3")


def test_the_server_imports_nothing_of_chains_until_somebody_anchors() -> None:
    code = (
        "import sys, supervisor.main, actors.worker, transport.http.app; "
        f"print([name for name in {OF_CHAINS!r} if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout.strip() == "[]"
