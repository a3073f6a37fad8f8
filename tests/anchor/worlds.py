"""One journal and one chain in memory, commitments that wait, and anchors that live and die on them.

Time is Trio's; microseconds of journal and chain follow it. Lives end and begin as under the supervisor.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec
import trio
from coincurve import PrivateKey

from actors.anchor import Anchor
from actors.anchor_policy import AnchorPolicy
from actors.anchor_vitals import AnchorVitals
from actors.chain import ChainSigner, Signature, SignerAway
from actors.mailbox import EndOfLife, Inbox, Mailbox
from actors.security_events import SecurityEvents
from journal.anchor_port import AnchorTransition
from journal.memory import MemoryDatabase
from journal.memory_anchors import MemoryAnchorJournal
from tests.anchor.memory_chain import CONTRACT, ETHER, GWEI, MemoryChain, MemoryEndpoint
from ves.commitments import next_commitment
from ves.records import Commitment, Uuid
from ves.secp256k1 import address_of

EPOCH_US = 1_700_000_000_000_000
KEY = PrivateKey(sha256(b"the anchor of tests").digest())
ADDRESS = address_of(KEY.public_key.format(compressed=False))
REBIRTH_S = 1.0

POLICY = AnchorPolicy(
    contract=CONTRACT,
    road="aggregate",
    batch_threshold=3,
    interval_s=30.0,
    fee_target=None,
    age_max_s=600.0,
    fee_cap=100 * GWEI,
    budget_per_day=ETHER,
    stuck_s=60.0,
    finality="tags",
    confirmations=4,
    poll_s=4.0,
    lease_s=20.0,
)


def policy(**changed: Any) -> AnchorPolicy:
    return AnchorPolicy(**{**{n: getattr(POLICY, n) for n in POLICY.__dataclass_fields__}, **changed})


@dataclass
class LocalSigner:
    address: bytes = ADDRESS
    away: bool = False
    key: PrivateKey = KEY
    digests: list[bytes] = field(default_factory=list)

    async def sign(self, digest: bytes) -> Signature:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise SignerAway("the signing process does not answer")
        self.digests.append(digest)
        raw = self.key.sign_recoverable(digest, hasher=None)
        return Signature(raw[64], int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"))


@dataclass
class Node:
    """One node's anchor: its vitals, its way to chain and journal, its lives."""

    journal: MemoryAnchorJournal
    endpoint: MemoryEndpoint
    signer: LocalSigner
    vitals: AnchorVitals
    security: SecurityEvents
    policy: AnchorPolicy
    holder: Uuid
    seed: int
    deaths: list[str] = field(default_factory=list)
    scope: trio.CancelScope | None = None
    inbox: Inbox | None = None

    def anchor(self) -> Anchor:
        @asynccontextmanager
        async def opened() -> AsyncIterator[ChainSigner]:
            if self.signer.away:
                raise SignerAway("the signing process does not start")
            yield self.signer

        return Anchor(
            journal=self.journal,
            chain=self.endpoint,
            signer=opened,
            policy=self.policy,
            vitals=self.vitals,
            security=self.security,
            holder=self.holder,
            now_us=now_us,
            chance=random.Random(self.seed),
        )

    async def live(self) -> None:
        """Life after life, until asked to stop."""
        while True:
            self.inbox = Inbox(Mailbox("anchor", letters_max=1))
            with trio.CancelScope() as self.scope:
                try:
                    await self.anchor().run(self.inbox)
                except EndOfLife:
                    return
                except Exception as error:
                    self.deaths.append(f"{type(error).__name__}: {error}")
            await trio.sleep(REBIRTH_S)

    def kill(self) -> None:
        """Now, wherever it is; another life follows."""
        if self.scope is not None:
            self.scope.cancel()

    def stop(self) -> None:
        assert self.inbox is not None
        self.inbox.request_stop(drain=False)


def now_us() -> int:
    return EPOCH_US + round(trio.current_time() * 1e6)


class World:
    def __init__(self, *, checkpoint: Callable[[str], None] = lambda name: None) -> None:
        self.database = MemoryDatabase(now_us=now_us)
        self.chain = MemoryChain()
        self.chain.fund(ADDRESS, 1000 * ETHER)
        self.chain.authorise(ADDRESS)
        self.commitments: list[Commitment] = []
        self._checkpoint = checkpoint

    def node(self, number: int = 1, *, policy: AnchorPolicy = POLICY) -> Node:
        name = bytes([number]) * 16
        return Node(
            journal=MemoryAnchorJournal(self.database, node_id=name, checkpoint=self._checkpoint),
            endpoint=MemoryEndpoint(self.chain),
            signer=LocalSigner(),
            vitals=AnchorVitals(),
            security=SecurityEvents(),
            policy=policy,
            holder=name,
            seed=number,
        )

    def commit(self, store: int = 1, *, events: int = 2, ask: bool = False) -> Commitment:
        """The next commitment of a stream."""
        tenant, store_id = bytes([9]) * 16, bytes([store]) * 16
        before = [one for one in self.commitments if one.store_id == store_id]
        start = before[-1].sequence_end + 1 if before else 1
        seed = f"{store} {start}".encode()
        commitment = next_commitment(
            batch_id=sha256(b"batch " + seed).digest()[:16],
            tenant_id=tenant,
            store_id=store_id,
            merkle_root=sha256(b"root " + seed).digest(),
            prev_state_root=before[-1].new_state_root if before else bytes(32),
            sequence_start=start,
            sequence_end=start + events - 1,
            committed_at_us=now_us(),
        )
        self.database.anchors.expect(commitment)
        self.commitments.append(commitment)
        if ask:
            self.database.anchors.requests.add(commitment.batch_id)
        return commitment

    async def pass_time(self, seconds: int) -> None:
        """Blocks come every twelve seconds."""
        for _ in range(seconds // 12):
            await trio.sleep(12)
            self.chain.mine()
        await trio.sleep(seconds % 12)

    # What is so.

    def history(self, number: int = 1) -> list[AnchorTransition]:
        return self.database.anchors.transitions[number]

    def states(self, number: int = 1) -> list[str]:
        return [one.state for one in self.history(number)]

    def all_final(self) -> bool:
        tables = self.database.anchors
        return not tables.waiting() and not tables.open_anchors()


def with_fields(value: Any, **changed: Any) -> Any:
    return msgspec.structs.replace(value, **changed)


@asynccontextmanager
async def living(*nodes: Node) -> AsyncIterator[None]:
    """Their lives go on until the end of the block, which is an orderly stop."""
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.live)
        await trio.sleep(0.001)
        yield
        for node in nodes:
            node.stop()
        nursery.cancel_scope.deadline = trio.current_time() + 300
