"""Laws of numbering: whatever is sent in whatever order, numbers are 1..head and nothing is doubled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ves.decide import Plan, Planned, Request, ask, decide
from ves.records import (
    NEW_STREAM,
    CommandName,
    EntityName,
    Facts,
    Fence,
    Finding,
    Head,
    KeyName,
    KeyStatus,
    KnownEvent,
    Receipt,
    Refusal,
    VerifiedBatch,
    VerifiedEvent,
)

TENANT = b"T" * 16
STORES = [b"S" * 16, b"s" * 16]
AGENT = b"A" * 16
KEY = KeyName(TENANT, AGENT, 1)
IDENTITY = b"Q" * 16


def an_event(
    number: int,
    *,
    content: int = 0,
    command: int | None = None,
    base: int | None = None,
    entity: int = 0,
    store: bytes = STORES[0],
    findings: tuple[Finding, ...] = (),
) -> VerifiedEvent:
    event_id = number.to_bytes(16, "big")
    digest = hashlib.sha256(event_id + store + bytes([content, entity])).digest()
    return VerifiedEvent(
        event_id=event_id,
        source_agent_id=AGENT,
        agent_key_id=1,
        entity_type="order",
        entity_id=f"o-{entity}",
        event_type="order.created",
        created_at="2026-01-01T00:00:00Z",
        payload_kind=0,
        payload=b"{}",
        payload_plain_hash=digest,
        payload_cipher_hash=bytes(32),
        agent_signature=digest * 2,
        event_signing_hash=digest,
        command_id=None if command is None else command.to_bytes(16, "big"),
        base_version=base,
        findings=findings,
    )


def a_batch(*events: VerifiedEvent | Refusal, store: bytes = STORES[0]) -> VerifiedBatch:
    return VerifiedBatch(tenant_id=TENANT, store_id=store, agent_id=AGENT, outcomes=list(events))


@dataclass
class Ledger:
    """The least that a journal has to be for the laws: applies plans, answers questions."""

    now_us: int = 1_000_000
    heads: dict[bytes, Head] = field(default_factory=dict)
    known: dict[bytes, KnownEvent] = field(default_factory=dict)
    commands: set[CommandName] = field(default_factory=set)
    versions: dict[EntityName, int] = field(default_factory=dict)
    keys: dict[KeyName, KeyStatus] = field(default_factory=lambda: {KEY: KeyStatus(None, None, False)})
    revoked: frozenset[bytes] = frozenset()
    ends_us: dict[bytes, int] = field(default_factory=dict)

    def facts(self, requests: list[Request]) -> Facts:
        question = ask(TENANT, requests)
        heads = {store: self.heads.get(store, NEW_STREAM) for store in question.store_ids}
        return Facts(
            now_us=self.now_us,
            fence=Fence(TENANT, 0, 0, heads),
            known={e: self.known[e] for e in question.event_ids if e in self.known},
            used_commands=frozenset(question.commands & self.commands),
            entity_versions={e: self.versions[e] for e in question.entities if e in self.versions},
            keys={k: self.keys[k] for k in question.keys if k in self.keys},
            revoked_credentials=self.revoked,
            credential_ends_us=self.ends_us,
        )

    def apply(self, plan: Plan) -> None:
        for n in plan.numbered:
            head = self.heads.get(n.store_id, NEW_STREAM)
            assert n.sequence_number == head.current_sequence + 1, "a gap or a double"
            assert n.sequenced_at_us >= head.last_sequenced_at_us, "time fell"
            assert n.event.event_id not in self.known, "an event numbered twice"
            self.heads[n.store_id] = Head(n.sequence_number, n.sequenced_at_us)
            self.known[n.event.event_id] = KnownEvent(
                n.store_id,
                n.event.event_signing_hash,
                n.event.agent_signature,
                n.event.command_id,
                n.event.base_version,
                Receipt(
                    n.event.event_id, n.sequence_number, n.sequenced_at_us, b"r" * 32, IDENTITY, 1, b"s" * 64
                ),
            )
        for entity, (believed, new) in plan.versions.items():
            assert self.versions.get(entity, 0) == believed
            self.versions[entity] = new
        assert not self.commands & plan.commands.keys()
        self.commands |= plan.commands.keys()

    def submit(self, *batches: VerifiedBatch) -> Plan:
        requests = [Request(batch, None) for batch in batches]
        plan = decide(requests, self.facts(requests))
        self.apply(plan)
        return plan


events = st.builds(
    an_event,
    st.integers(0, 12),
    content=st.integers(0, 1),
    command=st.none() | st.integers(0, 4),
    base=st.none() | st.integers(0, 3),
    entity=st.integers(0, 2),
)
batches = st.builds(
    lambda evs, store: a_batch(*evs, store=store), st.lists(events, max_size=6), st.sampled_from(STORES)
)


@given(st.lists(st.tuples(st.lists(batches, min_size=1, max_size=4), st.integers(-5, 5)), max_size=6))
def test_numbers_are_gap_free_and_single_under_any_interleaving(
    groups: list[tuple[list[VerifiedBatch], int]],
) -> None:
    ledger = Ledger()
    for group, drift in groups:
        ledger.now_us += drift  # the database's clock may fall; sequenced_at may not
        plan = ledger.submit(*group)
        for batch, request in zip(group, plan.requests, strict=True):
            refused = sum(isinstance(v, Refusal) for v in request.verdicts)
            assert len(request.verdicts) == len(batch.outcomes)
            assert request.events_accepted + request.events_replayed + refused == len(batch.outcomes)
    for store in STORES:
        numbers = sorted(k.receipt.sequence_number for k in ledger.known.values() if k.store_id == store)
        assert numbers == list(range(1, ledger.heads.get(store, NEW_STREAM).current_sequence + 1))


@given(st.lists(batches, min_size=1, max_size=4))
def test_resending_a_group_numbers_no_accepted_event_again(group: list[VerifiedBatch]) -> None:
    ledger = Ledger()
    first = ledger.submit(*group)
    accepted = {n.event.event_id for n in first.numbered}
    again = ledger.submit(*group)
    # An event refused for its base_version may fit by now; one that was accepted is never numbered again.
    assert not accepted & {n.event.event_id for n in again.numbered}
    for before, after in zip(first.requests, again.requests, strict=True):
        for one, two in zip(before.verdicts, after.verdicts, strict=True):
            if isinstance(one, Planned):
                assert isinstance(two, Receipt)
                assert two.sequence_number == first.numbered[one.place].sequence_number


def test_the_same_id_twice_in_one_request_is_a_duplicate_and_in_two_requests_a_replay() -> None:
    ledger = Ledger()
    plan = ledger.submit(a_batch(an_event(1), an_event(1)), a_batch(an_event(1)))
    first, second = plan.requests
    assert first.verdicts[0] == Planned(0)
    assert isinstance(first.verdicts[1], Refusal)
    assert first.verdicts[1].reason == "duplicate_event_id"
    assert second.verdicts == [Planned(0)]
    assert (second.events_accepted, second.events_replayed, second.sequence_start) == (0, 1, None)


def test_a_replay_is_answered_before_any_policy_is_looked_at() -> None:
    ledger = Ledger()
    ledger.submit(a_batch(an_event(1)))
    ledger.keys[KEY] = KeyStatus(None, None, revoked=True)
    late = an_event(1, findings=(Finding("schema_validation: created_at", "in the future"),))
    plan = ledger.submit(a_batch(late, an_event(2)))
    assert isinstance(plan.requests[0].verdicts[0], Receipt)
    refused = plan.requests[0].verdicts[1]
    assert isinstance(refused, Refusal)
    assert refused.reason == "agent_key_invalid: Agent key has been revoked"
    assert plan.depends_on_state


def test_same_id_with_other_content_or_in_another_store_is_refused() -> None:
    ledger = Ledger()
    ledger.submit(a_batch(an_event(1)))
    plan = ledger.submit(
        a_batch(an_event(1, content=1)), a_batch(an_event(1, store=STORES[1]), store=STORES[1])
    )
    messages = [v.message for r in plan.requests for v in r.verdicts if isinstance(v, Refusal)]
    assert messages == ["Event ID already exists with different contents", "Event ID already exists"]


def test_another_command_or_base_version_is_no_replay() -> None:
    ledger = Ledger()
    ledger.submit(a_batch(an_event(1, command=1, base=0)))
    plan = ledger.submit(a_batch(an_event(1, command=2, base=0)), a_batch(an_event(1, command=1, base=1)))
    assert all(isinstance(r.verdicts[0], Refusal) for r in plan.requests)


def test_base_versions_count_up_inside_one_request() -> None:
    ledger = Ledger()
    plan = ledger.submit(a_batch(an_event(1, base=0), an_event(2, base=1), an_event(3, base=1)))
    refused = plan.requests[0].verdicts[2]
    assert isinstance(refused, Refusal)
    assert refused.reason == "version_conflict: expected 1, actual 2"
    assert len(plan.numbered) == 2


def test_a_command_is_used_once_and_a_refused_event_does_not_burn_it() -> None:
    ledger = Ledger()
    plan = ledger.submit(
        a_batch(an_event(1, command=7, base=9), an_event(2, command=7), an_event(3, command=7))
    )
    reasons = [v.reason if isinstance(v, Refusal) else "ok" for v in plan.requests[0].verdicts]
    assert reasons == ["version_conflict: expected 9, actual 0", "ok", "duplicate_command_id"]


def test_key_windows_are_inclusive_and_judged_at_sequencing_time() -> None:
    ledger = Ledger(now_us=100)
    for status, reason in [
        (KeyStatus(100, 100, False), "ok"),
        (KeyStatus(101, None, False), "agent_key_invalid: Agent key is not yet valid"),
        (KeyStatus(None, 99, False), "agent_key_invalid: Agent key has expired"),
    ]:
        fresh = Ledger(now_us=100, keys={KEY: status})
        verdict = fresh.submit(a_batch(an_event(1))).requests[0].verdicts[0]
        assert (verdict.reason if isinstance(verdict, Refusal) else "ok") == reason
    assert ledger.now_us == 100


def test_a_request_of_a_revoked_credential_gets_no_verdicts_and_its_neighbours_do() -> None:
    ledger = Ledger(revoked=frozenset([b"c" * 16]))
    requests = [Request(a_batch(an_event(1)), b"c" * 16), Request(a_batch(an_event(2)), None)]
    plan = decide(requests, ledger.facts(requests))
    assert plan.requests[0].credential_revoked
    assert [n.event.event_id for n in plan.numbered] == [(2).to_bytes(16, "big")]
    assert plan.depends_on_state


@pytest.mark.parametrize(
    ("now_us", "last_us", "expired"),
    [(99, 0, False), (100, 0, True), (50, 99, False), (50, 100, True)],
)
def test_nothing_is_sequenced_at_or_after_its_credentials_end(
    now_us: int, last_us: int, expired: bool
) -> None:
    """By the time the event would be sequenced at: the database's clock, or the stream's last time."""
    ledger = Ledger(now_us=now_us, ends_us={b"c" * 16: 100}, heads={STORES[0]: Head(7, last_us)})
    requests = [Request(a_batch(an_event(1)), b"c" * 16), Request(a_batch(an_event(2)), None)]
    plan = decide(requests, ledger.facts(requests))
    assert plan.requests[0].credential_expired == expired
    assert plan.requests[0].events_accepted == (0 if expired else 1)
    assert plan.requests[1].events_accepted == 1
    assert plan.depends_on_state == expired


def test_a_verifiers_refusal_passes_through_and_marks_its_id_as_seen() -> None:
    ledger = Ledger()
    bad = Refusal((5).to_bytes(16, "big"), "invalid_signature", "Agent signature verification failed")
    plan = ledger.submit(a_batch(bad, an_event(5)))
    assert plan.requests[0].verdicts[0] == bad
    assert isinstance(plan.requests[0].verdicts[1], Refusal)
    assert not plan.numbered
