"""Events of a page as one run of bytes, as PostgreSQL itself writes a row (``record_send``).

    row = I32 number of columns || for each: U32 type || I32 length, -1 for NULL || value

Alone knows that layout and the order of the columns. A page goes so from the database to the process that
opens its payloads; in between nobody makes an object of an event. Those of a length of their own come first,
so that all of them are read at once. Pure: no I/O, and no opening.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ves.records import Receipt, StoredEvent

POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01, where a timestamptz counts from."""

_FIXED_COLUMNS = {
    "sequence_number": "q",
    "sequenced_at": "q",
    "agent_key_id": "q",
    "sequencer_key_version": "i",
    "payload_kind": "h",
    "tenant_id": "16s",
    "store_id": "16s",
    "event_id": "16s",
    "source_agent_id": "16s",
    "sequencer_id": "16s",
    "payload_plain_hash": "32s",
    "payload_cipher_hash": "32s",
    "agent_signature": "64s",
    "event_signing_hash": "32s",
    "receipt_hash": "32s",
    "sequencer_signature": "64s",
}
"""Never NULL, and of one length, which the table's constraints promise."""
_OTHER_COLUMNS = (
    "entity_type",
    "entity_id",
    "event_type",
    "created_at",
    "payload_sealed",
    "command_id",
    "base_version",
)
COLUMNS = ", ".join((*_FIXED_COLUMNS, *_OTHER_COLUMNS))
_COLUMN_COUNT = len(_FIXED_COLUMNS) + len(_OTHER_COLUMNS)
_FIXED = struct.Struct(">i" + "".join(f"8x{kind}" for kind in _FIXED_COLUMNS.values()))
_LENGTH = struct.Struct(">4xi")
_NULL = -1


class NotPacked(ValueError):
    """These bytes are no page."""


def packed(event: StoredEvent) -> bytes:
    """What PostgreSQL would write for this event, but for the types, which nobody reads."""
    receipt = event.receipt
    row = bytearray(_FIXED.size)
    _FIXED.pack_into(
        row,
        0,
        _COLUMN_COUNT,
        receipt.sequence_number,
        receipt.sequenced_at_us - POSTGRES_EPOCH_US,
        event.agent_key_id,
        receipt.sequencer_key_version,
        event.payload_kind,
        event.tenant_id,
        event.store_id,
        receipt.event_id,
        event.source_agent_id,
        receipt.sequencer_id,
        event.payload_plain_hash,
        event.payload_cipher_hash,
        event.agent_signature,
        event.event_signing_hash,
        receipt.receipt_hash,
        receipt.sequencer_signature,
    )
    version = None if event.base_version is None else event.base_version.to_bytes(8, "big")
    names = (event.entity_type, event.entity_id, event.event_type, event.created_at)
    for value in (*(name.encode() for name in names), event.payload_sealed, event.command_id, version):
        row += _LENGTH.pack(_NULL if value is None else len(value))
        row += value or b""
    return bytes(row)


def divided(rows: bytes, count: int, parts: int) -> list[tuple[bytes, int]]:
    """The ``count`` events of ``rows`` in order, in at most so many runs of nearly the same number of events,
    and how many each has."""
    size = -(-count // parts)
    begins = [0]
    try:
        for _ in range((count - 1) // size):
            begins.append(_after(rows, begins[-1], size))
    except struct.error:
        raise NotPacked("a page that ends within an event") from None
    ends = [*begins[1:], len(rows)]
    return [
        (rows[begin:end], min(size, count - number * size))
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True))
    ]


def _after(rows: bytes, at: int, events: int) -> int:
    """Where the event begins that comes so many after the one at ``at``."""
    for _ in range(events):
        at += _FIXED.size
        for _ in _OTHER_COLUMNS:
            at += _LENGTH.size + max(0, _LENGTH.unpack_from(rows, at)[0])
    return at


def unpacked(rows: bytes) -> Iterator[StoredEvent]:
    """The events of a page, in order. Raises NotPacked, and what decoding raises."""
    at, end = 0, len(rows)
    while at < end:
        try:
            (
                columns,
                sequence_number,
                sequenced_at,
                agent_key_id,
                key_version,
                payload_kind,
                tenant_id,
                store_id,
                event_id,
                source_agent_id,
                sequencer_id,
                plain_hash,
                cipher_hash,
                agent_signature,
                signing_hash,
                receipt_hash,
                sequencer_signature,
            ) = _FIXED.unpack_from(rows, at)
            at += _FIXED.size
            others: list[bytes | None] = []
            for _ in _OTHER_COLUMNS:
                (length,) = _LENGTH.unpack_from(rows, at)
                at += _LENGTH.size
                if length == _NULL:
                    others.append(None)
                else:
                    others.append(rows[at : at + length])
                    at += length
        except struct.error:
            raise NotPacked("a page that ends within an event") from None
        entity_type, entity_id, event_type, created_at, sealed, command_id, version = others
        if columns != _COLUMN_COUNT or at > end or sealed is None:
            raise NotPacked("a page that holds something else than events")
        yield StoredEvent(
            tenant_id,
            store_id,
            source_agent_id,
            agent_key_id,
            (entity_type or b"").decode(),
            (entity_id or b"").decode(),
            (event_type or b"").decode(),
            (created_at or b"").decode(),
            payload_kind,
            sealed,
            plain_hash,
            cipher_hash,
            agent_signature,
            signing_hash,
            command_id,
            None if version is None else int.from_bytes(version, "big"),
            Receipt(
                event_id,
                sequence_number,
                sequenced_at + POSTGRES_EPOCH_US,
                receipt_hash,
                sequencer_id,
                key_version,
                sequencer_signature,
            ),
        )
