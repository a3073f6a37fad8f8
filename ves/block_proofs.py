"""A receipt in a block, proven to somebody who believes nobody: header, receipts trie, receipt, logs.

    block_hash   = Keccak-256(header)                         header: RLP list, receiptsRoot is its 6th item
    receiptsRoot = root of a Merkle-Patricia trie: RLP(transaction_index) -> receipt (EIP-2718)
    proof        = the trie's nodes from the root down; each one's Keccak-256 stands in the one before it

It alone reads headers, receipts and trie proofs. Everything in them comes from strangers: what is malformed,
too big or does not hold is a ValueError that says what, and nothing else is ever raised. That the block is
the chain's, and stays there, no proof of this kind can say: whoever wants to know has to ask the chain.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ves.rlp_reading import Item, list_of, number_of, read_list, text_of

HEADER_BYTES_MAX = 4096
"""Today's have about 600."""
RECEIPT_BYTES_MAX = 128 * 1024
"""Ours have one or two logs; one of 128 KiB would have cost millions of gas."""
PROOF_NODES_MAX = 16
"""An index of so many nibbles is beyond every block."""
NODE_BYTES_MAX = RECEIPT_BYTES_MAX + 1024
_HEADER_FIELDS = range(15, 33)
"""15 at first; 16 since London, 17 Shanghai, 20 Cancun, 21 Prague; more will come, and add at the end."""
_BLOOM_BYTES = 256
_TOPICS_MAX = 4


class BlockHeader(msgspec.Struct, frozen=True):
    block_hash: bytes
    parent_hash: bytes
    number: int
    timestamp_s: int
    receipts_root: bytes


class Log(msgspec.Struct, frozen=True):
    address: bytes
    topics: list[bytes]
    data: bytes


class Receipt(msgspec.Struct, frozen=True):
    transaction_type: int
    """0: from before EIP-2718."""
    succeeded: bool
    cumulative_gas_used: int
    """Of this and all transactions before it in the block."""
    logs: list[Log]


def keccak256(data: bytes) -> bytes:
    from eth_hash.auto import keccak  # picks its backend when imported: only who verifies waits for that

    return bytes(keccak(data))


def decode_header(raw: bytes) -> BlockHeader:
    """ValueError for bytes that are no header."""
    _at_most(raw, HEADER_BYTES_MAX, "the block header")
    items = read_list(raw)
    if len(items) not in _HEADER_FIELDS:
        raise ValueError(f"a block header of {len(items)} fields")
    return BlockHeader(
        block_hash=keccak256(raw),
        parent_hash=text_of(items[0], "parentHash", 32),
        number=number_of(items[8], "the block's number"),
        timestamp_s=number_of(items[11], "the block's timestamp"),
        receipts_root=text_of(items[5], "receiptsRoot", 32),
    )


def decode_receipt(raw: bytes) -> Receipt:
    """ValueError for bytes that are no receipt, also for one from before Byzantium, which has no status."""
    _at_most(raw, RECEIPT_BYTES_MAX, "the receipt")
    kind = raw[0] if raw and raw[0] < 0x80 else 0
    if raw[:1] == b"\0":
        raise ValueError("a receipt of transaction type 0 has no type byte")
    items = read_list(raw[1:] if kind else raw)
    if len(items) != 4:
        raise ValueError(f"a receipt of {len(items)} fields")
    status = text_of(items[0], "the receipt's status")
    if status not in (b"", b"\x01"):
        raise ValueError("the receipt's status is neither 0 nor 1")
    text_of(items[2], "the receipt's bloom", _BLOOM_BYTES)
    return Receipt(
        transaction_type=kind,
        succeeded=status == b"\x01",
        cumulative_gas_used=number_of(items[1], "cumulativeGasUsed"),
        logs=[_log(item) for item in list_of(items[3], "the receipt's logs")],
    )


def verify_receipt_proof(
    header: bytes, block_hash: bytes, transaction_index: int, receipt: bytes, proof: Sequence[bytes]
) -> BlockHeader:
    """The header, once it has this hash and its receipts trie holds this receipt at this index, proven by
    exactly these nodes. ValueError says what does not hold."""
    read = decode_header(header)
    if read.block_hash != block_hash:
        raise ValueError("the block header does not have this hash")
    decode_receipt(receipt)
    if _value_at(read.receipts_root, _index_key(transaction_index), proof) != receipt:
        raise ValueError("the receipts trie holds another receipt at this index")
    return read


def _log(item: Item) -> Log:
    parts = list_of(item, "a log")
    if len(parts) != 3:
        raise ValueError(f"a log of {len(parts)} fields")
    topics = list_of(parts[1], "a log's topics")
    if len(topics) > _TOPICS_MAX:
        raise ValueError(f"a log with {len(topics)} topics")
    return Log(
        address=text_of(parts[0], "a log's address", 20),
        topics=[text_of(topic, "a topic", 32) for topic in topics],
        data=text_of(parts[2], "a log's data"),
    )


def _index_key(transaction_index: int) -> bytes:
    """RLP of the index."""
    if not 0 <= transaction_index < 2**32:
        raise ValueError(f"no transaction index: {transaction_index}")
    digits = transaction_index.to_bytes((transaction_index.bit_length() + 7) // 8, "big")
    return digits if len(digits) == 1 and digits[0] < 0x80 else bytes([0x80 + len(digits)]) + digits


def _value_at(root: bytes, key: bytes, proof: Sequence[bytes]) -> bytes:
    """What the trie holds under the key. No key begins another and no receipt is shorter than a hash, so
    every node is named by its hash, and every value is a leaf's."""
    if len(proof) > PROOF_NODES_MAX:
        raise ValueError(f"a proof of more than {PROOF_NODES_MAX} nodes")
    wanted, path = root, key.hex()
    for height, raw in enumerate(proof, 1):
        _at_most(raw, NODE_BYTES_MAX, "a trie node")
        if keccak256(raw) != wanted:
            raise ValueError(f"node {height} of the proof is not the one that its parent names")
        node = read_list(raw)
        if len(node) == 17:
            if not path:
                raise ValueError("the key ends in a branch")
            wanted, path = text_of(node[int(path[0], 16)], "a branch's child", 32), path[1:]
            continue
        is_leaf, walked = _compact(node)
        if is_leaf:
            if walked != path or height != len(proof):
                raise ValueError("the proof ends at another index, or goes on below its leaf")
            return text_of(node[1], "a leaf's value")
        if not walked or not path.startswith(walked):
            raise ValueError("the trie has nothing at this index")
        wanted, path = text_of(node[1], "an extension's child", 32), path[len(walked) :]
    raise ValueError("the proof ends above its leaf")


def _compact(node: list[Item]) -> tuple[bool, str]:
    """Whether a node of two is a leaf, and the nibbles it walks (hex-prefix encoding)."""
    if len(node) != 2:
        raise ValueError(f"a trie node of {len(node)} items")
    digits = text_of(node[0], "a node's path").hex()
    if digits[:2] in ("00", "20"):
        return digits[0] == "2", digits[2:]
    if digits[:1] in ("1", "3"):
        return digits[0] == "3", digits[1:]
    raise ValueError("a trie node's path has no such prefix")


def _at_most(raw: bytes, bytes_max: int, what: str) -> None:
    if len(raw) > bytes_max:
        raise ValueError(f"{what} has more than {bytes_max} bytes")
