"""Credentials are remembered, and forgotten as soon as they are revoked, here or on another node."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.credentials import CredentialBook, RevocationPoller
from actors.errors import MailboxFull
from actors.freshness import FRESH_S, LOOKUPS_MAX, LOOKUPS_WAITING_MAX
from actors.mailbox import Inbox, Mailbox
from journal.port import NEWS_MAX, AuditEntry, JournalAway, Revocations
from tests.http.doubles import Cardboard, CardboardJournal

AUDIT = AuditEntry("cli", "api_key.revoke", "", None)


class World:
    def __init__(self) -> None:
        self.house = Cardboard()
        self.journal: CardboardJournal = self.house.journal
        self.book: CredentialBook = self.house.credentials
        self.hash = sha256(self.house.api_key("read").encode()).digest()

    @property
    def id(self) -> bytes:
        return self.journal.api_keys[self.hash].id

    async def poll(self) -> None:
        poller = RevocationPoller(journal=self.journal, book=self.book)
        await poller.run(Inbox(Mailbox("revocations", letters_max=1)))

    async def revoke_elsewhere(self) -> None:
        await self.journal.revoke_api_key(self.id, tenant_id=None, audit=AUDIT)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_full_page_of_revocations_is_not_taken_for_the_last(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [Revocations([], 0, []), *[Revocations([bytes(16)] * NEWS_MAX, n, []) for n in range(1, 4)]]

    async def since(cursor: int | None) -> Revocations:
        return pages.pop(0) if len(pages) > 1 else pages[0]

    monkeypatch.setattr(world.journal, "revocations_since", since)
    with trio.move_on_after(FRESH_S + 2):
        await world.poll()
    assert not world.book.fresh, "seconds after the last page that was not full"


async def test_a_found_credential_is_looked_up_once(world: World, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.poll)
        await trio.sleep(0.1)
        for _ in range(5):
            assert (await world.book.find(world.hash)) is not None
        assert world.journal.lookups == 1
        nursery.cancel_scope.cancel()


async def test_absence_is_never_remembered(world: World, autojump_clock: MockClock) -> None:
    world.book.heard(asked_at=trio.current_time())
    assert await world.book.find(b"\0" * 32) is None
    world.journal.api_keys[b"\0" * 32] = world.journal.api_keys[world.hash]
    assert await world.book.find(b"\0" * 32) is not None


async def test_a_revocation_elsewhere_is_known_within_two_seconds(
    world: World, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.poll)
        await trio.sleep(0.5)
        assert await world.book.find(world.hash) is not None
        await world.revoke_elsewhere()
        await trio.sleep(2)
        assert await world.book.find(world.hash) is None
        nursery.cancel_scope.cancel()


async def test_a_revocation_here_is_known_at_once(world: World, autojump_clock: MockClock) -> None:
    world.book.heard(asked_at=trio.current_time())
    assert await world.book.find(world.hash) is not None
    await world.revoke_elsewhere()
    world.book.forget([world.id])
    assert await world.book.find(world.hash) is None


async def test_a_node_that_cannot_poll_asks_the_database_for_each_request(
    world: World, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.poll)
        await trio.sleep(0.5)
        assert await world.book.find(world.hash) is not None
        world.journal.away = True
        await trio.sleep(FRESH_S - 2)
        assert await world.book.find(world.hash) is not None, "still believed"
        await trio.sleep(3)
        with pytest.raises(JournalAway):
            await world.book.find(world.hash)
        world.journal.away = False
        await world.revoke_elsewhere()
        assert await world.book.find(world.hash) is None
        nursery.cancel_scope.cancel()


async def test_a_revocation_heard_of_during_the_lookup_is_not_overwritten(
    world: World, autojump_clock: MockClock
) -> None:
    world.book.heard(asked_at=trio.current_time())
    read = world.journal.find_api_key

    async def slow(key_hash: bytes) -> Any:
        record = await read(key_hash)
        await trio.sleep(1)
        return record

    world.journal.find_api_key = slow  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.book.find, world.hash)
        await trio.sleep(0.5)
        await world.revoke_elsewhere()
        world.book.forget([world.id])
    assert await world.book.find(world.hash) is None


async def test_a_new_poller_believes_nothing_an_older_one_did(
    world: World, autojump_clock: MockClock
) -> None:
    world.book.heard(asked_at=trio.current_time())
    await world.book.find(world.hash)
    await world.revoke_elsewhere()  # before the new poller has a cursor
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.poll)
        await trio.sleep(0.1)
        assert await world.book.find(world.hash) is None
        nursery.cancel_scope.cancel()


async def test_the_book_is_bounded_and_forgets_the_least_used(world: World) -> None:
    book = CredentialBook(journal=world.journal, entries_max=2)
    book.heard(asked_at=trio.current_time())
    hashes = [world.hash, *(sha256(world.house.api_key("read").encode()).digest() for _ in range(2))]
    for key_hash in hashes:
        await book.find(key_hash)
    before = world.journal.lookups
    await book.find(hashes[2])
    await book.find(hashes[1])
    assert world.journal.lookups == before
    await book.find(hashes[0])
    assert world.journal.lookups == before + 1
    book.forget([world.journal.api_keys[h].id for h in hashes])


async def test_a_flood_of_unknown_keys_holds_few_connections_and_is_bounded(
    world: World, autojump_clock: MockClock
) -> None:
    under_way = peak = refused = 0

    async def slow(key_hash: bytes) -> None:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        await trio.sleep(1)
        under_way -= 1

    async def knock(n: int) -> None:
        nonlocal refused
        try:
            await world.book.find(n.to_bytes(32, "big"))
        except MailboxFull:
            refused += 1

    world.journal.find_api_key = slow  # type: ignore[method-assign,assignment]
    async with trio.open_nursery() as nursery:
        for n in range(LOOKUPS_MAX + LOOKUPS_WAITING_MAX + 30):
            nursery.start_soon(knock, n)
    assert peak == LOOKUPS_MAX
    assert refused == 30
