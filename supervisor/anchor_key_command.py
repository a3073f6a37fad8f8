"""``sequencer anchor key``: whose account the anchor uses, where its key is, and whether it signs.

Makes the keystore when there is none, as the anchor's first life would. Shows the address and the place,
never the key, which this process does not have either: a signing process opens it for the command's length.
A check is a use of the key, so it is in the audit trail before it is done.
"""

from __future__ import annotations

import os
from functools import partial
from hashlib import sha256

import trio

from actors.chain import SignerAway, SignerRefused
from actors.chain_key_place import key_place, where
from actors.chain_signer import SigningKey
from actors.chain_signer_wire import BecomeSigner
from actors.faults import arm_from_environment, checkpoint
from config.logs import configure_logs
from config.secrets import prepare_data_dir
from config.settings import Settings
from journal.port import AuditEntry
from supervisor.shell import (
    StartRefused,
    anchor_address,
    leaves,
    limits_of,
    own_sequencer_id,
    patiently,
    read_settings,
    readably,
)
from ves.anchoring import anchor_node_id
from ves.secp256k1 import checksummed

MEANINGLESS = sha256(b"sequencer anchor key --check: no transaction, no message").digest()
"""The only thing this command signs: nothing on any chain has it for a hash."""


def anchor_key_command(check: bool) -> int:
    """Print address and place; with ``check``, sign something meaningless as well."""
    return readably(partial(_show, check))


def _show(check: bool) -> None:
    settings = read_settings()
    arm_from_environment(os.environ)
    configure_logs("warning", settings.log_format)  # to a person: that a process was started is no news
    prepare_data_dir(settings.data_dir)
    become = key_place(settings, by_hand=True)
    try:
        trio.run(_open, become, settings if check else None)
    except* (SignerRefused, SignerAway) as group:
        raise StartRefused(str(next(leaves(group)))) from None


async def _open(become: BecomeSigner, audited_by: Settings | None) -> None:
    async with SigningKey(become).open() as signer:
        if signer.made:
            print(f"created {signer.made} (keep a copy of it and of its password in a safe place)")
        print(f"{checksummed(signer.address)}  {where(become.place)}", flush=True)
        if audited_by is not None:
            await _audit(audited_by, signer.address)
            await signer.sign(MEANINGLESS)
            print("signs: ok")


async def _audit(settings: Settings, address: bytes) -> None:
    """On the anchor's own login: it may write of its key's uses."""
    from journal.aio import open_loop
    from journal.anchors import open_anchor_journal

    dsn, holder = anchor_address(settings), anchor_node_id(own_sequencer_id(settings))
    entry = AuditEntry("cli", "anchor.key_check", f"0x{address.hex()}", None, {"outcome": "begun"})

    async def write() -> None:
        opened = open_anchor_journal(dsn, holder=holder, limits=limits_of(settings, 1), checkpoint=checkpoint)
        async with opened as journal:
            await journal.audit(entry)

    async with open_loop():
        await patiently(write)
