"""VES v1 written a second time, from its specification only, for whoever checks the first time.

Imports nothing of the project. Standard library, and ``cryptography`` (OpenSSL) for Ed25519 where the
server uses libsodium: two implementations that would have to be wrong in the same way.

Strictness: OpenSSL refuses ``S >= L`` but accepts keys and ``R`` of small order. No honest agent has such a
key, so here they are refused as well: a public key must be canonical and in the prime-order subgroup, and
``R`` must not be one of the eight torsion points. Whatever passes here also passes libsodium.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import uuid
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ZEROS = bytes(32)
SAFE_INTEGER_MAX = 2**53 - 1


class Malformed(ValueError):
    """A value has not the form the specification gives it; the text names what."""


# ---- encodings ------------------------------------------------------------------------------------------


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def text(value: str) -> bytes:
    """S(x): byte length, then UTF-8 (VES 1.3)."""
    raw = value.encode("utf-8")
    return u32(len(raw)) + raw


def uuid16(value: str) -> bytes:
    try:
        return uuid.UUID(value).bytes
    except (ValueError, AttributeError, TypeError):
        raise Malformed(f"{value!r} is no UUID") from None


def unhex(value: Any, size: int, what: str) -> bytes:
    """Hex with or without ``0x`` (VES 1.4); exactly ``size`` bytes."""
    if not isinstance(value, str):
        raise Malformed(f"{what} is no hex text")
    digits = value.removeprefix("0x")
    if not re.fullmatch(r"[0-9a-fA-F]*", digits) or len(digits) != 2 * size:
        raise Malformed(f"{what} is not {size} bytes of hex")
    return bytes.fromhex(digits)


def unb64u(value: Any, what: str) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]*={0,2}", value):
        raise Malformed(f"{what} is no base64url")
    raw = value.rstrip("=")
    return base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4))


def instant_us(value: str) -> int:
    """A server time (``…T…`` with 0, 3 or 6 digits of fraction, ``+00:00`` or ``Z``) in microseconds."""
    match = re.fullmatch(
        r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{3}|\d{6}))?(?:\+00:00|Z)", value
    )
    if match is None:
        raise Malformed(f"{value!r} is no time in the server's spelling")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction = (match.group(7) or "").ljust(6, "0")
    whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    return int(whole.timestamp()) * 1_000_000 + int(fraction)


# ---- canonical JSON (RFC 8785) --------------------------------------------------------------------------


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a parsed JSON value. Integers beyond 2^53-1 have no unambiguous form: Malformed."""
    return "".join(_written(value)).encode("utf-8")


def _written(value: Any) -> list[str]:
    if value is None:
        return ["null"]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate raises UnicodeEncodeError, a ValueError
        return [json.dumps(value, ensure_ascii=False)]
    if isinstance(value, int):
        if abs(value) > SAFE_INTEGER_MAX:
            raise Malformed(f"integer {value} is beyond 2^53-1")
        return [str(value)]
    if isinstance(value, float):
        return [_number(value)]
    if isinstance(value, list):
        out = ["["]
        for index, item in enumerate(value):
            out += ["," if index else "", *_written(item)]
        return [*out, "]"]
    if isinstance(value, dict):
        out = ["{"]
        for index, key in enumerate(sorted(value, key=lambda k: k.encode("utf-16-be"))):
            out += ["," if index else "", *_written(key), ":", *_written(value[key])]
        return [*out, "}"]
    raise Malformed(f"{type(value).__name__} is no JSON value")


def _number(value: float) -> str:
    """ECMAScript's Number::toString, from the shortest digits that Python's repr finds."""
    if not math.isfinite(value):
        raise Malformed(f"{value} is no JSON number")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0)  # the value is 0.DIGITS x 10^point, before trimming
    point -= len(whole + fraction) - len((whole + fraction).lstrip("0"))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        if abs(value) > SAFE_INTEGER_MAX:
            raise Malformed(f"integer {value} is beyond 2^53-1")
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    shown = f"{point - 1:+d}"
    return f"{sign}{digits[0]}{'.' + digits[1:] if count > 1 else ''}e{shown}"


