"""The real tree on real PostgreSQL, below the doors: whoever is killed, callers get an answer or a clean
NotNow, and what was acknowledged is there once, at its number."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from actors.errors import NotNow
from actors.messages import Append, Verify
from config.settings import Settings
from journal.aio import open_loop
from journal.embedded import EmbeddedPostgres
from journal.embedded_cluster import EMBEDDED_LOGINS
from journal.migrate import migrate
from journal.port import AgentKey, AuditEntry, Journal
from journal.postgres import open_journal
from supervisor.receipt_keys import claim
from supervisor.tree import Built, build
from tests.clusters import lend
from tests.e2e.world import Agent
from tests.keyholder import secrets_of
from ves.encoding import uuid_text
from ves.policy import Policy
from ves.records import KeyName, Receipt, Scope, VerifiedBatch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(lend(tmp_path_factory.mktemp("house") / "data")) as running:
        yield running


@dataclass
class Lived:
    built: Built
    journal: Journal


@asynccontextmanager
async def a_house(postgres: EmbeddedPostgres) -> AsyncIterator[Lived]:
    secrets = secrets_of("ss_" + "x" * 30, bytes(range(32)), uuid.uuid4().bytes, (bytes(range(32, 64)),))
    settings = Settings(data_dir=Path("/nonexistent"), verifiers=2, encryptors=1, tenant_idle_secs=0.5)
    async with open_loop():
        await migrate(postgres.owner_dsn, EMBEDDED_LOGINS)
        async with open_journal(postgres.app_dsn, node_id=secrets.sequencer_id) as journal:
            claimed = await claim(journal, secrets.sequencer_id, secrets.keys.receipt_seeds)
            built = build(settings, secrets, journal, receipt_key=claimed.key)
            async with trio.open_nursery() as nursery:
                await nursery.start(built.root.run)
                yield Lived(built, journal)
                built.root.stop()


@dataclass
class Caller:
    """Posts without pause, resending the same bytes until they are answered."""

    lived: Lived
    agent: Agent
    acknowledged: dict[bytes, Receipt] = field(default_factory=dict)
    heard: Counter[str] = field(default_factory=Counter)

    async def register(self) -> None:
        name = KeyName(self.agent.tenant_id.bytes, self.agent.agent_id.bytes, 1)
        key = AgentKey(name, bytes.fromhex(self.agent.public_key), 1, None, None)
        await self.lived.journal.register_agent_key(
            key, AuditEntry("test", "agent_key.register", "a key", None)
        )

    async def post_until(self, over: trio.Event) -> None:
        while not over.is_set():
            body = self.agent.body([self.agent.event({"n": n}) for n in range(7)])
            for _ in range(50):
                if await self._post(body):
                    break
                await trio.sleep(0.02)
            else:
                raise AssertionError(f"never answered: {self.heard}")

    async def _post(self, body: bytes) -> bool:
        house = self.lived.built.house
        try:
            batch = await house.verifiers.ask(Verify(body, Scope(None, None, None), Policy()), deadline_s=20)
            assert isinstance(batch, VerifiedBatch)
            sequencer = house.sequencer_of(batch.tenant_id)
            appended = await sequencer.ask(Append(batch, None), deadline_s=20)
        except NotNow as error:
            self.heard[type(error).__name__] += 1
            return False
        for verdict in appended.verdicts:
            assert isinstance(verdict, Receipt), verdict
            earlier = self.acknowledged.setdefault(verdict.event_id, verdict)
            assert earlier == verdict, "two receipts for one event"
        self.heard["answered"] += 1
        return True


async def test_any_actor_may_be_killed_under_load(postgres: EmbeddedPostgres) -> None:
    chance = random.Random(11)
    kills: Counter[str] = Counter()
    async with a_house(postgres) as lived:
        tenants = [uuid.uuid4() for _ in range(8)]
        callers = [Caller(lived, Agent(t, uuid.UUID(int=t.int ^ 1))) for t in tenants for _ in range(2)]
        for caller in callers:
            await caller.register()
        # As many of each as its supervisor's restart intensity forgives: more is another test's subject.
        left = [f"sequencers/{uuid_text(tenant.bytes)}" for tenant in tenants for _ in range(5)]
        left += ["verifiers/0", "verifiers/1", "encryptors/0"] * 8 + ["registry", "registry", "committer"]
        chance.shuffle(left)
        over = trio.Event()
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for caller in callers:
                    nursery.start_soon(caller.post_until, over)
                while left:
                    await trio.sleep(chance.uniform(0.02, 0.12))
                    who = left.pop()
                    try:
                        lived.built.root.kill(f"house/{who}")
                        kills[who.split("/")[0]] += 1
                    except LookupError:
                        left.insert(0, who)  # between two lives: later
                over.set()
        assert min(kills[name] for name in ("verifiers", "encryptors", "registry", "sequencers")) > 0, kills
        heard = sum((caller.heard for caller in callers), Counter[str]())
        assert heard["OutcomeUnknown"] > 0, f"no kill hit a letter in hand: {heard}"
        for tenant in tenants:
            store = uuid.UUID(int=tenant.int ^ 1).bytes
            mine = {}
            for caller in callers:
                if caller.agent.tenant_id == tenant:
                    mine.update(caller.acknowledged)
            stored: dict[bytes, Receipt] = {}
            start, head = 1, 0
            while start == 1 or start <= head:
                page = await lived.journal.read_events(
                    tenant.bytes, store, from_sequence=start, limit=1000, bytes_max=1 << 26
                )
                head, start = page.head_sequence, page.next_from
                stored.update({event.receipt.event_id: event.receipt for event in page.events})
            assert sorted(r.sequence_number for r in stored.values()) == list(range(1, head + 1))
            assert {k: stored.get(k) for k in mine} == mine, "an acknowledged event is lost or changed"


async def test_a_retired_sequencer_comes_back_with_the_right_numbers(postgres: EmbeddedPostgres) -> None:
    async with a_house(postgres) as lived:
        tenant = uuid.uuid4()
        caller = Caller(lived, Agent(tenant, uuid.uuid4()))
        await caller.register()
        for round_number in range(3):
            body = caller.agent.body([caller.agent.event({"n": n}) for n in range(2)])
            assert await caller._post(body)
            with trio.fail_after(10):
                while f"sequencers/{tenant}" in str(lived.built.root.look()):  # noqa: ASYNC110 - no event tells
                    await trio.sleep(0.05)
            assert len(caller.acknowledged) == 2 * (round_number + 1)
        assert sorted(r.sequence_number for r in caller.acknowledged.values()) == [1, 2, 3, 4, 5, 6]
