"""Verifiers and encryptors in supervised pools: real processes, killed and stopped while letters come."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing
from signing_agent import ANYWHERE, Agent, Registry, numbered

from actors.encryptor import SEALED_TOGETHER_MAX, Encryptor, EncryptorKeys
from actors.errors import NotNow, Poisoned, Unavailable
from actors.mailbox import Actor, Mailbox, Ref
from actors.messages import Open, Seal, Sealed, SealedPayload, ServedEvents, ServePage, Verify
from actors.policies import PolicyBook
from actors.verifier import Verifier
from actors.worker_process import WorkerProcess
from actors.worker_wire import SealEvents
from journal.memory import MemoryDatabase, MemoryJournal
from journal.packed import packed
from supervisor.policy import Pauses
from supervisor.supervisor import ChildSpec, Pool, Supervisor
from transport.http.shapes import EventReply
from ves.policy import Policy
from ves.receipts import receipt_hash
from ves.records import (
    BodyRefused,
    KeyName,
    NumberedEvent,
    Receipt,
    Refusal,
    Scope,
    StoredEvent,
    VerifiedBatch,
    VerifiedEvent,
)
from ves.signatures import Signer
from ves.verification import verify_body

RING = (b"\x01" * 32,)
NOTHING = Policy()
SEED = b"\x02" * 32


async def keys() -> EncryptorKeys:
    return EncryptorKeys(RING, SEED, Signer(SEED).public_key, 7)


@dataclass
class Pools:
    verifiers: Ref
    encryptors: Ref
    registry: Registry
    tree: Supervisor


@asynccontextmanager
async def pools(
    known: dict[KeyName, bytes], *, size: int = 1, deadline_s: float = 10.0
) -> AsyncIterator[Pools]:
    registry = Registry(known)
    address = Mailbox("registry", letters_max=64)

    def pool(name: str, size: int, factory: Callable[[], Actor]) -> Pool:
        pauses = Pauses(first_s=0.01, max_s=0.05)
        return Pool(name, size, factory, 64, declares_ready=True, intensity=100, pauses=pauses, fair=True)

    journal = MemoryJournal(MemoryDatabase(now_us=lambda: 0), node_id=bytes(16))
    policies = PolicyBook(journal=journal)

    def verifier() -> Verifier:
        return Verifier(registry=Ref(address), policies=policies, call_deadline_s=deadline_s)

    verifiers = pool("verifiers", size, verifier)
    encryptors = pool("encryptors", 1, lambda: Encryptor(keys=keys, call_deadline_s=deadline_s))
    house = Supervisor(
        "house",
        [ChildSpec(name="registry", factory=lambda: registry, mailbox=address), verifiers, encryptors],
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(house.run)
        yield Pools(verifiers.ref, encryptors.ref, registry, house)
        house.stop()


def workers() -> list[int]:
    """The pids of our worker processes."""
    found = []
    for name in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0") if name.isdigit() else []
            parent = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1] if words else "0"
        except OSError:
            continue
        if b"actors.worker" in words and int(parent) == os.getpid():
            found.append(int(name))
    return found


async def test_a_body_is_verified_and_a_key_is_asked_for_once_but_its_absence_each_time() -> None:
    known, unknown = Agent(), Agent()
    async with pools(dict([known.binding])) as house:
        for _ in range(2):
            batch = await house.verifiers.ask(Verify(known.body(3), ANYWHERE, NOTHING), deadline_s=10)
            assert isinstance(batch, VerifiedBatch)
            assert all(isinstance(event, VerifiedEvent) for event in batch.outcomes)
        assert house.registry.asked == [[known.key]]
        for _ in range(2):
            batch = await house.verifiers.ask(Verify(unknown.body(1), ANYWHERE, NOTHING), deadline_s=10)
            assert isinstance(batch, VerifiedBatch)
            assert isinstance(batch.outcomes[0], Refusal)
        assert house.registry.asked[1:] == [[unknown.key]] * 2
        house.registry.known[unknown.key] = unknown.signer.public_key  # registered a moment later
        batch = await house.verifiers.ask(Verify(unknown.body(1), ANYWHERE, NOTHING), deadline_s=10)
        assert isinstance(batch, VerifiedBatch)
        assert isinstance(batch.outcomes[0], VerifiedEvent)


async def test_a_body_outside_the_callers_scope_is_refused_as_a_whole() -> None:
    agent = Agent()
    async with pools(dict([agent.binding])) as house:
        scope = Scope(Agent().tenant_id, None, None)
        answer = await house.verifiers.ask(Verify(agent.body(1), scope, NOTHING), deadline_s=10)
        assert isinstance(answer, BodyRefused)
        assert answer.status == 403


async def test_a_frame_that_does_not_open_names_its_row_and_the_encryptor_lives_on() -> None:
    agent = Agent()
    async with pools(dict([agent.binding])) as house:
        batch = await house.verifiers.ask(Verify(agent.body(2), ANYWHERE, NOTHING), deadline_s=10)
        assert isinstance(batch, VerifiedBatch)
        events = numbered([e for e in batch.outcomes if isinstance(e, VerifiedEvent)], agent.store_id)
        sealed = await house.encryptors.ask(Seal(agent.tenant_id, events), deadline_s=10)
        assert sealed.sequencer_key_version == 7, "the one who signed says with which key"
        rows = [
            SealedPayload(
                n.store_id, n.event.event_id, n.sequence_number, n.event.event_signing_hash, s.payload_sealed
            )
            for n, s in zip(events, sealed.events, strict=True)
        ]
        before = workers()
        changed = msgspec.structs.replace(rows[1], payload_sealed=rows[1].payload_sealed[:-1] + b"\0")
        with pytest.raises(Unavailable, match="sequence_number 2 does not open: another row, or changed"):
            await house.encryptors.ask(Open(agent.tenant_id, [rows[0], changed]), deadline_s=10)
        opened = await house.encryptors.ask(Open(agent.tenant_id, rows), deadline_s=10)
        assert opened == [n.event.payload for n in events]
        assert workers() == before


def packed_page(agent: Agent, events: list[NumberedEvent], sealed: Sealed) -> bytes:
    """As the journal would have it."""
    page = b""
    for numbered_event, one in zip(events, sealed.events, strict=True):
        event = numbered_event.event
        shared = [name for name in StoredEvent.__struct_fields__ if hasattr(event, name)]
        receipt = Receipt(
            event.event_id,
            numbered_event.sequence_number,
            numbered_event.sequenced_at_us,
            one.receipt_hash,
            bytes(16),
            sealed.sequencer_key_version,
            one.sequencer_signature,
        )
        page += packed(
            StoredEvent(
                tenant_id=agent.tenant_id,
                store_id=numbered_event.store_id,
                payload_sealed=one.payload_sealed,
                receipt=receipt,
                **{name: getattr(event, name) for name in shared},
            )
        )
    return page


async def test_a_page_is_served_whole_or_names_the_row_that_does_not_open() -> None:
    agent = Agent()
    async with pools(dict([agent.binding])) as house:
        batch = await house.verifiers.ask(Verify(agent.body(3), ANYWHERE, NOTHING), deadline_s=10)
        assert isinstance(batch, VerifiedBatch)
        events = numbered([e for e in batch.outcomes if isinstance(e, VerifiedEvent)], agent.store_id)
        sealed = await house.encryptors.ask(Seal(agent.tenant_id, events), deadline_s=10)
        page = packed_page(agent, events, sealed)
        before = workers()
        served = await house.encryptors.ask(ServePage(agent.tenant_id, page, 3), deadline_s=10)
        text = b"[" + served.texts + b"]"
        told = msgspec.json.decode(text, type=list[EventReply])
        assert [one.sequence_number for one in told] == [1, 2, 3]
        for sent, one in zip(events, told, strict=True):
            assert bytes(cast(msgspec.Raw, one.payload)) == sent.event.payload, "byte for byte"
        assert text == msgspec.json.encode(told), "exactly the shape that the wire's description has"
        frame = sealed.events[1].payload_sealed
        changed = page.replace(frame, frame[:-1] + bytes([frame[-1] ^ 1]))
        with pytest.raises(Unavailable, match="sequence_number 2 does not open: another row, or changed"):
            await house.encryptors.ask(ServePage(agent.tenant_id, changed, 3), deadline_s=10)
        with pytest.raises(Unavailable, match="sequence_number 1 does not open"):
            await house.encryptors.ask(ServePage(Agent().tenant_id, page, 3), deadline_s=10)
        assert workers() == before, "a row that does not open costs no process"


@pytest.mark.parametrize(
    "lie", [ServedEvents(b"x" * 10_000, 2, 0), ServedEvents(b"", 1, 0)], ids=["another count", "no text"]
)
async def test_a_page_that_comes_back_as_something_else_is_not_served(
    lie: ServedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent()
    honest = WorkerProcess.call

    async def call(worker: WorkerProcess, request: Any, answer: Any, *, deadline_s: float) -> Any:
        told = await honest(worker, request, answer, deadline_s=deadline_s)
        return lie if isinstance(told, ServedEvents) else told

    monkeypatch.setattr(WorkerProcess, "call", call)
    async with pools(dict([agent.binding])) as house:
        batch = await house.verifiers.ask(Verify(agent.body(1), ANYWHERE, NOTHING), deadline_s=10)
        assert isinstance(batch, VerifiedBatch)
        events = numbered([e for e in batch.outcomes if isinstance(e, VerifiedEvent)], agent.store_id)
        sealed = await house.encryptors.ask(Seal(agent.tenant_id, events), deadline_s=10)
        page = packed_page(agent, events, sealed)
        with pytest.raises(NotNow):
            await house.encryptors.ask(ServePage(agent.tenant_id, page, 1), deadline_s=10)


async def test_an_encryptor_whose_seed_is_not_that_of_the_recorded_key_never_signs() -> None:
    async def wrong() -> EncryptorKeys:
        return EncryptorKeys(RING, SEED, Signer(b"\x03" * 32).public_key, 7)

    inbox = Mailbox("encryptor", letters_max=4)
    house = Supervisor(
        "house",
        [ChildSpec(name="encryptor", factory=lambda: Encryptor(keys=wrong), mailbox=inbox)],
        intensity=0,
    )

    async def live() -> None:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(house.run)
                await Ref(inbox).ask(Seal(b"\0" * 16, []), deadline_s=20)

    with pytest.raises(ExceptionGroup) as ended:
        await live()
    assert "its receipt key is not that of version 7" in "".join(map(str, leaves(ended.value)))


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        yield from leaves(error) if isinstance(error, BaseExceptionGroup) else [error]


async def test_a_registry_that_cannot_answer_is_unavailable_and_costs_no_life() -> None:
    agent = Agent()
    async with pools({}) as house:
        before = workers()

        class Away:
            def __getitem__(self, _name: KeyName) -> bytes:
                raise KeyError

            def __contains__(self, _name: object) -> bool:
                raise RuntimeError("the registry dies of this")

        house.registry.known = Away()  # type: ignore[assignment]
        with pytest.raises(Unavailable, match="agent keys cannot be looked up"):
            await house.verifiers.ask(Verify(agent.body(1), ANYWHERE, NOTHING), deadline_s=10)
        assert workers() == before


async def test_a_worker_stopped_in_mid_work_costs_its_asker_only_time() -> None:
    agent = Agent()
    async with pools(dict([agent.binding]), size=2, deadline_s=0.5) as house:
        stopped = min(workers())  # a verifier: they start first
        os.kill(stopped, signal.SIGSTOP)
        for _ in range(2):  # one of them meets it, and is retried by the other
            batch = await house.verifiers.ask(Verify(agent.body(3), ANYWHERE, NOTHING), deadline_s=10)
            assert isinstance(batch, VerifiedBatch)
        assert stopped not in workers()


async def test_killing_an_actor_in_mid_work_takes_its_process_along_and_retries_the_letter() -> None:
    agent = Agent()
    async with pools(dict([agent.binding])) as house, trio.open_nursery() as nursery:
        first = min(workers())
        os.kill(first, signal.SIGSTOP)

        async def kill_the_actor() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            house.tree.kill("house/verifiers/0")

        nursery.start_soon(kill_the_actor)
        batch = await house.verifiers.ask(Verify(agent.body(3), ANYWHERE, NOTHING), deadline_s=10)
        assert isinstance(batch, VerifiedBatch)
        assert first not in workers()


def rows_of(agent: Agent, count: int) -> list[NumberedEvent]:
    known = dict([agent.binding])
    batch = verify_body(agent.body(count), ANYWHERE, known.get, now_us=time.time_ns() // 1000)
    assert isinstance(batch, VerifiedBatch)
    return numbered([event for event in batch.outcomes if isinstance(event, VerifiedEvent)], agent.store_id)


class Frames:
    """Which seals went to an encryptor's process together: how many events of whom. A process that is given
    a payload of the ``deadly`` one dies of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[list[tuple[bytes, int]]] = []
        self.deadly: bytes | None = None
        honest = WorkerProcess.call

        async def call(process: WorkerProcess, request: Any, *given: Any, **named: Any) -> Any:
            if isinstance(request, SealEvents):
                self.sent.append([(tenant, len(events)) for tenant, events in request.parts])
                if any(tenant == self.deadly for tenant, _ in request.parts):
                    process.kill()
            return await honest(process, request, *given, **named)

        monkeypatch.setattr(WorkerProcess, "call", call)


