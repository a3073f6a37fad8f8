"""A chain, a database, a server and an anchor in a process of its own, all real, and whoever attacks them.

The anchor looks at the chain through an endpoint that can be told to misbehave; blocks are made by a thread
that can be held up. ``World.verdict`` is the end of every attack: each commitment is in one anchor, that
anchor's log is on the chain exactly once, and the evidence of its events convinces two verifiers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import coincurve
import trio
from eth_hash.auto import keccak

from contracts.artefact import creation_code
from tests.anvil import CHAIN_ID, Anvil, anvil
from tests.auditor.evidence import audited
from tests.chain.bad_endpoint import BadEndpoint, bad_endpoint
from tests.e2e.nodes import Operated, operated_postgres
from tests.e2e.world import ROOMY, ROOT, Server, Tenant
from transport.chain.opening import open_chain
from transport.client.evidence_on_chain import ask_chain
from transport.client.wire import TrustFile, decode
from ves.anchor_calls import address_word, calldata, deployment, number_word
from ves.evidence import ON_CHAIN, Link, check, failed, missing
from ves.evidence_file import Evidence, read_evidence

BLOCK_S = 0.15
PATIENCE_S = 30.0
PACE = {
    "ANCHOR": "apart",
    "ANCHOR_POLL_SECS": "0.15",
    "ANCHOR_INTERVAL_SECS": "0.3",
    "ANCHOR_STUCK_SECS": "2",
    "ANCHOR_LEASE_SECS": "2",
    "ANCHOR_RPC_TIMEOUT_SECS": "2",
    "ANCHOR_FEE_CAP_GWEI": "50",
    "L2_CHAIN_ID": str(CHAIN_ID),
}
OWNER = "0x" + "0f" * 20
AGGREGATE_ANCHORED = "0x" + keccak(b"AggregateAnchored(bytes32,uint64,uint32,bytes32,bytes32,uint256)").hex()


class Miner:
    """A block every now and then, unless it is held up."""

    def __init__(self, chain: Anvil) -> None:
        self._chain = chain
        self._goes_on = threading.Event()
        self._over = threading.Event()
        self._between = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._goes_on.set()
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(BLOCK_S):
            with self._between:
                if self._goes_on.is_set():
                    self._chain.rpc("evm_mine")

    @contextmanager
    def held(self) -> Iterator[None]:
        """No block meanwhile but those a test makes."""
        with self._between:
            self._goes_on.clear()
        try:
            yield
        finally:
            self._goes_on.set()

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@dataclass
class AnchorProcess:
    """``sequencer anchor run``."""

    data_dir: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    began_at: int = 0
    """Where the log of this start, or of what a test does, begins."""

    def command(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """``sequencer anchor …`` in the same environment, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "supervisor.main", "anchor", *words],
            cwd=ROOT,
            env=self._env() | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _env(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DATABASE_"))}
        return env | self.environment

    def start(self, **more: str) -> AnchorProcess:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        with self.log.open("ab") as log:
            self.began_at = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.main", "anchor", "run"],
                cwd=ROOT,
                env=self._env() | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    @property
    def log(self) -> Path:
        return self.data_dir.with_suffix(".log")

    def said(self, text: str) -> bool:
        return text.encode() in self.log.read_bytes()[self.began_at :]

    def from_now_on(self) -> None:
        self.began_at = self.log.stat().st_size

    def ended(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill_9(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@dataclass
class World:
    chain: Anvil
    endpoint: BadEndpoint
    miner: Miner
    postgres: Operated
    server: Server
    folder: Path
    contract: str
    key: str
    account: bytes
    anchor: AnchorProcess
    others: list[AnchorProcess] = field(default_factory=list)
    committed: dict[str, tuple[Tenant, str]] = field(default_factory=dict)
    """By batch: whose it is, and one of its events."""

    # What the honest do.

    def tenant(self) -> Tenant:
        return Tenant(self.server)

    def commit(self, tenant: Tenant, events: int = 2) -> str:
        """The batch id."""
        signed = [tenant.agent.event({"n": n}) for n in range(events)]
        posted = tenant.post(*signed)
        assert posted.json()["eventsAccepted"] == events, posted.text
        made = tenant.http.post("/api/v1/ves/commitments", json=tenant.stream)
        assert made.status_code == 200, made.text
        batch_id = str(made.json()["batch_id"])
        self.committed[batch_id] = tenant, str(signed[-1]["event_id"])
        return batch_id

    def another_anchor(self, name: str) -> AnchorProcess:
        """With an identity of its own, the same account and login."""
        own = self.anchor.environment | {
            "DATA_DIR": str(self.folder / name),
            "VES_SEQUENCER_ID": str(uuid.uuid4()),
        }
        other = AnchorProcess(self.folder / name, own)
        self.others.append(other)
        return other

    # What is so.

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        return asyncio.run(_fetch(self.postgres.owner_dsn, statement, arguments))

    def state(self, batch_id: str) -> str:
        rows = self.sql(
            "SELECT t.state FROM record.anchor_batches b "
            "JOIN record.anchor_transitions t USING (anchor_number) "
            "WHERE b.batch_id = $1 ORDER BY t.transition_number DESC LIMIT 1",
            uuid.UUID(batch_id),
        )
        return str(rows[0][0]) if rows else "waiting"

    def walk(self, batch_id: str) -> list[str]:
        """All states it went through, each with its cause."""
        rows = self.sql(
            "SELECT t.state, t.cause FROM record.anchor_batches b "
            "JOIN record.anchor_transitions t USING (anchor_number) "
            "WHERE b.batch_id = $1 ORDER BY t.transition_number",
            uuid.UUID(batch_id),
        )
        return [state if cause is None else f"{state} ({cause})" for state, cause in rows]

    def never_went_back(self, batch_id: str) -> bool:
        """That it was submitted is not written down when the answer was lost: the block says it."""
        walked = [state for state in self.walk(batch_id) if state != "submitted"]
        return walked == ["pending (planned)", "included", "safe", "finalized"]

    def becomes(self, batch_id: str, *states: str, patience_s: float = PATIENCE_S) -> str:
        until = time.monotonic() + patience_s
        while (state := self.state(batch_id)) not in states:
            assert time.monotonic() < until, (
                f"{state} after {self.walk(batch_id)}, not {states}:\n{self.tail()}"
            )
            time.sleep(0.05)
        return state

    def until(self, true: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        give_up = time.monotonic() + patience_s
        while not true():
            assert time.monotonic() < give_up, self.tail()
            time.sleep(0.05)

    def says(self, text: str, anchor: AnchorProcess | None = None) -> None:
        """In the log of this start."""
        self.until(lambda: (anchor or self.anchor).said(text))

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.anchor.log.read_text(errors="replace").splitlines()[-lines:])

    def transactions(self) -> list[Any]:
        """(nonce, attempt, tx_hash, raw), as the journal has them."""
        return self.sql("SELECT nonce, attempt, tx_hash, raw FROM record.anchor_transactions ORDER BY 1, 2")

    def pooled(self) -> int:
        """Transactions that wait for a block."""
        return int(self.chain.rpc("txpool_status")["pending"], 16)

    def signers(self) -> list[int]:
        """Pids of the anchor's signing processes."""
        assert self.anchor.process is not None
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and b"chain_signer_process" in (entry / "cmdline").read_bytes():
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    found += [int(entry.name)] if parent == self.anchor.process.pid else []
        return found

    def nonce(self) -> int:
        return int(self.chain.rpc("eth_getTransactionCount", "0x" + self.account.hex(), "latest"), 16)

    # What the owner of the contract does.

    def owner_sends(self, signature: str, *words: bytes) -> None:
        send(self.chain, OWNER, self.contract, calldata(signature, *words))

    def fund_of(self, account: str, wei: int) -> None:
        self.chain.fund(bytes.fromhex(account[2:]), wei)

    def fund(self, wei: int) -> None:
        self.chain.fund(self.account, wei)

    # How it ends.

    def verdict(self, *batch_ids: str) -> None:
        for batch_id in batch_ids:
            self.becomes(batch_id, "finalized")
        self.exactly_once()
        for batch_id in batch_ids:
            self.evidence_convinces(*self.committed[batch_id])

    def evidence_convinces(self, tenant: Tenant, event_id: str) -> None:
        """Both verifiers, and the chain itself, asked without the lying endpoint."""
        raw = tenant.http.get(f"/api/v1/ves/events/{event_id}/evidence", params=tenant.stream).content
        keys = tenant.http.get("/.well-known/ves-sequencer").json()
        trust = keys | {"chain_id": CHAIN_ID, "contract": self.contract}
        evidence = read_evidence(raw)
        links = check(evidence, decode(json.dumps(trust).encode(), TrustFile, "trust").of_evidence())
        assert failed(links) + missing(links) == []
        on_chain = trio.run(self._ask_chain, evidence)
        assert {link.name: link.verdict for link in on_chain} == dict.fromkeys(ON_CHAIN, "passed")
        assert False not in audited(json.loads(raw), trust).values()

    async def _ask_chain(self, evidence: Evidence) -> list[Link]:
        async with open_chain([self.chain.url], CHAIN_ID, 5.0) as chain:
            return await ask_chain(evidence, chain)

    def exactly_once(self) -> None:
        anchors = self.sql(
            "SELECT a.root, a.first_index, a.batch_count, "
            "array_agg(b.leaf ORDER BY b.position) AS leaves FROM record.anchors a "
            "JOIN record.anchor_batches b USING (anchor_number) "
            "GROUP BY a.anchor_number ORDER BY a.first_index"
        )
        logs = self.chain.rpc(
            "eth_getLogs",
            {"address": self.contract, "fromBlock": "0x0", "topics": [AGGREGATE_ANCHORED]},
        )
        shown = [(log["topics"][1], int(log["topics"][2], 16), int(log["data"][2:66], 16)) for log in logs]
        planned = [("0x" + root.hex(), first, count) for root, first, count, _ in anchors]
        assert shown == planned
        assert [first for _, first, _ in planned] == running_sums(count for _, _, count in planned)
        for root, _, count, leaves in anchors:
            assert len(leaves) == count
            assert tree(leaves) == root
        # Blocks use the account's nonces from the first to the last, each for one of ours.
        assert self.nonce() == len({row["nonce"] for row in self.transactions()})


def running_sums(counts: Any) -> list[int]:
    sums = [0]
    for count in counts:
        sums.append(sums[-1] + count)
    return sums[:-1]


def tree(leaves: list[bytes]) -> bytes:
    """The aggregate's root, by the formulas of its documentation and none of its code."""
    level = list(leaves)
    while len(level) & (len(level) - 1):
        level.append(hashlib.sha256(b"VES_ANCHOR_PAD_LEAF_V1").digest())
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [hashlib.sha256(b"VES_ANCHOR_NODE_V1" + left + right).digest() for left, right in pairs]
    return level[0]


async def _fetch(dsn: str, statement: str, arguments: tuple[Any, ...]) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


def send(chain: Anvil, sender: str, to: str | None, data: bytes) -> Any:
    """As an account that needs no key here, and into a block at once."""
    chain.rpc("anvil_impersonateAccount", sender)
    wanted = {"from": sender, "data": "0x" + data.hex(), "gas": hex(5_000_000)} | (
        {} if to is None else {"to": to}
    )
    tx_hash = chain.rpc("eth_sendTransaction", wanted)
    for _ in range(200):
        receipt = chain.rpc("eth_getTransactionReceipt", tx_hash)
        if receipt is not None:
            assert receipt["status"] == "0x1"
            return receipt
        chain.rpc("evm_mine")
    raise AssertionError("no block takes it")


@contextmanager
def world_in(folder: Path) -> Iterator[World]:
    with ExitStack() as stack:
        chain = stack.enter_context(anvil(automine=False))
        endpoint = stack.enter_context(bad_endpoint(chain.url))
        key = secrets.token_hex(32)
        account = keccak(coincurve.PrivateKey.from_hex(key).public_key.format(compressed=False)[1:])[12:]
        chain.fund(bytes.fromhex(OWNER[2:]))
        chain.fund(account)
        made = send(chain, OWNER, None, deployment(creation_code(), permissionless=False))
        contract = str(made["contractAddress"])
        allow = calldata("setSequencer(address,bool)", address_word(account), number_word(1))
        send(chain, OWNER, contract, allow)
        postgres = stack.enter_context(operated_postgres(folder / "postgres"))
        asyncio.run(_fetch(postgres.owner_dsn, "CREATE ROLE shop_anchor LOGIN IN ROLE sequencer_anchor", ()))
        login = postgres.app_dsn.replace("shop_sequencer", "shop_anchor")
        own = PACE | {"L2_RPC_URL": endpoint.url, "SET_REGISTRY_ADDRESS": contract}
        server = postgres.node(folder / "server", **own, **ROOMY, COMMITMENT_INTERVAL_SECS="3600").start()
        stack.callback(server.kill_9)
        anchor = AnchorProcess(
            folder / "anchor",
            own
            | {
                "DATA_DIR": str(folder / "anchor"),
                "DATABASE_URL": postgres.app_dsn,
                "ANCHOR_DATABASE_URL": login,
                "SEQUENCER_PRIVATE_KEY": key,
                "PYTHONUNBUFFERED": "1",
            },
        )
        stack.callback(anchor.kill_9)
        miner = Miner(chain)
        stack.callback(miner.end)
        world = World(chain, endpoint, miner, postgres, server, folder, contract, key, account, anchor)
        stack.callback(lambda: [other.kill_9() for other in world.others])
        server.wait_ready()
        yield world
