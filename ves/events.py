"""An event's hashes and signature (VES 3.1, 3.2), and the envelope an agent sends.

    payload -> payload_plain_hash, payload_cipher_hash -> event_signing_hash -> agent_signature

It alone knows the byte layout of these preimages. What is signed: the header below, the payload kind and
both payload hashes. What is not: ``command_id``, ``base_version``, anything the sequencer adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from ves.canonical import canonical_payload, jcs
from ves.constants import (
    ENCRYPTED,
    EVENTSIG,
    PAYLOAD_AAD,
    PAYLOAD_PLAIN,
    PLAINTEXT,
    VES_VERSION,
    ZERO_HASH,
)
from ves.encoding import prefixed_hex, string, u32, uuid_text
from ves.records import Uuid
from ves.signatures import Signer


class EventHeader(msgspec.Struct, frozen=True, gc=False):
    """What an event says about itself beside its payload; all of it is signed."""

    tenant_id: Uuid
    store_id: Uuid
    event_id: Uuid
    source_agent_id: Uuid
    agent_key_id: int
    entity_type: str
    entity_id: str
    event_type: str
    created_at: str
    """RFC 3339; these very characters are signed."""

    def encoded(self) -> bytes:
        """The stretch of bytes that the payload AAD and the signing hash have in common."""
        return header_bytes(
            self.tenant_id + self.store_id,
            self.event_id,
            self.source_agent_id + u32(self.agent_key_id),
            string(self.entity_type),
            string(self.entity_id),
            string(self.event_type),
            string(self.created_at),
        )


def header_bytes(
    stream: bytes,
    event_id: Uuid,
    agent_key: bytes,
    entity_type: bytes,
    entity_id: bytes,
    event_type: bytes,
    created_at: bytes,
) -> bytes:
    """``EventHeader.encoded`` from parts that a caller with many events computes once: ``stream`` is tenant
    and store, ``agent_key`` the agent and U32 of its key id; names and time are ``string`` of the texts."""
    return b"".join((stream, event_id, agent_key, entity_type, entity_id, event_type, created_at))


def payload_plain_hash(canonical: bytes, salt: bytes = b"") -> bytes:
    """Hash of a payload's JCS bytes; encrypted events put 16 bytes of salt before them (VES 3.1)."""
    return sha256(PAYLOAD_PLAIN + salt + canonical).digest()


def payload_aad(header: bytes, plain_hash: bytes) -> bytes:
    """The 32 bytes that bind a ciphertext to its event (VES 3.1). ``header`` is ``EventHeader.encoded()``."""
    return sha256(PAYLOAD_AAD + header + plain_hash).digest()


def signing_preimage(header: bytes, payload_kind: int, plain_hash: bytes, cipher_hash: bytes) -> bytes:
    """The 171 bytes and four strings of VES 3.2. ``header`` is ``EventHeader.encoded()``."""
    return b"".join((_SIGNING_START, header, u32(payload_kind), plain_hash, cipher_hash))


_SIGNING_START = EVENTSIG + u32(VES_VERSION)


def event_signing_hash(header: bytes, payload_kind: int, plain_hash: bytes, cipher_hash: bytes) -> bytes:
    """The 32 bytes the agent signs (VES 3.2). ``header`` is ``EventHeader.encoded()``."""
    return sha256(signing_preimage(header, payload_kind, plain_hash, cipher_hash)).digest()


def sign_event(
    signer: Signer, header: EventHeader, payload_kind: int, plain_hash: bytes, cipher_hash: bytes
) -> bytes:
    """The agent's 64-byte signature over the event signing hash."""
    return signer.sign(event_signing_hash(header.encoded(), payload_kind, plain_hash, cipher_hash))


# What an agent sends (VES 3.4).


def plaintext_envelope(
    signer: Signer,
    header: EventHeader,
    payload: Any,
    *,
    command_id: Uuid | None = None,
    base_version: int | None = None,
) -> dict[str, Any]:
    """A complete signed envelope around any JSON value but null; encode it with ``request_body``.

    Raises ``NotCanonical`` (a ValueError) for a payload the sequencer would refuse, before signing it.
    """
    if payload is None:
        raise ValueError("a plaintext event needs a payload that is not null")
    canonical = canonical_payload(jcs(payload))
    plain_hash = payload_plain_hash(canonical)
    signature = sign_event(signer, header, PLAINTEXT, plain_hash, ZERO_HASH)
    body = {"payload_kind": PLAINTEXT, "payload": msgspec.Raw(canonical)}
    return _envelope(header, body, plain_hash, ZERO_HASH, signature, command_id, base_version)


def encrypted_envelope(
    signer: Signer,
    header: EventHeader,
    payload_encrypted: bytes,
    plain_hash: bytes,
    cipher_hash: bytes,
    *,
    command_id: Uuid | None = None,
    base_version: int | None = None,
) -> dict[str, Any]:
    """A complete signed envelope around what ``payload_encryption.seal`` made for the same header."""
    signature = sign_event(signer, header, ENCRYPTED, plain_hash, cipher_hash)
    body = {"payload_kind": ENCRYPTED, "payload_encrypted": msgspec.Raw(payload_encrypted)}
    return _envelope(header, body, plain_hash, cipher_hash, signature, command_id, base_version)


def _envelope(
    header: EventHeader,
    payload: dict[str, Any],
    plain_hash: bytes,
    cipher_hash: bytes,
    signature: bytes,
    command_id: Uuid | None,
    base_version: int | None,
) -> dict[str, Any]:
    envelope = {
        "ves_version": VES_VERSION,
        "event_id": uuid_text(header.event_id),
        "tenant_id": uuid_text(header.tenant_id),
        "store_id": uuid_text(header.store_id),
        "source_agent_id": uuid_text(header.source_agent_id),
        "agent_key_id": header.agent_key_id,
        "entity_type": header.entity_type,
        "entity_id": header.entity_id,
        "event_type": header.event_type,
        "created_at": header.created_at,
        **payload,
        "payload_plain_hash": prefixed_hex(plain_hash),
        "payload_cipher_hash": prefixed_hex(cipher_hash),
        "agent_signature": prefixed_hex(signature),
    }
    if command_id is not None:
        envelope["command_id"] = uuid_text(command_id)
    if base_version is not None:
        envelope["base_version"] = base_version
    return envelope


def request_body(agent_id: Uuid, envelopes: Sequence[dict[str, Any]]) -> bytes:
    """The JSON body of one ingest request: at most 1,000 envelopes, all of one agent, tenant and store."""
    return msgspec.json.encode({"agentId": uuid_text(agent_id), "events": envelopes})
