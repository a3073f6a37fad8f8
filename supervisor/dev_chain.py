"""The development chain: anvil beside the server, with a state of its own under DATA_DIR. ANCHOR=dev.

    DATA_DIR/devchain/chain.json   chain id, the contract's owner and the contract, made on first start
    DATA_DIR/devchain/state.json   anvil's own, written each second

It is on this machine and in this process's hands: nobody else witnesses it, and everything said about it says
so. Its chain id is drawn at random, so that nothing signed for it means anything elsewhere, and a chain that
lost its state is never taken for the one before. Alone starts anvil and speaks its private methods; the
anchor uses it like any other chain.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import structlog

from actors.mailbox import Inbox
from config.files import write_whole
from contracts.artefact import creation_code
from journal import embedded_child
from supervisor.shell import StartRefused
from ves.anchor_calls import address_word, calldata, deployment, number_word

log = structlog.get_logger(__name__)

BINARIES = (
    Path(__file__).resolve().parents[1] / "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil",
    Path("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"),
)
MISSING = (
    "no anvil here: npm ci --ignore-scripts (in the repository; needs Node), or set ANVIL_BIN to the program"
)
STARTS_S = 20.0
DEADLINE_S = 10.0
FUNDS_WEI = 10_000 * 10**18
FINAL_AFTER = 4
"""With two slots in an epoch the finalized block is four behind the latest."""
_IDS = (2_000_000_000, 2**31)
"""Chain ids nobody has registered, small enough for every tool."""


class DevChainError(StartRefused):
    """The development chain cannot be used; the text says why and what helps."""


class _Made(msgspec.Struct, frozen=True):
    """What is in chain.json."""

    chain_id: int
    owner: str
    contract: str | None = None


class DevChain:
    """Blocking, for before the event loop, but for ``keep``. One per DATA_DIR, whose lock its owner holds."""

    def __init__(self, data_dir: Path, *, port: int) -> None:
        """``port``: 0 lets the system choose one."""
        self._folder = data_dir.resolve() / "devchain"
        self._binary = find_anvil()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._made = self._read_or_make()
        self._port = port or _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(timeout=DEADLINE_S, trust_env=False)
        self.chain_id = self._made.chain_id
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Returns when it answers. Must be called in the thread whose end is to end it."""
        self._refuse_a_stranger()
        self._process = subprocess.Popen(  # noqa: S603 - our own argument list
            [
                *(sys.executable, "-I", "-S", embedded_child.__file__),
                *(str(os.getpid()), str(int(signal.SIGTERM)), "as-is", str(self._binary)),
                *("--host", "127.0.0.1", "--port", str(self._port), "--chain-id", str(self.chain_id)),
                *("--state", str(self._folder / "state.json"), "--state-interval", "1"),
                *("--slots-in-an-epoch", str(FINAL_AFTER // 2), "--silent", "--no-cors"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            start_new_session=True,  # a terminal's ctrl-C is for us
        )
        until = time.monotonic() + STARTS_S
        while not self._answers():
            if self._process.poll() is not None:
                raise DevChainError(f"anvil ended while starting with {self._process.returncode}")
            if time.monotonic() > until:
                raise DevChainError(f"anvil did not answer within {STARTS_S:.0f} s")
            time.sleep(0.05)

    def stop(self) -> None:
        """For good, and orderly: it writes its state. Harmless when it does not run."""
        self._client.close()
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def prepare(self, account: bytes) -> bytes:
        """The contract is there, ``account`` may anchor and can pay: answers the contract's address."""
        owner = self._made.owner
        self.rpc("anvil_setBalance", "0x" + account.hex(), hex(FUNDS_WEI))
        self.rpc("anvil_setBalance", owner, hex(FUNDS_WEI))
        self.rpc("anvil_impersonateAccount", owner)
        contract = self._made.contract
        if contract is None or self.rpc("eth_getCode", contract, "latest") == "0x":
            contract = self._deploy(owner)
        allow = calldata("setSequencer(address,bool)", address_word(account), number_word(1))
        self._must({"from": owner, "to": contract, "data": "0x" + allow.hex()})
        return bytes.fromhex(contract[2:])

    def _deploy(self, owner: str) -> str:
        receipt = self._must(
            {"from": owner, "data": "0x" + deployment(creation_code(), permissionless=False).hex()}
        )
        contract: str = receipt["contractAddress"]
        if self._made.contract not in (None, contract):
            raise DevChainError(
                f"the development chain lost its contract {self._made.contract}: remove {self._folder} for a "
                "new chain; what was anchored on the old one cannot be shown any more"
            )
        self._made = _Made(self.chain_id, owner, contract)
        write_whole(self._folder / "chain.json", msgspec.json.encode(self._made))
        return contract

    def _must(self, transaction: dict[str, str]) -> Any:
        sent = self.rpc("eth_sendTransaction", transaction)
        until = time.monotonic() + DEADLINE_S
        while (receipt := self.rpc("eth_getTransactionReceipt", sent)) is None:
            if time.monotonic() > until:
                raise DevChainError("the development chain makes no block")
            time.sleep(0.01)
        if receipt["status"] != "0x1":
            raise DevChainError("the development chain refused to set up the contract")
        return receipt

    def rpc(self, method: str, *params: Any) -> Any:
        """Raises DevChainError."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        try:
            answer = self._client.post(self.url, json=body).json()
        except (httpx.HTTPError, ValueError) as error:
            raise DevChainError(f"the development chain does not answer: {type(error).__name__}") from None
        if "error" in answer:
            raise DevChainError(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    def _answers(self) -> bool:
        with suppress(DevChainError):
            return int(self.rpc("eth_chainId"), 16) == self.chain_id
        return False

    def _refuse_a_stranger(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self._port))
            except OSError:
                raise DevChainError(
                    f"port {self._port} is taken: set ANCHOR_DEV_PORT to another one, or 0 for any"
                ) from None

    def _read_or_make(self) -> _Made:
        path = self._folder / "chain.json"
        if not path.exists():
            low, high = _IDS
            made = _Made(low + secrets.randbelow(high - low), "0x" + secrets.token_hex(20))
            write_whole(path, msgspec.json.encode(made))
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Made)
        except (OSError, msgspec.DecodeError) as error:
            raise DevChainError(f"{path} cannot be read: {error}") from None


class DevChainKeeper:
    """Keeps it running, and makes the few blocks after each transaction that finality takes: a chain on which
    nothing happens makes none."""

    def __init__(self, chain: DevChain, *, every_s: float = 1.0) -> None:
        self._chain = chain
        self._every_s = every_s

    async def run(self, inbox: Inbox) -> None:
        if not self._chain.alive():
            # Blocks the loop for a fifth of a second, in its own thread: the kernel ends anvil with it.
            self._chain.start()
        wanted = 0
        seen = 0
        async with httpx.AsyncClient(timeout=DEADLINE_S, trust_env=False) as client:
            while True:
                latest = await self._ask(client, "eth_getBlockByNumber", "latest", False)
                number = int(latest["number"], 16)
                if number < seen:
                    seen = 0  # its last second was lost
                for one in range(max(seen + 1, number - FINAL_AFTER), number + 1):
                    block = await self._ask(client, "eth_getBlockByNumber", hex(one), False)
                    wanted = one + FINAL_AFTER if block["transactions"] else wanted
                seen = number
                if number < wanted:
                    await self._ask(client, "evm_mine")
                await inbox.pause(self._every_s)

    async def _ask(self, client: httpx.AsyncClient, method: str, *params: Any) -> Any:
        if not self._chain.alive():
            raise DevChainError("anvil has ended")
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer = (await client.post(self._chain.url, json=body)).json()
        return answer["result"]


def find_anvil() -> Path:
    given = os.environ.get("ANVIL_BIN")
    for path in BINARIES if given is None else (Path(given),):
        if path.is_file() and os.access(path, os.X_OK):
            return path.resolve()
    raise DevChainError(MISSING)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
