"""What a pool actor and its worker process say to each other over a pipe.

    frame = U32 length of the rest || U64 request id || MessagePack body

The parent speaks first: frame 0 says what the process is to be and brings its secrets, and is answered with
frame 0. After that one request, one answer, under the same id. Both sides decode into exact types, so that
nonsense is an error and never a value. Alone owns the layout; moves no bytes itself.
"""

from __future__ import annotations

import struct

import msgspec

from actors.messages import SealedPayload, ServedEvents
from journal.port import Compatibility
from ves.constants import PAYLOAD_BYTES_MAX
from ves.legacy import EmptyBatch, LegacyBatch
from ves.policy import FUTURE_US_MAX, Policy
from ves.records import (
    BodyRefused,
    KeyName,
    NeedsKeys,
    NeedsPolicy,
    NeedsSchemas,
    NumberedEvent,
    Scope,
    SealedEvent,
    Uuid,
    VerifiedBatch,
)

FRAME_BYTES_MAX = 128 * 1024 * 1024
"""Far above the largest group (a full body at the door is 10 MiB, a group 16 MiB); below what hurts."""
HEADER = struct.Struct(">IQ")
ID_BYTES = 8


class BecomeVerifier(msgspec.Struct, frozen=True, array_like=True, tag="become_verifier"):
    """First frame of a verifier. No secret."""

    bindings_max: int = 20_000
    """Public keys remembered, least recently used ones forgotten: about 400 bytes each."""
    demands: Policy = Policy()
    """Of tenants that demand nothing themselves."""
    payload_bytes_max: int = PAYLOAD_BYTES_MAX
    future_us_max: int = FUTURE_US_MAX
    comparing_cpu_s: float = 12.0
    """So much processor time for a body whose payloads have schemas, then the process ends itself."""


class BecomeEncryptor(msgspec.Struct, frozen=True, array_like=True, tag="become_encryptor"):
    """First frame of an encryptor: its keys. Sent over the pipe only, never argv or environment."""

    at_rest_ring: tuple[bytes, ...]
    """Current first."""
    receipt_signing_seed: bytes
    at_rest_mode: str = "required"
    """A value of ``AtRestMode``."""
    at_rest_rings_by_tenant: tuple[tuple[Uuid, tuple[bytes, ...]], ...] = ()
    """Of tenants that have their own."""

    def __repr__(self) -> str:
        return "BecomeEncryptor(…)"


class BecomeChecker(msgspec.Struct, frozen=True, array_like=True, tag="become_checker"):
    """First frame of a schema checker. No secret."""

    question_cpu_s: float = 3.0
    """So much processor time for one question, then the process ends itself."""


Become = BecomeVerifier | BecomeEncryptor | BecomeChecker


class Became(msgspec.Struct, frozen=True, array_like=True):
    """Answer to the first frame. ``public_key``: of an encryptor's receipts, empty for a verifier."""

    process_id: int
    public_key: bytes


class VerifyBody(msgspec.Struct, frozen=True, array_like=True, tag="verify"):
    """Answered with ``VerifyAnswer``. Forgets a body that still waited for keys."""

    body: bytes
    scope: Scope
    stamp: int | None = 0
    """Of the tenant's policy, as it is now. None: whose policy it is stands in the body only."""
    policy: Policy | None = None
    """To be remembered under its tenant and stamp."""
    schemas: list[tuple[Uuid, str]] = []
    """Texts, to be remembered; they never change."""
    legacy: bool = False
    """A body of the legacy stream."""


class GiveKeys(msgspec.Struct, frozen=True, array_like=True, tag="keys"):
    """The next question after ``NeedsKeys``, about the same body, which was kept. Answered with
    ``VerifiedBatch``. ``found`` may be remembered; that the others are absent holds for this body only."""

    found: list[tuple[KeyName, bytes]]


VerifyQuestion = VerifyBody | GiveKeys


class SealEvents(msgspec.Struct, frozen=True, array_like=True, tag="seal"):
    """Answered with one SealedEvent per event, in order, of one part after the other."""

    parts: list[tuple[Uuid, list[NumberedEvent]]]
    """(tenant, its events). What gathered is sealed in one go, whoever it belongs to."""


