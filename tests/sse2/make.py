"""Writes tests/vectors/sse2_vectors.json: ``python -m tests.sse2.make``. The same bytes each time.

Computed by ``tests.sse2.book`` alone; the product is then held against the file. All keys are made from
public texts and protect nothing.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from itertools import count, product
from pathlib import Path
from typing import Any

from tests.sse2 import book

FILE = Path(__file__).parents[1] / "vectors/sse2_vectors.json"
PURPOSES = ("ves_events", "events", "validity_proofs")
KEYS, TENANTS = 3, 3
SIZES = (1, 15, 16, 17, 31, 32, 33, 64, 255)
LARGE = (4096, 65_537)
"""Of these the file holds how the plaintext is made, and the frame's hash."""


class Chance:
    """A public sequence of bytes."""

    def __init__(self) -> None:
        self._number = count()

    def __call__(self, length: int) -> bytes:
        return hashlib.shake_256(f"sse2 vectors {next(self._number)}".encode()).digest(length)


def a_uuid(chance: Chance) -> str:
    return str(uuid.UUID(bytes=chance(16), version=4))


def a_row(chance: Chance, purpose: str, tenant_id: str) -> dict[str, Any]:
    row: dict[str, Any] = {"tenant_id": tenant_id, "store_id": a_uuid(chance)}
    if purpose == "validity_proofs":
        return row | {
            "batch_id": a_uuid(chance),
            "proof_id": a_uuid(chance),
            "proof_version": 1 + int.from_bytes(chance(4), "big") % 4_294_967_295,
            "proof_type": "stark-ü",
            "proof_hash": chance(32).hex(),
        }
    row |= {"event_id": a_uuid(chance), "sequence_number": 1 + int.from_bytes(chance(8), "big") % (2**63 - 1)}
    if purpose == "ves_events":
        return row | {"event_signing_hash": chance(32).hex()}
    return row | {"entity_type": "order", "entity_id": "Größe-7", "event_type": "order.created"}


def plaintext(chance: Chance, purpose: str, kind: str, size: int) -> bytes:
    """As stored: canonical JSON, the JSON text of an encrypted payload, the bytes of a proof."""
    if kind == "bytes" or size < 16:
        return chance(size)
    start, end = (b'{"note":"', b'"}') if kind == "plaintext" else (b'{"enc_version":1,"ct":"', b'"}')
    filler = chance(size).hex().encode()
    return (start[: size - len(end)] + filler)[: size - len(end)] + end


def a_frame(
    chance: Chance, ring_key: bytes, purpose: str, kind: str, tenant_id: str, size: int
) -> dict[str, Any]:
    row, nonce, text = a_row(chance, purpose, tenant_id), chance(12), plaintext(chance, purpose, kind, size)
    made: dict[str, Any] = {
        "purpose": purpose,
        "kind": kind,
        "key_id": book.key_id(ring_key).hex(),
        "row": row,
        "row_hash": book.row_hash(purpose, row).hex(),
        "nonce": nonce.hex(),
    }
    if size in LARGE:
        text = hashlib.shake_256(nonce).digest(size)
        frame = book.seal(ring_key, purpose, row, nonce, text)
        return made | {"plaintext_shake256_of_nonce": size, "frame_sha256": hashlib.sha256(frame).hexdigest()}
    frame = book.seal(ring_key, purpose, row, nonce, text)
    return made | {"plaintext": text.hex(), "frame": frame.hex()}


def frames(chance: Chance, ring: list[bytes], tenants: list[str]) -> list[dict[str, Any]]:
    made = []
    for at, (purpose, tenant_id, size) in enumerate(product(PURPOSES, tenants, SIZES + LARGE)):
        kinds = ("bytes",) if purpose == "validity_proofs" else ("plaintext", "payload_encrypted")
        kind = kinds[at % len(kinds)]
        if size in LARGE:
            kind = "bytes"
        made.append(a_frame(chance, ring[at % len(ring)], purpose, kind, tenant_id, size))
    return made


def vectors() -> dict[str, Any]:
    chance = Chance()
    ring, tenants = [chance(32) for _ in range(KEYS)], [a_uuid(chance) for _ in range(TENANTS)]
    return {
        "about": "SSE2 frames as docs/encryption-at-rest.md describes them; tests/sse2/make.py",
        "ring": [{"key": key.hex(), "key_id": book.key_id(key).hex()} for key in ring],
        "derived": [
            {
                "key_id": book.key_id(key).hex(),
                "purpose": purpose,
                "tenant_id": tenant_id,
                "derived_key": book.derived_key(key, purpose, tenant_id).hex(),
            }
            for key, purpose, tenant_id in product(ring, PURPOSES, tenants)
        ],
        "frames": frames(chance, ring, tenants),
    }


def text() -> str:
    return json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"wrote {FILE}")