def parse(raw: bytes) -> Any:
    """JSON that says everything once: a doubled member or a NaN is Malformed."""

    def once(members: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(members)
        if len(seen) != len(members):
            raise Malformed("an object names a member twice")
        return seen

    def refuse(name: str) -> Any:
        raise Malformed(f"{name} is no JSON number")

    return json.loads(raw.decode("utf-8"), object_pairs_hook=once, parse_constant=refuse)


# ---- events, receipts, trees ----------------------------------------------------------------------------


def payload_plain_hash(payload: Any) -> bytes:
    return sha256(b"VES_PAYLOAD_PLAIN_V1", canonical(payload))


def payload_aad(event: dict[str, Any]) -> bytes:
    return sha256(
        b"VES_PAYLOAD_AAD_V1",
        uuid16(event["tenant_id"]),
        uuid16(event["store_id"]),
        uuid16(event["event_id"]),
        uuid16(event["source_agent_id"]),
        u32(event["agent_key_id"]),
        text(event["entity_type"]),
        text(event["entity_id"]),
        text(event["event_type"]),
        text(event["created_at"]),
        unhex(event["payload_plain_hash"], 32, "payload_plain_hash"),
    )


def payload_cipher_hash(event: dict[str, Any]) -> bytes:
    sealed = event["payload_encrypted"]
    ciphertext = unb64u(sealed["ciphertext_b64u"], "ciphertext_b64u")
    recipients = [b"VES_RECIPIENTS_V1"]
    for recipient in sealed["recipients"]:
        enc, ct = unb64u(recipient["enc_b64u"], "enc_b64u"), unb64u(recipient["ct_b64u"], "ct_b64u")
        recipients += [u32(recipient["recipient_kid"]), u32(len(enc)), enc, u32(len(ct)), ct]
    return sha256(
        b"VES_PAYLOAD_CIPHER_V1",
        u32(1),
        unb64u(sealed["nonce_b64u"], "nonce_b64u"),
        payload_aad(event),
        u32(len(ciphertext)),
        ciphertext,
        unb64u(sealed["tag_b64u"], "tag_b64u"),
        sha256(*recipients),
    )


def event_signing_hash(event: dict[str, Any]) -> bytes:
    return sha256(
        b"VES_EVENTSIG_V1",
        u32(event["ves_version"]),
        uuid16(event["tenant_id"]),
        uuid16(event["store_id"]),
        uuid16(event["event_id"]),
        uuid16(event["source_agent_id"]),
        u32(event["agent_key_id"]),
        text(event["entity_type"]),
        text(event["entity_id"]),
        text(event["event_type"]),
        text(event["created_at"]),
        u32(event["payload_kind"]),
        unhex(event["payload_plain_hash"], 32, "payload_plain_hash"),
        unhex(event["payload_cipher_hash"], 32, "payload_cipher_hash"),
    )


def rotation_hash(
    tenant_id: str, agent_id: str, old_id: int, new_id: int, old_key: bytes, new_key: bytes
) -> bytes:
    """What an agent's key signs for the one that takes its place."""
    agent = uuid16(tenant_id), uuid16(agent_id)
    return sha256(b"VES_KEY_ROTATION_V1", *agent, u32(old_id), old_key, u32(new_id), new_key)


def receipt_hash(event: dict[str, Any], sequence_number: int) -> bytes:
    return sha256(
        b"VES_RECEIPT_V1",
        uuid16(event["tenant_id"]),
        uuid16(event["store_id"]),
        uuid16(event["event_id"]),
        u64(sequence_number),
        event_signing_hash(event),
    )


def receipt_key_statement(sequencer_id: str, key_version: int, public_key: bytes) -> bytes:
    """What the receipt key before this one signed about it."""
    return sha256(b"VES_RECEIPT_KEY_V1", uuid16(sequencer_id), u32(key_version), public_key)


def leaf_hash(event: dict[str, Any], sequence_number: int) -> bytes:
    return sha256(
        b"VES_LEAF_V1",
        uuid16(event["tenant_id"]),
        uuid16(event["store_id"]),
        u64(sequence_number),
        event_signing_hash(event),
        unhex(event["agent_signature"], 64, "agent_signature"),
    )


PAD = sha256(b"VES_PAD_LEAF_V1")


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"VES_NODE_V1", left, right)


def padded(leaf_count: int) -> int:
    """The next power of two; 1 for one leaf."""
    return 1 << (leaf_count - 1).bit_length()


