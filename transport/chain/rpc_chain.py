"""``actors.chain.Chain`` over JSON-RPC: what is asked for each question, and how far the answer is believed.

It alone turns questions into methods and decides which answers must agree. About the present one endpoint is
believed, if it does not lag; a block that finality is judged by must be the same at every endpoint that
answers, and of ``safe`` and ``finalized`` the lowest counts; a receipt that says *reverted*, and every
inclusion, is proven against its block first. It keeps nothing but who answered when.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from actors.chain import (
    Block,
    BlockTag,
    ChainAway,
    ChainLies,
    ChainNotOurs,
    FeeQuote,
    Reverted,
    SendAnswer,
    Taken,
    TransactionReceipt,
)
from transport.chain.breaker import Breaker
from transport.chain.endpoint import Endpoint, EndpointRefuses
from transport.chain.inclusion import inclusion_of
from transport.chain.pool import Pool
from transport.chain.reverts import reverted_by
from transport.chain.send_answers import combined, meaning_of
from transport.chain.wire import (
    BlockFields,
    Data,
    FeeHistory,
    Hash,
    Quantity,
    ReceiptFields,
    TransactionFields,
    block_of,
    decode,
    hexed,
    octets,
    quantity,
    receipt_of,
    wei,
)
from ves.anchor_records import Inclusion
from ves.block_proofs import keccak256

T = TypeVar("T")

_INCLUSION_TIMES = 4
"""A proof takes several questions and big answers: so many times the deadline of one call."""
_AGREE_TRIES = 2
_AGREE_PAUSE_S = 0.5
"""Endpoints hear of a reorganisation one after the other: they are asked again before it is called a lie."""
_NO_SUCH_BLOCK = ("block not found", "unknown block", "finalized block", "safe block")
_METHOD_MISSING = -32601


class RpcChain:
    """Implements ``Chain``. Every call ends within ``timeout_s``, ``inclusion`` and ``receipt`` within five
    times that."""

    def __init__(
        self, pool: Pool, chain_id: int, timeout_s: float, breaker: Breaker, now: Callable[[], float]
    ) -> None:
        self.chain_id = chain_id
        self._pool = pool
        self._timeout_s = timeout_s
        self._breaker = breaker
        self._now = now

    @property
    def breaker_open(self) -> bool:
        """Calls are refused with ChainAway for a while, because too many failed."""
        return self._breaker.is_open

    async def block(self, which: BlockTag | int) -> Block | None:
        async with self._guarded():
            if which == "latest" or self._pool.is_alone:
                return await self._first(lambda one: self._block_at(one, which), of_the_present=False)
            for _ in range(_AGREE_TRIES - 1):
                try:
                    return await self._agreed(which)
                except ChainLies:
                    await trio.sleep(min(_AGREE_PAUSE_S, self._timeout_s / 10))
            return await self._agreed(which)

    async def nonce_of(self, address: bytes) -> int:
        return await self._present(quantity, Quantity, "eth_getTransactionCount", hexed(address), "latest")

    async def balance_of(self, address: bytes) -> int:
        return await self._present(wei, Quantity, "eth_getBalance", hexed(address), "latest")

    async def code_at(self, address: bytes) -> bytes:
        return await self._present(octets, Data, "eth_getCode", hexed(address), "latest")

    async def fees(self) -> FeeQuote:
        async with self._guarded():
            return await self._first(_fees, of_the_present=True)

    async def call(
        self, to: bytes, data: bytes, *, sender: bytes | None = None, block: BlockTag | int = "latest"
    ) -> bytes | Reverted:
        request = {"to": hexed(to), "data": hexed(data)}
        if sender is not None:
            request["from"] = hexed(sender)
        return await self._try_out(octets, Data, "eth_call", request, _block_word(block))

    async def estimate_gas(self, sender: bytes, to: bytes | None, data: bytes) -> int | Reverted:
        request = {"from": hexed(sender), "data": hexed(data)}
        if to is not None:
            request["to"] = hexed(to)
        return await self._try_out(quantity, Quantity, "eth_estimateGas", request)

    async def send(self, raw: bytes) -> SendAnswer:
        async with self._guarded():
            answers = await self._pool.every(lambda one: _send(one, raw), within_s=self._timeout_s)
            return combined([answer for _, answer in answers])

    async def receipt(self, tx_hash: bytes) -> TransactionReceipt | None:
        async with self._guarded():
            found = await self._first(lambda one: _receipt(one, tx_hash), of_the_present=True)
            if found is not None and not found.succeeded and await self._included(found) is None:
                return None
            return found

    async def is_known(self, tx_hash: bytes) -> bool:
        async with self._guarded():
            answers = await self._pool.every(lambda one: _knows(one, tx_hash), within_s=self._timeout_s)
            return any(knows for _, knows in answers)

    async def inclusion(self, receipt: TransactionReceipt) -> Inclusion | None:
        async with self._guarded():
            return await self._included(receipt)

    async def _included(self, receipt: TransactionReceipt) -> Inclusion | None:
        within_s = self._timeout_s * _INCLUSION_TIMES
        return await self._pool.first(
            lambda one: inclusion_of(receipt, one), within_s=within_s, of_the_present=True
        )

    async def _first(self, work: Callable[[Endpoint], Awaitable[T]], *, of_the_present: bool) -> T:
        return await self._pool.first(work, within_s=self._timeout_s, of_the_present=of_the_present)

    async def _present(self, made: Callable[[Any], T], as_: Any, method: str, *params: Any) -> T:
        async with self._guarded():
            return await self._first(lambda one: _asked(one, made, as_, method, *params), of_the_present=True)

    async def _try_out(self, made: Callable[[Any], T], as_: Any, method: str, *params: Any) -> T | Reverted:
        async def work(one: Endpoint) -> T | Reverted:
            try:
                return await _asked(one, made, as_, method, *params)
            except EndpointRefuses as refusal:
                reverted = reverted_by(refusal.code, refusal.message, refusal.data)
                if reverted is None:
                    raise
                return reverted

        async with self._guarded():
            return await self._first(work, of_the_present=True)

    async def _block_at(self, one: Endpoint, which: BlockTag | int) -> Block | None:
        try:
            found = await _asked(
                one, _block_or_none, BlockFields | None, "eth_getBlockByNumber", _block_word(which), False
            )
        except EndpointRefuses as refusal:
            if any(words in refusal.message.lower() for words in _NO_SUCH_BLOCK):
                return None
            raise
        if found is not None and isinstance(which, int) and found.number != which:
            raise one.lies("eth_getBlockByNumber", ValueError(f"block {found.number} is not block {which}"))
        if found is not None and which == "latest":
            self._pool.showed_head(one, found.number)
        return found

    async def _agreed(self, which: BlockTag | int) -> Block | None:
        """The one that all say who have it; of a tag, the lowest."""
        within_s = 0.9 * self._timeout_s / (2 * _AGREE_TRIES)  # two questions in each try, and the pause
        said = await self._pool.every(lambda one: self._block_at(one, which), within_s=within_s)
        there = [block for _, block in said if block is not None]
        if not there:
            return None
        lowest = min(there, key=lambda block: block.number)
        number = lowest.number
        if any(block.number != number for block in there):
            said = await self._pool.every(lambda one: self._block_at(one, number), within_s=within_s)
        hashes = {block.block_hash: one.name for one, block in said if block is not None}
        if len(hashes) > 1 or lowest.block_hash not in hashes:
            names = " and ".join(sorted(one.name for one, block in said if block is not None))
            raise ChainLies(f"{names} do not agree on block {number}")
        return lowest

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        """Raises ChainAway at once while the breaker is open; tells it how the call ended."""
        if not self._breaker.may_ask(self._now()):
            pause = self._breaker.opens_in_s(self._now())
            raise ChainAway(f"too many calls failed: the chain is left alone for another {pause:.0f} s")
        try:
            yield
        except (ChainAway, ChainLies, ChainNotOurs):
            self._breaker.failed(self._now())
            raise
        except BaseException:
            self._breaker.gave_up()
            raise
        self._breaker.succeeded()


async def _asked(one: Endpoint, made: Callable[[Any], T], as_: Any, method: str, *params: Any) -> T:
    raw = await one.ask(method, *params)
    try:
        return made(decode(raw, as_))
    except ValueError as wrong:
        raise one.lies(method, wrong) from None


def _block_or_none(fields: BlockFields | None) -> Block | None:
    return None if fields is None else block_of(fields)


def _block_word(which: BlockTag | int) -> str:
    return hex(which) if isinstance(which, int) else which


async def _receipt(one: Endpoint, tx_hash: bytes) -> TransactionReceipt | None:
    def made(fields: ReceiptFields | None) -> TransactionReceipt | None:
        return None if fields is None else receipt_of(fields, tx_hash)

    return await _asked(one, made, ReceiptFields | None, "eth_getTransactionReceipt", hexed(tx_hash))


async def _knows(one: Endpoint, tx_hash: bytes) -> bool:
    def made(fields: TransactionFields | None) -> bool:
        if fields is not None and octets(fields.hash) != tx_hash:
            raise ValueError("it names another transaction than it was asked about")
        return fields is not None

    return await _asked(one, made, TransactionFields | None, "eth_getTransactionByHash", hexed(tx_hash))


async def _send(one: Endpoint, raw: bytes) -> SendAnswer:
    def made(tx_hash: str) -> SendAnswer:
        if octets(tx_hash) != keccak256(raw):
            raise ValueError("it took another transaction than it was given")
        return Taken()

    try:
        return await _asked(one, made, Hash, "eth_sendRawTransaction", hexed(raw))
    except EndpointRefuses as refusal:
        return meaning_of(refusal.message)


async def _fees(one: Endpoint) -> FeeQuote:
    """The next block's base fee is the history's last; a chain without EIP-1559 has a gas price only."""
    base = await _if_offered(_asked(one, _last_of, FeeHistory, "eth_feeHistory", "0x1", "latest", []))
    tip = (
        await _if_offered(_asked(one, wei, Quantity, "eth_maxPriorityFeePerGas"))
        if base is not None
        else None
    )
    if base is not None and tip is not None:
        return FeeQuote(base, tip)
    price = await _asked(one, wei, Quantity, "eth_gasPrice")
    return FeeQuote(base or 0, max(price - (base or 0), 0))


async def _if_offered(question: Awaitable[T]) -> T | None:
    """None: the endpoint does not know the method."""
    try:
        return await question
    except EndpointRefuses as refusal:
        if refusal.code != _METHOD_MISSING:
            raise
        return None


def _last_of(history: FeeHistory) -> int | None:
    return wei(history.base_fee_per_gas[-1]) if history.base_fee_per_gas else None
