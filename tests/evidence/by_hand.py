"""Anchoring without the anchor: one transaction on a real chain, written into a real database, step by step.

Whoever tests evidence needs an aggregate that is anchored, not the actor that does it. The key is made here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import trio
from coincurve import PrivateKey

from actors.chain import Taken, TransactionReceipt
from contracts import artefact
from journal.aio import open_loop
from journal.anchor_port import Anchor, AnchorTransaction, AnchorTransition, Lease, PlannedBatch
from journal.anchors import PostgresAnchorJournal, open_anchor_journal
from journal.port import AuditEntry, Stored
from tests.anvil import CHAIN_ID, Anvil
from transport.chain.opening import open_chain
from transport.chain.rpc_chain import RpcChain
from ves import anchor_calls
from ves.anchor_transactions import (
    UnsignedTransaction,
    signed_bytes,
    signing_digest,
    transaction_hash,
)
from ves.anchoring import aggregate_root, anchor_leaf
from ves.records import Commitment
from ves.secp256k1 import address_of

_CALL_S = 10.0
_GAS = 3_000_000
_FEE = 10**10


@dataclass
class ByHand:
    """``commitments`` in one aggregate, ours among leaves of nobody's, so that paths have steps."""

    chain: Anvil
    dsn: str
    key: PrivateKey = field(default_factory=lambda: PrivateKey(os.urandom(32)))
    contract: bytes = b""

    @property
    def account(self) -> bytes:
        return address_of(self.key.public_key.format(compressed=False))

    def anchor(self, commitments: list[Commitment]) -> TransactionReceipt:
        """Deploys first. The anchor is ``included``, not more, afterwards."""
        self.chain.fund(self.account)
        return trio.run(self._anchor, commitments)

    async def _anchor(self, commitments: list[Commitment]) -> TransactionReceipt:
        async with (
            open_loop(),
            open_anchor_journal(self.dsn, holder=os.urandom(16)) as journal,
            open_chain([self.chain.url], CHAIN_ID, _CALL_S) as chain,
        ):
            holder = os.urandom(16)
            lease = await journal.claim_lease(holder, lease_s=60)
            assert isinstance(lease, Lease)
            await self._deploy(chain)
            receipt = await self._send(journal, chain, lease, commitments)
            await journal.release_lease(lease)
            return receipt

    async def _deploy(self, chain: RpcChain) -> None:
        data = anchor_calls.deployment(artefact.creation_code(), permissionless=False)
        raw = self._signed(0, None, data)
        assert await chain.send(raw) == Taken()
        assert (await _mined(chain, transaction_hash(raw))).succeeded
        told = self.chain.rpc("eth_getTransactionReceipt", "0x" + transaction_hash(raw).hex())
        self.contract = bytes.fromhex(told["contractAddress"][2:])

    def _signed(self, nonce: int, to: bytes | None, data: bytes) -> bytes:
        unsigned = UnsignedTransaction(CHAIN_ID, nonce, _FEE, 2 * _FEE, _GAS, to, data)
        signature = self.key.sign_recoverable(signing_digest(unsigned), hasher=None)
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        return signed_bytes(unsigned, signature[64], r, s)

    async def _send(
        self, journal: PostgresAnchorJournal, chain: RpcChain, lease: Lease, commitments: list[Commitment]
    ) -> TransactionReceipt:
        leaves = [anchor_leaf(CHAIN_ID, self.contract, one) for one in commitments]
        root, count = aggregate_root(leaves), len(leaves)
        standing = await journal.standing(CHAIN_ID, self.contract, self.account)
        number = standing.next_anchor_number
        plan = Anchor(number, CHAIN_ID, self.contract, "aggregate", count, root, 0, bytes(32))
        batches = [PlannedBatch(one.batch_id, leaf) for one, leaf in zip(commitments, leaves, strict=True)]
        assert isinstance(await journal.plan(lease, plan, batches), Stored)
        raw = self._signed(1, self.contract, anchor_calls.anchor_many(root, count, 0))
        tx_hash = transaction_hash(raw)
        transaction = AnchorTransaction(
            *(CHAIN_ID, self.account, 1, 1, number, "anchor", tx_hash, raw, _GAS, 2 * _FEE, _FEE)
        )
        audit = AuditEntry("anchor", "anchor.sign", "test", None)
        assert isinstance(await journal.write_transaction(lease, transaction, audit), Stored)
        assert await chain.send(raw) == Taken()
        assert isinstance(
            await journal.move(lease, AnchorTransition(number, 2, "submitted", tx_hash=tx_hash)), Stored
        )
        receipt = await _mined(chain, tx_hash)
        assert receipt.succeeded
        included = AnchorTransition(
            anchor_number=number,
            transition_number=3,
            state="included",
            tx_hash=tx_hash,
            block_number=receipt.block_number,
            block_hash=receipt.block_hash,
            gas_used=receipt.gas_used,
            effective_gas_price=receipt.effective_gas_price,
        )
        inclusion = await chain.inclusion(receipt)
        assert isinstance(await journal.move(lease, included, inclusion), Stored)
        return receipt


async def _mined(chain: RpcChain, tx_hash: bytes) -> TransactionReceipt:
    """The block comes right after the answer to the transaction, not always before it."""
    with trio.fail_after(_CALL_S):
        while (receipt := await chain.receipt(tx_hash)) is None:  # noqa: ASYNC110  nothing tells us
            await trio.sleep(0.02)
    return receipt
