"""The agent-key registry: answers which public key a key name is bound to.

A binding (tenant, agent, key_id) -> public key never changes, so it may be remembered for ever; that a key
is absent is never remembered, since it may be registered a moment later. Whether a key is *currently* valid
is none of its business: that is judged inside the append.
"""

from __future__ import annotations

from actors.bindings import Bindings
from actors.errors import Unavailable
from actors.mailbox import Inbox
from actors.messages import FindKeys
from journal.port import Journal, JournalAway
from ves.records import KeyName


class KeyRegistry:
    """Answers ``FindKeys``."""

    def __init__(self, *, journal: Journal, bindings_max: int = 100_000) -> None:
        self._journal = journal
        self._bindings = Bindings(bindings_max)

    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            assert isinstance(letter.message, FindKeys)
            try:
                letter.answer(await self._find(letter.message.keys))
            except JournalAway as error:
                letter.refuse(Unavailable(f"agent keys cannot be read: {error}"))

    async def _find(self, names: list[KeyName]) -> dict[KeyName, bytes]:
        found = {name: key for name in names if (key := self._bindings.get(name)) is not None}
        missing = [name for name in names if name not in found]
        if missing:
            read = await self._journal.find_public_keys(missing)
            found |= read
            self._bindings.learn(read.items())
        return found
