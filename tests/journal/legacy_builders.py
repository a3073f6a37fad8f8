"""Legacy events and groups for the journal's tests: random where nothing depends on it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from journal_builders import uuid

from journal.port import CommandUse, Journal, LegacyGroup, VersionStep
from ves.legacy import LegacyEvent, NumberedLegacyEvent, payload_hash
from ves.records import (
    NEW_STREAM,
    CommandName,
    CredentialId,
    EntityName,
    Facts,
    Head,
    Question,
    Uuid,
)


def a_legacy_event(
    *,
    event_id: Uuid | None = None,
    agent: Uuid = b"A" * 16,
    entity_id: str | None = None,
    command: Uuid | None = None,
    base_version: int | None = None,
    signature: bytes | None = None,
) -> LegacyEvent:
    return LegacyEvent(
        event_id=event_id or uuid(),
        source_agent=agent,
        entity_type="order",
        entity_id=entity_id if entity_id is not None else f"o-{os.urandom(8).hex()}",
        event_type="order.created",
        created_at_us=1_767_225_600_123_456,
        payload=b"{}",
        payload_hash=payload_hash(b"{}"),
        signature=signature,
        command_id=command,
        base_version=base_version,
    )


def legacy_question(
    tenant: Uuid,
    stores: Iterable[Uuid],
    events: Iterable[LegacyEvent] = (),
    *,
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
        keys=frozenset(),
        credential_ids=frozenset(credentials),
        legacy=True,
    )


def a_legacy_group(
    facts: Facts, placed: Iterable[tuple[Uuid, LegacyEvent]], *, payload_bytes: int = 64
) -> LegacyGroup:
    """Numbers (store, event) pairs on these facts, without judging them."""
    heads = dict(facts.fence.heads)
    versions: dict[EntityName, tuple[int, int]] = {}
    numbered, commands = [], []
    for store, event in placed:
        head = heads.get(store, NEW_STREAM)
        at = max(facts.now_us, head.last_sequenced_at_us)
        heads[store] = Head(head.current_sequence + 1, at)
        numbered.append(NumberedLegacyEvent(event, store, head.current_sequence + 1, at))
        entity = EntityName(store, event.entity_type, event.entity_id)
        believed, version = versions.get(entity, (facts.entity_versions.get(entity, 0),) * 2)
        versions[entity] = (believed, version + 1)
        if event.command_id is not None:
            commands.append(CommandUse(CommandName(store, event.command_id), event.event_id))
    return LegacyGroup(
        fence=facts.fence,
        numbered=numbered,
        payloads=[os.urandom(payload_bytes) for _ in numbered],
        versions=[VersionStep(name, believed, new) for name, (believed, new) in versions.items()],
        commands=commands,
    )


async def legacy_decided(
    journal: Journal, tenant: Uuid, store: Uuid, *events: LegacyEvent, payload_bytes: int = 64
) -> LegacyGroup:
    """A group of these events on what the journal says now."""
    facts = await journal.read_facts(legacy_question(tenant, [store], events))
    return a_legacy_group(facts, [(store, event) for event in events], payload_bytes=payload_bytes)
