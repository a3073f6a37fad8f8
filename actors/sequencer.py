"""The sequencer: one per tenant, owner of the numbers of its streams and of the group being written.

Takes whatever requests have gathered while the last group went to disk, reads what the journal knows of
them, lets ``ves.decide`` plan, has the plan sealed, appends it in one transaction, and only then answers. The
busier the tenant, the bigger the group; while much of its is still being verified, a small one waits a moment
for it. One group is in flight at a time; a large one lets tenants pass that have little under way. Of both
knows ``actors.right_of_way``.

Legacy events go the same way in a transaction of their own (``actors.legacy_group``), right after the signed
ones that were taken with them.

It believes nothing it remembers: every append carries a fence, and when another node moved first the same
incarnation reads, decides and seals again. When COMMIT was sent and not answered it dies; its next life
reads what is true, and callers learn that resending is harmless. It never answers before the journal did.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from actors.asking import read_facts
from actors.errors import CredentialExpired, CredentialRevoked, NotNow, OutcomeUnknown, Unavailable
from actors.faults import checkpoint
from actors.given_numbers import GivenNumbers
from actors.legacy_group import LegacyAttempts, LegacyDone
from actors.mailbox import EndOfLife, Inbox, Letter, Ref, ask_all
from actors.messages import Append, Appended, AppendLegacy, Message, Seal, Sealed
from actors.right_of_way import Passage, RightOfWay
from actors.settled_tenants import SettledTenants
from journal.port import (
    Away,
    CommandUse,
    Group,
    Journal,
    JournalAway,
    JournalOutcomeUnknown,
    Moved,
    Stored,
    VersionStep,
)
from journal.restorations import Given
from ves.decide import Plan, Planned, Request, RequestPlan, ask, decide
from ves.records import Facts, NumberedEvent, Receipt, SealedEvent, Uuid

MOVED_MAX = 5
"""How often a group is decided anew because another node moved first."""
AWAY_PATIENCE_S = 2.0
"""How long a group waits for a database that has just gone away: hides a restart, not an outage."""
AWAY_PAUSE_S = (0.05, 1.0)
"""First and longest pause between tries while the database is away."""
GATHERING_S = 0.03
"""So long a group waits at most for more of its tenant's requests."""
SEALED_TOGETHER_MIN = 64
"""Events in a part: fewer are not worth another way to a process and back."""
SEALED_AT_ONCE_MAX = 64
"""Events of a large group that are sealed between two moments in which others may pass: two milliseconds."""
_NOTHING_SEALED = Sealed(0, [])
"""Of a group without rows: no key signs for it."""


@dataclass(frozen=True)
class GroupLimits:
    letters_max: int
    events_max: int
    bytes_max: int
    """Of payloads."""
    seal_deadline_s: float = 10.0
    sealed_at_once: int = 1
    """Into so many parts a large group is divided for sealing: as many as there are encryptors."""


@dataclass
class Tally:
    """What all sequencers of a node count together, for whoever shows it. Decides nothing."""

    moved: int = 0
    """Groups decided anew because another node, or a revocation, came first. They cost work, never a life."""
    given: GivenNumbers | None = None
    """Where the numbers are noted that were given."""

    def gave(self, tenant_id: Uuid, numbered: list[NumberedEvent]) -> None:
        """These are durable. Of each stream the newest is noted."""
        if self.given is not None:
            newest = {one.store_id: one for one in numbered}
            for store_id, one in newest.items():
                self.given.gave(Given(tenant_id, store_id, one.sequence_number, one.event.event_id))


