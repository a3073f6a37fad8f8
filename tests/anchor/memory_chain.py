"""A chain in memory, with the contract's rules and every way a chain lets one down, under a test's hand.

``MemoryChain`` is the chain itself: accounts, a pool, blocks that are mined by call, reorganisations.
``MemoryEndpoint`` is what the anchor speaks to: it may lag, lie, be away before or after it did what it was
asked, speak of another chain. Deterministic; nothing here moves by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal

import msgspec
import trio

from actors.chain import (
    Block,
    BlockTag,
    ChainAway,
    ChainLies,
    ChainNotOurs,
    FeeQuote,
    NonceUsed,
    Reverted,
    SendAnswer,
    Taken,
    TooPoor,
    TransactionReceipt,
    Underpriced,
)
from ves.anchor_calls import (
    AGGREGATE_HEAD,
    AGGREGATED_COUNT,
    PERMISSIONLESS,
    SELECTORS,
    number_word,
)
from ves.anchor_records import Inclusion
from ves.anchor_transactions import SignedTransaction, transaction_hash
from ves.anchor_transactions import decode_transaction as decode_anew
from ves.anchor_transactions import sender_of as find_sender
from ves.anchoring import AGGREGATE_LEAVES_MAX, aggregate_head
from ves.commitments import state_root, stream_id

CHAIN_ID = 84_532_001
CONTRACT = bytes.fromhex("c0" * 20)
BLOCK_S = 12
GAS = 96_000
GWEI = 10**9
ETHER = 10**18
decode_transaction = lru_cache(10_000)(decode_anew)
sender_of = lru_cache(10_000)(find_sender)
ANCHOR = SELECTORS["anchor(bytes32,bytes32,bytes32,bytes32,bytes32,uint64,uint64,uint32)"]
ANCHOR_MANY = SELECTORS["anchorMany(bytes32,uint32,uint64)"]
IS_SEQUENCER = SELECTORS["isSequencer(address)"]
FINAL_DEPTH, SAFE_DEPTH = 4, 2


class Contract(msgspec.Struct):
    """What is stored. A copy of it stands at every block."""

    paused: bool = False
    permissionless: bool = False
    sequencers: frozenset[bytes] = frozenset()
    count: int = 0
    head: bytes = bytes(32)
    roots: dict[bytes, int] = {}
    commitments: dict[bytes, bytes] = {}
    """Of the single road: batch's word -> its calldata."""
    streams: dict[bytes, tuple[int, bytes]] = {}
    """Latest sequence and state root."""

    def copy(self) -> Contract:
        return msgspec.structs.replace(
            self, roots={**self.roots}, commitments={**self.commitments}, streams={**self.streams}
        )

    def run(self, sender: bytes, data: bytes) -> bytes | str:
        """Its answer, or a reason; changes itself only in the first case."""
        selector, words = data[:4], [data[n : n + 32] for n in range(4, len(data), 32)]
        if selector == AGGREGATED_COUNT:
            return number_word(self.count)
        if selector == AGGREGATE_HEAD:
            return self.head
        if selector == PERMISSIONLESS:
            return number_word(self.permissionless)
        if selector == IS_SEQUENCER:
            return number_word(words[0][12:] in self.sequencers)
        if selector == ANCHOR_MANY:
            return self._anchor_many(sender, words) or b""
        if selector == ANCHOR:
            return self._anchor(sender, words, data) or b""
        return "no such function"

    def _anchor_many(self, sender: bytes, words: list[bytes]) -> str | None:
        root, count, first = words[0], int.from_bytes(words[1], "big"), int.from_bytes(words[2], "big")
        if self.paused:
            return "Paused"
        if sender not in self.sequencers:
            return "Not authorized"
        if not 0 < count <= AGGREGATE_LEAVES_MAX:
            return "Wrong count"
        if first != self.count:
            return "Wrong first index"
        if root in self.roots:
            return "Already anchored"
        self.head = aggregate_head(self.head, root, first, count)
        self.count += count
        self.roots[root] = first
        return None

    def _anchor(self, sender: bytes, words: list[bytes], data: bytes) -> str | None:
        batch, tenant, store, events_root, wanted_root = words[:5]
        start, end, count = (int.from_bytes(word, "big") for word in words[5:])
        latest, last_root = self.streams.get(tenant + store, (0, bytes(32)))
        if self.paused:
            return "Paused"
        if sender not in self.sequencers and not self.permissionless:
            return "Not authorized"
        if batch in self.commitments:
            return "Already anchored"
        if start != latest + 1 or count != end - start + 1:
            return "Not contiguous"
        stream = stream_id(tenant[:16], store[:16])
        root = state_root(stream, last_root, events_root, start, end, count)
        if root != wanted_root:
            return "Wrong state root"
        self.commitments[batch] = data
        self.streams[tenant + store] = (end, root)
        return None


