"""The one place where it is decided what becomes of a group of verified events.

Pure: the journal's facts and the group come in, the plan comes out; time is ``facts.now_us``. The plan is
only as good as its facts: nothing of it may be told to anybody before the journal has seen the fence
unchanged. Never numbers an event twice and never leaves a gap: numbers are head + 1, head + 2, … per stream.

Order per event, first failing check gives the reason: doubled in its request, replay, policy findings, key
status, command id, base version. Requests are decided in the order they came, each seeing the effects of
those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from ves.encoding import uuid_text
from ves.key_life import unfit
from ves.records import (
    CommandName,
    CredentialId,
    EntityName,
    Facts,
    Head,
    KeyName,
    KnownEvent,
    NumberedEvent,
    Question,
    Receipt,
    Refusal,
    Uuid,
    VerifiedBatch,
    VerifiedEvent,
)


class Request(NamedTuple):
    """One caller's verified batch and the credential it came with (None: the bootstrap credential)."""

    batch: VerifiedBatch
    credential_id: CredentialId | None


class Planned(NamedTuple):
    """A receipt that will exist once the plan is durable: that of ``plan.numbered[place]``."""

    place: int


Verdict = Planned | Receipt | Refusal


class RequestPlan(msgspec.Struct):
    """One request's verdicts, in request order. A credential that is revoked or has expired has none."""

    credential_revoked: bool = False
    credential_expired: bool = False
    verdicts: list[Verdict] = []
    events_accepted: int = 0
    events_replayed: int = 0
    sequence_start: int | None = None
    sequence_end: int | None = None
    head_sequence: int = 0
    """The stream's head right after this request."""


class Plan(msgspec.Struct):
    """What to store, and what to answer once it is."""

    numbered: list[NumberedEvent] = []
    versions: dict[EntityName, tuple[int, int]] = {}
    """Believed and new version of every entity touched."""
    commands: dict[CommandName, Uuid] = {}
    """Command ids used, and by which event."""
    requests: list[RequestPlan] = []
    depends_on_state: bool = False
    """Some refusal rests on what the journal held: tell it only after the fence was seen unchanged."""


def ask(tenant_id: Uuid, requests: Sequence[Request]) -> Question:
    """Everything ``decide`` will need to know about this group, as one question."""
    stores: set[Uuid] = set()
    events: set[Uuid] = set()
    commands: set[CommandName] = set()
    entities: set[EntityName] = set()
    keys: set[KeyName] = set()
    credentials: set[CredentialId] = set()
    for batch, credential_id in requests:
        store_id = batch.store_id
        stores.add(store_id)
        if credential_id is not None:
            credentials.add(credential_id)
        for event in batch.outcomes:
            if isinstance(event, Refusal):
                continue
            events.add(event.event_id)
            entities.add(EntityName(store_id, event.entity_type, event.entity_id))
            keys.add(KeyName(tenant_id, event.source_agent_id, event.agent_key_id))
            if event.command_id is not None:
                commands.add(CommandName(store_id, event.command_id))
    return Question(
        tenant_id=tenant_id,
        store_ids=frozenset(stores),
        event_ids=frozenset(events),
        commands=frozenset(commands),
        entities=frozenset(entities),
        keys=frozenset(keys),
        credential_ids=frozenset(credentials),
    )


def decide(requests: Sequence[Request], facts: Facts, *, key_age_max_us: int | None = None) -> Plan:
    """The plan for these requests, given these facts. Same input, same plan.

    ``key_age_max_us``: new events signed by older keys are refused; None: keys may be of any age.
    """
    deciding = _Deciding(facts, key_age_max_us)
    for request in requests:
        deciding.request(request)
    return deciding.plan


Ended = Literal["revoked", "expired"]


def has_ended(credential_id: CredentialId | None, facts: Facts, head: Head) -> Ended | None:
    """Why nothing more may be sequenced with it: judged at the time that its events would be sequenced at, as
    agents' keys are."""
    if credential_id is None:
        return None
    if credential_id in facts.revoked_credentials:
        return "revoked"
    end_us = facts.credential_ends_us.get(credential_id)
    ended = end_us is not None and max(facts.now_us, head.last_sequenced_at_us) >= end_us
    return "expired" if ended else None


