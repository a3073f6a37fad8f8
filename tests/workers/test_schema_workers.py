"""Schemas in real processes: what is tried, what is too much, and what it costs whom."""

from __future__ import annotations

import json
import os
import random
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from signing_agent import Agent, Registry

from actors.errors import Unavailable
from actors.mailbox import Mailbox, Ref
from actors.messages import CheckPayload, CheckSchema, Verify
from actors.policies import PolicyBook
from actors.schema_checker import SchemaChecker
from actors.verifier import Verifier
from actors.worker_wire import BecomeChecker, BecomeVerifier
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import AuditEntry, EventSchema
from supervisor.supervisor import ChildSpec, Supervisor
from ves.policy import Policy
from ves.records import NeedsPolicy, Scope, VerifiedBatch, VerifiedEvent

AUDIT = AuditEntry("cli", "test", "", None)
ANYWHERE = Scope(None, None, None)
SLOW = {"properties": {"note": {"pattern": "(a|b)*a(a|b){200}[cd]"}}}
"""Linear, but two microseconds for each letter of a text without a period."""


def letters(count: int) -> str:
    return "".join(random.Random(1).choices("ab", k=count))


@asynccontextmanager
async def checker(*, cpu_s: float = 3.0) -> AsyncIterator[tuple[Ref, SchemaChecker]]:
    mailbox, lives = Mailbox("schema-checker", letters_max=8), []

    def live() -> SchemaChecker:
        lives.append(SchemaChecker(become=BecomeChecker(question_cpu_s=cpu_s)))
        return lives[-1]

    house = Supervisor("house", [ChildSpec(name="schema-checker", factory=live, mailbox=mailbox)])
    async with trio.open_nursery() as nursery:
        await nursery.start(house.run)
        yield Ref(mailbox), lives[0]
        assert len(lives) == 1, "no schema costs the checker its life"
        house.stop()


async def why_not(ref: Ref, schema: Any, previous: Any = None, how: Any = "backward") -> str | None:
    old = None if previous is None else json.dumps(previous)
    answer: str | None = await ref.ask(CheckSchema(json.dumps(schema), how, old, 1), deadline_s=30)
    return answer


async def test_a_schema_is_tried_and_its_author_told_what_is_wrong() -> None:
    async with checker() as (ref, _):
        assert await why_not(ref, {"type": "object"}) is None
        assert "/type" in (await why_not(ref, {"type": "strin"}) or "")
        assert "only within" in (await why_not(ref, {"$ref": "http://127.0.0.1/x"}) or "")
        assert "looked at" in (await why_not(ref, {"items": {"allOf": [{"$ref": "#"}] * 2}}) or "")
        closed = {"properties": {"a": {"type": "string"}}, "additionalProperties": False}
        narrowed = closed | {"required": ["a"]}
        assert "compatibility none" in (await why_not(ref, narrowed, closed) or "")
        assert await why_not(ref, narrowed, closed, "none") is None
        assert await why_not(ref, narrowed, closed, "forward") is None


async def test_a_payload_is_compared_and_no_value_of_it_told() -> None:
    async with checker() as (ref, _):
        schema = json.dumps({"properties": {"card": {"type": "number"}}})
        told = await ref.ask(CheckPayload(schema, b'{"card":"4111"}'), deadline_s=30)
        assert [path for path, _ in told] == ["/card"]
        assert "4111" not in repr(told)
        assert await ref.ask(CheckPayload(schema, b'{"card":4}'), deadline_s=30) == []


async def test_what_does_not_end_is_refused_and_the_next_one_is_answered() -> None:
    async with checker(cpu_s=0.3) as (ref, living):
        assert await why_not(ref, True) is None
        first = living._process
        payload = json.dumps({"note": letters(1_000_000)}).encode()
        assert await ref.ask(CheckPayload(json.dumps(SLOW), payload), deadline_s=60) is None
        assert await why_not(ref, True) is None
        assert living._process is not first


async def test_a_checker_whose_process_was_killed_meanwhile_answers_all_the_same() -> None:
    async with checker() as (ref, living):
        assert await why_not(ref, True) is None
        assert living._process is not None
        assert living._process.pid is not None
        os.kill(living._process.pid, signal.SIGKILL)
        assert await why_not(ref, {"type": "strin"}) is not None
        assert await why_not(ref, True) is None


