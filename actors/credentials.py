"""Credentials: who a presented API key is, remembered, and forgotten as soon as it is revoked anywhere.

``CredentialBook`` alone holds the cache of API key records, under the SHA-256 of the key: the key itself
passes by and is never kept. ``RevocationPoller`` is the actor that tells it every second what was revoked;
while it cannot, the book asks the database for every request. That a key is absent is never remembered.
Whether a credential may still *append* is none of its business: that is judged inside the append.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec
import trio

from actors.freshness import POLL_EVERY_S, Freshness
from actors.mailbox import Inbox
from journal.port import NEWS_MAX, ApiKey, Journal, JournalError, TokenRevocation
from ves.records import Uuid

ENTRIES_MAX = 50_000
"""Some 650 bytes each. Of as many tenants as may be alive each can have several: who comes round in turn to a
memory that is a little too small finds nothing in it."""


class Credential(msgspec.Struct, frozen=True):
    """An API key that was not revoked when last looked at."""

    id: Uuid
    tenant_id: Uuid
    store_ids: tuple[Uuid, ...] | None
    """None: all stores of the tenant."""
    agent_id: Uuid | None
    """None: any agent of the tenant."""
    flags: tuple[str, ...]
    """Without a role: read, write, admin, or permissions by name."""
    role: str | None = None
    expires_at_us: int | None = None
    """Whether that is past is for those to judge who have a clock: it is remembered like the rest."""
    rate_limit_per_minute: int | None = None


class CredentialBook:
    """Finds credentials by key hash; at most ``entries_max`` are remembered."""

    def __init__(
        self,
        *,
        journal: Journal,
        entries_max: int = ENTRIES_MAX,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.now_us = now_us
        """The clock by which credentials expire at the door; an append goes by the database's."""
        self._journal = journal
        self._entries_max = entries_max
        self._by_hash: OrderedDict[bytes, Credential] = OrderedDict()
        self._hash_of: dict[Uuid, bytes] = {}
        self._freshness = Freshness("their credential")

    async def find(self, key_hash: bytes) -> Credential | None:
        """The credential with this key hash (SHA-256), None if there is none or it is revoked.

        Raises JournalAway when the database has to be asked and is away; MailboxFull when too many wait.
        """
        if self.fresh and (known := self._by_hash.get(key_hash)) is not None:
            self._by_hash.move_to_end(key_hash)
            return known
        return await self._look_up(key_hash)

    def knows(self, key_hash: bytes) -> bool:
        """It was good when last looked at; nothing is looked up."""
        return key_hash in self._by_hash

    @property
    def fresh(self) -> bool:
        """The remembered records are at most ``FRESH_S`` behind the database."""
        return bool(self._freshness)

    def forget(self, credential_ids: Iterable[Uuid]) -> None:
        """These were revoked: from now on they are looked up in the database."""
        for credential_id in credential_ids:
            self._freshness.news()
            key_hash = self._hash_of.pop(credential_id, None)
            if key_hash is not None:
                del self._by_hash[key_hash]

    def forget_all(self) -> None:
        """Nothing is known about revocations since the records were read."""
        self._freshness.news()
        self._by_hash.clear()
        self._hash_of.clear()

    def heard(self, *, asked_at: float) -> None:
        """Everything revoked before ``asked_at`` (``trio.current_time``) is forgotten."""
        self._freshness.heard(asked_at=asked_at)

    async def _look_up(self, key_hash: bytes) -> Credential | None:
        record, may_stay = await self._freshness.look_up(lambda: self._journal.find_api_key(key_hash))
        if record is None or record.revoked_at_us is not None:
            return None
        credential = _credential(record)
        if may_stay:
            self._remember(key_hash, credential)
        return credential

    def _remember(self, key_hash: bytes, credential: Credential) -> None:
        self._by_hash[key_hash] = credential
        self._hash_of[credential.id] = key_hash
        while len(self._by_hash) > self._entries_max:
            _, oldest = self._by_hash.popitem(last=False)
            del self._hash_of[oldest.id]


def _credential(record: ApiKey) -> Credential:
    return Credential(
        record.id,
        record.tenant_id,
        record.store_ids,
        record.agent_id,
        record.permissions,
        record.role,
        record.expires_at_us,
        record.rate_limit_per_minute,
    )


class RevokedTokens(Protocol):
    """Who else is told (``actors.tokens``)."""

    def heard(self, revocations: Iterable[TokenRevocation]) -> None: ...

    def forget_all(self) -> None: ...

    def fresh_since(self, asked_at: float) -> None: ...


class RevocationPoller:
    """Reads the revocations since its last reading, every ``every_s``. Takes no letters."""

    def __init__(
        self,
        *,
        journal: Journal,
        book: CredentialBook,
        tokens: RevokedTokens | None = None,
        every_s: float = POLL_EVERY_S,
    ) -> None:
        self._journal = journal
        self._book = book
        self._tokens = tokens
        self._every_s = every_s

    async def run(self, inbox: Inbox) -> None:
        # An earlier life's cursor is gone, so what was remembered under it is too.
        self._forget_all()
        cursor: int | None = None
        while True:
            cursor = await self._poll(cursor)
            await inbox.pause(self._every_s)

    async def _poll(self, cursor: int | None) -> int | None:
        """The new cursor, or the old one when the database did not answer."""
        asked_at = trio.current_time()
        try:
            revocations = await self._journal.revocations_since(cursor)
        except JournalError:
            return cursor  # the book notices by itself that nobody tells it anything
        if cursor is None:
            # Records read before there was a cursor may have been revoked before it.
            self._forget_all()
        self._book.forget(revocations.credential_ids)
        if self._tokens is not None:
            self._tokens.heard(revocations.tokens)
        if len(revocations.credential_ids) + len(revocations.tokens) < NEWS_MAX:  # else there may be more
            self._book.heard(asked_at=asked_at)
            if self._tokens is not None:
                self._tokens.fresh_since(asked_at)
        return revocations.cursor

    def _forget_all(self) -> None:
        self._book.forget_all()
        if self._tokens is not None:
            self._tokens.forget_all()
