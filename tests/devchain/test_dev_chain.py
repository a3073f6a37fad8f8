"""The development chain: real anvil, kept and prepared as ANCHOR=dev has it."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trio

from actors.mailbox import Inbox, Mailbox
from contracts.artefact import runtime_code
from supervisor.dev_chain import FINAL_AFTER, DevChain, DevChainError, DevChainKeeper
from ves.anchor_calls import is_sequencer, read_bool

ACCOUNT = secrets.token_bytes(20)
STATE_IS_WRITTEN_S = 1.6


@contextmanager
def running(data_dir: Path, port: int = 0) -> Iterator[DevChain]:
    chain = DevChain(data_dir, port=port)
    chain.start()
    try:
        yield chain
    finally:
        chain.stop()


def may_anchor(chain: DevChain, contract: bytes, account: bytes) -> bool:
    call = {"to": "0x" + contract.hex(), "data": "0x" + is_sequencer(account).hex()}
    return read_bool(bytes.fromhex(chain.rpc("eth_call", call, "latest")[2:]))


def test_it_is_prepared_once_and_found_again_after_a_stop(tmp_path: Path) -> None:
    with running(tmp_path) as chain:
        contract = chain.prepare(ACCOUNT)
        assert chain.rpc("eth_getCode", "0x" + contract.hex(), "latest") == "0x" + runtime_code().hex()
        assert may_anchor(chain, contract, ACCOUNT)
        assert not may_anchor(chain, contract, secrets.token_bytes(20))
        first = chain.chain_id
    with running(tmp_path) as chain:
        assert chain.chain_id == first
        assert chain.prepare(ACCOUNT) == contract
        assert int(chain.rpc("eth_getTransactionCount", f"0x{contract.hex()}", "latest"), 16) == 1


def test_each_install_has_a_chain_of_its_own(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    assert len({DevChain(folder, port=0).chain_id for folder in folders}) == 2


def test_a_killed_chain_goes_on_from_its_last_second(tmp_path: Path) -> None:
    with running(tmp_path) as chain:
        contract = chain.prepare(ACCOUNT)
        time.sleep(STATE_IS_WRITTEN_S)
        assert chain._process is not None
        chain._process.kill()
        chain._process.wait()
        assert not chain.alive()
        chain.start()
        assert may_anchor(chain, contract, ACCOUNT)


def test_a_chain_that_lost_its_state_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    with running(tmp_path) as chain:
        chain.prepare(ACCOUNT)
        # Something after it, so that a new contract cannot come to the same place.
        chain.prepare(ACCOUNT)
        folder = chain._folder
    (folder / "state.json").unlink()
    with running(tmp_path) as chain:
        chain.rpc("anvil_setNonce", chain._made.owner, "0x7")
        with pytest.raises(DevChainError, match=f"remove {folder}"):
            chain.prepare(ACCOUNT)


def test_a_taken_port_and_a_missing_program_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DevChainError, match=f"port {port} is taken: set ANCHOR_DEV_PORT"):
            DevChain(tmp_path, port=port).start()
    monkeypatch.setenv("ANVIL_BIN", str(tmp_path / "none"))
    with pytest.raises(DevChainError, match="npm ci --ignore-scripts"):
        DevChain(tmp_path, port=0)


async def test_its_keeper_makes_the_blocks_that_finality_takes_and_no_more(tmp_path: Path) -> None:
    with running(tmp_path) as chain:
        chain.prepare(ACCOUNT)
        latest = int(chain.rpc("eth_blockNumber"), 16)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(DevChainKeeper(chain, every_s=0.02).run, inbox())
            await becomes(
                lambda: int(chain.rpc("eth_getBlockByNumber", "finalized", False)["number"], 16) >= latest
            )
            await trio.sleep(0.3)
            nursery.cancel_scope.cancel()
        assert int(chain.rpc("eth_blockNumber"), 16) == latest + FINAL_AFTER


async def test_its_keeper_dies_with_it_and_the_next_one_starts_it_again(tmp_path: Path) -> None:
    with running(tmp_path) as chain:
        contract = chain.prepare(ACCOUNT)
        await trio.sleep(STATE_IS_WRITTEN_S)
        assert chain._process is not None
        chain._process.kill()
        chain._process.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(DevChainKeeper(chain, every_s=0.02).run, inbox())
            await becomes(lambda: chain.alive() and may_anchor(chain, contract, ACCOUNT))
            nursery.cancel_scope.cancel()


async def test_its_keeper_notices_that_it_has_died(tmp_path: Path) -> None:
    with running(tmp_path) as chain:
        assert chain._process is not None
        chain.rpc("eth_chainId")
        threading.Timer(0.3, chain._process.kill).start()
        with pytest.raises((DevChainError, httpx.HTTPError)), trio.fail_after(10):
            await DevChainKeeper(chain, every_s=0.02).run(inbox())


async def becomes(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        await trio.sleep(0.05)
    pytest.fail("not within ten seconds")


def inbox() -> Inbox:
    return Inbox(Mailbox("dev-chain", letters_max=1))


@pytest.mark.slow
def test_nothing_is_left_of_it_when_its_owner_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from supervisor.dev_chain import DevChain; "
        f"c = DevChain(Path({str(tmp_path)!r}), port=0); c.start(); "
        "print(c._process.pid, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    anvil = int(owner.stdout.readline())
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        with suppress(ProcessLookupError):
            os.kill(anvil, 0)
            time.sleep(0.05)
            continue
        return
    pytest.fail("anvil outlived its owner")
