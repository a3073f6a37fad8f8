"""Laws of the legacy stream: numbers are 1..head, every event is told of once, a resend changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ves.legacy import LegacyBatch, LegacyEvent, payload_hash
from ves.legacy_decide import LegacyPlan, LegacyRequest, ask_legacy, decide_legacy
from ves.records import (
    NEW_STREAM,
    CommandName,
    EntityName,
    Facts,
    Fence,
    Finding,
    Head,
    IssuedToken,
    Refusal,
)

TENANT = b"T" * 16
STORES = [b"S" * 16, b"s" * 16]
AGENT = b"A" * 16
FOUND = (Finding("SchemaValidation", "does not match"),)


def an_event(
    number: int,
    *,
    command: int | None = None,
    base: int | None = None,
    entity: int = 0,
    findings: tuple[Finding, ...] = (),
) -> LegacyEvent:
    return LegacyEvent(
        event_id=number.to_bytes(16, "big"),
        source_agent=AGENT,
        entity_type="order",
        entity_id=f"o-{entity}",
        event_type="order.created",
        created_at_us=0,
        payload=b"{}",
        payload_hash=payload_hash(b"{}"),
        signature=None,
        command_id=None if command is None else command.to_bytes(16, "big"),
        base_version=base,
        findings=findings,
    )


def a_batch(*outcomes: LegacyEvent | Refusal, store: bytes = STORES[0]) -> LegacyBatch:
    return LegacyBatch(TENANT, store, AGENT, list(outcomes))


@dataclass
class Ledger:
    """The least that a journal has to be for the laws: applies plans, answers questions."""

    now_us: int = 1_000_000
    heads: dict[bytes, Head] = field(default_factory=dict)
    taken: set[bytes] = field(default_factory=set)
    commands: set[CommandName] = field(default_factory=set)
    versions: dict[EntityName, int] = field(default_factory=dict)
    revoked: frozenset[bytes] = frozenset()
    ends_us: dict[bytes, int] = field(default_factory=dict)

    def facts(self, requests: list[LegacyRequest]) -> Facts:
        question = ask_legacy(TENANT, requests)
        assert question.legacy
        assert not question.keys
        heads = {store: self.heads.get(store, NEW_STREAM) for store in question.store_ids}
        return Facts(
            now_us=self.now_us,
            fence=Fence(TENANT, 0, 0, heads),
            known={},
            used_commands=frozenset(question.commands & self.commands),
            entity_versions={e: self.versions[e] for e in question.entities if e in self.versions},
            keys={},
            revoked_credentials=self.revoked,
            credential_ends_us=self.ends_us,
            taken=question.event_ids & self.taken,
        )

    def apply(self, plan: LegacyPlan) -> None:
        for n in plan.numbered:
            head = self.heads.get(n.store_id, NEW_STREAM)
            assert n.sequence_number == head.current_sequence + 1, "a gap or a double"
            assert n.sequenced_at_us >= head.last_sequenced_at_us, "time fell"
            assert n.event.event_id not in self.taken, "an event numbered twice"
            assert not n.event.findings, "an event that a policy objects to"
            self.heads[n.store_id] = Head(n.sequence_number, n.sequenced_at_us)
            self.taken.add(n.event.event_id)
        for entity, (believed, new) in plan.versions.items():
            assert self.versions.get(entity, 0) == believed
            self.versions[entity] = new
        assert not self.commands & plan.commands.keys()
        self.commands |= plan.commands.keys()

    def submit(self, *batches: LegacyBatch) -> LegacyPlan:
        requests = [LegacyRequest(batch, None) for batch in batches]
        plan = decide_legacy(requests, self.facts(requests))
        self.apply(plan)
        return plan


events = st.builds(
    an_event,
    st.integers(0, 12),
    command=st.none() | st.integers(0, 4),
    base=st.none() | st.integers(0, 3),
    entity=st.integers(0, 2),
    findings=st.sampled_from([(), (), (), FOUND]),
)
refusals = st.builds(
    lambda number: Refusal(number.to_bytes(16, "big"), "InvalidPayloadHash", "no"), st.integers(0, 12)
)
batches = st.builds(
    lambda outcomes, store: a_batch(*outcomes, store=store),
    st.lists(events | refusals, max_size=6),
    st.sampled_from(STORES),
)
groups = st.lists(st.tuples(st.lists(batches, min_size=1, max_size=4), st.integers(-5, 5)), max_size=6)


@given(groups)
def test_numbers_are_gap_free_and_every_event_is_accepted_or_rejected_once(
    groups: list[tuple[list[LegacyBatch], int]],
) -> None:
    ledger = Ledger()
    for group, drift in groups:
        ledger.now_us += drift  # the database's clock may fall; sequenced_at may not
        before = {store: ledger.heads.get(store, NEW_STREAM).current_sequence for store in STORES}
        plan = ledger.submit(*group)
        for batch, told in zip(group, plan.requests, strict=True):
            assert told.events_accepted + len(told.rejections) == len(batch.outcomes)
            sent = [outcome.event_id for outcome in batch.outcomes]
            rest = iter(sent)
            assert all(refusal.event_id in rest for refusal in told.rejections), "not in request order"
            if told.events_accepted:
                assert told.sequence_start is not None
                assert told.sequence_end == told.sequence_start + told.events_accepted - 1
                assert told.head_sequence == told.sequence_end
                assert told.sequence_start == before[batch.store_id] + 1
            else:
                assert told.sequence_start is told.sequence_end is None
                assert told.head_sequence == before[batch.store_id]
            before[batch.store_id] = told.head_sequence
    assert sum(head.current_sequence for head in ledger.heads.values()) == len(ledger.taken)
    assert sum(ledger.versions.values()) == len(ledger.taken)


@given(groups)
def test_whatever_is_sent_again_is_there_already_or_was_refused_for_itself(
    groups: list[tuple[list[LegacyBatch], int]],
) -> None:
    ledger = Ledger()
    accepted = []
    for group, _ in groups:
        plan = ledger.submit(*group)
        accepted += [(n.store_id, n.event) for n in plan.numbered]
    heads, versions = dict(ledger.heads), dict(ledger.versions)
    for store, event in accepted:
        # A policy that is narrower now does not make it look new.
        plan = ledger.submit(
            a_batch(an_event(int.from_bytes(event.event_id, "big"), findings=FOUND), store=store)
        )
        assert [r.reason for r in plan.requests[0].rejections] == ["DuplicateEventId"]
        assert plan.depends_on_state
    assert (heads, versions) == (ledger.heads, ledger.versions)


@given(batches, st.integers(0, 3))
def test_deciding_the_same_again_gives_the_same_plan(batch: LegacyBatch, times: int) -> None:
    ledger = Ledger()
    requests = [LegacyRequest(batch, None)]
    facts = ledger.facts(requests)
    first = decide_legacy(requests, facts)
    assert all(decide_legacy(requests, facts) == first for _ in range(times))


def rejected(ledger: Ledger, *outcomes: LegacyEvent | Refusal) -> list[tuple[int, str]]:
    plan = ledger.submit(a_batch(*outcomes))
    return [(int.from_bytes(r.event_id, "big"), r.reason) for r in plan.requests[0].rejections]


def test_consecutive_versions_in_one_batch_follow_each_other() -> None:
    ledger = Ledger()
    assert rejected(ledger, *(an_event(n, base=n) for n in range(3))) == []
    assert rejected(ledger, an_event(3, base=2), an_event(4, base=3), an_event(5, base=3)) == [
        (3, "VersionConflict"),
        (5, "VersionConflict"),
    ]


def test_what_is_refused_uses_up_neither_its_command_nor_a_number() -> None:
    ledger = Ledger()
    assert rejected(ledger, an_event(1, command=1, base=9), an_event(2, command=1)) == [
        (1, "VersionConflict")
    ]
    assert rejected(ledger, an_event(1, command=1)) == [(1, "DuplicateCommandId")]
    assert rejected(ledger, an_event(1)) == []


def test_an_id_refused_before_in_the_same_batch_is_doubled() -> None:
    first = Refusal((1).to_bytes(16, "big"), "InvalidPayloadHash", "no")
    assert rejected(Ledger(), first, an_event(1)) == [(1, "InvalidPayloadHash"), (1, "DuplicateEventId")]


def test_two_requests_of_one_group_see_each_other() -> None:
    ledger = Ledger()
    plan = ledger.submit(a_batch(an_event(1, command=1)), a_batch(an_event(1), an_event(2, command=1)))
    assert [r.reason for r in plan.requests[1].rejections] == ["DuplicateEventId", "DuplicateCommandId"]
    assert plan.requests[1].rejections[1].message.endswith("already processed")


@pytest.mark.parametrize("ended", ["revoked", "expired"])
def test_a_credential_that_has_ended_gets_nothing_stored_and_the_neighbours_go_on(ended: str) -> None:
    key = b"K" * 16
    ledger = Ledger(now_us=100)
    if ended == "revoked":
        ledger.revoked = frozenset({key})
    else:
        ledger.ends_us = {key: 100}
    requests = [
        LegacyRequest(a_batch(an_event(1)), key),
        LegacyRequest(a_batch(an_event(2)), None),
        LegacyRequest(a_batch(an_event(3)), IssuedToken(AGENT, 5)),
    ]
    plan = decide_legacy(requests, ledger.facts(requests))
    assert [request.ended for request in plan.requests] == [ended, None, None]
    assert [n.event.event_id[-1] for n in plan.numbered] == [2, 3]
    assert plan.depends_on_state
