"""The signing process: the only one that ever holds the anchoring account's key, or a login to it.

    python -m actors.chain_signer_process PARENT_PID

A worker like the others (``actors.worker``: tied to its parent, no core dump, out of every debugger's reach),
but for what its key needs: it may open the key's files, run the operator's command, and speak to a device or
to the one service that holds the key. It signs 32 bytes at a time and nothing else, knows no chain and no
database, and lets no signature out of which it has not seen that it is the account's. What goes wrong is told
in a text without secrets; a surprise ends it, and shows where in our code it happened, but not what was said.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

import msgspec

from actors.chain import SignerAway, SignerRefused
from actors.chain_keys.port import ChainKey, Counted
from actors.chain_keys.well_known import WELL_KNOWN
from actors.chain_signer_wire import (
    Away,
    BecomeSigner,
    DeviceKey,
    KeyPlace,
    KeystoreKey,
    KmsKey,
    Opened,
    Question,
    RawKey,
    Refused,
    SignDigest,
    Signed,
)
from actors.worker import guard, private_pipes, serve
from ves.secp256k1 import DIGEST_BYTES, checksummed, completed

_PARENT_GONE = 3


class Signing:
    """One account, for the life of this process."""

    public_key = b""

    def __init__(self, become: BecomeSigner) -> None:
        self._become = become
        self._key: ChainKey | None = None

    def answer(self, body: bytes) -> Opened | Signed | Refused | Away:
        question = msgspec.msgpack.decode(body, type=Question)
        try:
            return self._sign(question.digest) if isinstance(question, SignDigest) else self._open()
        except SignerRefused as error:
            return Refused(str(error), isinstance(error, Counted))
        except SignerAway as error:
            return Away(str(error))

    def _open(self) -> Opened:
        key, made = open_key(self._become.place)
        address = key.address()
        if address in WELL_KNOWN and not self._become.development:
            raise SignerRefused(
                f"account {checksummed(address)} is one that development chains hand out: everybody knows "
                "its key. Make one of your own"
            )
        self._key = key
        return Opened(address, made)

    def _sign(self, digest: bytes) -> Signed:
        if self._key is None or len(digest) != DIGEST_BYTES:
            raise AssertionError("nobody of ours asks so")
        r, s = self._key.sign(digest)
        whole = completed(digest, r, s, self._key.address())
        if whole is None:
            raise SignerRefused("what the key signed is not its account's: the public key is another pair's")
        y_parity, r, s = whole
        return Signed(y_parity, r.to_bytes(32, "big"), s.to_bytes(32, "big"))


def open_key(place: KeyPlace) -> tuple[ChainKey, str]:
    """The key, and the file that was made just now, or nothing. Raises SignerRefused, SignerAway."""
    # Imported here: each kind brings a library of its own.
    if isinstance(place, KeystoreKey):
        from actors.chain_keys.keystore import open_keystore

        return open_keystore(place)
    if isinstance(place, RawKey):
        from actors.chain_keys.raw import open_raw

        return open_raw(place), ""
    if isinstance(place, DeviceKey):
        from actors.chain_keys.pkcs11 import KeyInDevice

        return KeyInDevice(place), ""
    if isinstance(place, KmsKey):
        from actors.chain_keys.kms import open_kms

        return open_kms(place), ""
    from actors.chain_keys.vault import open_vault

    return open_vault(place), ""


def become(body: bytes) -> Signing:
    first = msgspec.msgpack.decode(body, type=BecomeSigner)
    os.chdir(first.folder)
    return Signing(first)


def say_where(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In the place of a traceback, whose texts are other people's and may hold anything."""
    where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(trace)]
    print(f"signing process: {kind.__name__} at {' > '.join(where)}", file=sys.stderr)  # noqa: T201


def main() -> None:
    sys.excepthook = say_where
    guard(parent=int(sys.argv[1]))
    requests, answers = private_pipes()
    try:
        serve(requests, answers, become)
    except BrokenPipeError:
        os._exit(_PARENT_GONE)


if __name__ == "__main__":
    main()
