"""One group of legacy letters on its way to the disk: what the sequencer does for unsigned events.

The same walk (read, decide, seal, append; then answer), and the same sequencer takes it, so that a tenant has
one writer on a node for the entities that both streams share. No receipts: nobody signs here.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.asking import read_facts
from actors.errors import CredentialExpired, CredentialRevoked, NotNow, OutcomeUnknown
from actors.faults import checkpoint
from actors.mailbox import Letter, Ref
from actors.messages import AppendedLegacy, AppendLegacy, RowBytes, SealAtRest
from actors.right_of_way import Passage
from journal.port import (
    Away,
    CommandUse,
    Journal,
    JournalAway,
    JournalOutcomeUnknown,
    LegacyGroup,
    Moved,
    Stored,
    VersionStep,
)
from ves.at_rest import legacy_payload_aad
from ves.encoding import uuid_text
from ves.kdf import Purpose
from ves.legacy import NumberedLegacyEvent
from ves.legacy_decide import LegacyPlan, LegacyRequest, ask_legacy, decide_legacy
from ves.records import Facts, Uuid


@dataclass(frozen=True)
class LegacyDone:
    """A plan that is durable, or needed nothing to be stored: may be told."""

    plan: LegacyPlan

    def answer(self, letters: list[Letter[AppendedLegacy]]) -> None:
        for letter, request in zip(letters, self.plan.requests, strict=True):
            if request.ended == "revoked":
                letter.refuse(CredentialRevoked("the credential has been revoked"))
            elif request.ended == "expired":
                letter.refuse(CredentialExpired("the API key has expired"))
            else:
                letter.answer(
                    AppendedLegacy(
                        rejections=request.rejections,
                        events_accepted=request.events_accepted,
                        sequence_start=request.sequence_start,
                        sequence_end=request.sequence_end,
                        head_sequence=request.head_sequence,
                    )
                )


class LegacyAttempts:
    """How a tenant's legacy events get into the journal."""

    def __init__(self, *, tenant_id: Uuid, journal: Journal, encryptors: Ref, seal_deadline_s: float) -> None:
        self._tenant_id = tenant_id
        self._journal = journal
        self._encryptors = encryptors
        self._seal_deadline_s = seal_deadline_s

    async def attempt(
        self, letters: list[Letter[AppendedLegacy]], passage: Passage
    ) -> LegacyDone | Moved | Away | NotNow:
        """One round of read, decide, seal, append. Everything but LegacyDone means that nothing was stored.
        Raises OutcomeUnknown."""
        requests = [_request_of(letter) for letter in letters]
        question = ask_legacy(self._tenant_id, requests)
        try:
            facts = await read_facts(self._journal, question, passage)
        except JournalAway as error:
            return Away(str(error))
        if isinstance(facts, Moved):
            return facts
        checkpoint("sequencer.legacy_read")
        plan = decide_legacy(requests, facts)
        await passage.step()
        try:
            payloads = await self._seal(plan.numbered)
        except NotNow as reason:  # the encryptors' (sealing stores nothing, so doing it twice is harmless)
            return reason
        checkpoint("sequencer.legacy_sealed")
        if not plan.numbered and not plan.depends_on_state:
            return LegacyDone(plan)
        await passage.step()
        try:
            group = _group(plan, payloads, facts)
            outcome = await self._journal.append_legacy(group, passage.in_transaction)
        except JournalOutcomeUnknown as error:
            raise OutcomeUnknown(str(error)) from error
        checkpoint("sequencer.legacy_appended")
        # Durable from here on, if Stored.
        await passage.turn()
        return LegacyDone(plan) if isinstance(outcome, Stored) else outcome

    async def _seal(self, numbered: list[NumberedLegacyEvent]) -> list[bytes]:
        if not numbered:
            return []
        values = [row_bytes(self._tenant_id, one) for one in numbered]
        message = SealAtRest(Purpose.EVENTS, self._tenant_id, values)
        return await self._encryptors.ask(message, deadline_s=self._seal_deadline_s)


def row_bytes(tenant_id: Uuid, numbered: NumberedLegacyEvent) -> RowBytes:
    event = numbered.event
    row_hash = legacy_payload_aad(
        tenant_id,
        numbered.store_id,
        event.event_id,
        numbered.sequence_number,
        event.entity_type,
        event.entity_id,
        event.event_type,
    )
    return RowBytes(row_name(tenant_id, numbered.store_id, numbered.sequence_number), row_hash, event.payload)


def row_name(tenant_id: Uuid, store_id: Uuid, sequence_number: int) -> str:
    """For an operator who has to find the row."""
    return (
        f"the legacy payload stored at tenant {uuid_text(tenant_id)}, store {uuid_text(store_id)}, "
        f"sequence_number {sequence_number}"
    )


def _request_of(letter: Letter[AppendedLegacy]) -> LegacyRequest:
    message = letter.message
    assert isinstance(message, AppendLegacy)
    return LegacyRequest(message.batch, message.credential_id)


def _group(plan: LegacyPlan, payloads: list[bytes], facts: Facts) -> LegacyGroup:
    return LegacyGroup(
        fence=facts.fence,
        numbered=plan.numbered,
        payloads=payloads,
        versions=[VersionStep(name, believed, new) for name, (believed, new) in plan.versions.items()],
        commands=[CommandUse(name, event_id) for name, event_id in plan.commands.items()],
    )
