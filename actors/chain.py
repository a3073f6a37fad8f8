"""What the anchor asks of an EVM chain and of whoever holds its key: two ports, their values and failures.

``transport.chain`` answers the first over JSON-RPC, an in-memory chain in deterministic simulation;
``actors.chain_signer`` answers the second through a process of its own. Amounts are wei, block times are
seconds since the Unix epoch, addresses are 20 bytes, hashes 32. Every call ends within its deadline.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from ves.anchor_records import Inclusion

BlockTag = Literal["latest", "safe", "finalized"]


class ChainAway(Exception):
    """No endpoint answered in time, or none that we believe: nothing is known. What was sent may be there or
    not; look again later."""


class ChainNotOurs(Exception):
    """An endpoint speaks of another chain than the configured one: nothing of it was believed. It takes an
    operator."""


class ChainLies(Exception):
    """What an endpoint said contradicts itself, the proof it gave, or another endpoint: nothing of it was
    believed. The text says what."""


class SignerAway(Exception):
    """The key could not be used now: the device, service or process does not answer. Nothing was signed that
    anybody has seen."""


class SignerRefused(Exception):
    """The key will not sign: a wrong password or PIN, no such key, a policy. It takes an operator; the text
    says what helps and holds no secret."""


class Block(msgspec.Struct, frozen=True):
    number: int
    block_hash: bytes
    parent_hash: bytes
    timestamp_s: int
    base_fee_per_gas: int
    """0 on a chain without EIP-1559."""


class TransactionReceipt(msgspec.Struct, frozen=True):
    """What became of a transaction that a block includes."""

    tx_hash: bytes
    succeeded: bool
    """False: mined and reverted; the nonce is used, the gas is paid, nothing happened."""
    block_number: int
    block_hash: bytes
    transaction_index: int
    gas_used: int
    effective_gas_price: int


class FeeQuote(msgspec.Struct, frozen=True):
    """Wei per gas (EIP-1559): the next block's base fee, and what others tip now."""

    base_fee_per_gas: int
    max_priority_fee_per_gas: int


class Reverted(msgspec.Struct, frozen=True):
    """The contract would refuse, or has refused."""

    reason: str
    """Its text for Error(string), else the data in hex, shortened."""


# Answers to ``send``. None of them says that the transaction will be mined.


class Taken(msgspec.Struct, frozen=True):
    """It is in the endpoint's pool now, or was already, or is mined."""


class NonceUsed(msgspec.Struct, frozen=True):
    """A block includes a transaction of this nonce, this one or another."""


class Underpriced(msgspec.Struct, frozen=True):
    """Its fees are below the pool's floor, or do not replace the one that waits with this nonce."""


class TooPoor(msgspec.Struct, frozen=True):
    """The account cannot pay for it."""


class SendRefused(msgspec.Struct, frozen=True):
    """For another reason, in the endpoint's words, shortened."""

    why: str


SendAnswer = Taken | NonceUsed | Underpriced | TooPoor | SendRefused


class Chain(Protocol):
    """One chain, whichever endpoint answers; ``chain_id`` was compared before anything else was believed.
    Every method raises ChainAway, ChainNotOurs, ChainLies."""

    chain_id: int

    async def block(self, which: BlockTag | int) -> Block | None:
        """None: there is none (yet), or the chain does not know the tag."""
        ...

    async def nonce_of(self, address: bytes) -> int:
        """How many transactions of the account are in blocks, as of the latest one."""
        ...

    async def balance_of(self, address: bytes) -> int: ...

    async def code_at(self, address: bytes) -> bytes:
        """Empty: no contract there."""
        ...

    async def fees(self) -> FeeQuote: ...

    async def call(
        self, to: bytes, data: bytes, *, sender: bytes | None = None, block: BlockTag | int = "latest"
    ) -> bytes | Reverted:
        """Runs it without a transaction."""
        ...

    async def estimate_gas(self, sender: bytes, to: bytes | None, data: bytes) -> int | Reverted: ...

    async def send(self, raw: bytes) -> SendAnswer:
        """A signed transaction, given to every endpoint."""
        ...

    async def receipt(self, tx_hash: bytes) -> TransactionReceipt | None:
        """None: no block of the present chain includes it."""
        ...

    async def is_known(self, tx_hash: bytes) -> bool:
        """A block includes it, or it waits in a pool."""
        ...

    async def inclusion(self, receipt: TransactionReceipt) -> Inclusion | None:
        """The proof for this receipt, checked with ``ves.block_proofs`` before it is answered; None: its
        block is no longer there."""
        ...


class Signature(msgspec.Struct, frozen=True):
    """Over secp256k1, s in the lower half of the order (EIP-2)."""

    y_parity: int
    r: int
    s: int


class ChainSigner(Protocol):
    """Whoever holds the anchoring account's key. Every use is for the audit log, which its caller writes."""

    address: bytes
    """The account, known before the first signature."""

    async def sign(self, digest: bytes) -> Signature:
        """Over 32 bytes. Raises SignerAway, SignerRefused."""
        ...
