"""Whose receipts are believed: the sequencer's public keys, pinned on first use and never changed silently.

Alone owns the pin file (JSON, by default ``~/.config/ves-sequencer/pins.json``). A first meeting is believed
and said aloud. After that a later version of a pinned sequencer is followed if the version before signed it,
and pinned too; another identity, another key under a known version, or a version that its predecessor did
not sign is a ``PinMismatch`` that names the file and what to do. Never asks the network itself.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import msgspec

from transport.client.errors import KeyFileError, PinMismatch
from transport.client.wire import UNREADABLE, ReceiptKey, ReceiptKeyName, ReceiptKeys, WellKnown
from ves.encoding import prefixed_hex, uuid_text
from ves.receipt_keys import BrokenChain, ReceiptKeyLink, follow
from ves.records import Uuid


class _File(msgspec.Struct):
    pins: dict[str, list[ReceiptKey]] = {}
    """By origin, ``https://host:port``: the keys it showed when first met."""


class Met(NamedTuple):
    """The keys to believe for an address, and those of them that were pinned just now."""

    keys: ReceiptKeys
    fresh: ReceiptKeys
    first: bool
    """Never met before: believed without any proof."""


def followed(believed: ReceiptKeys, shown: WellKnown) -> ReceiptKeys:
    """``believed``, and every key that a chain of signatures in ``shown`` leads to from one of them.
    BrokenChain, naming the sequencer, where a chain contradicts what is believed."""
    keys = dict(believed)
    chains = shown.links()
    for sequencer_id in {name.sequencer_id for name in believed}:
        mine = {name.key_version: key for name, key in believed.items() if name.sequencer_id == sequencer_id}
        keys |= _followed_one(sequencer_id, mine, chains.get(sequencer_id, []))
    return keys


def _followed_one(sequencer_id: Uuid, believed: dict[int, bytes], links: list[ReceiptKeyLink]) -> ReceiptKeys:
    try:
        chain = follow(believed, sequencer_id, links)
    except BrokenChain as broken:
        raise BrokenChain(f"sequencer {uuid_text(sequencer_id)}: {broken}") from None
    return {ReceiptKeyName(sequencer_id, version): key for version, key in chain.items()}


def default_path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "ves-sequencer" / "pins.json"


class Pins:
    """The pins of one file; without a path they last as long as the object."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file = _read(path) if path else _File()

    def meet(self, origin: str, shown: WellKnown) -> Met:
        """The keys to believe for this origin: those pinned, and later versions that they lead to, which are
        pinned now. At a first meeting all that are shown, if their chains hold.

        Another sequencer's keys shown later for the first time are not believed, and no reason to stop
        either: a new node has a new key. PinMismatch when a pinned key is shown differently or no longer, or
        its chain is broken; nothing is changed then.
        """
        first = origin not in self._file.pins
        try:
            if first:
                keys: ReceiptKeys = {}
                for sequencer_id, links in shown.links().items():
                    keys |= _followed_one(sequencer_id, {}, links)
            else:
                keys = followed(self._keys(self._file.pins[origin]), shown)
        except BrokenChain as broken:
            remedy = f"; if you know why, remove {origin} from {self.path}" if self.path else ""
            raise PinMismatch(
                f"{origin} shows receipt keys that do not follow from the one pinned on first use ({broken})"
                f"{remedy}"
                if not first
                else f"{origin} shows receipt keys that do not follow from each other ({broken})"
            ) from None
        pinned = {} if first else self._keys(self._file.pins[origin])
        fresh = {name: key for name, key in keys.items() if name not in pinned}
        if first or fresh:
            self._file.pins[origin] = [
                ReceiptKey(name.key_version, "ed25519", prefixed_hex(key), uuid_text(name.sequencer_id))
                for name, key in keys.items()
            ]
            self._write()
        return Met(keys, fresh, first)

    def all_keys(self) -> ReceiptKeys:
        """Every pinned key, wherever it was met."""
        keys: ReceiptKeys = {}
        for pinned in self._file.pins.values():
            keys |= self._keys(pinned)
        return keys

    @staticmethod
    def _keys(pinned: list[ReceiptKey]) -> ReceiptKeys:
        return WellKnown("", pinned).keys()

    def _write(self) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Replaced in one step: another process reads the old file or the new one, never half of one.
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".pins-", delete=False) as fresh:
                fresh.write(msgspec.json.format(msgspec.json.encode(self._file), indent=2) + b"\n")
                fresh.flush()
                os.fsync(fresh.fileno())
            Path(fresh.name).replace(self.path)
        except OSError as error:
            raise KeyFileError(f"the pin file {self.path} cannot be written: {error.strerror}") from error


def _read(path: Path) -> _File:
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        for pinned in file.pins.values():
            WellKnown("", pinned).keys()
    except FileNotFoundError:
        return _File()
    except OSError as error:
        raise KeyFileError(f"the pin file {path} cannot be read: {error.strerror}") from error
    except (*UNREADABLE, ValueError) as error:
        raise KeyFileError(f"the pin file {path} is damaged: {error}") from error
    return file
