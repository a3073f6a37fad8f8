"""Faults that once were: each of these starved, stopped or misled somebody."""

from __future__ import annotations

import ssl

import pytest
import trio

from actors.errors import Unavailable
from actors.mailbox import Inbox, Mailbox, Ref
from actors.messages import Commit, CommitAlone, Committed, CommitTogether, FindKeys
from actors.registry import KeyRegistry
from actors.sweeper import CommitmentPolicy, Sweeper
from journal.port import JournalAway, StreamBehind
from journal.units import not_stored
from ves.records import Commitment, KeyName


class Streams:
    """Two streams behind, the first one far; and it never stops growing."""

    def __init__(self) -> None:
        self.through = {b"A" * 16: 0, b"B" * 16: 0}
        self.heads = {b"A" * 16: 5000, b"B" * 16: 10}

    async def streams_behind(self, *, after: object, limit: int) -> list[StreamBehind]:
        return [
            StreamBehind(tenant, tenant, self.through[tenant], self.heads[tenant], 0)
            for tenant in self.through
        ]


class Committing:
    """Answers as the committer does; while it works, the busy stream grows. ``sick`` streams are refused."""

    def __init__(self, streams: Streams, sick: set[bytes]) -> None:
        self.streams = streams
        self.sick = sick
        self.ranges: list[tuple[bytes, int, int]] = []

    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            wanted = letter.message
            await trio.sleep(0.02)
            self.streams.heads[b"A" * 16] += 100
            if isinstance(wanted, CommitTogether):
                letter.answer([self.one(some) or CommitAlone() for some in wanted.ranges])
                continue
            assert isinstance(wanted, Commit)
            if (committed := self.one(wanted)) is None:
                letter.refuse(Unavailable("damaged"))
            else:
                letter.answer(committed)

    def one(self, wanted: Commit) -> Committed | None:
        if wanted.tenant_id in self.sick:
            return None
        assert wanted.sequence_start is not None
        assert wanted.sequence_end is not None
        self.ranges.append((wanted.tenant_id, wanted.sequence_start, wanted.sequence_end))
        self.streams.through[wanted.tenant_id] = wanted.sequence_end
        nothing = Commitment(b"", b"", b"", 1, 0, 1, 1, b"", b"", b"", 1, 1, 0)
        return Committed(nothing, remaining=1)


@pytest.mark.parametrize("sick", [set(), {b"A" * 16}], ids=["a busy one", "a damaged one"])
async def test_no_stream_keeps_the_others_from_being_committed(
    autojump_clock: trio.testing.MockClock, sick: set[bytes]
) -> None:
    streams = Streams()
    committing = Committing(streams, sick)
    mailbox = Mailbox("committer", letters_max=10)
    policy = CommitmentPolicy(events=1000, interval_s=60, sweep_s=5)
    sweeper = Sweeper(
        journal=streams,  # type: ignore[arg-type]
        committer=Ref(mailbox),
        policy=policy,
        now_us=lambda: 10**15,
    )
    with trio.move_on_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committing.run, Inbox(mailbox, name="committer"))
            nursery.start_soon(sweeper.run, Inbox(Mailbox("sweeper", letters_max=0), name="sweeper"))
    assert committing.ranges.index((b"B" * 16, 1, 10)) <= 1, "one range of the other's comes before, not all"
    assert len(committing.ranges) < 40, "a sweep commits what it saw, not for ever"


async def test_a_registry_at_its_bound_still_tells_every_key_it_was_asked_for() -> None:
    names = [KeyName(b"T" * 16, b"A" * 16, n) for n in range(4)]

    class Keys:
        async def find_public_keys(self, wanted: list[KeyName]) -> dict[KeyName, bytes]:
            return {name: bytes([name.key_id]) * 32 for name in wanted}

    mailbox = Mailbox("registry", letters_max=10)
    registry = KeyRegistry(journal=Keys(), bindings_max=2)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.run, Inbox(mailbox, name="registry"))
        for asked in (names[:2], [names[0], names[2], names[3]], names):
            assert set(await Ref(mailbox).ask(FindKeys(asked), deadline_s=5)) == set(asked)
        nursery.cancel_scope.cancel()


async def test_whoever_leaves_takes_the_untaken_letter_along() -> None:
    mailbox = Mailbox("busy", letters_max=3)
    for _ in range(10):  # more than fit, were they to stay
        with trio.move_on_after(0.001):
            await Ref(mailbox).ask(Commit(b"T" * 16, b"S" * 16), deadline_s=60)
        assert mailbox.depth == 0


async def test_a_letter_taken_stays_in_hand_when_its_asker_leaves(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mailbox = Mailbox("busy", letters_max=3)
    inbox = Inbox(mailbox, name="busy")

    async def ask() -> None:
        with trio.move_on_after(1):
            await Ref(mailbox).ask(Commit(b"T" * 16, b"S" * 16), deadline_s=60)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        letter = await inbox.take()
        await trio.sleep(2)
    assert letter.abandoned
    letter.answer(None)  # harmless


def test_a_tls_error_of_the_database_is_away_and_not_a_mistake_of_ours() -> None:
    with pytest.raises(JournalAway):
        not_stored(ssl.SSLCertVerificationError(1, "certificate has expired"))
    with pytest.raises(ValueError, match="ours"):
        not_stored(ValueError("ours"))
