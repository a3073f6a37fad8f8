"""A key that ends while its request waits: the sequencer goes by the database's clock, not the door's."""

from __future__ import annotations

import random

import pytest
import trio

from actors.errors import CredentialExpired
from actors.mailbox import Inbox, Mailbox, Ref
from actors.messages import Append
from actors.right_of_way import RightOfWay
from actors.sequencer import GroupLimits, Sequencer, Tally
from actors.settled_tenants import SettledTenants
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import ApiKey, AuditEntry
from tests.http.doubles import TENANT, CardboardRef, batch, verified

END_US = 1_000_000


async def _nobody(message: object) -> object:
    raise AssertionError("nothing is to be sealed")


async def test_a_key_that_has_ended_by_the_databases_clock_appends_nothing() -> None:
    database = MemoryDatabase(now_us=lambda: END_US)
    journal = MemoryJournal(database, node_id=bytes(16))
    key = ApiKey(
        *(b"k" * 16, b"h" * 32, "sk_live_abcd", TENANT.bytes, None, None, (), None),
        role="agent",
        expires_at_us=END_US,
    )
    await journal.create_api_key(key, AuditEntry("test", "api_key.create", "", None))
    mailbox = Mailbox("sequencer", letters_max=1)
    sequencer = Sequencer(
        tenant_id=TENANT.bytes,
        journal=journal,
        encryptors=CardboardRef("encryptors", _nobody),  # type: ignore[arg-type]
        sequencer_id=bytes(16),
        limits=GroupLimits(letters_max=1, events_max=10, bytes_max=1000),
        chance=random.Random(1),
        tally=Tally(),
        settled_tenants=SettledTenants(),
        right_of_way=RightOfWay(),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sequencer.run, Inbox(mailbox))
        with pytest.raises(CredentialExpired):
            await Ref(mailbox).ask(Append(batch(verified()), key.id), deadline_s=10)
        nursery.cancel_scope.cancel()
    assert not database.events
