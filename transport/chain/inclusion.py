"""The proof that a receipt stands in a block: fetched from one endpoint, rebuilt, and verified before anybody
believes it.

It alone decides what to ask for it. What endpoints offer differs: all receipts of a block as JSON, as bytes,
or one by one; a header as JSON, or as bytes where a chain's headers have members we do not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
import trio

from actors.chain import TransactionReceipt
from transport.chain.blocks_rebuilt import cumulative_gas_of, header_of, prove, receipt_bytes
from transport.chain.endpoint import Endpoint, EndpointAway, EndpointRefuses, EndpointTrouble
from transport.chain.wire import (
    TRANSACTIONS_MAX,
    BlockFields,
    Data,
    ReceiptFields,
    decode,
    octets,
    quantity,
)
from ves.anchor_records import Inclusion
from ves.block_proofs import decode_header, decode_receipt, keccak256, verify_receipt_proof

T = TypeVar("T")

_ONE_BY_ONE_MAX = 2000
"""Receipts fetched singly, where an endpoint gives no others."""
_AT_ONCE = 8

_Receipts = Annotated[list[ReceiptFields], msgspec.Meta(max_length=TRANSACTIONS_MAX)]
_RawReceipts = Annotated[list[Data], msgspec.Meta(max_length=TRANSACTIONS_MAX)]


async def inclusion_of(receipt: TransactionReceipt, endpoint: Endpoint) -> Inclusion | None:
    """None: another block is at its number now, or none. Raises EndpointTrouble; EndpointLies for whatever
    the proof contradicts, the receipt's own status and gas included."""
    raw = await endpoint.ask("eth_getBlockByNumber", hex(receipt.block_number), False)
    block = _checked(endpoint, lambda: decode(raw, BlockFields | None))
    if block is None or octets(block.hash) != receipt.block_hash:
        return None
    header = await _header(block, endpoint)
    encoded = await _receipts(block, endpoint)
    if encoded is None:
        return None
    at = receipt.transaction_index
    named = [octets(each) for each in block.transactions[at : at + 1]]
    if at >= len(encoded) or named != [receipt.tx_hash]:
        wrong = ValueError("the transaction is not where its receipt says")
        raise endpoint.lies("eth_getBlockByNumber", wrong)
    root = decode_header(header).receipts_root
    # In a thread: a block of thousands takes a second, and the loop has others to serve.
    proof = await trio.to_thread.run_sync(
        lambda: _checked(endpoint, lambda: prove(encoded, at, root)), abandon_on_cancel=True
    )
    _checked(endpoint, lambda: verify_receipt_proof(header, receipt.block_hash, at, encoded[at], proof))
    _checked(endpoint, lambda: _same_outcome(receipt, encoded))
    return Inclusion(
        block_number=receipt.block_number,
        block_hash=receipt.block_hash,
        block_header=header,
        transaction_index=at,
        receipt=encoded[at],
        proof=proof,
    )


def _same_outcome(receipt: TransactionReceipt, encoded: list[bytes]) -> None:
    at = receipt.transaction_index
    proven = decode_receipt(encoded[at])
    if proven.succeeded != receipt.succeeded:
        raise ValueError("the transaction's receipt has another status than the one its block proves")
    before = cumulative_gas_of(encoded[at - 1]) if at else 0
    if proven.cumulative_gas_used - before != receipt.gas_used:
        raise ValueError("the transaction's receipt has another use of gas than the one its block proves")


async def _header(block: BlockFields, endpoint: Endpoint) -> bytes:
    """Bytes of the block's hash that say the same number."""
    block_hash = octets(block.hash)
    header = _checked(endpoint, lambda: header_of(block))
    if keccak256(header) != block_hash:
        header = await _raw_header(block, endpoint)
    read = _checked(endpoint, lambda: decode_header(header))
    if read.block_hash != block_hash or read.number != quantity(block.number):
        raise endpoint.lies("eth_getBlockByNumber", ValueError("the block's header does not have its hash"))
    return header


async def _raw_header(block: BlockFields, endpoint: Endpoint) -> bytes:
    try:
        raw = await endpoint.ask("debug_getRawHeader", block.number)
    except EndpointRefuses:
        wrong = ValueError("the block's header does not have its hash, and debug_getRawHeader gives no other")
        raise endpoint.lies("eth_getBlockByNumber", wrong) from None
    return _checked(endpoint, lambda: octets(decode(raw, Data)))


async def _receipts(block: BlockFields, endpoint: Endpoint) -> list[bytes] | None:
    """All of the block's, in order, as they stand in the trie; None: the block went while we asked."""
    for ask in (_by_block, _by_block_raw):
        try:
            found = await ask(block, endpoint)
        except EndpointRefuses:
            continue
        return found
    return await _one_by_one(block, endpoint)


async def _by_block(block: BlockFields, endpoint: Endpoint) -> list[bytes] | None:
    raw = await endpoint.ask("eth_getBlockReceipts", block.number)
    found = _checked(endpoint, lambda: decode(raw, _Receipts | None))
    if found is None or any(octets(each.block_hash) != octets(block.hash) for each in found):
        await _refuse_unless_gone(block, endpoint)
        return None
    return _checked(endpoint, lambda: [receipt_bytes(each) for each in found])


async def _by_block_raw(block: BlockFields, endpoint: Endpoint) -> list[bytes]:
    raw = await endpoint.ask("debug_getRawReceipts", block.number)
    return _checked(endpoint, lambda: [octets(each) for each in decode(raw, _RawReceipts)])


async def _refuse_unless_gone(block: BlockFields, endpoint: Endpoint) -> None:
    """Receipts of another block are no lie if the chain was reorganised between two questions."""
    raw = await endpoint.ask("eth_getBlockByNumber", block.number, False)
    again = _checked(endpoint, lambda: decode(raw, BlockFields | None))
    if again is not None and octets(again.hash) == octets(block.hash):
        raise endpoint.lies("eth_getBlockReceipts", ValueError("the receipts are another block's"))


async def _one_by_one(block: BlockFields, endpoint: Endpoint) -> list[bytes] | None:
    count = len(block.transactions)
    if count > _ONE_BY_ONE_MAX:
        raise EndpointAway(f"{endpoint.name} gives receipts one by one only, and a block has {count}")
    found: list[ReceiptFields | None] = [None] * count
    troubles: list[EndpointTrouble] = []
    limit = trio.CapacityLimiter(_AT_ONCE)

    async def fetch(at: int) -> None:
        async with limit:
            try:
                raw = await endpoint.ask("eth_getTransactionReceipt", block.transactions[at])
                found[at] = _checked(endpoint, lambda: decode(raw, ReceiptFields | None))
            except EndpointTrouble as trouble:
                troubles.append(trouble)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for at in range(count):
            nursery.start_soon(fetch, at)
    if troubles:
        raise troubles[0]
    there = [each for each in found if each is not None and octets(each.block_hash) == octets(block.hash)]
    if len(there) != count:
        await _refuse_unless_gone(block, endpoint)
        return None
    return _checked(endpoint, lambda: [receipt_bytes(each) for each in there])


def _checked(endpoint: Endpoint, read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as wrong:
        raise endpoint.lies("the proof of a receipt", wrong) from None
