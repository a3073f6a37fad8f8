"""Whose receipts are believed: the sequencer's public keys, pinned on first use and never changed silently.

Alone owns the pin file (JSON, by default ``~/.config/ves-sequencer/pins.json``). A first meeting is believed
and said aloud; after that another identity, another key under a known version, or a version never seen is a
``PinMismatch`` that names the file and what to do. Never asks the network itself.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from transport.client.errors import KeyFileError, PinMismatch
from transport.client.wire import ReceiptKey, ReceiptKeys, WellKnown
from ves.encoding import prefixed_hex, uuid_text


class _File(msgspec.Struct):
    pins: dict[str, list[ReceiptKey]] = {}
    """By origin, ``https://host:port``: the keys it showed when first met."""


def default_path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "ves-sequencer" / "pins.json"


class Pins:
    """The pins of one file; without a path they last as long as the object."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file = _read(path) if path else _File()

    def meet(self, origin: str, shown: WellKnown) -> tuple[ReceiptKeys, bool]:
        """The keys to believe for this origin, and whether they were pinned just now.

        Keys shown later for the first time are not believed, and no reason to stop either: a new node has a
        new key. PinMismatch when a pinned key is shown differently or no longer; nothing is changed then.
        """
        keys = shown.keys()
        if origin not in self._file.pins:
            self._file.pins[origin] = [
                ReceiptKey(name.key_version, "ed25519", prefixed_hex(key), uuid_text(name.sequencer_id))
                for name, key in keys.items()
            ]
            self._write()
            return keys, True
        pinned = self._keys(self._file.pins[origin])
        for name, key in pinned.items():
            if keys.get(name) != key:
                remedy = f"; if you know why, remove {origin} from {self.path}" if self.path else ""
                raise PinMismatch(
                    f"{origin} no longer shows the receipt key pinned on first use (sequencer "
                    f"{uuid_text(name.sequencer_id)}, version {name.key_version}){remedy}"
                )
        return pinned, False

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
    except (msgspec.DecodeError, ValueError) as error:
        raise KeyFileError(f"the pin file {path} is damaged: {error}") from error
    return file
