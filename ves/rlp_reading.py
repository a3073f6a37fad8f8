"""RLP as execution clients write it, read strictly: one spelling per value, bounded, nothing left over.

It alone takes RLP apart here. It never decides what an item means: ``ves.block_proofs`` knows headers,
receipts and trie nodes. A library's reader recurses as deep as its input says: no good for a stranger's file.
Every refusal is a ValueError, of a wrong type too: the input is wrong, not the program.
"""

from __future__ import annotations

Item = bytes | list["Item"]

_DEPTH_MAX = 8
"""A receipt's topics are four lists deep."""


def read_rlp(raw: bytes) -> Item:
    """The one item that ``raw`` spells. ValueError for everything else."""
    item, end = _item(raw, 0, len(raw), _DEPTH_MAX)
    if end != len(raw):
        raise ValueError(f"{len(raw) - end} bytes follow the RLP item")
    return item


def read_list(raw: bytes) -> list[Item]:
    item = read_rlp(raw)
    if not isinstance(item, list):
        raise ValueError("an RLP list was expected, this is a string")  # noqa: TRY004
    return item


def text_of(item: Item, what: str, *lengths: int) -> bytes:
    """A string; of one of these lengths, if any is named."""
    if not isinstance(item, bytes):
        raise ValueError(f"{what} is a list")  # noqa: TRY004
    if lengths and len(item) not in lengths:
        raise ValueError(f"{what} has {len(item)} bytes, not {' or '.join(map(str, lengths))}")
    return item


def list_of(item: Item, what: str) -> list[Item]:
    if not isinstance(item, list):
        raise ValueError(f"{what} is no list")  # noqa: TRY004
    return item


def number_of(item: Item, what: str, bytes_max: int = 8) -> int:
    """Big-endian without leading zeros; zero is the empty string."""
    raw = text_of(item, what)
    if len(raw) > bytes_max or raw[:1] == b"\0":
        raise ValueError(f"{what} is no number of at most {bytes_max} bytes")
    return int.from_bytes(raw, "big")


def _item(raw: bytes, at: int, end: int, depth: int) -> tuple[Item, int]:
    if at >= end:
        raise ValueError("RLP ends early")
    first = raw[at]
    if first < 0x80:
        return raw[at : at + 1], at + 1
    is_list = first >= 0xC0
    start, length = _length(raw, at, end, first - (0xC0 if is_list else 0x80))
    after = start + length
    if after > end:
        raise ValueError("RLP ends early")
    if not is_list:
        if length == 1 and raw[start] < 0x80:
            raise ValueError("RLP spells a small byte the long way")
        return raw[start:after], after
    if depth == 0:
        raise ValueError(f"RLP is more than {_DEPTH_MAX} lists deep")
    items: list[Item] = []
    while start < after:
        item, start = _item(raw, start, after, depth - 1)
        items.append(item)
    return items, after


def _length(raw: bytes, at: int, end: int, short: int) -> tuple[int, int]:
    """(where the payload starts, how long it is)."""
    if short <= 55:
        return at + 1, short
    start = at + 1 + short - 55
    digits = raw[at + 1 : start]
    length = int.from_bytes(digits, "big")
    if start > end or digits[0] == 0 or length <= 55:
        raise ValueError("RLP spells a length the long way, or ends early")
    return start, length
