"""What an encryptor's process does: seals payloads for the disk, opens them again, signs receipts.

Alone holds the at-rest ring and the receipt seed, in its own process. A receipt is a promise: it leaves here
only beside the row it belongs to, and is shown to nobody before that row is durable.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from actors.worker_wire import BecomeEncryptor, OpenAnswer, OpenFrames, SealAnswer, SealEvents
from ves.at_rest import NONCE_BYTES, FrameNotOpened, RingKey, open_frame, ves_payload_aad
from ves.receipts import sign_receipt
from ves.records import SealedEvent
from ves.signatures import Signer

_request: msgspec.msgpack.Decoder[SealEvents | OpenFrames] = msgspec.msgpack.Decoder(SealEvents | OpenFrames)


class Sealing:
    """One process's keys."""

    def __init__(self, become: BecomeEncryptor, *, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._ring = [RingKey(raw) for raw in become.at_rest_ring]
        self._signer = Signer(become.receipt_signing_seed)
        self.public_key = self._signer.public_key

    def answer(self, body: bytes) -> SealAnswer | OpenAnswer:
        request = _request.decode(body)
        return self.seal(request) if isinstance(request, SealEvents) else self.open(request)

    def seal(self, request: SealEvents) -> SealAnswer:
        tenant_id, current, signer = request.tenant_id, self._ring[0], self._signer
        nonces = self._random_bytes(NONCE_BYTES * len(request.events))
        sealed = []
        for index, numbered in enumerate(request.events):
            event, store_id, number = numbered.event, numbered.store_id, numbered.sequence_number
            row = (tenant_id, store_id, event.event_id, number, event.event_signing_hash)
            nonce = nonces[index * NONCE_BYTES : (index + 1) * NONCE_BYTES]
            receipt_hash, signature = sign_receipt(signer, *row)
            sealed.append(
                SealedEvent(
                    current.seal(nonce, event.payload, ves_payload_aad(*row)), receipt_hash, signature
                )
            )
        return sealed

    def open(self, request: OpenFrames) -> OpenAnswer:
        return [
            self._open(
                payload.payload_sealed,
                ves_payload_aad(
                    request.tenant_id,
                    payload.store_id,
                    payload.event_id,
                    payload.sequence_number,
                    payload.event_signing_hash,
                ),
            )
            for payload in request.payloads
        ]

    def _open(self, payload_sealed: bytes, aad: bytes) -> bytes | None:
        try:
            return open_frame(self._ring, payload_sealed, aad)
        except FrameNotOpened:
            return None
