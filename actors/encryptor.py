"""An encryptor: seals numbered events for the disk and signs their receipts, and opens what was sealed.

Owns one worker process, which alone holds the keys while it works; here they only pass by on its way to
life, each life asking for them anew. A life signs with one receipt key, the one its process shows to have,
and says with every answer which version that is. Checks the form of everything that comes back: as many as
were sent, each of the right size. Never keeps a receipt: it goes into the answer, for the row to be stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from actors.errors import Unavailable
from actors.faults import checkpoint
from actors.mailbox import Inbox
from actors.messages import Open, Seal, Sealed
from actors.worker_process import WorkerProcess, running
from actors.worker_spawn import OwnProcess, Spawn
from actors.worker_wire import BecomeEncryptor, OpenAnswer, OpenFrames, SealAnswer, SealEvents
from ves.at_rest import FRAME_BYTES_MIN
from ves.encoding import uuid_text
from ves.signatures import SIGNATURE_BYTES

CALL_DEADLINE_S = 20.0
"""The largest group takes under a second; what takes this long does not come back."""
_HASH_BYTES = 32

_seal_answer: msgspec.msgpack.Decoder[SealAnswer] = msgspec.msgpack.Decoder(SealAnswer)
_open_answer: msgspec.msgpack.Decoder[OpenAnswer] = msgspec.msgpack.Decoder(OpenAnswer)


class EncryptorKeys(msgspec.Struct, frozen=True):
    """All that one life needs. Shows no key."""

    at_rest_ring: tuple[bytes, ...]
    """32 bytes each, the current one first."""
    receipt_seed: bytes
    """Ed25519, 32 bytes."""
    receipt_public_key: bytes
    """What the journal has recorded as this version; the seed must belong to it."""
    receipt_key_version: int

    def __repr__(self) -> str:
        return f"EncryptorKeys(receipt key version {self.receipt_key_version}, …)"


class Encryptor:
    """Answers ``Seal`` and ``Open``."""

    def __init__(
        self,
        *,
        keys: Callable[[], Awaitable[EncryptorKeys]],
        spawn: Spawn = OwnProcess,
        name: str = "encryptor",
        call_deadline_s: float = CALL_DEADLINE_S,
    ) -> None:
        """``keys`` is asked once, at the start of the life."""
        self._keys = keys
        self._key_version = 0
        self._spawn = spawn
        self._name = name
        self._call_deadline_s = call_deadline_s

    async def run(self, inbox: Inbox) -> None:
        keys = await self._keys()
        become = BecomeEncryptor(keys.at_rest_ring, keys.receipt_seed)
        async with running(become, name=self._name, spawn=self._spawn) as worker:
            if worker.public_key != keys.receipt_public_key:
                worker.reject(f"its receipt key is not that of version {keys.receipt_key_version}")
            self._key_version = keys.receipt_key_version
            del become, keys
            inbox.ready()
            while True:
                letter = await inbox.take()
                if letter.abandoned:
                    continue
                message = letter.message
                if isinstance(message, Seal):
                    sealed = await self._seal(worker, message)
                    checkpoint("encryptor.sealed")
                    letter.answer(sealed)
                else:
                    assert isinstance(message, Open)
                    try:
                        letter.answer(await self._open(worker, message))
                    except Unavailable as error:
                        letter.refuse(error)

    async def _seal(self, worker: WorkerProcess, message: Seal) -> Sealed:
        request = SealEvents(message.tenant_id, message.events)
        sealed = await worker.call(request, _seal_answer, deadline_s=self._call_deadline_s)
        if len(sealed) != len(message.events):
            worker.reject(f"{len(sealed)} events sealed of {len(message.events)}")
        for numbered, one in zip(message.events, sealed, strict=True):
            if (
                len(one.payload_sealed) != len(numbered.event.payload) + FRAME_BYTES_MIN
                or len(one.receipt_hash) != _HASH_BYTES
                or len(one.sequencer_signature) != SIGNATURE_BYTES
            ):
                worker.reject("a sealed event has the wrong size")
        return Sealed(self._key_version, sealed)

    async def _open(self, worker: WorkerProcess, message: Open) -> list[bytes]:
        request = OpenFrames(message.tenant_id, message.payloads)
        opened = await worker.call(request, _open_answer, deadline_s=self._call_deadline_s)
        if len(opened) != len(message.payloads):
            worker.reject(f"{len(opened)} payloads opened of {len(message.payloads)}")
        plaintexts = []
        for row, plaintext in zip(message.payloads, opened, strict=True):
            if plaintext is None:
                raise Unavailable(
                    f"the payload stored at tenant {uuid_text(message.tenant_id)}, store"
                    f" {uuid_text(row.store_id)}, sequence_number {row.sequence_number} does not open:"
                    " its key is missing from the ring, or the row was changed",
                    retry_after_s=60.0,
                )
            if len(plaintext) + FRAME_BYTES_MIN != len(row.payload_sealed):
                worker.reject("an opened payload has the wrong size")
            plaintexts.append(plaintext)
        return plaintexts