class OpenFrames(msgspec.Struct, frozen=True, array_like=True, tag="open"):
    """Answered with the plaintexts in order, ``Unopened`` for a frame that does not open."""

    tenant_id: Uuid
    payloads: list[SealedPayload]


class ServeEvents(msgspec.Struct, frozen=True, array_like=True, tag="serve"):
    """Answered with ``ServeAnswer``."""

    tenant_id: Uuid
    packed: bytes
    """Events of this tenant, as ``journal.packed`` has them."""


class SealBytes(msgspec.Struct, frozen=True, array_like=True, tag="seal_bytes"):
    """Answered with what is to be stored, in order."""

    purpose: str
    """A value of ``ves.kdf.Purpose``."""
    tenant_id: Uuid
    values: list[tuple[bytes, bytes]]
    """(hash of the row, plaintext)."""


class OpenBytes(msgspec.Struct, frozen=True, array_like=True, tag="open_bytes"):
    """Answered with the plaintexts in order, ``Unopened`` for what does not open."""

    purpose: str
    tenant_id: Uuid
    values: list[tuple[bytes, bytes]]
    """(hash of the row, what is stored)."""


class Unopened(msgspec.Struct, frozen=True):
    """In the place of a plaintext. ``why`` names fingerprints and lengths, never bytes."""

    why: str


class UnopenedEvent(msgspec.Struct, frozen=True, array_like=True, tag="unopened"):
    """In the place of a whole page: this payload of it does not open. ``why`` as in ``Unopened``."""

    store_id: Uuid
    sequence_number: int
    why: str


class Unsealed(msgspec.Struct, frozen=True):
    """In the place of a whole answer: what was sealed does not open again. Nothing of it may be stored."""

    why: str


class TrySchema(msgspec.Struct, frozen=True, array_like=True, tag="try_schema"):
    """Answered with ``SchemaFit`` or ``Unfitting``."""

    schema_json: str
    compatibility: Compatibility
    previous: str | None
    """The schema it has to be compatible with."""
    previous_version: int


class ComparePayload(msgspec.Struct, frozen=True, array_like=True, tag="compare"):
    """Answered with ``PayloadErrors``."""

    schema_json: str
    payload: bytes


class SchemaFit(msgspec.Struct, frozen=True, array_like=True, tag="fit"):
    """Payloads can be compared with it, in time."""


class Unfitting(msgspec.Struct, frozen=True, array_like=True, tag="unfit"):
    why: str
    """For the schema's author."""


class PayloadErrors(msgspec.Struct, frozen=True, array_like=True, tag="errors"):
    """(JSON pointer, message without values); empty: it matches."""

    errors: list[tuple[str, str]]


CheckerAnswer = SchemaFit | Unfitting | PayloadErrors
VerifyAnswer = VerifiedBatch | LegacyBatch | EmptyBatch | BodyRefused | NeedsKeys | NeedsPolicy | NeedsSchemas
SealAnswer = list[SealedEvent] | Unsealed
OpenAnswer = list[bytes | Unopened]
ServeAnswer = ServedEvents | UnopenedEvent
SealBytesAnswer = list[bytes] | Unsealed

_encoder = msgspec.msgpack.Encoder()


NONSENSE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a body raises that nobody of ours has written."""


class FrameTooLong(ValueError):
    """Nobody sends such a frame: refused before it is sent, and before it is read."""


def frame(request_id: int, content: object) -> bytearray:
    """One whole frame, ready to be written."""
    buffer = bytearray(HEADER.size)
    _encoder.encode_into(content, buffer, HEADER.size)
    HEADER.pack_into(buffer, 0, checked_length(len(buffer) - HEADER.size + ID_BYTES), request_id)
    return buffer


def body_length(header: bytes | bytearray) -> tuple[int, int]:
    """``(bytes of body that follow, request id)``. Raises FrameTooLong, also for nonsense."""
    length, request_id = HEADER.unpack(header)
    if length < ID_BYTES:
        raise FrameTooLong(f"a frame of {length} bytes has no room for its id")
    return checked_length(length) - ID_BYTES, request_id


def checked_length(length: int) -> int:
    if length > FRAME_BYTES_MAX:
        raise FrameTooLong(f"a frame of {length} bytes; the limit is {FRAME_BYTES_MAX}")
    return length
