"""What is verified where it arrives is verified as a verifier's process does it."""

from __future__ import annotations

import msgspec
import pytest
import trio

from actors.errors import Unavailable
from actors.mailbox import Inbox, Mailbox, Ref
from actors.messages import Verify
from actors.small_bodies import SmallBodies
from actors.worker_verifying import Verifying
from actors.worker_wire import BecomeVerifier, GiveKeys, VerifyBody
from tests.workers.signing_agent import ANYWHERE, Agent, Registry
from ves.policy import Policy
from ves.records import BodyRefused, NeedsKeys, Refusal, Scope, VerifiedBatch, VerifiedEvent

NOTHING = Policy()
NOW_US = 1_800_000_000_000_000


def small(registry: Ref, bytes_max: int = 4096) -> SmallBodies:
    return SmallBodies(registry=registry, become=BecomeVerifier(), bytes_max=bytes_max, now_us=lambda: NOW_US)


@pytest.fixture
async def address(nursery: trio.Nursery) -> Mailbox:
    return Mailbox("registry", letters_max=8)


async def serve(registry: Registry, address: Mailbox, nursery: trio.Nursery) -> Ref:
    nursery.start_soon(registry.run, Inbox(address))
    return Ref(address)


async def test_a_small_body_is_answered_as_a_verifier_would(address: Mailbox, nursery: trio.Nursery) -> None:
    agent = Agent()
    bodies = small(await serve(Registry(dict([agent.binding])), address, nursery))
    worker = Verifying(BecomeVerifier(), now_us=lambda: NOW_US)
    elsewhere = Scope(Agent().tenant_id, None, None)
    good = agent.body(2)
    cases = [
        (good, ANYWHERE),
        (good, elsewhere),
        (good.replace(b'"total":12.5', b'"total":12.6'), ANYWHERE),
        (good.replace(b'"agentId"', b'"agent"'), ANYWHERE),
        (good.replace(b"2026-01", b"2099-01"), ANYWHERE),
        (good[:-1], ANYWHERE),
        (b"\xff", ANYWHERE),
    ]
    for body, scope in cases:
        expected = worker.answer(msgspec.msgpack.encode(VerifyBody(body, scope)))
        if isinstance(expected, NeedsKeys):
            expected = worker.answer(msgspec.msgpack.encode(GiveKeys([agent.binding])))
        assert await bodies.verify(Verify(body, scope, NOTHING), deadline_s=5) == expected, body


async def test_a_key_is_asked_for_once_and_its_absence_each_time(
    address: Mailbox, nursery: trio.Nursery
) -> None:
    known, unknown = Agent(), Agent()
    registry = Registry(dict([known.binding]))
    bodies = small(await serve(registry, address, nursery))
    for _ in range(2):
        batch = await bodies.verify(Verify(known.body(1), ANYWHERE, NOTHING), deadline_s=5)
        assert isinstance(batch, VerifiedBatch)
        assert isinstance(batch.outcomes[0], VerifiedEvent)
    assert registry.asked == [[known.key]]
    for _ in range(2):
        batch = await bodies.verify(Verify(unknown.body(1), ANYWHERE, NOTHING), deadline_s=5)
        assert isinstance(batch, VerifiedBatch)
        assert isinstance(batch.outcomes[0], Refusal)
    assert registry.asked[1:] == [[unknown.key]] * 2
    registry.known[unknown.key] = unknown.signer.public_key  # registered a moment later
    batch = await bodies.verify(Verify(unknown.body(1), ANYWHERE, NOTHING), deadline_s=5)
    assert isinstance(batch, VerifiedBatch)
    assert isinstance(batch.outcomes[0], VerifiedEvent)


async def test_what_is_large_or_needs_schemas_or_names_its_policy_itself_is_left_to_the_verifiers(
    address: Mailbox,
) -> None:
    agent = Agent()
    body = agent.body(1)
    bodies = small(Ref(address), len(body))
    assert await bodies.verify(Verify(body + b" ", ANYWHERE, NOTHING), deadline_s=5) is None
    assert await bodies.verify(Verify(body, ANYWHERE, None), deadline_s=5) is None
    picky = Policy(entity_types=("order",))
    assert await bodies.verify(Verify(body, ANYWHERE, picky), deadline_s=5) is None
    strict = Policy(schema_mode="required")
    assert await bodies.verify(Verify(body, ANYWHERE, strict), deadline_s=5) is None
    assert await small(Ref(address), 0).verify(Verify(b"{}", ANYWHERE, NOTHING), deadline_s=5) is None
    assert address.depth == 0, "nobody was asked for a key"


async def test_a_registry_that_cannot_say_is_passed_on_and_nothing_is_answered(address: Mailbox) -> None:
    address.turn_away(Unavailable, "agent keys cannot be read")
    with pytest.raises(Unavailable):
        await small(Ref(address)).verify(Verify(Agent().body(1), ANYWHERE, NOTHING), deadline_s=5)
    refused = await small(Ref(address)).verify(Verify(b"[]", ANYWHERE, NOTHING), deadline_s=5)
    assert isinstance(refused, BodyRefused), "what needs no key needs no registry"
