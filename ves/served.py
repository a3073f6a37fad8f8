"""An event as the sequencer serves it: the JSON text of the envelope, its payload, its place, its receipt.

It alone writes that text, straight from the record: a page has a thousand of them. The payload goes in byte
for byte, as it was signed. ``transport.http.shapes.EventReply`` describes the same text to readers.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from ves.constants import ENCRYPTED
from ves.encoding import uuid_text
from ves.records import StoredEvent
from ves.timestamps import utc_text

_json = msgspec.json.Encoder().encode
_known_uuid_text = lru_cache(maxsize=1024)(uuid_text)
"""For those that come again and again: tenants, stores, agents, sequencers."""


def served_event(event: StoredEvent, payload: bytes) -> bytes:
    """``payload``: the opened plaintext, itself JSON text."""
    receipt = event.receipt
    event_id, sequenced_at = uuid_text(receipt.event_id), utc_text(receipt.sequenced_at_us)
    encrypted = event.payload_kind == ENCRYPTED
    return b"".join(
        (
            (
                f'{{"ves_version":1,"event_id":"{event_id}","tenant_id":"{_known_uuid_text(event.tenant_id)}"'
                f',"store_id":"{_known_uuid_text(event.store_id)}"'
                f',"source_agent_id":"{_known_uuid_text(event.source_agent_id)}"'
                f',"agent_key_id":{event.agent_key_id},"entity_type":'
            ).encode(),
            _json(event.entity_type),
            b',"entity_id":',
            _json(event.entity_id),
            b',"event_type":',
            _json(event.event_type),
            b',"created_at":',
            _json(event.created_at),
            (
                f',"payload_kind":{1 if encrypted else 0}'
                f',"payload_plain_hash":"0x{event.payload_plain_hash.hex()}"'
                f',"payload_cipher_hash":"0x{event.payload_cipher_hash.hex()}"'
                f',"agent_signature":"0x{event.agent_signature.hex()}"'
                f',"sequence_number":{receipt.sequence_number},"sequenced_at":"{sequenced_at}"'
                f',"event_signing_hash":"0x{event.event_signing_hash.hex()}"'
                f',"receipt":{{"sequencerId":"{_known_uuid_text(receipt.sequencer_id)}"'
                f',"eventId":"{event_id}","sequenceNumber":{receipt.sequence_number}'
                f',"sequencedAt":"{sequenced_at}","receiptHash":"{receipt.receipt_hash.hex()}"'
                f',"signatureAlg":"ed25519","sequencerSignature":"{receipt.sequencer_signature.hex()}"'
                f',"sequencerKeyVersion":{receipt.sequencer_key_version},"receiptSignatureScheme":1}}'
            ).encode(),
            b',"payload_encrypted":' if encrypted else b',"payload":',
            payload,
            b"" if event.command_id is None else b',"command_id":"%b"' % uuid_text(event.command_id).encode(),
            b"" if event.base_version is None else b',"base_version":%d' % event.base_version,
            b"}",
        )
    )
