"""Tokens are verified once, revoked everywhere within two seconds, and keys change without a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from actors import tokens
from actors.credentials import CredentialBook, RevocationPoller
from actors.errors import MailboxFull
from actors.freshness import FRESH_S, LOOKUPS_MAX, LOOKUPS_WAITING_MAX
from actors.mailbox import Inbox, Mailbox
from actors.token_keys import BadKeySet
from actors.token_rules import Rules, TokenRefused
from actors.tokens import KeyFile, KeySetWatcher, TokenBook
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import AuditEntry, JournalAway
from tests.tokens.token_mint import (
    AGENT,
    NOW_S,
    OTHER_PRIVATE,
    SECRET,
    TENANT,
    claims,
    jwk,
    key_file,
    keys,
    macced,
    signed,
)

AUDIT = AuditEntry("cli", "token.revoke", "", None)


class World:
    """A node with a book, and another node that revokes."""

    def __init__(self, *, entries_max: int = 100) -> None:
        self.now_s = float(NOW_S)
        self.database = MemoryDatabase(now_us=lambda: int(self.now_s * 1_000_000))
        self.journal = MemoryJournal(self.database, node_id=b"n" * 16)
        self.other = MemoryJournal(self.database, node_id=b"o" * 16)
        self.lookups = 0
        self.book = TokenBook(
            journal=self._counting(),
            keys=keys(secret=SECRET),
            rules=Rules(),
            now_s=lambda: self.now_s,
            entries_max=entries_max,
        )

    def _counting(self) -> Any:
        world = self

        class Counting:
            async def tokens_revoked_until(self, tenant_id: bytes, subject: bytes) -> int:
                world.lookups += 1
                return await world.journal.tokens_revoked_until(tenant_id, subject)

        return Counting()

    async def revoke_elsewhere(self, subject: bytes = AGENT.bytes, ahead_s: int = 0) -> None:
        await self.other.revoke_tokens(TENANT.bytes, subject, ahead_s=ahead_s, reason=None, audit=AUDIT)

    @asynccontextmanager
    async def polling(self) -> AsyncIterator[None]:
        book = CredentialBook(journal=self.journal)
        poller = RevocationPoller(journal=self.journal, book=book, tokens=self.book)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run, Inbox(Mailbox("revocations", letters_max=1)))
            await trio.sleep(0.5)
            yield
            nursery.cancel_scope.cancel()


@pytest.fixture
def world() -> World:
    return World()


async def test_a_token_is_verified_once_and_its_subject_looked_up_once(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    verify = tokens.verify
    monkeypatch.setattr(tokens, "verify", lambda text, *a: (verified.append(text), verify(text, *a))[1])
    async with world.polling():
        for _ in range(5):
            assert (await world.book.find(signed())).agent_id == AGENT.bytes
        assert (len(verified), world.lookups) == (1, 1)
        await world.book.find(signed(claims(iat=NOW_S - 1)))
        assert (len(verified), world.lookups) == (2, 1)


async def test_a_remembered_token_expires_all_the_same(world: World) -> None:
    world.book.fresh_since(trio.current_time())
    await world.book.find(signed())
    world.now_s += 3660
    with pytest.raises(TokenRefused, match="expired"):
        await world.book.find(signed())


async def test_a_revocation_elsewhere_is_known_within_two_seconds(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.polling():
        await world.book.find(signed())
        await world.revoke_elsewhere()
        await trio.sleep(2)
        with pytest.raises(TokenRefused, match="revoked"):
            await world.book.find(signed())
        world.now_s += 1
        assert await world.book.find(signed(claims(iat=NOW_S + 1))), "issued afterwards"


async def test_a_revocation_here_is_known_at_once(world: World) -> None:
    world.book.fresh_since(trio.current_time())
    await world.book.find(signed())
    await world.revoke_elsewhere()
    world.book.forget(TENANT.bytes, AGENT.bytes)
    with pytest.raises(TokenRefused, match="revoked"):
        await world.book.find(signed())


async def test_revoking_the_tenants_own_id_ends_every_token_of_the_tenant(
    world: World, autojump_clock: MockClock
) -> None:
    world.now_s += 5
    both = [signed(), macced()]
    async with world.polling():
        for text in both:
            await world.book.find(text)
        await world.revoke_elsewhere(TENANT.bytes)
        await trio.sleep(2)
        for text in both:
            with pytest.raises(TokenRefused, match="revoked"):
                await world.book.find(text)


async def test_a_revocation_reaches_as_far_ahead_as_clocks_may_be_off(world: World) -> None:
    early = signed(claims(iat=NOW_S + 30))
    await world.book.find(early)
    await world.revoke_elsewhere(ahead_s=60)
    with pytest.raises(TokenRefused, match="revoked"):
        await world.book.find(early)


async def test_a_node_that_cannot_poll_asks_the_database_for_each_request(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.polling():
        await world.book.find(signed())
        world.database.reachable = False
        await trio.sleep(FRESH_S - 2)
        assert await world.book.find(signed()), "still believed"
        await trio.sleep(3)
        with pytest.raises(JournalAway):
            await world.book.find(signed())
        world.database.reachable = True
        await world.revoke_elsewhere()
        with pytest.raises(TokenRefused, match="revoked"):
            await world.book.find(signed())


async def test_a_revocation_heard_of_during_the_lookup_is_not_overwritten(
    world: World, autojump_clock: MockClock
) -> None:
    world.book.fresh_since(trio.current_time() + 100)
    read = world.journal.tokens_revoked_until

    async def slow(*name: bytes) -> int:
        found = await read(*name)
        await trio.sleep(1)
        return found

    world.journal.tokens_revoked_until = slow  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.book.find, signed())
        await trio.sleep(0.5)
        await world.revoke_elsewhere()
        world.book.forget(TENANT.bytes, AGENT.bytes)
    with pytest.raises(TokenRefused, match="revoked"):
        await world.book.find(signed())


async def test_the_memories_are_bounded_and_forget_the_least_used() -> None:
    world = World(entries_max=2)
    world.book.fresh_since(trio.current_time())
    texts = [signed(claims(sub=f"55555555-5555-4555-8555-55555555555{n}")) for n in range(3)]
    for text in texts:
        await world.book.find(text)
    await world.book.find(texts[2])
    await world.book.find(texts[1])
    assert world.lookups == 3
    await world.book.find(texts[0])
    assert world.lookups == 4


async def test_a_flood_of_new_subjects_holds_few_connections_and_is_bounded(
    world: World, autojump_clock: MockClock
) -> None:
    under_way = peak = refused = 0

    async def slow(*name: bytes) -> int:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        await trio.sleep(1)
        under_way -= 1
        return -1

    async def knock() -> None:
        nonlocal refused
        try:
            await world.book.find(signed())
        except MailboxFull:
            refused += 1

    world.journal.tokens_revoked_until = slow  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        for _ in range(LOOKUPS_MAX + LOOKUPS_WAITING_MAX + 30):
            nursery.start_soon(knock)
    assert (peak, refused) == (LOOKUPS_MAX, 30)


# The key file.


class File:
    """Read from memory; ``None`` is a missing one."""

    def __init__(self, raw: bytes) -> None:
        self.raw: bytes | None = raw
        self.trouble: Exception = FileNotFoundError(2, "No such file or directory")

    def read(self, path: Path) -> bytes:
        if self.raw is None:
            raise self.trouble
        return self.raw


@asynccontextmanager
async def watched(book: TokenBook, file: File, journal: MemoryJournal | None = None) -> AsyncIterator[None]:
    journal = journal or MemoryJournal(MemoryDatabase(lambda: 0), node_id=bytes(16))
    watcher = KeySetWatcher(
        book=book, file=KeyFile(Path("jwks.json"), file.read), journal=journal, every_s=0.01
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run, Inbox(Mailbox("token-keys", letters_max=1)))
        yield
        nursery.cancel_scope.cancel()


async def until(holds: Any) -> None:
    with trio.fail_after(5):
        while not holds():  # noqa: ASYNC110 - the watcher tells nobody
            await trio.sleep(0.005)


async def test_whose_tokens_are_believed_is_in_the_audit_trail_also_after_the_database_was_away(
    world: World,
) -> None:
    database = MemoryDatabase(lambda: 0)
    journal = MemoryJournal(database, node_id=bytes(16))
    file = File(key_file(jwk()))
    async with watched(world.book, file, journal):
        database.reachable = False
        file.raw = key_file(jwk(), jwk(OTHER_PRIVATE, "two"))
        await until(lambda: len(world.book.keys.keys) == 3)
        assert not database.audit_log[bytes(16)]
        database.reachable = True
        await until(lambda: database.audit_log[bytes(16)])
        [entry] = database.audit_log[bytes(16)]
    assert '"action":"token_keys.read"' in entry[0]
    assert '"kids":"one two"' in entry[0]


async def test_keys_rotate_without_a_restart_and_the_legacy_secret_stays(world: World) -> None:
    file, book = File(key_file(jwk())), world.book
    fresh = signed(private=OTHER_PRIVATE, kid="two")
    async with watched(book, file):
        await book.find(signed())
        with pytest.raises(TokenRefused):
            await book.find(fresh)
        file.raw = key_file(jwk(), jwk(OTHER_PRIVATE, "two"))
        await until(lambda: len(book.keys.keys) == 3)
        assert await book.find(signed())
        assert await book.find(fresh)
        file.raw = key_file(jwk(OTHER_PRIVATE, "two"))
        await until(lambda: len(book.keys.keys) == 2)
        with pytest.raises(TokenRefused):
            await book.find(signed())  # although it was verified before
        assert await book.find(fresh)
        assert await book.find(macced())
        file.raw = key_file(jwk(OTHER_PRIVATE, "one"))
        await until(lambda: book.keys.find("EdDSA", "one"))
        with pytest.raises(TokenRefused):
            await book.find(signed()), "the same name is another key now"
        file.raw = b'{"keys": []}'
        await until(lambda: len(book.keys.keys) == 1)


@pytest.mark.parametrize("trouble", ["half", "private", "missing", "open"])
async def test_a_broken_key_file_leaves_the_last_good_keys_and_is_told_once(
    world: World, trouble: str
) -> None:
    file, book = File(key_file(jwk(OTHER_PRIVATE, "two"))), world.book
    with capture_logs() as logs:
        async with watched(book, file):
            await until(lambda: book.keys.find("EdDSA", "two"))
            if trouble == "open":
                file.trouble = BadKeySet("others may write to it: chmod 644")
            file.raw = {"half": b'{"keys": [', "private": key_file(jwk(d="AAAA"))}.get(trouble)
            await until(lambda: book.key_file_broken)
            await trio.sleep(0.1)
            assert await book.find(signed(private=OTHER_PRIVATE, kid="two"))
            file.raw = key_file(jwk())
            await until(lambda: not book.key_file_broken)
            assert await book.find(signed())
    told = [line for line in logs if line["log_level"] == "error"]
    assert len(told) == 1, told
    assert "AAAA" not in str(told)


async def test_a_change_that_is_undone_while_broken_is_noticed(world: World) -> None:
    file = File(key_file(jwk()))
    async with watched(world.book, file):
        good, file.raw = file.raw, b"{"
        await until(lambda: world.book.key_file_broken)
        file.raw = good
        await until(lambda: not world.book.key_file_broken)