class Sequencer:
    """Answers ``Append`` and ``AppendLegacy``."""

    def __init__(
        self,
        *,
        tenant_id: Uuid,
        journal: Journal,
        encryptors: Ref,
        sequencer_id: Uuid,
        limits: GroupLimits,
        chance: random.Random,
        tally: Tally,
        settled_tenants: SettledTenants,
        right_of_way: RightOfWay,
        key_age_max_us: int | None = None,
    ) -> None:
        """``settled_tenants``, ``right_of_way``: the process's, known to every life. ``key_age_max_us``: new
        events signed by older agent keys are refused."""
        self._tenant_id = tenant_id
        self._journal = journal
        self._encryptors = encryptors
        self._sequencer_id = sequencer_id
        self._limits = limits
        self._chance = chance
        self._tally = tally
        self._settled_tenants = settled_tenants
        self._right_of_way = right_of_way
        self._key_age_max_us = key_age_max_us
        self._legacy = LegacyAttempts(
            tenant_id=tenant_id,
            journal=journal,
            encryptors=encryptors,
            seal_deadline_s=limits.seal_deadline_s,
        )
        self._settled = False
        self._pause_s = 0.0

    async def run(self, inbox: Inbox) -> None:
        self._settled = self._settled_tenants.take(self._tenant_id)
        # No name here for the letters: an idle tenant keeps nothing of its last group in memory.
        try:
            while True:
                await self._sequence_all(await self._next_group(inbox))
        except EndOfLife:  # between two groups, and only there: the next life goes on where this one ends
            if self._settled:
                self._settled_tenants.leave(self._tenant_id)
            raise

    async def _next_group(self, inbox: Inbox) -> list[Letter[Any]]:
        letters = await inbox.take_group(
            letters_max=self._limits.letters_max,
            weight_max=self._limits.bytes_max,
            weigh=self._weigh,
            wanted=lambda: self._right_of_way.worth_waiting_for(self._tenant_id),
            gathering_s=GATHERING_S,
        )
        return [letter for letter in letters if not letter.abandoned]

    def _weigh(self, message: Message[object]) -> int:
        assert isinstance(message, Append | AppendLegacy)
        weight_of_one = self._limits.bytes_max // self._limits.events_max
        return sum(max(weight_of_one, len(getattr(e, "payload", b""))) for e in message.batch.outcomes)

    async def _sequence_all(self, letters: list[Letter[Any]]) -> None:
        signed = [letter for letter in letters if isinstance(letter.message, Append)]
        if signed:
            requests = [_request_of(letter) for letter in signed]
            await self._sequence(signed, lambda passage: self._try(requests, passage))
        if len(signed) < len(letters):
            unsigned = [letter for letter in letters if isinstance(letter.message, AppendLegacy)]
            await self._sequence(unsigned, lambda passage: self._legacy.attempt(unsigned, passage))

    async def _sequence(self, letters: list[Letter[Any]], attempt: Attempt) -> None:
        """Every letter is answered or refused, or this life ends with OutcomeUnknown."""
        events = sum(map(_count_of, letters))
        with self._right_of_way.group(self._tenant_id, events) as passage:
            await self._sequence_on(passage, letters, attempt)

    async def _sequence_on(self, passage: Passage, letters: list[Letter[Any]], attempt: Attempt) -> None:
        give_up_at = trio.current_time() + (0.0 if self._pause_s else AWAY_PATIENCE_S)
        moves = 0
        while True:
            outcome = await self._settled_first(attempt, passage)
            if isinstance(outcome, Done | LegacyDone):
                self._pause_s = 0.0
                if isinstance(outcome, Done):
                    self._tally.gave(self._tenant_id, outcome.plan.numbered)
                return outcome.answer(letters)
            if isinstance(outcome, NotNow):
                return _refuse(letters, f"sealing is not available: {outcome}", outcome.retry_after_s)
            if isinstance(outcome, Moved):
                moves += 1
                self._tally.moved += 1
                passage.hurry()
                if moves > MOVED_MAX:
                    return _refuse(letters, "the stream is contended by other nodes", 1.0)
                await trio.sleep(self._chance.uniform(0, 0.01 * 2**moves))
                continue
            first, longest = AWAY_PAUSE_S
            self._pause_s = min(longest, max(first, self._pause_s * 2))
            if trio.current_time() + self._pause_s >= give_up_at:
                _refuse(letters, "the database is not available", 2.0)
                return await trio.sleep(self._pause_s)
            await trio.sleep(self._pause_s)

    async def _settled_first(self, attempt: Attempt, passage: Passage) -> Outcome:
        if not self._settled:
            try:
                await self._journal.settle(self._tenant_id)
            except JournalAway as error:
                return Away(str(error))
            self._settled = True
        return await attempt(passage)

    async def _try(self, requests: list[Request], passage: Passage) -> Done | Moved | Away | NotNow:
        """One round of read, decide, seal, append. Everything but Done means that nothing was stored."""
        question = ask(self._tenant_id, requests)
        try:
            facts = await read_facts(self._journal, question, passage)
        except JournalAway as error:
            return Away(str(error))
        if isinstance(facts, Moved):
            return facts
        checkpoint("sequencer.read")
        plan = decide(requests, facts, key_age_max_us=self._key_age_max_us)
        await passage.step()
        try:
            sealed = await self._seal(plan, passage)
        except NotNow as reason:  # the encryptors' (sealing stores nothing, so doing it twice is harmless)
            return reason
        checkpoint("sequencer.sealed")
        if not plan.numbered and not plan.depends_on_state:
            return Done(plan, sealed, self._sequencer_id)
        await passage.step()
        try:
            outcome = await self._journal.append(self._group(plan, sealed, facts), passage.in_transaction)
        except JournalOutcomeUnknown as error:
            raise OutcomeUnknown(str(error)) from error
        checkpoint("sequencer.appended")
        # Durable from here on, if Stored: everything above can be repeated, everything below is unafraid.
        await passage.turn()
        return Done(plan, sealed, self._sequencer_id) if isinstance(outcome, Stored) else outcome

    async def _seal(self, plan: Plan, passage: Passage) -> Sealed:
        events = plan.numbered
        if not events:
            return _NOTHING_SEALED
        encryptors = self._limits.sealed_at_once
        give_up_at = trio.current_time() + self._limits.seal_deadline_s
        parts: list[Sealed] = []
        rest = events
        while rest:
            if passage.is_large_beside_others:
                await passage.step()
                # One encryptor is left to the others.
                asked = _divided(rest[: SEALED_AT_ONCE_MAX * max(1, encryptors - 1)], SEALED_AT_ONCE_MAX)
            else:
                count = max(1, min(encryptors, len(rest) // SEALED_TOGETHER_MIN))
                asked = _divided(rest, -(-len(rest) // count))
            parts += await self._seal_parts(asked, give_up_at)
            rest = rest[sum(map(len, asked)) :]
        if len({part.sequencer_key_version for part in parts}) > 1:
            # The receipt key was changed between two parts: a group is signed by one key.
            parts = await self._seal_parts([events], trio.current_time() + self._limits.seal_deadline_s)
        if len(parts) == 1:
            return parts[0]
        return Sealed(parts[0].sequencer_key_version, [one for part in parts for one in part.events])

    async def _seal_parts(self, parts: list[list[NumberedEvent]], give_up_at: float) -> list[Sealed]:
        letters = [Seal(tenant_id=self._tenant_id, events=events) for events in parts]
        deadline_s = max(0.0, give_up_at - trio.current_time())
        return await ask_all(self._encryptors, letters, deadline_s=deadline_s)

    def _group(self, plan: Plan, sealed: Sealed, facts: Facts) -> Group:
        return Group(
            fence=facts.fence,
            numbered=plan.numbered,
            sealed=sealed.events,
            sequencer_id=self._sequencer_id,
            sequencer_key_version=sealed.sequencer_key_version,
            versions=[VersionStep(name, believed, new) for name, (believed, new) in plan.versions.items()],
            commands=[CommandUse(name, event_id) for name, event_id in plan.commands.items()],
        )


@dataclass(frozen=True)
class Done:
    """A plan that is durable, or needed nothing to be stored: may be told."""

    plan: Plan
    sealed: Sealed
    sequencer_id: Uuid

    def answer(self, letters: list[Letter[Appended]]) -> None:
        key_version = self.sealed.sequencer_key_version
        receipts = [
            _receipt(numbered, sealed, self.sequencer_id, key_version)
            for numbered, sealed in zip(self.plan.numbered, self.sealed.events, strict=True)
        ]
        for letter, request in zip(letters, self.plan.requests, strict=True):
            if request.credential_revoked:
                letter.refuse(CredentialRevoked("the credential has been revoked"))
            elif request.credential_expired:
                letter.refuse(CredentialExpired("the API key has expired"))
            else:
                letter.answer(_appended(request, receipts))


Outcome = Done | LegacyDone | Moved | Away | NotNow
Attempt = Callable[[Passage], Awaitable[Outcome]]


def _count_of(letter: Letter[Any]) -> int:
    message = letter.message
    assert isinstance(message, Append | AppendLegacy)
    return len(message.batch.outcomes)


def _request_of(letter: Letter[Appended]) -> Request:
    message = letter.message
    assert isinstance(message, Append)
    return Request(message.batch, message.credential_id)


def _receipt(numbered: NumberedEvent, sealed: SealedEvent, sequencer_id: Uuid, key_version: int) -> Receipt:
    return Receipt(
        event_id=numbered.event.event_id,
        sequence_number=numbered.sequence_number,
        sequenced_at_us=numbered.sequenced_at_us,
        receipt_hash=sealed.receipt_hash,
        sequencer_id=sequencer_id,
        sequencer_key_version=key_version,
        sequencer_signature=sealed.sequencer_signature,
    )


def _appended(request: RequestPlan, receipts: list[Receipt]) -> Appended:
    return Appended(
        verdicts=[receipts[v.place] if isinstance(v, Planned) else v for v in request.verdicts],
        events_accepted=request.events_accepted,
        events_replayed=request.events_replayed,
        sequence_start=request.sequence_start,
        sequence_end=request.sequence_end,
        head_sequence=request.head_sequence,
    )


def _divided(events: list[NumberedEvent], size: int) -> list[list[NumberedEvent]]:
    """In order, the last part perhaps smaller."""
    return [events[start : start + size] for start in range(0, len(events), size)]


def _refuse(letters: list[Letter[Any]], why: str, retry_after_s: float) -> None:
    for letter in letters:
        letter.refuse(Unavailable(why, retry_after_s=retry_after_s))
