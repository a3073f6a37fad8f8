"""The anchoring account's key as the anchor sees it: a process that signs 32 bytes, and nothing more.

    key = SigningKey(key_place(settings, data_dir))
    async with key.open() as signer:      # one life of the anchor
        signature = await signer.sign(digest)

Alone starts that process and speaks with it. This process never fetches the key nor what opens it. A late
answer, a nonsensical one or a signature of another account kills the process; the block is cancelled when it
ends by itself. Never retries: a signature that nobody has seen did not happen. Its only callers are the
anchor, which writes each use into the audit log with the transaction it is for, and the operator's check.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from actors.chain import Signature, SignerAway, SignerRefused
from actors.chain_signer_wire import (
    Away,
    BecomeSigner,
    DeviceKey,
    KmsKey,
    Opened,
    OpenKey,
    RawKey,
    Refused,
    Secret,
    SignDigest,
    Signed,
    VaultKey,
)
from actors.worker_process import WorkerDied, WorkerProcess, running
from actors.worker_spawn import OwnProcess, Spawn
from ves.secp256k1 import ADDRESS_BYTES, DIGEST_BYTES, is_low, recover_address

NAME = "chain-signer"
COMMAND = (sys.executable, "-m", "actors.chain_signer_process")
OPEN_DEADLINE_S = 30.0
"""A command has 10 s, a keystore takes half a second of processor time, a service some seconds twice."""
SIGN_DEADLINE_S = 15.0
"""A device takes milliseconds; one that was lost is logged in again, a service is asked twice."""
_OF_KMS = ("AWS_", "HTTPS_PROXY", "NO_PROXY", "HOME")
_OF_VAULT = ("VAULT_CACERT", "VAULT_NAMESPACE")

_opened: msgspec.msgpack.Decoder[Opened | Refused | Away] = msgspec.msgpack.Decoder(Opened | Refused | Away)
_signed: msgspec.msgpack.Decoder[Signed | Refused | Away] = msgspec.msgpack.Decoder(Signed | Refused | Away)


class SigningKey:
    """Where the key is, for all lives of one anchor; each has a process of its own, one after the other."""

    def __init__(self, become: BecomeSigner, *, spawn: Spawn | None = None) -> None:
        self._become = become
        self._spawn = spawn or partial(OwnProcess, COMMAND, environment_of(become, os.environ))
        self._spent: str | None = None
        """Why the device must not be asked again by itself: it counts, and locks."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ProcessSigner]:
        """A key that is open, for the time of the block. Raises SignerAway and SignerRefused, here and, when
        the process ends by itself, from within the block, which is cancelled."""
        if self._spent is not None:
            raise SignerRefused(self._spent)
        try:
            async with running(self._become, name=NAME, spawn=self._spawn, waits_for_others=True) as process:
                yield await self._opened(process)
        except WorkerDied as died:
            raise SignerAway(str(died)) from None

    async def _opened(self, process: WorkerProcess) -> ProcessSigner:
        answer = await process.call(OpenKey(), _opened, deadline_s=OPEN_DEADLINE_S)
        if isinstance(answer, Refused):
            self._spent = answer.why if answer.counted else None
            raise SignerRefused(answer.why)
        if isinstance(answer, Away):
            raise SignerAway(answer.why)
        if len(answer.address) != ADDRESS_BYTES:
            process.reject("its address is none")
        return ProcessSigner(process, answer, self._remember)

    def _remember(self, refused: Refused) -> None:
        if refused.counted:
            self._spent = refused.why


class ProcessSigner:
    """The ``ChainSigner`` of one life. Not shared: one question at a time."""

    def __init__(self, process: WorkerProcess, opened: Opened, remember: Callable[[Refused], None]) -> None:
        self.address = opened.address
        self.made = opened.made
        """The keystore that was made just now, or nothing."""
        self.process_id = process.pid
        self._process = process
        self._remember = remember

    async def sign(self, digest: bytes) -> Signature:
        if len(digest) != DIGEST_BYTES:
            raise ValueError("a digest has 32 bytes")
        answer = await self._answer(digest)
        if isinstance(answer, Refused):
            self._remember(answer)
            raise SignerRefused(answer.why)
        if isinstance(answer, Away):
            raise SignerAway(answer.why)
        r, s = int.from_bytes(answer.r, "big"), int.from_bytes(answer.s, "big")
        if not is_low(s) or recover_address(digest, answer.y_parity, r, s) != self.address:
            self._process.kill()
            raise SignerAway(str(self._process.died("its signature is not the account's")))
        return Signature(answer.y_parity, r, s)

    async def _answer(self, digest: bytes) -> Signed | Refused | Away:
        try:
            return await self._process.call(SignDigest(digest), _signed, deadline_s=SIGN_DEADLINE_S)
        except WorkerDied as died:
            raise SignerAway(str(died)) from None


def environment_of(become: BecomeSigner, environ: Mapping[str, str]) -> dict[str, str]:
    """What of our environment the process needs for its kind of key: what the SDK of a service goes by; all
    but the secret settings, which are gone from ours, where it runs a command of the operator's or a device's
    library, which have variables of their own."""
    place = become.place
    if isinstance(place, DeviceKey) or any(s.variable.endswith("_COMMAND") for s in _secrets_of(become)):
        return dict(environ)
    if isinstance(place, KmsKey):
        return {name: value for name, value in environ.items() if name.upper().startswith(_OF_KMS)}
    if isinstance(place, VaultKey):
        return {name: environ[name] for name in _OF_VAULT if name in environ}
    return {}


def _secrets_of(become: BecomeSigner) -> list[Secret]:
    place = become.place
    if isinstance(place, KmsKey):
        return []
    if isinstance(place, RawKey):
        return [place.key]
    if isinstance(place, DeviceKey):
        return [place.pin]
    if isinstance(place, VaultKey):
        return [place.token]
    return [] if place.password is None else [place.password]