class House:
    def __init__(self, agent: Agent, *, cpu_s: float) -> None:
        self.agent = agent
        self.journal = MemoryJournal(MemoryDatabase(now_us=lambda: 0), node_id=bytes(16))
        self.policies = PolicyBook(journal=self.journal)
        self.address = Mailbox("verifier", letters_max=8)
        self.lives = 0
        self._become = BecomeVerifier(comparing_cpu_s=cpu_s)
        self._registry = Mailbox("registry", letters_max=8)

    def _verifier(self) -> Verifier:
        self.lives += 1
        return Verifier(registry=Ref(self._registry), policies=self.policies, become=self._become)

    def tree(self) -> Supervisor:
        return Supervisor(
            "house",
            [
                ChildSpec(
                    name="registry",
                    factory=lambda: Registry(dict([self.agent.binding])),
                    mailbox=self._registry,
                ),
                ChildSpec(
                    name="verifier",
                    factory=self._verifier,
                    mailbox=self.address,
                    declares_ready=True,
                ),
            ],
        )

    async def demand(self, schema: Any) -> Policy:
        tenant = self.agent.tenant_id
        stamp = (await self.journal.read_policy(tenant)).stamp
        made = EventSchema(
            uuid.uuid4().bytes, tenant, "order.created", 0, json.dumps(schema), "none", None, "cli"
        )
        await self.journal.create_schema(made, believed_stamp=stamp, audit=AUDIT)
        return await self.policies.find(tenant)

    async def verify(self, body: bytes, policy: Policy | None) -> VerifiedBatch | NeedsPolicy:
        answer = await Ref(self.address).ask(Verify(body, ANYWHERE, policy), deadline_s=60)
        assert isinstance(answer, VerifiedBatch | NeedsPolicy)
        return answer


@asynccontextmanager
async def living(agent: Agent, *, cpu_s: float = 10.0) -> AsyncIterator[House]:
    house = House(agent, cpu_s=cpu_s)
    tree = house.tree()
    async with trio.open_nursery() as nursery:
        await nursery.start(tree.run)
        yield house
        tree.stop()


async def test_a_verifier_gets_policy_and_schemas_when_it_lacks_them_and_tells_what_it_found() -> None:
    agent = Agent()
    async with living(agent) as house:
        policy = await house.demand({"properties": {"total": {"maximum": 1}}})
        for _ in range(2):
            batch = await house.verify(agent.body(2), policy)
            assert isinstance(batch, VerifiedBatch)
            for event in batch.outcomes:
                assert isinstance(event, VerifiedEvent)
                assert [f.reason for f in event.findings] == ["schema_validation: /total maximum"]
            assert batch.checks is not None
            assert batch.checks.failed == 2
        newer = await house.demand(True)
        batch = await house.verify(agent.body(1), newer)
        assert isinstance(batch, VerifiedBatch)
        assert batch.checks is not None
        assert (batch.checks.validated, batch.checks.failed) == (1, 0)
        assert house.lives == 1


async def test_without_the_schemas_texts_only_warn_lets_an_event_pass() -> None:
    agent = Agent()
    async with living(agent) as house:
        policy = await house.demand(False)
        house.journal.fail_next("read_schema_texts", "away")
        with pytest.raises(Unavailable, match="cannot be read"):
            await house.verify(agent.body(1), policy)
        house.journal.fail_next("read_schema_texts", "away")
        warn = msgspec.structs.replace(policy, schema_mode="warn", stamp=policy.stamp + 1)
        batch = await house.verify(agent.body(1), warn)
        assert isinstance(batch, VerifiedBatch)
        assert batch.checks is None
        assert house.policies.unchecked == 1
        again = await house.verify(agent.body(1), warn)
        assert isinstance(again, VerifiedBatch)
        assert again.checks is not None
        assert again.checks.failed == 1, "looked at again as soon as it can be"
        assert house.lives == 1


async def test_whose_policy_is_needed_is_told_when_only_the_body_knows() -> None:
    agent = Agent()
    async with living(agent) as house:
        assert await house.verify(agent.body(1), None) == NeedsPolicy(agent.tenant_id)
        batch = await house.verify(agent.body(1), await house.policies.find(agent.tenant_id))
        assert isinstance(batch, VerifiedBatch)


async def test_schemas_that_cost_a_verifier_its_process_cost_only_one() -> None:
    agent = Agent()
    async with living(agent, cpu_s=0.5) as house:
        policy = await house.demand(SLOW)
        slow = agent.body(1, note=letters(500_000))
        with pytest.raises(Unavailable, match="took too long"):
            await house.verify(slow, policy)
        assert house.lives == 2, "the second life did not try again"
        with pytest.raises(Unavailable):
            await house.verify(slow, policy)
        assert isinstance(await house.verify(agent.body(1), Policy()), VerifiedBatch), "others are served"
        assert house.lives == 2


async def test_a_verifier_that_was_killed_is_not_the_schemas_fault() -> None:
    agent = Agent()
    async with living(agent) as house:
        policy = await house.demand(True)
        assert isinstance(await house.verify(agent.body(1), policy), VerifiedBatch)
        [pid] = workers()
        os.kill(pid, signal.SIGKILL)
        assert isinstance(await house.verify(agent.body(1), policy), VerifiedBatch)
        assert house.policies.bearable(policy) == policy


def workers() -> list[int]:
    """The pids of our worker processes."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            words = (place / "cmdline").read_bytes().split(b"\0") if place.name.isdigit() else []
            parent = (place / "stat").read_text().rsplit(")", 1)[1].split()[1] if words else "0"
        except OSError:
            continue
        if b"actors.worker" in words and int(parent) == os.getpid():
            found.append(int(place.name))
    return found
