"""An encryptor: seals numbered events for the disk and signs their receipts, and opens what was sealed.

Owns one worker process, which alone holds the keys while it works; here they only pass by on its way to
life. Checks the form of everything that comes back: as many as were sent, each of the right size. Never keeps
a receipt: it goes into the answer, for the row to be stored.
"""

from __future__ import annotations

import msgspec

from actors.errors import Unavailable
from actors.faults import checkpoint
from actors.mailbox import Inbox
from actors.messages import Open, Seal
from actors.worker_process import WorkerProcess, running
from actors.worker_spawn import OwnProcess, Spawn
from actors.worker_wire import BecomeEncryptor, OpenAnswer, OpenFrames, SealAnswer, SealEvents
from ves.at_rest import FRAME_BYTES_MIN
from ves.encoding import uuid_text
from ves.records import SealedEvent
from ves.signatures import SIGNATURE_BYTES

CALL_DEADLINE_S = 20.0
"""The largest group takes under a second; what takes this long does not come back."""
_HASH_BYTES = 32

_seal_answer: msgspec.msgpack.Decoder[SealAnswer] = msgspec.msgpack.Decoder(SealAnswer)
_open_answer: msgspec.msgpack.Decoder[OpenAnswer] = msgspec.msgpack.Decoder(OpenAnswer)


class Encryptor:
    """Answers ``Seal`` and ``Open``."""

    def __init__(
        self,
        *,
        ring: tuple[bytes, ...],
        receipt_seed: bytes,
        spawn: Spawn = OwnProcess,
        name: str = "encryptor",
        call_deadline_s: float = CALL_DEADLINE_S,
    ) -> None:
        """``ring``: at-rest keys of 32 bytes, the current one first; ``receipt_seed``: Ed25519, 32 bytes."""
        self._become = BecomeEncryptor(ring, receipt_seed)
        self._spawn = spawn
        self._name = name
        self._call_deadline_s = call_deadline_s

    async def run(self, inbox: Inbox) -> None:
        async with running(self._become, name=self._name, spawn=self._spawn) as worker:
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

    async def _seal(self, worker: WorkerProcess, message: Seal) -> list[SealedEvent]:
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
        return sealed

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