class Mined(msgspec.Struct, frozen=True):
    raw: bytes
    receipt: TransactionReceipt


class MemoryBlock(msgspec.Struct, frozen=True):
    block: Block
    mined: list[Mined]
    contract: Contract
    nonces: dict[bytes, int]
    balances: dict[bytes, int]


@dataclass
class MemoryChain:
    base_fee: int = GWEI
    tip: int = GWEI // 10
    knows_tags: bool = True
    blocks: list[MemoryBlock] = field(default_factory=list)
    pool: dict[bytes, bytes] = field(default_factory=dict)
    """Raw transactions by hash."""
    forks: int = 0
    """Block hashes of another fork are others."""
    refuse_next: str | None = None
    """The contract refuses the next transaction although it takes the call: somebody paused it in between."""
    sent: list[bytes] = field(default_factory=list)
    """All that any endpoint was given, ever."""
    owner: Contract = field(default_factory=Contract)
    """What the contract's owner has set, from the next block on."""
    on_take: Callable[[bytes], None] = lambda raw: None
    floor: int = 0
    """Least fee per gas that the pool takes."""

    def __post_init__(self) -> None:
        self.blocks.append(MemoryBlock(self._header([]), [], Contract(), {}, {}))

    @property
    def latest(self) -> MemoryBlock:
        return self.blocks[-1]

    def fund(self, address: bytes, wei: int) -> None:
        self.latest.balances[address] = self.latest.balances.get(address, 0) + wei

    def authorise(self, address: bytes) -> None:
        self.owner.sequencers |= {address}
        self._apply_owner(self.latest.contract)

    def forbid(self, address: bytes) -> None:
        self.owner.sequencers -= {address}
        self._apply_owner(self.latest.contract)

    def set_paused(self, paused: bool) -> None:
        self.owner.paused = paused
        self._apply_owner(self.latest.contract)

    def _apply_owner(self, contract: Contract) -> None:
        contract.paused = self.owner.paused
        contract.permissionless = self.owner.permissionless
        contract.sequencers = self.owner.sequencers

    def _header(self, hashes: list[bytes]) -> Block:
        number = len(self.blocks)
        parent = self.blocks[-1].block.block_hash if self.blocks else bytes(32)
        seed = parent + number.to_bytes(8, "big") + self.forks.to_bytes(8, "big") + b"".join(hashes)
        return Block(number, sha256(seed).digest(), parent, number * BLOCK_S, self.base_fee)

    def mine(self, count: int = 1, *, empty: bool = False) -> None:
        for _ in range(count):
            self._mine_one([] if empty else self._ready())

    def _ready(self) -> list[bytes]:
        """Of each account the next nonce, while it pays the base fee, then the one after it."""
        nonces = dict(self.latest.nonces)
        chosen = []
        for raw, signed in sorted(
            ((raw, decode_transaction(raw)) for raw in self.pool.values()), key=lambda pair: _order(pair[1])
        ):
            sender = sender_of(signed)
            if signed.unsigned.nonce != nonces.get(sender, 0):
                continue
            if signed.unsigned.max_fee_per_gas < self.base_fee:
                continue
            nonces[sender] = signed.unsigned.nonce + 1
            chosen.append(raw)
        return chosen

    def _mine_one(self, raws: list[bytes]) -> None:
        before = self.latest
        contract, nonces, balances = before.contract.copy(), dict(before.nonces), dict(before.balances)
        self._apply_owner(contract)
        header = self._header([transaction_hash(raw) for raw in raws])
        mined = []
        for index, raw in enumerate(raws):
            signed = decode_transaction(raw)
            sender = sender_of(signed)
            price = min(
                signed.unsigned.max_fee_per_gas, self.base_fee + signed.unsigned.max_priority_fee_per_gas
            )
            refused, self.refuse_next = self.refuse_next, None
            answer = refused or contract.run(sender, signed.unsigned.data)
            if signed.unsigned.to != CONTRACT:
                answer = b""
            nonces[sender] = signed.unsigned.nonce + 1
            balances[sender] = balances.get(sender, 0) - GAS * price
            receipt = TransactionReceipt(
                transaction_hash(raw),
                isinstance(answer, bytes),
                header.number,
                header.block_hash,
                index,
                GAS,
                price,
            )
            mined.append(Mined(raw, receipt))
        self.blocks.append(MemoryBlock(header, mined, contract, nonces, balances))
        for held, raw in list(self.pool.items()):
            signed = decode_transaction(raw)
            if signed.unsigned.nonce < nonces.get(sender_of(signed), 0):
                del self.pool[held]

    def reorg(self, depth: int, *, back_to_pool: bool) -> None:
        """The newest ``depth`` blocks are gone, and as many empty ones come in their place."""
        depth = min(depth, len(self.blocks) - 1)
        gone = self.blocks[len(self.blocks) - depth :]
        del self.blocks[len(self.blocks) - depth :]
        self.forks += 1
        if back_to_pool:
            for block in gone:
                for one in block.mined:
                    self.pool[one.receipt.tx_hash] = one.raw
        self.mine(depth, empty=True)

    def drop_pool(self) -> None:
        self.pool.clear()

    def receipt(self, tx_hash: bytes) -> TransactionReceipt | None:
        found = [m.receipt for b in self.blocks for m in b.mined if m.receipt.tx_hash == tx_hash]
        return found[0] if found else None

    def mined(self) -> list[Mined]:
        return [one for block in self.blocks for one in block.mined]

    def take(self, raw: bytes) -> SendAnswer:
        self.sent.append(raw)
        self.on_take(raw)
        tx_hash, signed = transaction_hash(raw), decode_transaction(raw)
        sender, unsigned = sender_of(signed), signed.unsigned
        if tx_hash in self.pool:
            return Taken()
        if unsigned.nonce < self.latest.nonces.get(sender, 0):
            return Taken() if self.receipt(tx_hash) is not None else NonceUsed()
        if unsigned.gas_limit * unsigned.max_fee_per_gas > self.latest.balances.get(sender, 0):
            return TooPoor()
        if unsigned.max_fee_per_gas < self.floor:
            return Underpriced()
        rival = self._rival(sender, unsigned.nonce)
        if rival is not None:
            theirs = decode_transaction(self.pool[rival]).unsigned
            if (
                unsigned.max_fee_per_gas * 10 < theirs.max_fee_per_gas * 11
                or unsigned.max_priority_fee_per_gas * 10 < theirs.max_priority_fee_per_gas * 11
            ):
                return Underpriced()
            del self.pool[rival]
        self.pool[tx_hash] = raw
        return Taken()

    def _rival(self, sender: bytes, nonce: int) -> bytes | None:
        for tx_hash, raw in self.pool.items():
            signed = decode_transaction(raw)
            if (sender_of(signed), signed.unsigned.nonce) == (sender, nonce):
                return tx_hash
        return None


