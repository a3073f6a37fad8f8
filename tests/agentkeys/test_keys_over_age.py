"""The rotation policy: who is counted, what is told, and what is refused when it is enforced."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
import structlog
import trio
import trio.testing

from actors.key_ages import KeyAgePolicy, KeyAges, KeyWatch
from actors.mailbox import Inbox, Mailbox, Ref
from actors.messages import Append, Appended, Seal, Sealed
from actors.right_of_way import RightOfWay
from actors.security_events import SecurityEvents
from actors.sequencer import GroupLimits, Sequencer, Tally
from actors.settled_tenants import SettledTenants
from config.settings import Settings
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import AgentKey, AuditEntry, KeyRotation
from tests.http.doubles import BOOTSTRAP, serving
from ves.records import KeyName, Receipt, Refusal, SealedEvent, VerifiedBatch, VerifiedEvent

DAY_US = 86_400_000_000
TENANT, STORE, AGENT, OURS = (bytes([n]) * 16 for n in range(1, 5))
AUDIT = AuditEntry("cli", "test", "a test", None)


@dataclass
class Town:
    """A journal in memory, its clock, and a watch with what it writes to."""

    now_us: int = 1000 * DAY_US
    ages: KeyAges = field(default_factory=KeyAges)
    security: SecurityEvents = field(default_factory=SecurityEvents)

    def __post_init__(self) -> None:
        self.database = MemoryDatabase(now_us=lambda: self.now_us)
        self.journal = MemoryJournal(self.database, node_id=OURS)

    async def register(self, key_id: int, **window: int | None) -> KeyName:
        name = KeyName(TENANT, AGENT, key_id)
        key = AgentKey(
            name, name.agent_id + bytes(12) + key_id.to_bytes(4, "big"), 1,
            window.get("valid_from_us"), window.get("valid_to_us"),
        )  # fmt: skip
        await self.journal.register_agent_key(key, AUDIT)
        return name

    def watch(self, *, watched: bool = True) -> KeyWatch:
        return KeyWatch(
            journal=self.journal,
            policy=KeyAgePolicy(watched, 90 * DAY_US, 180 * DAY_US),
            sequencer_id=OURS,
            now_us=lambda: self.now_us,
            ages=self.ages,
            security=self.security,
        )

    async def watch_for(self, seconds: float, **how: bool) -> list[dict[str, object]]:
        """The security events of so many seconds of a watch's life."""
        inbox = Inbox(Mailbox("key-watch", letters_max=1))
        with structlog.testing.capture_logs() as lines, trio.move_on_after(seconds):
            await self.watch(**how).run(inbox)
        return [dict(line) for line in lines if line["event"] == "security_event"]


@pytest.fixture
def town() -> Town:
    return Town()


Clock = trio.testing.MockClock


async def test_keys_over_age_are_one_line_with_their_number_and_a_few_names(
    town: Town, autojump_clock: Clock
) -> None:
    for key_id in range(1, 8):
        await town.register(key_id)
    town.now_us += 91 * DAY_US
    for key_id in range(8, 1200):  # more than a page of others
        await town.register(key_id)
    [line] = await town.watch_for(60)
    assert (line["kind"], line["times"], line["max_days"]) == ("agent_key_overdue", 7, 90)
    assert str(line["first"]).count(",") == 4
    assert str(line["first"]).endswith("/5")
    assert (town.ages.agent_keys_overdue, town.ages.agent_keys_expiring) == (7, 0)
    assert town.security.counts["agent_key_overdue"] == 7


async def test_a_key_that_has_a_successor_or_has_ended_is_nobodys_worry(
    town: Town, autojump_clock: Clock
) -> None:
    rotated = await town.register(1)
    revoked = await town.register(2)
    await town.register(3, valid_to_us=town.now_us + DAY_US)
    await town.register(4, valid_from_us=town.now_us + 50 * DAY_US)
    town.now_us += 80 * DAY_US
    assert await town.watch_for(60) == []
    assert (town.ages.agent_keys_overdue, town.ages.agent_keys_expiring) == (0, 2)
    successor = AgentKey(rotated._replace(key_id=9), b"9" * 32, 1, None, None)
    await town.journal.rotate_agent_key(KeyRotation(successor, 1, 90 * 86_400), AUDIT)
    await town.journal.revoke_agent_key(revoked, "lost", AUDIT)
    town.now_us += 20 * DAY_US
    assert await town.watch_for(60) == []
    assert (town.ages.agent_keys_overdue, town.ages.agent_keys_expiring) == (0, 0)


