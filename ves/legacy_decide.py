"""The one place where it is decided what becomes of a group of checked legacy events (wire 23.1).

What ``ves.decide`` is for signed events, with the same promises: pure, numbers head + 1, head + 2, …, and
nothing of a plan may be told before the journal has seen the fence unchanged. A legacy event that is there
already is refused, not replayed: ``DuplicateEventId`` means that nothing more is to be done.

Order per event, first failing check gives the reason: doubled in its request, there already, policy findings,
command id, base version. Rejections are told in request order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ves.decide import Ended, has_ended
from ves.encoding import uuid_text
from ves.legacy import LegacyBatch, LegacyEvent, NumberedLegacyEvent
from ves.records import (
    CommandName,
    CredentialId,
    EntityName,
    Facts,
    Head,
    Question,
    Refusal,
    Uuid,
)


class LegacyRequest(NamedTuple):
    """One caller's checked batch and the credential it came with (None: the bootstrap credential)."""

    batch: LegacyBatch
    credential_id: CredentialId | None


class LegacyRequestPlan(msgspec.Struct):
    """What one request is answered. A credential that has ended has nothing accepted and nothing rejected."""

    ended: Ended | None = None
    rejections: list[Refusal] = []
    events_accepted: int = 0
    sequence_start: int | None = None
    sequence_end: int | None = None
    head_sequence: int = 0
    """The stream's head right after this request."""


class LegacyPlan(msgspec.Struct):
    """What to store, and what to answer once it is."""

    numbered: list[NumberedLegacyEvent] = []
    versions: dict[EntityName, tuple[int, int]] = {}
    """Believed and new version of every entity touched."""
    commands: dict[CommandName, Uuid] = {}
    """Command ids used, and by which event."""
    requests: list[LegacyRequestPlan] = []
    depends_on_state: bool = False
    """Some refusal rests on what the journal held: tell it only after the fence was seen unchanged."""


def ask_legacy(tenant_id: Uuid, requests: Sequence[LegacyRequest]) -> Question:
    """Everything ``decide_legacy`` will need to know about this group, as one question."""
    stores = {batch.store_id for batch, _ in requests}
    events = [
        (batch.store_id, event)
        for batch, _ in requests
        for event in batch.outcomes
        if isinstance(event, LegacyEvent)
    ]
    return Question(
        tenant_id=tenant_id,
        store_ids=frozenset(stores),
        event_ids=frozenset(event.event_id for _, event in events),
        commands=frozenset(CommandName(s, e.command_id) for s, e in events if e.command_id is not None),
        entities=frozenset(EntityName(s, e.entity_type, e.entity_id) for s, e in events),
        keys=frozenset(),
        credential_ids=frozenset(c for _, c in requests if c is not None),
        legacy=True,
    )


def decide_legacy(requests: Sequence[LegacyRequest], facts: Facts) -> LegacyPlan:
    """The plan for these requests, given these facts. Same input, same plan."""
    deciding = _Deciding(facts)
    for request in requests:
        deciding.request(request)
    return deciding.plan


class _Deciding:
    """The facts, as they change while the group is walked through."""

    def __init__(self, facts: Facts) -> None:
        self.plan = LegacyPlan()
        self._facts = facts
        self._heads: dict[Uuid, Head] = dict(facts.fence.heads)
        self._taken = set(facts.taken)

    def request(self, request: LegacyRequest) -> None:
        batch, credential_id = request
        head = self._heads[batch.store_id]
        plan = LegacyRequestPlan(ended=has_ended(credential_id, self._facts, head))
        self.plan.requests.append(plan)
        if plan.ended is not None:
            self.plan.depends_on_state = True
            return
        seen: set[Uuid] = set()
        seen_commands: set[Uuid] = set()
        for outcome in batch.outcomes:
            refusal = outcome if isinstance(outcome, Refusal) else None
            if outcome.event_id in seen and refusal is None:
                text = f"Event {uuid_text(outcome.event_id)} duplicated in batch"
                refusal = Refusal(outcome.event_id, "DuplicateEventId", text)
            elif isinstance(outcome, LegacyEvent):
                refusal = self._objection(outcome, batch.store_id, seen_commands)
                if refusal is not None:
                    self.plan.depends_on_state = True
                else:
                    self._accept(outcome, batch.store_id, plan)
            if refusal is not None:
                plan.rejections.append(refusal)
            seen.add(outcome.event_id)
        plan.head_sequence = self._heads[batch.store_id].current_sequence

    def _objection(self, event: LegacyEvent, store_id: Uuid, seen_commands: set[Uuid]) -> Refusal | None:
        if event.event_id in self._taken:
            text = f"Event {uuid_text(event.event_id)} already exists"
            return Refusal(event.event_id, "DuplicateEventId", text)
        if event.findings:
            return Refusal(event.event_id, event.findings[0].reason, event.findings[0].message)
        if event.command_id is not None:
            command = CommandName(store_id, event.command_id)
            if command in self._facts.used_commands or command in self.plan.commands:
                how = "duplicated in batch" if event.command_id in seen_commands else "already processed"
                text = f"Command {uuid_text(event.command_id)} {how}"
                return Refusal(event.event_id, "DuplicateCommandId", text)
        if event.base_version is not None:
            actual = self._version(EntityName(store_id, event.entity_type, event.entity_id))
            if event.base_version != actual:
                text = f"Version conflict: expected {event.base_version}, actual {actual}"
                return Refusal(event.event_id, "VersionConflict", text)
        if event.command_id is not None:
            seen_commands.add(event.command_id)
        return None

    def _accept(self, event: LegacyEvent, store_id: Uuid, plan: LegacyRequestPlan) -> None:
        head = self._heads[store_id]
        number = head.current_sequence + 1
        sequenced_at_us = max(self._facts.now_us, head.last_sequenced_at_us)
        self._heads[store_id] = Head(number, sequenced_at_us)
        self.plan.numbered.append(NumberedLegacyEvent(event, store_id, number, sequenced_at_us))
        self._taken.add(event.event_id)
        entity = EntityName(store_id, event.entity_type, event.entity_id)
        believed = self._facts.entity_versions.get(entity, 0)
        self.plan.versions[entity] = (believed, self._version(entity) + 1)
        if event.command_id is not None:
            self.plan.commands[CommandName(store_id, event.command_id)] = event.event_id
        plan.events_accepted += 1
        plan.sequence_start = plan.sequence_start or number
        plan.sequence_end = number

    def _version(self, entity: EntityName) -> int:
        step = self.plan.versions.get(entity)
        return step[1] if step is not None else self._facts.entity_versions.get(entity, 0)
