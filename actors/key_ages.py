"""How old the keys have become: the rotation policy's eyes.

``KeyWatch`` is the actor that walks over all agent keys once an hour, and at its start, and looks at this
node's receipt key. What it found stands in ``KeyAges`` for the metrics; keys that should have been replaced
are one security event a sweep. It refuses nothing: that is decided inside the append.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from actors.mailbox import Inbox
from actors.security_events import SecurityEvent, SecurityEvents
from journal.port import Journal, JournalError, ReceiptKey
from ves.encoding import uuid_text
from ves.key_life import Life, life_of
from ves.records import KeyName, KeyStatus, Uuid

log = structlog.get_logger()

SWEEP_EVERY_S = 3600.0
AGAIN_S = 60.0
"""After a sweep that the database did not see through."""
PAGE = 500
PAGE_PAUSE_S = 0.05
"""Between pages: nobody is in a hurry, and the connection is for others too."""
NAMED_MAX = 5
"""Keys that an event names; the list has the rest."""
SOON_US = 14 * 86_400_000_000
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class KeyAgePolicy:
    """``watched`` False: nobody looks."""

    watched: bool
    agent_key_age_max_us: int
    receipt_key_age_max_us: int


@dataclass
class KeyAges:
    """As of the last sweep that came to its end; kept from one life of the watch to the next."""

    agent_keys_overdue: int = 0
    agent_keys_expiring: int = 0
    receipt_keys_overdue: int = 0
    receipt_keys_expiring: int = 0


class _Tally:
    """Keys by their stage of life, and the names of the first that are overdue."""

    def __init__(self, now_us: int, age_max_us: int) -> None:
        self.lives: Counter[Life] = Counter()
        self.named: list[str] = []
        self.age_max_us = age_max_us
        self._now_us = now_us

    def add(self, status: KeyStatus, name: str) -> None:
        life = life_of(status, self._now_us, age_max_us=self.age_max_us, soon_us=SOON_US)
        self.lives[life] += 1
        if life == "overdue" and len(self.named) < NAMED_MAX:
            self.named.append(name)


class KeyWatch:
    """Takes no letters."""

    def __init__(
        self,
        *,
        journal: Journal,
        policy: KeyAgePolicy,
        sequencer_id: Uuid,
        now_us: Callable[[], int],
        ages: KeyAges,
        security: SecurityEvents,
    ) -> None:
        self._journal = journal
        self._policy = policy
        self._sequencer_id = sequencer_id
        self._now_us = now_us
        self._ages = ages
        self._security = security

    async def run(self, inbox: Inbox) -> None:
        while True:
            pause_s = SWEEP_EVERY_S
            if self._policy.watched:
                try:
                    await self._sweep(inbox)
                except JournalError as error:
                    log.info("key ages not swept", reason=str(error))
                    pause_s = AGAIN_S
            await inbox.pause(pause_s)

    async def _sweep(self, inbox: Inbox) -> None:
        await self._agent_keys(inbox)
        self._receipt_keys(await self._journal.receipt_keys())

    async def _agent_keys(self, inbox: Inbox) -> None:
        tally = _Tally(self._now_us(), self._policy.agent_key_age_max_us)
        after: KeyName | None = None
        while page := await self._journal.walk_agent_keys(None, after=after, limit=PAGE):
            for key in page:
                tally.add(key.status, key_text(key.name))
            after = page[-1].name
            if len(page) < PAGE:
                break
            await inbox.pause(PAGE_PAUSE_S)
        self._ages.agent_keys_overdue = tally.lives["overdue"]
        self._ages.agent_keys_expiring = tally.lives["expiring"]
        self._tell("agent_key_overdue", tally)

    def _receipt_keys(self, keys: list[ReceiptKey]) -> None:
        """Ours only: other nodes look at theirs, and those that are gone for ever need no new key."""
        tally = _Tally(self._now_us(), self._policy.receipt_key_age_max_us)
        for key in keys:
            if key.sequencer_id == self._sequencer_id and key.active:
                status = KeyStatus(None, None, False, None, key.created_at_us)
                tally.add(status, f"{uuid_text(key.sequencer_id)}/{key.key_version}")
        self._ages.receipt_keys_overdue = tally.lives["overdue"]
        self._ages.receipt_keys_expiring = tally.lives["expiring"]
        self._tell("receipt_key_overdue", tally)

    def _tell(self, kind: SecurityEvent, tally: _Tally) -> None:
        if count := tally.lives["overdue"]:
            max_days = tally.age_max_us // DAY_US
            self._security.happened(kind, times=count, first=", ".join(tally.named), max_days=max_days)


def key_text(name: KeyName) -> str:
    return f"{uuid_text(name.tenant_id)}/{uuid_text(name.agent_id)}/{name.key_id}"
