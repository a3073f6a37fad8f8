"""Keccak-256, RLP, Merkle-Patricia proofs and the sender of a transaction, a second time: nothing but Python.

Slow and small on purpose. Imports nothing of the project; every refusal is ``Malformed``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.auditor.rules import Malformed

# ---- Keccak-256 (the original padding, not SHA-3's) -----------------------------------------------------

_LANE = (1 << 64) - 1


def _rotated(lane: int, by: int) -> int:
    by %= 64
    return ((lane << by) | (lane >> (64 - by))) & _LANE


def _round_constants() -> list[int]:
    register, constants = 1, []
    for _ in range(24):
        constant = 0
        for bit in range(7):
            if register & 1:
                constant |= 1 << ((1 << bit) - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
        constants.append(constant)
    return constants


_CONSTANTS = _round_constants()


def _permuted(a: list[list[int]]) -> list[list[int]]:
    for constant in _CONSTANTS:
        column = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        mixed = [column[(x - 1) % 5] ^ _rotated(column[(x + 1) % 5], 1) for x in range(5)]
        a = [[lane ^ mixed[x] for lane in a[x]] for x in range(5)]
        b = [[0] * 5 for _ in range(5)]
        x, y, lane = 1, 0, a[1][0]
        b[0][0] = a[0][0]
        for step in range(24):  # rho and pi are one walk: each lane goes, turned, to where the next one stood
            x, y, moved = y, (2 * x + 3 * y) % 5, _rotated(lane, (step + 1) * (step + 2) // 2)
            lane = a[x][y]
            b[x][y] = moved
        a = [[b[x][y] ^ (~b[(x + 1) % 5][y] & b[(x + 2) % 5][y] & _LANE) for y in range(5)] for x in range(5)]
        a[0][0] ^= constant
    return a


@cache
def keccak256(data: bytes) -> bytes:
    rate = 136
    padded = bytearray(data) + b"\x01" + bytes(-(len(data) + 1) % rate)
    padded[-1] |= 0x80
    a = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), rate):
        for lane in range(rate // 8):
            word = int.from_bytes(padded[start + 8 * lane : start + 8 * lane + 8], "little")
            a[lane % 5][lane // 5] ^= word
        a = _permuted(a)
    return b"".join(a[lane][0].to_bytes(8, "little") for lane in range(4))


# ---- RLP ------------------------------------------------------------------------------------------------


def rlp(data: bytes) -> Any:
    item, rest = _item(data, 0)
    if rest:
        raise Malformed("bytes after the RLP item")
    return item


def _item(data: bytes, depth: int) -> tuple[Any, bytes]:
    if not data or depth > 8:
        raise Malformed("RLP ends early or is too deep")
    first, rest = data[0], data[1:]
    if first < 0x80:
        return data[:1], rest
    base = 0x80 if first < 0xC0 else 0xC0
    length = first - base
    if length > 55:
        size, rest = rest[: length - 55], rest[length - 55 :]
        length = int.from_bytes(size, "big")
        if len(size) != first - base - 55 or size[:1] == b"\0" or length < 56:
            raise Malformed("an RLP length in another spelling")
    if length > len(rest):
        raise Malformed("RLP ends early")
    body, rest = rest[:length], rest[length:]
    if base == 0x80:
        if length == 1 and body[0] < 0x80:
            raise Malformed("an RLP byte in another spelling")
        return body, rest
    items = []
    while body:
        item, body = _item(body, depth + 1)
        items.append(item)
    return items, rest


def rlp_written(item: Any) -> bytes:
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _headed(0x80, item)
    return _headed(0xC0, b"".join(rlp_written(one) for one in item))


def _headed(base: int, body: bytes) -> bytes:
    if len(body) < 56:
        return bytes([base + len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(size)]) + size + body


def number(item: Any) -> int:
    if not isinstance(item, bytes) or item[:1] == b"\0" or len(item) > 32:
        raise Malformed("no RLP number")
    return int.from_bytes(item, "big")


# ---- receipts trie --------------------------------------------------------------------------------------


def value_in_trie(root: bytes, key: bytes, nodes: list[bytes]) -> bytes:
    """What the trie with this root has under the key, by nodes from the root down, none too many."""
    wanted, nibbles = root, key.hex()
    for depth, node in enumerate(nodes):
        if keccak256(node) != wanted:
            raise Malformed(f"node {depth} has another hash")
        items = rlp(node)
        if len(items) == 17 and nibbles:
            wanted, nibbles = items[int(nibbles[0], 16)], nibbles[1:]
        elif len(items) == 2 and isinstance(items[0], bytes):
            flag, steps = items[0].hex()[:1], items[0].hex()[1:]
            if flag in ("0", "2"):
                if steps[:1] != "0":
                    raise Malformed("a path's padding is not zero")
                steps = steps[1:]
            if flag in ("2", "3"):
                if steps != nibbles or depth != len(nodes) - 1 or not isinstance(items[1], bytes):
                    raise Malformed("a leaf of another key, or nodes after it")
                return items[1]
            if flag not in ("0", "1") or not steps or not nibbles.startswith(steps):
                raise Malformed("nothing under this key")
            wanted, nibbles = items[1], nibbles[len(steps) :]
        else:
            raise Malformed("no trie node")
    raise Malformed("the proof ends above a leaf")


# ---- secp256k1 ------------------------------------------------------------------------------------------

_P = 2**256 - 2**32 - 977
_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
_Point = tuple[int, int] | None


def _added(p: _Point, q: _Point) -> _Point:
    if p is None or q is None:
        return p or q
    if p[0] == q[0]:
        if (p[1] + q[1]) % _P == 0:
            return None
        slope = 3 * p[0] * p[0] * pow(2 * p[1], -1, _P)
    else:
        slope = (q[1] - p[1]) * pow(q[0] - p[0], -1, _P)
    x = (slope * slope - p[0] - q[0]) % _P
    return x, (slope * (p[0] - x) - p[1]) % _P


def _times(k: int, p: _Point) -> _Point:
    total: _Point = None
    while k:
        if k & 1:
            total = _added(total, p)
        p = _added(p, p)
        k >>= 1
    return total


@cache
def recovered_address(digest: bytes, y_parity: int, r: int, s: int) -> bytes:
    """Whose signature it is (SEC 1, 4.1.6)."""
    if y_parity not in (0, 1) or not 0 < r < _N or not 0 < s <= _N // 2:
        raise Malformed("no signature")
    y = pow(r**3 + 7, (_P + 1) // 4, _P)
    if (y * y - r**3 - 7) % _P:
        raise Malformed("no key made this signature")
    y = y if y & 1 == y_parity else _P - y
    z = int.from_bytes(digest, "big")
    inverse = pow(r, -1, _N)
    key = _added(_times(s * inverse % _N, (r, y)), _times(-z * inverse % _N, _G))
    if key is None:
        raise Malformed("no key made this signature")
    return keccak256(key[0].to_bytes(32, "big") + key[1].to_bytes(32, "big"))[12:]
