"""Laws of policies, from the bytes of a body to what is numbered: who is refused, who never is."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_agent import ANYWHERE, NOW_US, Agent, Trade, objections

from actors import worker_comparing
from actors.worker_verifying import Verifying
from actors.worker_wire import BecomeVerifier, VerifyBody
from ves.decide import Plan, Request, decide
from ves.records import (
    NEW_STREAM,
    BodyRefused,
    Facts,
    Fence,
    KeyStatus,
    KnownEvent,
    NeedsKeys,
    NeedsPolicy,
    NeedsSchemas,
    Receipt,
    Refusal,
    VerifiedBatch,
    VerifiedEvent,
)

POSITIVE = {"properties": {"total": {"type": "number", "minimum": 0}}, "required": ["total"]}
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "abc"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["total", "b"]), inner, max_size=2)
    ),
    max_leaves=6,
).filter(lambda value: value is not None)
SCHEMAS = st.sampled_from(
    [
        POSITIVE,
        {"type": "object"},
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
        {"not": {"type": "string"}},
        {"oneOf": [{"type": "integer"}, {"minimum": 1}]},
        {"additionalProperties": {"$ref": "#"}, "maxProperties": 1},
        {"propertyNames": {"pattern": "^t"}, "unevaluatedProperties": False, "properties": {"total": {}}},
        False,
        True,
    ]
)
MODES = st.sampled_from(["disabled", "warn", "enforce", "required"])


def decided(batch: VerifiedBatch, known: dict[bytes, KnownEvent] | None = None) -> Plan:
    keys = {
        (batch.tenant_id, o.source_agent_id, o.agent_key_id): KeyStatus(None, None, False)
        for o in batch.outcomes
        if isinstance(o, VerifiedEvent)
    }
    facts = Facts(
        now_us=NOW_US,
        fence=Fence(batch.tenant_id, 0, 0, {batch.store_id: NEW_STREAM}),
        known=known or {},
        used_commands=frozenset(),
        entity_versions={},
        keys=keys,  # type: ignore[arg-type]
        revoked_credentials=frozenset(),
    )
    return decide([Request(batch, None)], facts)


def stored(batch: VerifiedBatch) -> dict[bytes, KnownEvent]:
    """What the journal would know of these events, had all been accepted."""
    events = [o for o in batch.outcomes if isinstance(o, VerifiedEvent)]
    return {
        e.event_id: KnownEvent(
            batch.store_id,
            e.event_signing_hash,
            e.agent_signature,
            e.command_id,
            e.base_version,
            Receipt(e.event_id, n, NOW_US, bytes(32), bytes(16), 1, bytes(64)),
        )
        for n, e in enumerate(events, 1)
    }


@settings(max_examples=80, deadline=None)
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=4), MODES)
def test_what_is_numbered_is_what_the_reference_accepts(schema: Any, payloads: list[Any], mode: str) -> None:
    agent = Agent()
    trade = Trade(agent, {"order.created": schema}, schema_mode=mode)
    batch = trade.verify(agent.body(*(agent.event(p) for p in payloads)))
    numbered = [json.loads(n.event.payload) for n in decided(batch).numbered]
    if mode in ("disabled", "warn"):
        assert numbered == payloads
    else:
        assert numbered == [p for p in payloads if jsonschema_rs.is_valid(schema, p)]


@settings(max_examples=40, deadline=None)
@given(SCHEMAS, VALUES, MODES)
def test_a_policy_narrowed_later_refuses_no_replay(schema: Any, payload: Any, mode: str) -> None:
    agent = Agent()
    body = agent.body(agent.event(payload), agent.event(payload))
    before = Trade(agent).verify(body)
    narrowed = Trade(agent, {"order.created": schema}, schema_mode=mode, entity_types=())
    narrowed.become = BecomeVerifier(payload_bytes_max=1, future_us_max=0)
    plan = decided(narrowed.verify(body), stored(before))
    assert [type(verdict) for verdict in plan.requests[0].verdicts] == [Receipt, Receipt]


@settings(max_examples=40, deadline=None)
@given(SCHEMAS, VALUES)
def test_warn_counts_and_never_refuses(schema: Any, payload: Any) -> None:
    agent = Agent()
    batch = Trade(agent, {"order.created": schema}, schema_mode="warn").verify(
        agent.body(agent.event(payload), agent.encrypted(payload), agent.event(payload, event_type="other"))
    )
    assert objections(batch) == [[], [], []]
    assert batch.checks is not None
    valid = jsonschema_rs.is_valid(schema, payload)
    checks = batch.checks
    assert (checks.validated, checks.failed, checks.unread) == (int(valid), int(not valid), 1)
    assert len(checks.warned) == (not valid)


@pytest.mark.parametrize(
    ("mode", "plain", "encrypted", "unregistered"),
    [
        ("disabled", [], [], []),
        ("warn", [], [], []),
        ("enforce", ["schema_validation: /total minimum"], [], []),
        (
            "required",
            ["schema_validation: /total minimum"],
            ["schema_validation: payload_encrypted"],
            ["schema_validation: event_type"],
        ),
    ],
)
def test_each_mode_refuses_what_its_name_says(
    mode: str, plain: list[str], encrypted: list[str], unregistered: list[str]
) -> None:
    agent = Agent()
    trade = Trade(agent, {"order.created": POSITIVE}, schema_mode=mode)
    bad = {"total": -1}
    batch = trade.verify(
        agent.body(agent.event(bad), agent.encrypted(bad), agent.event(bad, event_type="order.paid"))
    )
    assert objections(batch) == [plain, encrypted, unregistered]


def test_required_by_the_node_refuses_what_has_no_schema_even_of_a_tenant_that_demands_nothing() -> None:
    agent = Agent()
    trade = Trade(agent)
    trade.policy = msgspec.structs.replace(trade.policy, stamp=0)
    trade.become = BecomeVerifier(demands=msgspec.structs.replace(trade.policy, schema_mode="required"))
    assert objections(trade.verify(agent.body(agent.event({})))) == [["schema_validation: event_type"]]
    assert [type(answer) for answer in trade.asked] == [VerifiedBatch], "nothing had to be asked for"


def test_findings_come_in_the_order_schema_entity_type_time() -> None:
    agent = Agent()
    trade = Trade(agent, {"order.created": POSITIVE}, entity_types=("invoice",))
    late = agent.event({"total": "x"}, created_at="2099-01-01T00:00:00Z")
    assert objections(trade.verify(agent.body(late))) == [
        ["schema_validation: /total type", "schema_validation: entity_type", "schema_validation: created_at"]
    ]
    refusal = decided(trade.verify(agent.body(late))).requests[0].verdicts[0]
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "schema_validation: /total type"


def test_an_allowed_entity_type_passes_and_another_is_told_the_field() -> None:
    agent = Agent()
    trade = Trade(agent, entity_types=("order", "invoice"))
    batch = trade.verify(agent.body(agent.event({}), agent.event({}, entity_type="Order")))
    assert objections(batch) == [[], ["schema_validation: entity_type"]]


def test_a_payload_limit_below_the_protocols_is_measured_on_the_canonical_bytes() -> None:
    agent = Agent()
    trade = Trade(agent)
    trade.become = BecomeVerifier(payload_bytes_max=len('{"a":1}'))
    batch = trade.verify(agent.body(agent.event({"a": 1}), agent.event({"a": 10}), agent.encrypted({"a": 1})))
    assert objections(batch) == [
        [],
        ["schema_validation: payload"],
        ["schema_validation: payload_encrypted"],
    ]


@pytest.mark.parametrize(("ahead_s", "refused"), [(3599, False), (3601, True)])
def test_an_event_from_more_than_the_allowed_time_ahead_is_refused(ahead_s: int, refused: bool) -> None:
    from ves.timestamps import zulu_text

    agent = Agent()
    event = agent.event({}, created_at=zulu_text(NOW_US + ahead_s * 1_000_000))
    usual = Trade(agent).verify(agent.body(event))
    assert objections(usual) == [["schema_validation: created_at"] if refused else []]
    strict = Trade(agent)
    strict.become = BecomeVerifier(future_us_max=1_000_000)
    assert objections(strict.verify(agent.body(event))) == [["schema_validation: created_at"]]


def test_an_event_with_a_wrong_signature_is_never_compared() -> None:
    agent, other = Agent(), Agent()
    trade = Trade(agent, {"order.created": False})
    event = agent.event({}) | {"agent_signature": "0x" + other.signer.sign(b"x" * 32).hex()}
    batch = trade.verify(agent.body(event))
    assert isinstance(batch.outcomes[0], Refusal)
    assert batch.outcomes[0].reason == "invalid_signature"
    assert batch.checks is None


def test_a_policy_is_asked_for_once_per_stamp_and_a_schema_once_for_ever() -> None:
    agent = Agent()
    trade = Trade(agent, {"order.created": POSITIVE, "order.paid": True})
    verifying = Verifying(BecomeVerifier(), now_us=lambda: NOW_US)
    body = agent.body(agent.event({"total": 1}))
    trade.verify(body, verifying)
    assert [type(answer) for answer in trade.asked] == [NeedsPolicy, NeedsSchemas, VerifiedBatch]
    assert trade.asked[1] == NeedsSchemas([trade.names[0].schema_id])
    trade.asked.clear()
    trade.verify(body, verifying)
    assert [type(answer) for answer in trade.asked] == [VerifiedBatch]
    trade.asked.clear()
    trade.policy = msgspec.structs.replace(trade.policy, stamp=6)
    trade.verify(body, verifying)
    assert [type(answer) for answer in trade.asked] == [NeedsPolicy, VerifiedBatch]


def test_a_body_that_waits_for_its_keys_keeps_its_schemas_however_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = Agent()
    trade = Trade(agent, {"order.created": POSITIVE, "order.paid": True})
    verifying = Verifying(BecomeVerifier(), now_us=lambda: NOW_US)
    shelf = verifying._comparing._shelf
    monkeypatch.setattr(shelf, "_kept_bytes_max", 1)
    body = agent.body(agent.event({"total": -1}), agent.event({}, event_type="order.paid"))
    assert objections(trade.verify(body, verifying)) == [["schema_validation: /total minimum"], []]
    assert not shelf._schemas, "they are too large to be kept when the body is done"
    stranger = VerifyBody(
        agent.body(agent.event({}, event_type="order.paid")),
        ANYWHERE,
        stamp=5,
        schemas=[(name.schema_id, trade.texts[name.schema_id]) for name in trade.names],
    )
    forgetful = Verifying(BecomeVerifier(), now_us=lambda: NOW_US)
    monkeypatch.setattr(forgetful._comparing._shelf, "_kept_bytes_max", 1)
    asked = forgetful.answer(msgspec.msgpack.encode(msgspec.structs.replace(stranger, policy=trade.policy)))
    assert asked == NeedsKeys([agent.key])
    assert forgetful._comparing._shelf._schemas, "the body waits"
    assert isinstance(forgetful.answer(msgspec.msgpack.encode(VerifyBody(b"{", ANYWHERE))), BodyRefused)
    assert not forgetful._comparing._shelf._schemas, "it was forgotten, and what it needed with it"


def test_a_payload_that_takes_too_long_is_a_mismatch_and_so_are_those_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []
    ticks = iter(range(0, 1000, 3))
    verifying = Verifying(BecomeVerifier(), now_us=lambda: NOW_US, limit_cpu=limits.append)
    monkeypatch.setattr(verifying._comparing, "_cpu_time", lambda: next(ticks))
    monkeypatch.setattr(worker_comparing, "EVENT_CPU_S", 2)
    agent = Agent()
    trade = Trade(agent, {"order.created": True})
    batch = trade.verify(agent.body(*(agent.event({}) for _ in range(4))), verifying)
    assert objections(batch) == [["schema_validation: time"]] * 4
    assert next(ticks) == 12, "two were compared, then the body's share was spent"
    assert limits == [12.0, 0] * 2, "the process would end itself, and was told when it need not, twice"
