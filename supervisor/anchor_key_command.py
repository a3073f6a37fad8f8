"""``sequencer anchor key``: whose account the anchor uses, where its key is, and whether it signs.

Makes the keystore when there is none, as the anchor's first life would. Shows the address and the place, never
the key, which this process does not have either: a signing process opens it, for the length of the command.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256

import trio

from actors.chain import SignerAway, SignerRefused
from actors.chain_key_place import key_place, where
from actors.chain_signer import SigningKey
from actors.chain_signer_wire import BecomeSigner
from config.secrets import prepare_data_dir
from supervisor.shell import StartRefused, read_settings, readably
from ves.secp256k1 import checksummed

MEANINGLESS = sha256(
    b"sequencer anchor key --check: this digest is of no transaction and no message"
).digest()
"""The only thing this command signs: nothing on any chain has it for a hash."""


def anchor_key_command(check: bool) -> int:
    """Print address and place; with ``check``, sign something meaningless first."""
    return readably(partial(_show, check))


def _show(check: bool) -> None:
    settings = read_settings()
    prepare_data_dir(settings.data_dir)
    become = key_place(settings, by_hand=True)
    try:
        trio.run(_open, become, check)
    except* (SignerRefused, SignerAway) as group:
        raise StartRefused(str(_first(group))) from None


async def _open(become: BecomeSigner, check: bool) -> None:
    async with SigningKey(become).open() as signer:
        if signer.made:
            print(f"created {signer.made} (keep a copy of it and of its password in a safe place)")
        print(f"{checksummed(signer.address)}  {where(become.place)}")
        if check:
            await signer.sign(MEANINGLESS)
            print("signs: ok")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
