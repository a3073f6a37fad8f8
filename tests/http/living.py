"""A small living tree to put behind the doors: somebody to kill, tenants, and a letter nobody survives."""

from __future__ import annotations

import pytest

from actors.errors import OutcomeUnknown, Poisoned
from actors.mailbox import Inbox, Mailbox, Ref
from actors.messages import FindKeys
from supervisor.dynamic import DynamicSupervisor
from supervisor.policy import Pauses
from supervisor.supervisor import ChildSpec, Supervisor
from ves.records import KeyName

CANARY = b"CANARY-IN-THE-LETTER"
POISON = FindKeys([KeyName(CANARY[:16], bytes(16), 7)])


class Librarian:
    """Answers FindKeys; dies of the poison until its house is cured of it."""

    def __init__(self, house: LivingHouse) -> None:
        self.house = house

    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            if letter.message is POISON and not self.house.cured:
                raise RuntimeError("poisoned")
            letter.answer({})


class LivingHouse:
    def __init__(self) -> None:
        self.cured = False
        self.keys = Mailbox("keys", letters_max=10)
        self.tenants = DynamicSupervisor(
            "tenants", lambda key: Librarian(self), children_max=50, letters_max=5, idle_s=1000, name_of=str
        )
        quick = Pauses(first_s=0.01, max_s=0.02)
        keys = ChildSpec(name="keys", factory=lambda: Librarian(self), mailbox=self.keys)
        watch = ChildSpec(name="watch", factory=lambda: Librarian(self), suspendable=False)
        self.root = Supervisor("house", [keys, watch, self.tenants], pauses=quick)

    async def bury_one(self) -> None:
        """Makes a dead letter."""
        with pytest.raises((OutcomeUnknown, Poisoned)):
            await Ref(self.keys).ask(POISON, deadline_s=10)

    def cure(self) -> None:
        """The poison is answered from now on, also at once."""
        self.cured = True
        self.keys._poisons.clear()
