"""An encryptor: seals numbered events for the disk and signs their receipts, and opens what was sealed.

Owns one worker process, which alone holds the keys while it works; here they only pass by on its way to
life, each life asking for them anew. A life signs with one receipt key, the one its process shows to have,
and says with every answer which version that is. Checks the form of everything that comes back: as many as
were sent, each of the right size. A process whose frames do not open again is replaced: its memory, or what
it computes with, cannot be trusted. Never keeps a receipt: it goes into the answer, for the row to be stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

import msgspec

from actors.at_rest_watch import AtRestWatch
from actors.errors import DoesNotOpen
from actors.faults import checkpoint
from actors.mailbox import Inbox, Letter
from actors.messages import (
    Message,
    Open,
    OpenAtRest,
    RowBytes,
    Seal,
    SealAtRest,
    Sealed,
    ServedEvents,
    ServePage,
)
from actors.worker_process import WorkerProcess, running
from actors.worker_spawn import OwnProcess, Spawn
from actors.worker_wire import (
    BecomeEncryptor,
    OpenAnswer,
    OpenBytes,
    OpenFrames,
    SealAnswer,
    SealBytes,
    SealBytesAnswer,
    SealEvents,
    ServeAnswer,
    ServeEvents,
    Unopened,
    UnopenedEvent,
    Unsealed,
)
from ves.at_rest import SSE1_BYTES_MIN, SSE2_BYTES_MIN, is_frame
from ves.encoding import uuid_text
from ves.records import Uuid
from ves.signatures import SIGNATURE_BYTES

CALL_DEADLINE_S = 20.0
"""The largest group takes under a second; what takes this long does not come back."""
SEALED_TOGETHER_MAX = 64
"""Events of several letters that go to the process in one frame: some two milliseconds for all of them."""
_HASH_BYTES = 32

_seal_answer: msgspec.msgpack.Decoder[SealAnswer] = msgspec.msgpack.Decoder(SealAnswer)
_open_answer: msgspec.msgpack.Decoder[OpenAnswer] = msgspec.msgpack.Decoder(OpenAnswer)
_serve_answer: msgspec.msgpack.Decoder[ServeAnswer] = msgspec.msgpack.Decoder(ServeAnswer)
_seal_bytes_answer: msgspec.msgpack.Decoder[SealBytesAnswer] = msgspec.msgpack.Decoder(SealBytesAnswer)
_FRAMED = (0, SSE2_BYTES_MIN)
"""So many bytes longer is what is stored than its plaintext: as it is, or the frame that we write …"""
_OPENED = (0, SSE1_BYTES_MIN, SSE2_BYTES_MIN)
"""… or any that we read."""


class EncryptorKeys(msgspec.Struct, frozen=True):
    """All that one life needs. Shows no key."""

    at_rest_ring: tuple[bytes, ...]
    """32 bytes each, the current one first."""
    receipt_seed: bytes
    """Ed25519, 32 bytes."""
    receipt_public_key: bytes
    """What the journal has recorded as this version; the seed must belong to it."""
    receipt_key_version: int
    at_rest_mode: str = "required"
    at_rest_rings_by_tenant: tuple[tuple[Uuid, tuple[bytes, ...]], ...] = ()

    def __repr__(self) -> str:
        return f"EncryptorKeys(receipt key version {self.receipt_key_version}, …)"


class Encryptor:
    """Answers ``Seal``, ``Open``, ``ServePage``, ``SealAtRest`` and ``OpenAtRest``."""

    def __init__(
        self,
        *,
        keys: Callable[[], Awaitable[EncryptorKeys]],
        spawn: Spawn = OwnProcess,
        name: str = "encryptor",
        call_deadline_s: float = CALL_DEADLINE_S,
        watch: AtRestWatch | None = None,
    ) -> None:
        """``keys`` is asked once, at the start of the life. ``watch``: the node's, told what was read."""
        self._keys = keys
        self._key_version = 0
        self._spawn = spawn
        self._name = name
        self._call_deadline_s = call_deadline_s
        self._watch = watch or AtRestWatch()

    async def run(self, inbox: Inbox) -> None:
        keys = await self._keys()
        become = BecomeEncryptor(
            keys.at_rest_ring, keys.receipt_seed, keys.at_rest_mode, keys.at_rest_rings_by_tenant
        )
        async with running(become, name=self._name, spawn=self._spawn) as worker:
            if worker.public_key != keys.receipt_public_key:
                worker.reject(f"its receipt key is not that of version {keys.receipt_key_version}")
            self._key_version = keys.receipt_key_version
            del become, keys
            inbox.ready()
            while True:
                await self._answer(worker, await self._next(inbox))

    async def _next(self, inbox: Inbox) -> list[Letter[Any]]:
        """A letter, or the events of several tenants to be sealed together. If that ends this life, each of
        them is tried alone in the next."""
        letters = await inbox.take_group(
            letters_max=SEALED_TOGETHER_MAX, weight_max=SEALED_TOGETHER_MAX, weigh=_events_to_seal
        )
        return [letter for letter in letters if not letter.abandoned]

    async def _answer(self, worker: WorkerProcess, letters: list[Letter[Any]]) -> None:
        if not letters:
            return
        seals = [letter.message for letter in letters if isinstance(letter.message, Seal)]
        if seals:
            sealed = await self._seal(worker, seals)
            checkpoint("encryptor.sealed")
            for letter, its_own in zip(letters, sealed, strict=True):
                letter.answer(its_own)
            return
        (letter,) = letters  # nothing else is taken together
        message = letter.message
        if isinstance(message, SealAtRest):
            letter.answer(await self._seal_bytes(worker, message))
        else:
            assert isinstance(message, Open | ServePage | OpenAtRest)
            try:
                letter.answer(await self._opened(worker, message))
            except DoesNotOpen as error:
                letter.refuse(error)

    async def _opened(
        self, worker: WorkerProcess, message: Open | ServePage | OpenAtRest
    ) -> list[bytes] | ServedEvents:
        if isinstance(message, Open):
            return await self._open(worker, message)
        if isinstance(message, ServePage):
            return await self._serve(worker, message)
        return await self._open_bytes(worker, message)

    async def _seal(self, worker: WorkerProcess, messages: list[Seal]) -> list[Sealed]:
        request = SealEvents([(message.tenant_id, message.events) for message in messages])
        sealed = await worker.call(request, _seal_answer, deadline_s=self._call_deadline_s)
        if isinstance(sealed, Unsealed):
            worker.reject(sealed.why)
        asked = [numbered for message in messages for numbered in message.events]
        if len(sealed) != len(asked):
            worker.reject(f"{len(sealed)} events sealed of {len(asked)}")
        for numbered, one in zip(asked, sealed, strict=True):
            if (
                len(one.payload_sealed) - len(numbered.event.payload) not in _FRAMED
                or len(one.receipt_hash) != _HASH_BYTES
                or len(one.sequencer_signature) != SIGNATURE_BYTES
            ):
                worker.reject("a sealed event has the wrong size")
        answers = iter(sealed)
        return [Sealed(self._key_version, [*islice(answers, len(m.events))]) for m in messages]

    async def _open(self, worker: WorkerProcess, message: Open) -> list[bytes]:
        request = OpenFrames(message.tenant_id, message.payloads)
        opened = await worker.call(request, _open_answer, deadline_s=self._call_deadline_s)
        if len(opened) != len(message.payloads):
            worker.reject(f"{len(opened)} payloads opened of {len(message.payloads)}")
        stored = [row.payload_sealed for row in message.payloads]
        for row, plaintext in zip(message.payloads, opened, strict=True):
            if isinstance(plaintext, Unopened):
                name = _payload_name(message.tenant_id, row.store_id, row.sequence_number)
                raise self._watch.unopened(name, plaintext.why)
        return self._checked(worker, stored, opened)

    async def _serve(self, worker: WorkerProcess, message: ServePage) -> ServedEvents:
        request = ServeEvents(message.tenant_id, message.packed)
        served = await worker.call(request, _serve_answer, deadline_s=self._call_deadline_s)
        if isinstance(served, UnopenedEvent):
            name = _payload_name(message.tenant_id, served.store_id, served.sequence_number)
            raise self._watch.unopened(name, served.why)
        # Hex alone makes the text of an event longer than what it was made from.
        if served.count != message.count or len(served.texts) <= len(message.packed):
            worker.reject(f"{served.count} events served of {message.count}")
        self._watch.read(unencrypted=served.unencrypted)
        return served

    async def _seal_bytes(self, worker: WorkerProcess, message: SealAtRest) -> list[bytes]:
        request = SealBytes(message.purpose.value, message.tenant_id, _pairs(message.values))
        stored = await worker.call(request, _seal_bytes_answer, deadline_s=self._call_deadline_s)
        if isinstance(stored, Unsealed):
            worker.reject(stored.why)
        if len(stored) != len(message.values):
            worker.reject(f"{len(stored)} values sealed of {len(message.values)}")
        for value, one in zip(message.values, stored, strict=True):
            if len(one) - len(value.content) not in _FRAMED:
                worker.reject("a sealed value has the wrong size")
        return stored

    async def _open_bytes(self, worker: WorkerProcess, message: OpenAtRest) -> list[bytes]:
        request = OpenBytes(message.purpose.value, message.tenant_id, _pairs(message.values))
        opened = await worker.call(request, _open_answer, deadline_s=self._call_deadline_s)
        if len(opened) != len(message.values):
            worker.reject(f"{len(opened)} values opened of {len(message.values)}")
        for value, plaintext in zip(message.values, opened, strict=True):
            if isinstance(plaintext, Unopened):
                raise self._watch.unopened(value.name, plaintext.why)
        return self._checked(worker, [value.content for value in message.values], opened)

    def _checked(
        self, worker: WorkerProcess, stored: list[bytes], opened: list[bytes | Unopened]
    ) -> list[bytes]:
        """All of them opened, each of the right size."""
        plaintexts = [plaintext for plaintext in opened if not isinstance(plaintext, Unopened)]
        for one, plaintext in zip(stored, plaintexts, strict=True):
            if len(one) - len(plaintext) not in _OPENED:
                worker.reject("an opened value has the wrong size")
        self._watch.read(unencrypted=sum(not is_frame(one) for one in stored))
        return plaintexts


def _payload_name(tenant_id: Uuid, store_id: Uuid, sequence_number: int) -> str:
    return (
        f"the payload stored at tenant {uuid_text(tenant_id)}, store {uuid_text(store_id)},"
        f" sequence_number {sequence_number}"
    )


def _events_to_seal(message: Message[object]) -> int:
    """Whatever is not to be sealed goes alone."""
    return len(message.events) if isinstance(message, Seal) else SEALED_TOGETHER_MAX + 1


def _pairs(values: list[RowBytes]) -> list[tuple[bytes, bytes]]:
    return [(value.row_hash, value.content) for value in values]