def merkle_root(leaves: list[bytes]) -> bytes:
    level = leaves + [PAD] * (padded(len(leaves)) - len(leaves))
    while len(level) > 1:
        level = [node(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def climb(leaf: bytes, index: int, path: list[bytes]) -> bytes:
    """The root that ``path`` leads to; bit k of ``index`` says on which side the running hash stands."""
    running = leaf
    for level, sibling in enumerate(path):
        running = node(sibling, running) if index >> level & 1 else node(running, sibling)
    return running


def state_root(tenant_id: str, store_id: str, previous: bytes, root: bytes, start: int, end: int) -> bytes:
    stream_id = sha256(b"VES_STREAM_V1", uuid16(tenant_id), uuid16(store_id))
    return sha256(b"VES_STATE_ROOT_V1", stream_id, previous, root, u64(start), u64(end), u32(end - start + 1))


# ---- unsigned events and validity proofs ----------------------------------------------------------------


class Spelled(str):
    """A number, as it stood in the text: the sequencer shows unsigned payloads as it hashed them."""


def unsigned_text(payload: Any) -> str:
    """The text that an unsigned payload's hash is of (VES 3.10): compact, members in the order of UTF-8."""
    if isinstance(payload, Spelled):
        return str(payload)
    if isinstance(payload, list):
        return "[" + ",".join(map(unsigned_text, payload)) + "]"
    if isinstance(payload, dict):
        members = sorted(payload.items(), key=lambda member: member[0].encode())
        return "{" + ",".join(f"{unsigned_text(name)}:{unsigned_text(item)}" for name, item in members) + "}"
    return json.dumps(payload, ensure_ascii=False)


def unsigned_leaf(event: dict[str, Any], number: int) -> bytes:
    return sha256(
        b"STATESET_COMMITMENT_LEAF_V1",
        uuid16(event["tenant_id"]),
        uuid16(event["store_id"]),
        u64(number),
        unhex(event["payload_hash"], 32, "payload_hash"),
        text(event["entity_type"]),
        text(event["entity_id"]),
    )


def unsigned_root(level: list[bytes]) -> bytes:
    """Without domains; who has no neighbour on the right moves up as it is."""
    while len(level) > 1:
        level = [sha256(*level[i : i + 2]) if level[i + 1 :] else level[i] for i in range(0, len(level), 2)]
    return level[0]


def validity_proof_hash(proof: bytes) -> bytes:
    return sha256(b"STATESET_VES_VALIDITY_PROOF_HASH_V1", proof)


def validity_inputs(commitment: dict[str, Any]) -> dict[str, Any]:
    """What every validity proof about this commitment is a proof of (VES 7.1)."""
    names = {
        "batchId": "batch_id",
        "tenantId": "tenant_id",
        "storeId": "store_id",
        "vesVersion": "ves_version",
        "treeDepth": "tree_depth",
        "leafCount": "leaf_count",
        "paddedLeafCount": "padded_leaf_count",
        "merkleRoot": "merkle_root",
        "prevStateRoot": "prev_state_root",
        "newStateRoot": "new_state_root",
        "sequenceStart": "sequence_start",
        "sequenceEnd": "sequence_end",
    }
    inputs = {theirs: commitment[ours] for theirs, ours in names.items()}
    return inputs | {"allCompliant": True, "policyHash": ZEROS.hex(), "policyLimit": 0}


# ---- Ed25519 --------------------------------------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P

Point = tuple[int, int, int, int]
"""Extended coordinates (X, Y, Z, T), RFC 8032 5.1.4."""

IDENTITY: Point = (0, 1, 1, 0)


def _add(p: Point, q: Point) -> Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar: int, point: Point) -> Point:
    total = IDENTITY
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total


def _is_identity(point: Point) -> bool:
    return point[0] % P == 0 and (point[1] - point[2]) % P == 0


def _decoded(raw: bytes) -> Point | None:
    """The point a canonical encoding names, else None (RFC 8032 5.1.3)."""
    y = int.from_bytes(raw, "little")
    odd, y = y >> 255, y & (1 << 255) - 1
    if len(raw) != 32 or y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and odd):
        return None
    if x & 1 != odd:
        x = P - x
    return x, y, 1, x * y % P


@cache
def is_strict_public_key(raw: bytes) -> bool:
    """Canonical, on the curve, of prime order: the only keys an agent or a sequencer may have."""
    point = _decoded(raw)
    return point is not None and not _is_identity(point) and _is_identity(_times(L, point))


@cache
def _torsion_encodings() -> frozenset[bytes]:
    """The eight points of small order. A point of order 8 is L times any point outside the subgroup."""
    for y in range(2, 100):
        point = _decoded(y.to_bytes(32, "little"))
        if point is None:
            continue
        generator = _times(L, point)
        if not _is_identity(_times(4, generator)):
            break
    found = set()
    for factor in range(8):
        x, y, z, _ = _times(factor, generator)
        inverse = pow(z, P - 2, P)
        x, y = x * inverse % P, y * inverse % P
        found.add((y | (x & 1) << 255).to_bytes(32, "little"))
    return frozenset(found)


def signature_holds(public_key: bytes, message: bytes, signature: bytes) -> bool:
    if not is_strict_public_key(public_key) or signature[:32] in _torsion_encodings():
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True
