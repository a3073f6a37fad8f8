"""Reading a legacy ingest body (wire 6.1): from bytes to typed envelopes, or to the refusal of all of it.

What ``ves.envelopes`` is for signed events, with another wrapper and other members: all names in snake_case,
hashes without ``0x``, a time that is read loosely. Read fast and counted, or slowly and strictly, as there.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ves.bodies import read_body, read_wrapper
from ves.canonical import may_escape_a_colon
from ves.constants import INTEGER_MAX, LEGACY_SIGNATURE_BYTES_MAX, U32_MAX
from ves.encoding import bare_hex_bytes, uuid_bytes
from ves.records import BodyRefused, Uuid
from ves.timestamps import parse_loosely
from ves.unreadable import (
    LEGACY_EVENT_TYPES,
    LEGACY_WRAPPER_TYPES,
    Unreadable,
    invalid,
    members_once,
    wrong_type,
)

_ABSENT = Raw(b"")
_Bytes = Annotated[list[Annotated[int, Meta(ge=0, le=255)]], Meta(max_length=LEGACY_SIGNATURE_BYTES_MAX)]


class Wire(msgspec.Struct, gc=False):
    """An event's members as the JSON spells them. Unknown members are ignored."""

    event_id: str
    tenant_id: str
    store_id: str
    entity_type: str
    entity_id: str
    event_type: str
    payload_hash: str
    created_at: str
    source_agent: str
    payload: Raw = _ABSENT
    envelope_version: Annotated[int, Meta(ge=0, le=U32_MAX)] | UnsetType = UNSET
    command_id: str | UnsetType | None = UNSET
    base_version: Annotated[int, Meta(ge=0, le=INTEGER_MAX)] | UnsetType | None = UNSET
    sequence_number: Annotated[int, Meta(ge=0)] | UnsetType | None = UNSET
    signature: _Bytes | UnsetType | None = UNSET


_REQUIRED = 9
"""Members of ``Wire`` without a default."""
_OPTIONAL = ("envelope_version", "command_id", "base_version", "sequence_number", "signature")


class Envelope(msgspec.Struct, gc=False):
    """An event whose every member has its type; ids and hash are raw bytes."""

    wire: Wire
    event_id: Uuid
    tenant_id: Uuid
    store_id: Uuid
    source_agent_id: Uuid
    command_id: Uuid | None
    payload_hash: bytes
    created_at_us: int


class Request(msgspec.Struct):
    """A whole ingest body, typed; ``events`` may be empty or too many, the caller judges that."""

    agent_id: Uuid
    events: list[Envelope]
    half_pair: str = ""
    """When not empty: what stands in place of each half of a surrogate pair; nothing accepted may hold it."""


class _Wrapper(msgspec.Struct, gc=False):
    agent_id: str
    events: list[Raw]


class _Payload(msgspec.Struct):
    payload: Raw = _ABSENT


_TYPED = frozenset(Wire.__struct_fields__) - {"payload"}

_decode_wrapper = msgspec.json.Decoder(_Wrapper).decode
_decode_event = msgspec.json.Decoder(Wire).decode
_decode_payload = msgspec.json.Decoder(_Payload).decode


def read_request(body: bytes) -> Request | BodyRefused:
    """The typed request, or why the whole body is refused. Raises nothing, whatever the bytes."""
    return read_body(body, _read)


def _read(body: bytes, half_pair: str) -> Request:
    wrapper, raws = read_wrapper(body, _decode_wrapper, LEGACY_WRAPPER_TYPES)
    try:
        agent_id = uuid_bytes(wrapper.agent_id)
    except ValueError:
        raise invalid("agent_id", LEGACY_WRAPPER_TYPES) from None
    return Request(agent_id, [_read_event(raw, index) for index, raw in enumerate(raws)], half_pair)


def _read_event(raw: bytes, index: int) -> Envelope:
    try:
        wire = _decode_event(raw)
    except msgspec.ValidationError:
        wire = _read_slowly(raw, index)
    else:
        if may_escape_a_colon(raw) or raw.count(b":") != _colons(wire):
            wire = _read_slowly(raw, index)
    if wire.payload is _ABSENT:
        raise wrong_type("missing required field `payload`", f"events[{index}].", LEGACY_EVENT_TYPES)
    try:
        return Envelope(
            wire,
            uuid_bytes(wire.event_id),
            uuid_bytes(wire.tenant_id),
            uuid_bytes(wire.store_id),
            uuid_bytes(wire.source_agent),
            None if wire.command_id is UNSET or wire.command_id is None else uuid_bytes(wire.command_id),
            bare_hex_bytes(wire.payload_hash, 32),
            parse_loosely(wire.created_at),
        )
    except ValueError:
        raise _first_wrong_text(wire, index) from None


def _colons(wire: Wire) -> int:
    """Colons in an envelope's text whose members are those of ``wire``, once each, and nothing escaped."""
    names = wire.entity_id.count(":") + wire.entity_type.count(":") + wire.event_type.count(":")
    payload = 0 if wire.payload is _ABSENT else 1 + bytes(wire.payload).count(b":")
    given = sum(getattr(wire, name) is not UNSET for name in _OPTIONAL)
    return _REQUIRED + wire.created_at.count(":") + names + payload + given


def _read_slowly(raw: bytes, index: int) -> Wire:
    path = f"events[{index}]."
    members = members_once(raw, path, LEGACY_EVENT_TYPES)
    typed = {name: members[name] for name in _TYPED if name in members}
    try:
        wire = msgspec.convert(typed, Wire)
    except msgspec.ValidationError as wrong:
        raise wrong_type(str(wrong), path, LEGACY_EVENT_TYPES) from None
    wire.payload = _decode_payload(raw).payload
    return wire


def _first_wrong_text(wire: Wire, index: int) -> Unreadable:
    for name in ("event_id", "tenant_id", "store_id", "source_agent", "command_id"):
        text = getattr(wire, name)
        try:
            if text is not None and text is not UNSET:
                uuid_bytes(text)
        except ValueError:
            return invalid(f"events[{index}].{name}", LEGACY_EVENT_TYPES)
    try:
        bare_hex_bytes(wire.payload_hash, 32)
    except ValueError:
        return invalid(f"events[{index}].payload_hash", LEGACY_EVENT_TYPES)
    return invalid(f"events[{index}].created_at", LEGACY_EVENT_TYPES)
