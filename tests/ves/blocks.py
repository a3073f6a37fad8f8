"""Blocks with receipts for tests, written by libraries (rlp, trie), not by our reader."""

from __future__ import annotations

from collections.abc import Sequence

import rlp  # type: ignore[import-untyped]
from eth_hash.auto import keccak
from trie.hexary import HexaryTrie

from ves.anchor_records import Inclusion

CONTRACT = bytes(range(20))
FIELDS = {"Frontier": 15, "London": 16, "Shanghai": 17, "Cancun": 20, "Prague": 21}


def receipt(
    logs: Sequence[tuple[bytes, list[bytes], bytes]] = (), *, status: int = 1, kind: int = 2
) -> bytes:
    body = rlp.encode([status, 21_000, bytes(256), [list(log) for log in logs]])
    whole: bytes = (bytes([kind]) if kind else b"") + body
    return whole


def header(
    receipts_root: bytes, *, number: int = 7, timestamp_s: int = 1_700_000_000, fields: int = 21
) -> bytes:
    word = bytes(range(32))
    items = [word, word, bytes(20), word, word, receipts_root, bytes(256), 0, number, 30_000_000, 21_000]
    items += [timestamp_s, b"anvil", word, bytes(8)]
    items += [1_000_000_000, word, 0, 0, word, word][: fields - 15]
    encoded: bytes = rlp.encode(items)
    return encoded


def block(receipts: list[bytes], at: int, *, number: int = 7, fields: int = 21) -> Inclusion:
    """A block with these receipts, and the proof of the one at ``at``."""
    tree = HexaryTrie({})
    for index, one in enumerate(receipts):
        tree[rlp.encode(index)] = one
    raw = header(tree.root_hash, number=number, fields=fields)
    nodes = tree.get_proof(rlp.encode(at))  # type: ignore[no-untyped-call]
    return Inclusion(number, keccak(raw), raw, at, receipts[at], [rlp.encode(node) for node in nodes])
