"""Signed requests in plenty, made before any clock runs: what the load generator sends.

An event costs one signature here and little else: all that does not change is formed once. ``write_requests``
spreads the work over processes, because otherwise signing would take longer than measuring. Every event has an
id of its own: an id that was sent before is answered with its old receipt, which is fast and measures nothing.
The order these events carry is the same as in the tests' world, which a test compares byte by byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import rfc8785
from nacl.signing import SigningKey

PATH = "/api/v1/ves/events/ingest"
LENGTH = struct.Struct("<I")
"""Before each request in a file."""
CREATED_AT = b"2026-01-01T00:00:00.123Z"


@dataclass(frozen=True)
class Sender:
    """Who signs and whose credential is shown; crosses to the signing processes."""

    tenant_id: bytes
    store_id: bytes
    agent_id: bytes
    key_id: int
    seed: bytes
    api_key: str
    host: str

    def requests(self, batch: int) -> Iterator[bytes]:
        """Whole HTTP requests of ``batch`` fresh events, without end."""
        sign = _Signer(self)
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
            f"authorization: ApiKey {self.api_key}\r\ncontent-length: "
        ).encode()
        opening = f'{{"agentId": "{uuid.UUID(bytes=self.agent_id)}", "events": ['.encode()
        while True:
            body = opening + b", ".join([sign.event(n) for n in range(batch)]) + b"]}"
            yield b"%b%d\r\n\r\n%b" % (head, len(body), body)


class _Signer:
    def __init__(self, sender: Sender) -> None:
        self.key = SigningKey(sender.seed)
        tenant, store, agent = (
            str(uuid.UUID(bytes=raw)) for raw in (sender.tenant_id, sender.store_id, sender.agent_id)
        )
        self.before_id = b'{"ves_version": 1, "event_id": "'
        self.before_entity = (
            f'", "tenant_id": "{tenant}", "store_id": "{store}", "source_agent_id": "{agent}", '
            f'"agent_key_id": {sender.key_id}, "entity_type": "order", "entity_id": "'
        ).encode()
        self.before_payload = (
            b'", "event_type": "order.created", "created_at": "'
            + CREATED_AT
            + b'", "payload_kind": 0, "payload": '
        )
        self.hash_start = hashlib.sha256(
            b"VES_EVENTSIG_V1" + struct.pack(">I", 1) + sender.tenant_id + sender.store_id
        )
        self.hash_agent = sender.agent_id + struct.pack(">I", sender.key_id) + _prefixed(b"order")
        self.hash_type = _prefixed(b"order.created") + _prefixed(CREATED_AT) + bytes(4)

    def event(self, n: int) -> bytes:
        text, plain_hash, hash_text = _payload(n)
        raw = os.urandom(22)
        digits = raw[:16].hex()
        event_id = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
        entity_id = b"o-" + raw[16:].hex().encode()
        preimage = self.hash_start.copy()
        preimage.update(
            bytes.fromhex(event_id.replace("-", ""))
            + self.hash_agent
            + _prefixed(entity_id)
            + self.hash_type
            + plain_hash
            + bytes(32)
        )
        signature = self.key.sign(preimage.digest()).signature.hex()
        return (
            b'%b%b%b%b%b%b, "payload_plain_hash": "%b", "payload_cipher_hash": "0x%b", "agent_signature": "0x%b"}'
            % (
                self.before_id,
                event_id.encode(),
                self.before_entity,
                entity_id,
                self.before_payload,
                text,
                hash_text,
                b"00" * 32,
                signature.encode(),
            )
        )


def order(n: int) -> dict[str, Any]:
    """The payload of a batch's event ``n``: an order of ordinary size."""
    return {
        "customer": f"c-{n}",
        "currency": "USD",
        "lines": [{"sku": "ABC-123", "quantity": n % 7 + 1, "price": 1295}],
        "note": "an order of ordinary size, as shops send them all day long",
    }


@cache
def _payload(n: int) -> tuple[bytes, bytes, bytes]:
    """As sent, its hash, and that as text."""
    plain_hash = hashlib.sha256(b"VES_PAYLOAD_PLAIN_V1" + rfc8785.dumps(order(n))).digest()
    return json.dumps(order(n)).encode(), plain_hash, b"0x" + plain_hash.hex().encode()


def _prefixed(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def write_requests(
    target: Path, senders: Sequence[Sender], batch: int, count: int, pool: Executor, processes: int
) -> list[Path]:
    """``count`` requests of ``batch`` events, of all senders in turns, in as many files (``target``-0, …) as processes
    made them."""
    share = -(-count // processes)
    parts = [range(start, min(start + share, count)) for start in range(0, count, share)]
    paths = [target.with_name(f"{target.name}-{number}") for number in range(len(parts))]
    list(pool.map(_write_part, paths, [senders] * len(parts), [batch] * len(parts), parts))
    return paths


def _write_part(path: Path, senders: Sequence[Sender], batch: int, numbers: range) -> None:
    # Each process meets only the senders of its own numbers.
    wanted = {n % len(senders) for n in numbers[: len(senders)]}
    sources = {n: senders[n].requests(batch) for n in wanted}
    write_file(path, (next(sources[n % len(senders)]) for n in numbers))


def write_file(path: Path, requests: Iterator[bytes] | Sequence[bytes]) -> None:
    """As the load generator reads it."""
    with path.open("wb") as file:
        for request in requests:
            file.write(LENGTH.pack(len(request)))
            file.write(request)
