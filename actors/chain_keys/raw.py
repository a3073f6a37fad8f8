"""The key as 64 hex digits in SEQUENCER_PRIVATE_KEY, or in the file or command that it names."""

from __future__ import annotations

from actors.chain_keys.held import HeldKey, parse
from actors.chain_keys.port import fetch
from actors.chain_signer_wire import RawKey


def open_raw(place: RawKey) -> HeldKey:
    return parse(fetch(place.key), place.key.variable)
