"""What is known of a transaction in a block, as values that evidence carries and the journal keeps."""

from __future__ import annotations

import msgspec


class Inclusion(msgspec.Struct, frozen=True):
    """Evidence that a receipt stands in a block: ``ves.block_proofs`` checks it without believing anybody."""

    block_number: int
    block_hash: bytes
    block_header: bytes
    """RLP; its Keccak-256 is ``block_hash``."""
    transaction_index: int
    receipt: bytes
    """As it stands in the trie: the transaction's type, then RLP (EIP-2718)."""
    proof: list[bytes]
    """Nodes of the receipts trie from the root down, RLP each."""
