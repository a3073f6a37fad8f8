"""``sequencer receipt-key rotate``: the next receipt key, whether a server runs on DATA_DIR or not.

The order of the steps is ``supervisor.receipt_keys``'s; here they meet the files and the database.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from functools import partial

import trio

from actors.faults import arm_from_environment, checkpoint
from actors.security_events import SecurityEvents
from config.own_keys import ReceiptSeeds
from config.secrets import load_receipt_seeds
from config.settings import Settings
from journal.aio import open_loop
from journal.port import ReceiptKey
from supervisor import receipt_keys
from supervisor.shell import (
    FORMATS,
    Database,
    database_beside,
    enter_journal,
    patiently,
    read_settings,
    readably,
)
from ves.encoding import prefixed_hex, uuid_text
from ves.records import Uuid


def rotate_command(compromised: bool, reason: str) -> int:
    """Make, sign and record the next receipt key, whether a server runs on DATA_DIR or not."""
    return readably(partial(_rotate, compromised, reason))


def _rotate(compromised: bool, reason: str) -> None:
    settings = read_settings()
    arm_from_environment(os.environ)
    sequencer_id, seeds = load_receipt_seeds(settings, settings.data_dir, FORMATS)
    receipt_keys.may_rotate(seeds, settings.data_dir)
    with database_beside(settings) as dsn:
        new = trio.run(run_rotation, settings, dsn, sequencer_id, seeds, compromised, reason)
    SecurityEvents().happened(
        "receipt_key_rotated", key_version=new.key_version, compromised=int(compromised)
    )
    print(f"receipt key version {new.key_version} of sequencer {uuid_text(sequencer_id)}: ", end="")
    print(f"{prefixed_hex(new.public_key)}, signed by version {new.key_version - 1}")
    print("a running server signs with it from its next start on, or now:")
    print('  sequencer actors restart house/encryptors --reason "receipt key rotated"')
    if compromised:
        print(receipt_keys.COMPROMISED)


async def run_rotation(
    settings: Settings, dsn: str, sequencer_id: Uuid, seeds: ReceiptSeeds, compromised: bool, reason: str
) -> ReceiptKey:
    async with open_loop(), AsyncExitStack() as stack:
        where = Database(dsn, None)
        enter = partial(enter_journal, stack, settings, sequencer_id, where, as_server=True)
        journal = await patiently(enter)
        old = await patiently(partial(receipt_keys.current, journal, sequencer_id))
        public_key = receipt_keys.make_seed(seeds, old, checkpoint)
        act = partial(
            receipt_keys.rotate, journal, seeds, old, public_key, compromised=compromised, reason=reason
        )
        return await patiently(act)