async def seal_together(house: Pools, agents: dict[str, Agent], counts: list[int]) -> dict[str, object]:
    """Each asks in this order, while the encryptor is at something else; who got what."""
    answers: dict[str, object] = {}

    async def ask(name: str, events: list[NumberedEvent]) -> None:
        try:
            sealed = await house.encryptors.ask(Seal(agents[name].tenant_id, events), deadline_s=10)
            right = [_hash_of(agents[name], n) for n in events] == [one.receipt_hash for one in sealed.events]
            answers[name] = sealed.sequencer_key_version if right else "somebody else's"
        except NotNow as reason:
            answers[name] = type(reason)

    async with trio.open_nursery() as nursery:
        for name, count in zip(agents, counts, strict=True):
            nursery.start_soon(ask, name, rows_of(agents[name], count))
            await trio.lowlevel.checkpoint()
    return answers


def _hash_of(agent: Agent, row: NumberedEvent) -> bytes:
    event = row.event
    return receipt_hash(
        agent.tenant_id, row.store_id, event.event_id, row.sequence_number, event.event_signing_hash
    )


async def test_what_gathered_of_several_tenants_is_sealed_in_one_frame_and_each_gets_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agents = {name: Agent() for name in "abcdef"}
    async with pools({}) as house:
        frames = Frames(monkeypatch)
        answers = await seal_together(house, agents, [3, 1, 2, SEALED_TOGETHER_MAX - 3, 1, 200])
    assert answers == dict.fromkeys(agents, 7)
    ids = [agent.tenant_id for agent in agents.values()]
    assert sorted(part for frame in frames.sent for part in frame) == sorted(
        zip(ids, [3, 1, 2, SEALED_TOGETHER_MAX - 3, 1, 200], strict=True)
    )
    sizes = sorted(sum(count for _, count in frame) for frame in frames.sent)
    assert sizes[-1] == 200, "what is large goes alone"
    assert len(frames.sent) < len(agents)
    assert all(
        sum(count for _, count in frame) <= SEALED_TOGETHER_MAX for frame in frames.sent if len(frame) > 1
    )


