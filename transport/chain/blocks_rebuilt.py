"""A block's header and receipts as bytes again, out of JSON, and one receipt's proof in their trie. Pure.

Whatever an endpoint says of a block is only as good as the hash these bytes have. Whether they prove anything
is for ``ves.block_proofs``, which never sees the JSON.
"""

from __future__ import annotations

from typing import Any

from transport.chain.libraries import HexaryTrie, rlp
from transport.chain.wire import BlockFields, ReceiptFields, octets, quantity
from ves.rlp_reading import number_of, read_list

_UINT256 = 2**256


def header_of(block: BlockFields) -> bytes:
    """RLP. Members that a fork brought follow in the order of the forks; those the endpoint did not name were
    not there yet, or the hash will tell."""
    items: list[bytes] = [
        octets(block.parent_hash),
        octets(block.sha3_uncles),
        octets(block.miner),
        octets(block.state_root),
        octets(block.transactions_root),
        octets(block.receipts_root),
        octets(block.logs_bloom),
        _shortest(block.difficulty),
        _shortest(block.number),
        _shortest(block.gas_limit),
        _shortest(block.gas_used),
        _shortest(block.timestamp),
        octets(block.extra_data),
        octets(block.mix_hash),
        octets(block.nonce),
    ]
    for number in (block.base_fee_per_gas,):  # London, EIP-1559
        items += [] if number is None else [_shortest(number)]
    for word in (block.withdrawals_root,):  # Shanghai, EIP-4895
        items += [] if word is None else [octets(word)]
    for number in (block.blob_gas_used, block.excess_blob_gas):  # Cancun, EIP-4844
        items += [] if number is None else [_shortest(number)]
    # Cancun, EIP-4788; Prague, EIP-7685; Amsterdam, EIP-7928
    for word in (block.parent_beacon_block_root, block.requests_hash, block.block_access_list_hash):
        items += [] if word is None else [octets(word)]
    for number in (block.slot_number,):  # Amsterdam, EIP-7843
        items += [] if number is None else [_shortest(number)]
    return _rlp(items)


def receipt_bytes(fields: ReceiptFields) -> bytes:
    """As it stands in the trie (EIP-2718)."""
    outcome = (
        octets(fields.root) if fields.status is None and fields.root else _shortest(fields.status or "0x0")
    )
    logs = [
        [octets(log.address), [octets(each) for each in log.topics], octets(log.data)] for log in fields.logs
    ]
    items: list[Any] = [outcome, _shortest(fields.cumulative_gas_used), octets(fields.logs_bloom), logs]
    if fields.deposit_receipt_version is not None:  # the OP stack since Canyon
        items += [_shortest(fields.deposit_nonce or "0x0"), _shortest(fields.deposit_receipt_version)]
    kind = quantity(fields.type)
    if kind > 0x7F:
        raise ValueError(f"no receipt has type {kind:#x}")
    return (bytes([kind]) if kind else b"") + _rlp(items)


def cumulative_gas_of(receipt: bytes) -> int:
    """Out of bytes that the trie holds, of any size: another's receipt is not bounded as ours is."""
    items = read_list(receipt if receipt[:1] > b"\x7f" else receipt[1:])
    return number_of(items[1], "cumulative gas used") if len(items) > 1 else 0


def prove(receipts: list[bytes], index: int, receipts_root: bytes) -> list[bytes]:
    """The nodes from the root down to the receipt. ValueError when these receipts do not have this root.

    Pure Python: about a quarter of a millisecond per receipt."""
    if not all(receipts):
        raise ValueError("a receipt without a byte")
    trie: Any = HexaryTrie({})
    for at, receipt in enumerate(receipts):
        trie[_rlp(at)] = receipt
    if trie.root_hash != receipts_root:
        raise ValueError("the block's receipts do not have the root that its header names")
    return [_rlp(node) for node in trie.get_proof(_rlp(index))]


def _shortest(text: str) -> bytes:
    number = quantity(text, _UINT256)
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _rlp(item: Any) -> bytes:
    return bytes(rlp.encode(item))
