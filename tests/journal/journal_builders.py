"""Events, groups and keys for the journal's tests: random where nothing depends on it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from journal.port import AgentKey, ApiKey, AuditEntry, CommandUse, EventSchema, Group, Journal, VersionStep
from ves.commitments import next_commitment
from ves.records import (
    NEW_STREAM,
    CommandName,
    Commitment,
    CredentialId,
    EntityName,
    Facts,
    KeyName,
    NumberedEvent,
    Question,
    SealedEvent,
    Uuid,
    VerifiedEvent,
)

SEQUENCER = b"Q" * 16


@dataclass(frozen=True)
class Database:
    """One database's two logins."""

    owner_dsn: str
    app_dsn: str


AUDIT = AuditEntry("cli", "test", "a test", None, {"count": 1, "why": "because", "nothing": None})
MIB = 1024 * 1024


def uuid() -> Uuid:
    return os.urandom(16)


def an_event(
    *,
    event_id: Uuid | None = None,
    agent: Uuid = b"A" * 16,
    entity_id: str | None = None,
    command: Uuid | None = None,
    base_version: int | None = None,
) -> VerifiedEvent:
    return VerifiedEvent(
        event_id=event_id or uuid(),
        source_agent_id=agent,
        agent_key_id=1,
        entity_type="order",
        entity_id=entity_id if entity_id is not None else f"o-{os.urandom(8).hex()}",
        event_type="order.created",
        created_at="2026-01-01T00:00:00.123456789Z",
        payload_kind=0,
        payload=b"{}",
        payload_plain_hash=os.urandom(32),
        payload_cipher_hash=bytes(32),
        agent_signature=os.urandom(64),
        event_signing_hash=os.urandom(32),
        command_id=command,
        base_version=base_version,
    )


def a_schema(tenant: Uuid, event_type: str = "order.created", text: str = "{}") -> EventSchema:
    return EventSchema(uuid(), tenant, event_type, 0, text, "none", "orders", "cli")


def question(
    tenant: Uuid,
    stores: Iterable[Uuid],
    events: Iterable[VerifiedEvent] = (),
    *,
    keys: Iterable[KeyName] = (),
    credentials: Iterable[CredentialId] = (),
) -> Question:
    """Asks for the events under every one of the stores."""
    stores, events = list(stores), list(events)
    return Question(
        tenant_id=tenant,
        store_ids=frozenset(stores),
        event_ids=frozenset(e.event_id for e in events),
        commands=frozenset(CommandName(s, e.command_id) for s in stores for e in events if e.command_id),
        entities=frozenset(EntityName(s, e.entity_type, e.entity_id) for s in stores for e in events),
        keys=frozenset(keys),
        credential_ids=frozenset(credentials),
    )


def a_group(facts: Facts, placed: Iterable[tuple[Uuid, VerifiedEvent]], *, sealed_bytes: int = 64) -> Group:
    """Numbers (store, event) pairs on these facts, without judging them."""
    heads = dict(facts.fence.heads)
    versions: dict[EntityName, tuple[int, int]] = {}
    numbered, commands = [], []
    for store, event in placed:
        head = heads.get(store, NEW_STREAM)
        at = max(facts.now_us, head.last_sequenced_at_us)
        head = type(head)(head.current_sequence + 1, at)
        heads[store] = head
        numbered.append(NumberedEvent(event, store, head.current_sequence, at))
        entity = EntityName(store, event.entity_type, event.entity_id)
        believed, version = versions.get(entity, (facts.entity_versions.get(entity, 0),) * 2)
        versions[entity] = (believed, version + 1)
        if event.command_id is not None:
            commands.append(CommandUse(CommandName(store, event.command_id), event.event_id))
    return Group(
        fence=facts.fence,
        numbered=numbered,
        sealed=[SealedEvent(os.urandom(sealed_bytes), os.urandom(32), os.urandom(64)) for _ in numbered],
        sequencer_id=SEQUENCER,
        sequencer_key_version=1,
        versions=[VersionStep(name, believed, new) for name, (believed, new) in versions.items()],
        commands=commands,
    )


async def decided(
    journal: Journal, tenant: Uuid, store: Uuid, *events: VerifiedEvent, sealed_bytes: int = 64
) -> Group:
    """A group of these events on what the journal says now."""
    facts = await journal.read_facts(question(tenant, [store], events))
    return a_group(facts, [(store, event) for event in events], sealed_bytes=sealed_bytes)


def an_agent_key(
    tenant: Uuid, *, agent: Uuid | None = None, key_id: int = 1, public_key: bytes | None = None
) -> AgentKey:
    return AgentKey(
        name=KeyName(tenant, agent or uuid(), key_id),
        public_key=public_key or os.urandom(32),
        key_algorithm=1,
        valid_from_us=1_000_000,
        valid_to_us=None,
        proof_of_possession=2,
    )


def an_api_key(tenant: Uuid, *, stores: tuple[Uuid, ...] | None = None, **more: Any) -> ApiKey:
    plain = ApiKey(
        id=uuid(),
        key_hash=os.urandom(32),
        prefix="ss_abcd",
        tenant_id=tenant,
        store_ids=stores,
        agent_id=None,
        permissions=("read", "write"),
        name="a test's",
    )
    return msgspec.structs.replace(plain, **more)


async def a_commitment(
    journal: Journal, tenant: Uuid, store: Uuid, through: int
) -> tuple[Commitment, bytes, int]:
    """The next commitment of a stream up to ``through``, levels of the right size, and what is believed
    committed. The journal does not look into trees, so these are random."""
    counter = await journal.read_commitment_counter(tenant, store)
    commitment = next_commitment(
        batch_id=uuid(),
        tenant_id=tenant,
        store_id=store,
        merkle_root=os.urandom(32),
        prev_state_root=counter.state_root,
        sequence_start=counter.committed_through + 1,
        sequence_end=through,
        committed_at_us=1_700_000_000_000_001,
    )
    levels = os.urandom(32 * (2 * commitment.padded_leaf_count - 1))
    return commitment, levels, counter.committed_through