async def test_a_letter_that_kills_is_found_among_those_it_was_sealed_with_and_only_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agents = {name: Agent() for name in "abcd"}
    async with pools({}) as house:
        frames = Frames(monkeypatch)
        frames.deadly = agents["c"].tenant_id
        answers = await seal_together(house, agents, [1, 1, 1, 1])
    assert answers == {"a": 7, "b": 7, "c": Poisoned, "d": 7}
    together = [frame for frame in frames.sent if len(frame) > 1]
    assert together, "they had gathered"
    assert sum((agents["c"].tenant_id, 1) in frame for frame in frames.sent) == 2


@pytest.mark.slow
async def test_under_random_kills_every_ask_ends_in_a_right_answer_or_not_now() -> None:
    agents = [Agent() for _ in range(4)]
    chance = random.Random(20261124)
    ended = {"right": 0, "not now": 0, "kills": 0}

    async def asker(house: Pools, agent: Agent) -> None:
        body = agent.body(40)
        while not over:
            try:
                batch = await house.verifiers.ask(Verify(body, ANYWHERE, NOTHING), deadline_s=15)
                assert isinstance(batch, VerifiedBatch)
                events = [event for event in batch.outcomes if isinstance(event, VerifiedEvent)]
                assert len(events) == 40
                assert batch.agent_id == agent.agent_id, "nobody gets another asker's answer"
                rows = numbered(events, agent.store_id)
                sealed = await house.encryptors.ask(Seal(agent.tenant_id, rows), deadline_s=15)
                assert [one.receipt_hash for one in sealed.events] == [
                    receipt_hash(
                        agent.tenant_id,
                        n.store_id,
                        n.event.event_id,
                        n.sequence_number,
                        n.event.event_signing_hash,
                    )
                    for n in rows
                ]
                ended["right"] += 1
            except NotNow:
                ended["not now"] += 1

    over = False
    async with pools(dict(agent.binding for agent in agents), size=2, deadline_s=1.0) as house:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for agent in agents:
                    nursery.start_soon(asker, house, agent)
                for _ in range(15):
                    await trio.sleep(chance.uniform(0.05, 0.4))
                    for pid in chance.sample(found := workers(), min(1, len(found))):
                        os.kill(pid, chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)))
                        ended["kills"] += 1
                over = True
    assert ended["kills"] >= 10
    assert ended["right"] >= 20
    assert workers() == [], "the house is closed"