async def test_it_looks_again_every_hour_and_soon_when_the_database_was_away(
    town: Town, autojump_clock: Clock
) -> None:
    await town.register(1)
    town.now_us += 91 * DAY_US
    town.journal.fail_next("walk_agent_keys", "away")
    assert await town.watch_for(59) == []
    town.journal.fail_next("walk_agent_keys", "away")
    assert len(await town.watch_for(60 + 3600 + 60)) == 2


async def test_this_nodes_receipt_key_is_watched_and_other_nodes_keys_are_not(
    town: Town, autojump_clock: Clock
) -> None:
    await town.journal.claim_receipt_key(OURS, b"o" * 32)
    await town.journal.claim_receipt_key(bytes(16), b"t" * 32)
    town.now_us += 170 * DAY_US
    assert await town.watch_for(60) == []
    assert (town.ages.receipt_keys_overdue, town.ages.receipt_keys_expiring) == (0, 1)
    town.now_us += 11 * DAY_US
    [line] = await town.watch_for(60)
    assert (line["kind"], line["times"], line["max_days"]) == ("receipt_key_overdue", 1, 180)
    assert (town.ages.receipt_keys_overdue, town.ages.receipt_keys_expiring) == (1, 0)


async def test_switched_off_nobody_looks(town: Town, autojump_clock: Clock) -> None:
    await town.register(1)
    town.now_us += 91 * DAY_US
    assert await town.watch_for(7200, watched=False) == []
    assert town.ages.agent_keys_overdue == 0


async def test_the_metrics_tell_what_the_watch_found() -> None:
    async with serving() as house:
        house.house.key_ages.agent_keys_overdue = 7
        house.house.key_ages.receipt_keys_expiring = 1
        async with house.client(BOOTSTRAP, admin=True) as client:
            text = (await client.get("/metrics")).text
    assert "sequencer_agent_keys_overdue 7.0" in text
    assert "sequencer_agent_keys_expiring 0.0" in text
    assert "sequencer_receipt_keys_expiring 1.0" in text
    assert "sequencer_receipt_keys_overdue 0.0" in text


@pytest.mark.parametrize(("mode", "refused"), [("off", False), ("report", False), ("enforce", True)])
async def test_enforced_an_old_key_signs_nothing_new_and_its_replays_are_answered(
    town: Town, autojump_clock: Clock, mode: str, refused: bool
) -> None:
    settings = Settings(_env_file=None, key_rotation_mode=mode)
    await town.register(1)
    async with trio.open_nursery() as nursery:
        sequencer = Mailbox("sequencer", letters_max=9)
        encryptors = Mailbox("encryptors", letters_max=9)
        actor = Sequencer(
            tenant_id=TENANT,
            journal=town.journal,
            encryptors=Ref(encryptors),
            sequencer_id=OURS,
            limits=GroupLimits(letters_max=9, events_max=99, bytes_max=9999),
            chance=random.Random(1),
            tally=Tally(),
            settled_tenants=SettledTenants(),
            right_of_way=RightOfWay(),
            key_age_max_us=settings.agent_key_age_enforced_us,
        )
        nursery.start_soon(actor.run, Inbox(sequencer))
        nursery.start_soon(seal, Inbox(encryptors))

        async def post(*numbers: int) -> list[Receipt | Refusal]:
            batch = VerifiedBatch(TENANT, STORE, AGENT, [an_event(n) for n in numbers])
            appended: Appended = await Ref(sequencer).ask(Append(batch, None), deadline_s=10)
            return appended.verdicts

        [first] = await post(1)
        town.now_us += 90 * DAY_US
        [_, in_time] = await post(1, 2)
        assert isinstance(in_time, Receipt)
        town.now_us += 1
        replay, new = await post(1, 3)
        assert replay == first
        if refused:
            assert isinstance(new, Refusal)
            text = "Agent key is older than the rotation policy allows"
            assert new.reason == f"agent_key_invalid: {text}"
        else:
            assert isinstance(new, Receipt)
        nursery.cancel_scope.cancel()


async def seal(inbox: Inbox) -> None:
    while True:
        letter = await inbox.take()
        assert isinstance(letter.message, Seal)
        sealed = [SealedEvent(b"s", bytes(32), bytes(64)) for _ in letter.message.events]
        letter.answer(Sealed(1, sealed))


def an_event(number: int) -> VerifiedEvent:
    return VerifiedEvent(
        event_id=number.to_bytes(16, "big"),
        source_agent_id=AGENT,
        agent_key_id=1,
        entity_type="order",
        entity_id=f"o-{number}",
        event_type="order.created",
        created_at="2026-01-01T00:00:00Z",
        payload_kind=0,
        payload=b"{}",
        payload_plain_hash=bytes(32),
        payload_cipher_hash=bytes(32),
        agent_signature=bytes(64),
        event_signing_hash=number.to_bytes(32, "big"),
        command_id=None,
        base_version=None,
    )