def _order(signed: SignedTransaction) -> tuple[int, int]:
    return signed.unsigned.nonce, -signed.unsigned.max_fee_per_gas


EndpointFault = Literal["away", "away after", "lies", "another chain"]


class MemoryEndpoint:
    """A ``Chain``. ``faults``: what happens to the next calls, in order; None lets one pass."""

    def __init__(self, chain: MemoryChain) -> None:
        self.chain_id = CHAIN_ID
        self.chain = chain
        self.away = False
        self.lag = 0
        """Blocks that this endpoint has not seen yet."""
        self.faults: deque[EndpointFault | None] = deque()
        self.latency_s = 0.0
        self.calls = 0

    async def block(self, which: BlockTag | int) -> Block | None:
        return await self._answer(lambda: self._block(which))

    async def nonce_of(self, address: bytes) -> int:
        return await self._answer(lambda: self._seen()[-1].nonces.get(address, 0))

    async def balance_of(self, address: bytes) -> int:
        return await self._answer(lambda: self._seen()[-1].balances.get(address, 0))

    async def code_at(self, address: bytes) -> bytes:
        return await self._answer(lambda: b"\x60" if address == CONTRACT else b"")

    async def fees(self) -> FeeQuote:
        return await self._answer(lambda: FeeQuote(self.chain.base_fee, self.chain.tip))

    async def call(
        self, to: bytes, data: bytes, *, sender: bytes | None = None, block: BlockTag | int = "latest"
    ) -> bytes | Reverted:
        return await self._answer(lambda: self._call(data, sender or bytes(20), block))

    async def estimate_gas(self, sender: bytes, to: bytes | None, data: bytes) -> int | Reverted:
        def estimated() -> int | Reverted:
            answer = self._call(data, sender, "latest")
            return answer if isinstance(answer, Reverted) else GAS

        return await self._answer(estimated)

    async def send(self, raw: bytes) -> SendAnswer:
        return await self._answer(lambda: self.chain.take(raw))

    async def receipt(self, tx_hash: bytes) -> TransactionReceipt | None:
        return await self._answer(lambda: self._receipt(tx_hash))

    async def is_known(self, tx_hash: bytes) -> bool:
        return await self._answer(lambda: tx_hash in self.chain.pool or self._receipt(tx_hash) is not None)

    async def inclusion(self, receipt: TransactionReceipt) -> Inclusion | None:
        return await self._answer(lambda: self._inclusion(receipt))

    async def _answer(self, answer: Any) -> Any:
        """What the port says, unless a fault says otherwise. "away after": it is done, and nobody hears."""
        self.calls += 1
        await trio.sleep(self.latency_s)
        fault = self.faults.popleft() if self.faults else None
        if fault == "away" or self.away:
            raise ChainAway("the endpoint does not answer")
        if fault == "lies":
            raise ChainLies("the proof does not hold")
        if fault == "another chain":
            raise ChainNotOurs("the endpoint speaks of chain 1")
        found = answer()
        if fault == "away after":
            raise ChainAway("the endpoint did not answer in time")
        return found

    def _seen(self) -> list[MemoryBlock]:
        return self.chain.blocks[: max(1, len(self.chain.blocks) - self.lag)]

    def _block(self, which: BlockTag | int) -> Block | None:
        seen = self._seen()
        if which == "latest":
            return seen[-1].block
        if isinstance(which, int):
            return seen[which].block if 0 <= which < len(seen) else None
        if not self.chain.knows_tags:
            return None
        return seen[max(0, len(seen) - 1 - (SAFE_DEPTH if which == "safe" else FINAL_DEPTH))].block

    def _call(self, data: bytes, sender: bytes, block: BlockTag | int) -> bytes | Reverted:
        seen = self._seen()
        state = seen[block if isinstance(block, int) else -1].contract.copy()
        answer = state.run(sender, data)
        return answer if isinstance(answer, bytes) else Reverted(answer)

    def _receipt(self, tx_hash: bytes) -> TransactionReceipt | None:
        found = [m.receipt for b in self._seen() for m in b.mined if m.receipt.tx_hash == tx_hash]
        return found[0] if found else None

    def _inclusion(self, receipt: TransactionReceipt) -> Inclusion | None:
        if self._receipt(receipt.tx_hash) != receipt:
            return None
        return Inclusion(
            receipt.block_number, receipt.block_hash, b"header", receipt.transaction_index, b"\2receipt", []
        )
