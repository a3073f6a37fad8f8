"""Reference code for rooms this product does not have, so that their vectors are checked and not skipped."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from ves.encoding import u64, uuid_bytes


def promoting_levels(leaves: list[bytes]) -> list[list[bytes]]:
    """The legacy and x402 tree: no domain, a lone right-most node moves up unchanged."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [sha256(below[i] + below[i + 1]).digest() for i in range(0, len(below) - 1, 2)]
        levels.append(above + below[len(above) * 2 :])
    return levels


def promoting_path(levels: list[list[bytes]], index: int) -> list[bytes]:
    path = []
    for level in levels[:-1]:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        index >>= 1
    return path


def promoting_walk(leaf: bytes, index: int, path: list[bytes], leaf_count: int) -> bytes:
    """Follow a path knowing the leaf count: a promoted node takes no step."""
    running, steps = leaf, iter(path)
    while leaf_count > 1:
        if index ^ 1 < leaf_count:
            sibling = next(steps)
            running = sha256(sibling + running if index & 1 else running + sibling).digest()
        index, leaf_count = index >> 1, -(-leaf_count // 2)
    return running


def index_bit_walk(leaf: bytes, index: int, path: list[bytes]) -> bytes:
    """What the original's endpoint does: a step for each sibling, whatever the leaf count."""
    running = leaf
    for height, sibling in enumerate(path):
        running = sha256(sibling + running if index >> height & 1 else running + sibling).digest()
    return running


def legacy_text(value: Any) -> str:
    """serde_json's compact text: keys in UTF-8 order, integers exact, doubles as ryu writes them."""
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode())
        return "{" + ",".join(f"{legacy_text(name)}:{legacy_text(item)}" for name, item in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(legacy_text, value)) + "]"
    if isinstance(value, float):
        return ryu(value)
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return ryu(float(value))
    return json.dumps(value, ensure_ascii=False)


def ryu(number: float) -> str:
    sign, digits, exponent = _shortest(number)
    point = len(digits) + exponent
    if digits == "0":
        return sign + "0.0"
    if 0 < point <= 16:
        whole = digits[:point].ljust(point, "0")
        return f"{sign}{whole}.{digits[point:] or '0'}"
    if -5 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{point - 1}"


def _shortest(number: float) -> tuple[str, str, int]:
    mantissa, _, exponent = f"{number!r}".lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    power = int(exponent or 0) - len(fraction)
    stripped = digits.rstrip("0")
    sign = "-" if repr(number).startswith("-") else ""
    return sign, stripped or "0", power + len(digits) - len(stripped)


def x402_signing_hash(intent: Any) -> bytes:
    return sha256(
        b"X402_PAYMENT_V1"
        + intent["payer_address"].encode()
        + intent["payee_address"].encode()
        + u64(int(intent["amount"]))
        + intent["asset"].encode()
        + intent["network"].encode()
        + u64(intent["chain_id"])
        + u64(intent["valid_until"])
        + u64(intent["nonce"])
    ).digest()


def x402_leaf(intent: Any) -> bytes:
    return sha256(
        uuid_bytes(intent["intent_id"])
        + u64(intent["sequence_number"])
        + intent["payer_address"].encode()
        + intent["payee_address"].encode()
        + u64(int(intent["amount"]))
        + intent["asset"].encode()
        + intent["network"].encode()
        + u64(intent["chain_id"])
        + u64(intent["nonce"])
        + u64(intent["valid_until"])
        + bytes.fromhex(intent["signing_hash"])
        + bytes.fromhex(intent["payer_signature"])
    ).digest()


_ROTATIONS = (
    (0, 36, 3, 41, 18),
    (1, 44, 10, 45, 2),
    (62, 6, 43, 15, 61),
    (28, 55, 25, 21, 56),
    (27, 20, 39, 8, 14),
)
_MASK = 2**64 - 1


def keccak256(message: bytes) -> bytes:
    """Ethereum's hash (Keccak before NIST's padding), straight from the reference description."""
    rate = 136
    padded = message + b"\x01" + bytes(-(len(message) + 1) % rate)
    padded = padded[:-1] + bytes([padded[-1] | 0x80])
    lanes = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), rate):
        for i in range(rate // 8):
            lanes[i % 5][i // 5] ^= int.from_bytes(padded[start + 8 * i : start + 8 * i + 8], "little")
        lanes = _permute(lanes)
    return b"".join(lanes[i % 5][i // 5].to_bytes(8, "little") for i in range(4))


def _permute(lanes: list[list[int]]) -> list[list[int]]:
    register = 1
    for _ in range(24):
        parity = [lanes[x][0] ^ lanes[x][1] ^ lanes[x][2] ^ lanes[x][3] ^ lanes[x][4] for x in range(5)]
        mixed = [parity[x - 1] ^ _rotate(parity[(x + 1) % 5], 1) for x in range(5)]
        lanes = [[lanes[x][y] ^ mixed[x] for y in range(5)] for x in range(5)]
        moved = [[0] * 5 for _ in range(5)]
        for x in range(5):
            for y in range(5):
                moved[y][(2 * x + 3 * y) % 5] = _rotate(lanes[x][y], _ROTATIONS[x][y])
        lanes = [
            [moved[x][y] ^ (~moved[(x + 1) % 5][y] & moved[(x + 2) % 5][y] & _MASK) for y in range(5)]
            for x in range(5)
        ]
        for j in range(7):
            register = (register << 1 ^ (register >> 7) * 0x71) % 256
            if register & 2:
                lanes[0][0] ^= 1 << ((1 << j) - 1)
    return lanes


def _rotate(lane: int, by: int) -> int:
    return (lane << by | lane >> (64 - by)) & _MASK if by else lane
