"""Tokens: which keys are believed now, what was verified before, and who was revoked.

``TokenBook`` alone holds the present key set and two bounded memories: tokens that were verified, under their
SHA-256 (the text passes by and is never kept), and until when each subject was revoked, read from the journal
once and forgotten when a revocation is heard of. ``KeySetWatcher`` is the actor that reads the key file again
when it changes. Whether a token may still *append* is judged inside the append, not here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Generic, TypeVar

import structlog
import trio

from actors.freshness import Freshness
from actors.mailbox import Inbox
from actors.token_keys import BadKeySet, KeySet, parse_key_set, read_key_set
from actors.token_rules import Rules, Token, TokenRefused, check_times, verify
from journal.port import AuditEntry, Journal, JournalError, TokenRevocation
from ves.records import Uuid

LOOK_EVERY_S = 1.0
NOT_AUDITED_MAX = 100

K = TypeVar("K")
V = TypeVar("V")

log = structlog.get_logger("tokens")


class TokenBook:
    """Finds tokens by their text; at most ``entries_max`` of each kind are remembered."""

    def __init__(
        self,
        *,
        journal: Journal,
        keys: KeySet,
        rules: Rules,
        now_s: Callable[[], float] = time.time,
        entries_max: int = 10_000,
    ) -> None:
        self._journal = journal
        self._keys = keys
        self._now_s = now_s
        self._verified: _Recent[bytes, Token] = _Recent(entries_max)
        self._revoked_until_s = _Subjects(entries_max)
        self._freshness = Freshness("their token")
        self.rules = rules
        self.key_file_broken = False
        """The file was changed into something that is not believed; the keys before it still are."""

    @property
    def keys(self) -> KeySet:
        return self._keys

    def believe(self, keys: KeySet) -> None:
        """From now on these keys, and nothing that was verified with others."""
        self._keys = keys
        self._verified.clear()

    async def find(self, text: str) -> Token:
        """The token, verified and not revoked. Raises TokenRefused; JournalAway when the database has to be
        asked and is away; MailboxFull when too many wait to ask it."""
        token = self.verify(text)
        revoked_until_s = await self._revoked_until(token.tenant_id, token.subject)
        if token.issued_at_s <= revoked_until_s:
            last = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(revoked_until_s))
            raise TokenRefused(f"Invalid token: it was revoked, like all of its subject issued until {last}")
        return token

    def verify(self, text: str) -> Token:
        """The token, revoked or not. Raises TokenRefused."""
        digest = sha256(text.encode("utf-8", "replace")).digest()
        known = self._verified.find(digest)
        if known is not None:
            check_times(known, self.rules, self._now_s())
            return known
        token = verify(text, self._keys, self.rules, self._now_s())
        self._verified.remember(digest, token)
        return token

    def heard(self, revocations: Iterable[TokenRevocation]) -> None:
        """These were revoked elsewhere."""
        for revocation in revocations:
            self.forget(revocation.tenant_id, revocation.subject)

    def forget(self, tenant_id: Uuid, subject: Uuid) -> None:
        """This subject is looked up in the database from now on; with the tenant's own id everybody is."""
        self._freshness.news()
        if subject == tenant_id:
            self._revoked_until_s.forget_all_of(tenant_id)
        else:
            self._revoked_until_s.forget((tenant_id, subject))

    def forget_all(self) -> None:
        """Nothing is known about revocations since the memories were read."""
        self._freshness.news()
        self._revoked_until_s.clear()

    def fresh_since(self, asked_at: float) -> None:
        """Everything revoked before ``asked_at`` (``trio.current_time``) was heard of."""
        self._freshness.heard(asked_at=asked_at)

    async def _revoked_until(self, tenant_id: Uuid, subject: Uuid) -> int:
        """Tokens issued at or before this second are dead; -1 when there was no revocation."""
        name = (tenant_id, subject)
        if self._freshness and (known := self._revoked_until_s.find(name)) is not None:
            return known
        found, may_stay = await self._freshness.look_up(
            lambda: self._journal.tokens_revoked_until(tenant_id, subject)
        )
        if may_stay:
            self._revoked_until_s.remember(name, found)
        return found


class _Recent(Generic[K, V]):
    """A memory that forgets the least used beyond ``entries_max``."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._entries: OrderedDict[K, V] = OrderedDict()

    def find(self, key: K) -> V | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def remember(self, key: K, value: V) -> None:
        self._entries[key] = value
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()


class _Subjects(_Recent[tuple[Uuid, Uuid], int]):
    """(tenant, subject) -> the last second of issue that is dead."""

    def forget_all_of(self, tenant_id: Uuid) -> None:
        for name in [name for name in self._entries if name[0] == tenant_id]:
            del self._entries[name]


@dataclass(frozen=True)
class KeyFile:
    """Where the key set is, and what it is read with (tests read from memory)."""

    path: Path
    read: Callable[[Path], bytes] = read_key_set


class KeySetWatcher:
    """Looks at the key file every second; a changed one is believed at once, a broken one never. Takes no
    letters. Without a file it has nothing to do."""

    def __init__(
        self, *, book: TokenBook, file: KeyFile | None, journal: Journal, every_s: float = LOOK_EVERY_S
    ) -> None:
        self._book = book
        self._file = file
        self._journal = journal
        self._every_s = every_s
        self._not_audited: list[AuditEntry] = []

    async def run(self, inbox: Inbox) -> None:
        seen: object = None
        while True:
            if self._file is not None:
                seen = await self._look(self._file, seen)
                await self._audit()
            await inbox.pause(self._every_s)

    async def _audit(self) -> None:
        """Whose tokens are believed is in the audit trail, as soon as the database is there."""
        try:
            while self._not_audited:
                await self._journal.audit(self._not_audited[0])
                del self._not_audited[0]
        except JournalError:
            del self._not_audited[:-NOT_AUDITED_MAX]

    async def _look(self, file: KeyFile, seen: object) -> object:
        """What was seen: bytes, or the trouble's text. The same sight is not judged twice."""
        try:
            sight: object = await trio.to_thread.run_sync(file.read, file.path, abandon_on_cancel=True)
        except (OSError, BadKeySet) as error:
            sight = (error.strerror or "unreadable") if isinstance(error, OSError) else str(error)
        if sight != seen:
            self._judge(file, sight)
        return sight

    def _judge(self, file: KeyFile, sight: object) -> None:
        try:
            if not isinstance(sight, bytes):
                raise BadKeySet(str(sight))
            fresh = parse_key_set(sight)
        except BadKeySet as error:
            self._book.key_file_broken = True
            log.error("token keys not read, the last good ones stay", path=str(file.path), reason=str(error))
            return
        legacy = tuple(key for key in self._book.keys.keys if key.kind == "legacy")
        self._book.key_file_broken = False
        if self._book.keys != KeySet(fresh + legacy):
            self._book.believe(KeySet(fresh + legacy))
            kids = [key.kid for key in fresh]
            log.warning("token keys read", path=str(file.path), kids=kids)
            details: dict[str, str | int | None] = {
                "kids": " ".join(kid or "-" for kid in kids),
                "outcome": "done",
            }
            self._not_audited.append(AuditEntry("system", "token_keys.read", str(file.path), None, details))
