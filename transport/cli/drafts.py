"""What a person writes to post events: one JSON object per line, without hashes and signatures.

    {"entity_type": "order", "entity_id": "o-1", "event_type": "order.created", "payload": {"total": 29.33}}

Optional: ``event_id``, ``command_id`` (UUIDs), ``created_at`` (RFC 3339, default now), ``base_version``, and
``recipients`` ({"1": "0x<X25519 public key>"}) to encrypt the payload. Other members are refused: a
misspelt one would be lost silently otherwise.
"""

from __future__ import annotations

import msgspec

from transport.client.agent import Agent
from transport.client.errors import ClientError
from transport.client.wire import UNREADABLE, Envelope
from ves.canonical import parse_strictly
from ves.encoding import hex_bytes, uuid_bytes
from ves.records import Uuid


class Draft(msgspec.Struct, forbid_unknown_fields=True):
    entity_type: str
    entity_id: str
    event_type: str
    payload: msgspec.Raw
    event_id: str | None = None
    command_id: str | None = None
    created_at: str | None = None
    base_version: int | None = None
    recipients: dict[int, str] | None = None


def sign_drafts(agent: Agent, store_id: Uuid, lines: bytes) -> list[Envelope]:
    """One signed event per line that is not blank; ClientError naming the first line that is wrong."""
    envelopes = []
    for number, line in enumerate(lines.splitlines(), 1):
        if line.strip():
            try:
                envelopes.append(_sign(agent, store_id, msgspec.json.decode(line, type=Draft)))
            except (*UNREADABLE, ValueError) as wrong:
                raise ClientError(f"line {number}: {wrong}") from wrong
    if not envelopes:
        raise ClientError("there is no event in the input")
    return envelopes


def _sign(agent: Agent, store_id: Uuid, draft: Draft) -> Envelope:
    recipients = {kid: hex_bytes(key, 32) for kid, key in (draft.recipients or {}).items()}
    return agent.sign(
        store_id,
        entity_type=draft.entity_type,
        entity_id=draft.entity_id,
        event_type=draft.event_type,
        payload=parse_strictly(bytes(draft.payload)),
        created_at=draft.created_at,
        event_id=None if draft.event_id is None else uuid_bytes(draft.event_id),
        command_id=None if draft.command_id is None else uuid_bytes(draft.command_id),
        base_version=draft.base_version,
        recipients=recipients,
    )
