"""A real chain for tests: anvil as a child, one per test that wants it, gone with it.

``npm ci --ignore-scripts`` brings the binary (``make test`` does that). A machine without it fails the test
with that line: there is no other chain to fall back to.
"""

from __future__ import annotations

import itertools
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[1]
BINARY = ROOT / "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
CHAIN_ID = 84_532_001
ETHER = 10**18
_STARTS_S = 20.0


class RpcError(RuntimeError):
    """The chain's refusal; ``data`` is what a contract said when it refused."""

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        super().__init__(f"{method}: {error.get('message')}")
        data = error.get("data")
        self.data = bytes.fromhex(data[2:]) if isinstance(data, str) else None


class Anvil:
    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process
        self._client = httpx.Client(timeout=20.0)
        self._ids = itertools.count(1)

    def rpc(self, method: str, *params: Any) -> Any:
        """Raises RpcError, a RuntimeError with the error's text."""
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        answer = self._client.post(self.url, json=body).json()
        if "error" in answer:
            raise RpcError(method, answer["error"])
        return answer["result"]

    def fund(self, address: bytes, wei: int = 100 * ETHER) -> None:
        self.rpc("anvil_setBalance", "0x" + address.hex(), hex(wei))

    def mine(self, blocks: int = 1) -> None:
        self.rpc("anvil_mine", hex(blocks))

    def close(self) -> None:
        self._client.close()


@contextmanager
def anvil(*, automine: bool = True, state: Path | None = None, more: tuple[str, ...] = ()) -> Iterator[Anvil]:
    """A chain of its own. ``automine``: each transaction makes a block at once; else ``mine`` does. Its
    finalized block is four behind the latest, its safe one two."""
    if not BINARY.exists():
        pytest.fail("no anvil here: npm ci --ignore-scripts")
    port = _free_port()
    words = [str(BINARY), "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(CHAIN_ID)]
    words += ["--slots-in-an-epoch", "2", "--silent", *([] if automine else ["--no-mining"]), *more]
    if state is not None:
        words += ["--state", str(state), "--state-interval", "1"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    chain = Anvil(f"http://127.0.0.1:{port}", process)
    try:
        _wait_for(chain)
        yield chain
    finally:
        chain.close()
        process.kill()
        process.wait()


def _wait_for(chain: Anvil) -> None:
    until = time.monotonic() + _STARTS_S
    while True:
        try:
            assert int(chain.rpc("eth_chainId"), 16) == CHAIN_ID
            return
        except httpx.TransportError:
            if time.monotonic() > until or chain.process.poll() is not None:
                pytest.fail("anvil does not answer")
            time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