class _Deciding:
    """The facts, as they change while the group is walked through."""

    def __init__(self, facts: Facts, key_age_max_us: int | None) -> None:
        self.plan = Plan()
        self._facts = facts
        self._key_age_max_us = key_age_max_us
        self._heads: dict[Uuid, Head] = dict(facts.fence.heads)
        self._planned: dict[Uuid, int] = {}
        self._troubles: dict[tuple[Uuid, int, int], str | None] = {}
        """Of each key at a moment: a group has few of either."""

    def request(self, request: Request) -> None:
        batch, credential_id = request
        plan = RequestPlan()
        self.plan.requests.append(plan)
        head = self._heads[batch.store_id]
        ended = has_ended(credential_id, self._facts, head)
        if ended is not None:
            plan.credential_revoked = ended == "revoked"
            plan.credential_expired = ended == "expired"
            self.plan.depends_on_state = True
            return
        # Nothing of a group has another time than this one: the heads in ``facts`` are no younger.
        sequenced_at_us = max(self._facts.now_us, head.last_sequenced_at_us)
        seen: set[Uuid] = set()
        verdicts, numbered, planned = plan.verdicts, self.plan.numbered, self._planned
        first = number = head.current_sequence
        for event in batch.outcomes:
            event_id = event.event_id
            if isinstance(event, Refusal):
                verdicts.append(event)
            elif event_id in seen:
                verdicts.append(_doubled(event))
            elif (old := self._replay_or_objection(event, batch, sequenced_at_us, plan)) is not None:
                verdicts.append(old)
            else:
                number += 1
                planned[event_id] = place = len(numbered)
                numbered.append(NumberedEvent(event, batch.store_id, number, sequenced_at_us))
                verdicts.append(Planned(place))
            seen.add(event_id)
        if number > first:
            self._heads[batch.store_id] = Head(number, sequenced_at_us)
            plan.events_accepted = number - first
            plan.sequence_start, plan.sequence_end = first + 1, number
        plan.head_sequence = number

    def _replay_or_objection(
        self, event: VerifiedEvent, batch: VerifiedBatch, sequenced_at_us: int, plan: RequestPlan
    ) -> Verdict | None:
        """Why it gets no number of its own. None: it gets the next one, and its entity and command id are
        noted as touched by it."""
        store_id = batch.store_id
        if event.event_id in self._planned or event.event_id in self._facts.known:
            verdict = self._replay(event, store_id)
            if isinstance(verdict, Refusal):
                self.plan.depends_on_state = True
            else:
                plan.events_replayed += 1
            return verdict
        entity = EntityName(store_id, event.entity_type, event.entity_id)
        step = self.plan.versions.get(entity)
        believed, actual = step or ((v := self._facts.entity_versions.get(entity, 0)), v)
        refusal = self._objection(event, batch, sequenced_at_us, actual)
        if refusal is not None:
            self.plan.depends_on_state = True
            return refusal
        self.plan.versions[entity] = (believed, actual + 1)
        if event.command_id is not None:
            self.plan.commands[CommandName(store_id, event.command_id)] = event.event_id
        return None

    def _replay(self, event: VerifiedEvent, store_id: Uuid) -> Verdict:
        """Of an event whose id is taken: the old receipt of an exact replay, or the refusal of the same id
        with other content.

        Equal signing hashes and signatures mean equal content: the hash covers every signed field, and for
        encrypted payloads (whose cipher hash was just found true) every member of ``payload_encrypted``.
        """
        place = self._planned.get(event.event_id)
        if place is not None:
            first = self.plan.numbered[place]
            same = first.store_id == store_id and _same(event, first.event)
            return Planned(place) if same else _other_content(event)
        known = self._facts.known[event.event_id]
        if known.store_id != store_id:
            return Refusal(event.event_id, "duplicate_event_id", "Event ID already exists")
        return known.receipt if _same(event, known) else _other_content(event)

    def _objection(
        self, event: VerifiedEvent, batch: VerifiedBatch, sequenced_at_us: int, actual_version: int
    ) -> Refusal | None:
        if event.findings:
            finding = event.findings[0]
            return Refusal(event.event_id, finding.reason, finding.message)
        trouble = self._trouble(batch.tenant_id, event, sequenced_at_us)
        if trouble is not None:
            return Refusal(event.event_id, f"agent_key_invalid: {trouble}", trouble)
        if event.command_id is not None:
            command = CommandName(batch.store_id, event.command_id)
            if command in self._facts.used_commands or command in self.plan.commands:
                text = f"Command {uuid_text(event.command_id)} already processed"
                return Refusal(event.event_id, "duplicate_command_id", text)
        if event.base_version is not None and event.base_version != actual_version:
            text = f"expected {event.base_version}, actual {actual_version}"
            return Refusal(event.event_id, f"version_conflict: {text}", f"Version conflict: {text}")
        return None

    def _trouble(self, tenant_id: Uuid, event: VerifiedEvent, at_us: int) -> str | None:
        asked = (event.source_agent_id, event.agent_key_id, at_us)
        try:
            return self._troubles[asked]
        except KeyError:
            key = self._facts.keys.get(KeyName(tenant_id, event.source_agent_id, event.agent_key_id))
            trouble = self._troubles[asked] = unfit(key, at_us, age_max_us=self._key_age_max_us)
            return trouble


def _same(event: VerifiedEvent, other: VerifiedEvent | KnownEvent) -> bool:
    return (
        event.event_signing_hash == other.event_signing_hash
        and event.agent_signature == other.agent_signature
        and event.command_id == other.command_id
        and event.base_version == other.base_version
    )


def _doubled(event: VerifiedEvent) -> Refusal:
    text = f"Event {uuid_text(event.event_id)} duplicated in batch"
    return Refusal(event.event_id, "duplicate_event_id", text)


def _other_content(event: VerifiedEvent) -> Refusal:
    return Refusal(event.event_id, "duplicate_event_id", "Event ID already exists with different contents")
