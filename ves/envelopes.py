"""Reading an ingest body (VES 3.4): from bytes to typed envelopes, or to the refusal of the whole body.

It alone knows the wrapper's and the envelope's members and types. 400 is for bytes that are not one UTF-8
JSON text of bearable depth; 422 for members that are missing, given twice or of the wrong type. What stands
inside a payload or a name is not judged here.

The fast way is msgspec straight into structs. msgspec keeps the last of two members of the same name, so
each object is also counted: every member brings a colon, and when there are more colons than the decoded
members account for, or an error to explain, the object is read once more, slowly and strictly.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ves.canonical import exceeds_depth, may_escape_a_colon
from ves.constants import BODY_DEPTH_MAX, I64_MAX, U32_MAX
from ves.encoding import hex_bytes, uuid_bytes
from ves.records import BodyRefused, Uuid

_U32 = Annotated[int, Meta(ge=0, le=U32_MAX)]
_I32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_EVENT_DEPTH_MAX = BODY_DEPTH_MAX - 2  # the wrapper and its array are around every event
_ABSENT = Raw(b"")


class Wire(msgspec.Struct, gc=False):
    """An event's members as the JSON spells them. Unknown members are ignored."""

    ves_version: _U32
    event_id: str
    tenant_id: str
    store_id: str
    source_agent_id: str
    agent_key_id: _U32
    entity_type: str
    entity_id: str
    event_type: str
    created_at: str
    payload_kind: Literal[0, 1]
    payload_plain_hash: str
    payload_cipher_hash: str
    agent_signature: str
    payload: Raw = _ABSENT
    payload_encrypted: Raw = _ABSENT
    agent_signature_scheme: _I32 | UnsetType | None = UNSET
    agent_signature_bundle: Raw = _ABSENT
    command_id: str | UnsetType | None = UNSET
    base_version: Annotated[int, Meta(ge=0, le=I64_MAX)] | UnsetType | None = UNSET


_REQUIRED = 14
"""Members of ``Wire`` without a default."""


class Envelope(msgspec.Struct, gc=False):
    """An event whose every member has its type; ids, hashes and signature are raw bytes."""

    wire: Wire
    event_id: Uuid
    tenant_id: Uuid
    store_id: Uuid
    source_agent_id: Uuid
    command_id: Uuid | None
    payload_plain_hash: bytes
    payload_cipher_hash: bytes
    agent_signature: bytes


class Request(msgspec.Struct):
    """A whole ingest body, typed; ``events`` may be empty or too many, the caller judges that."""

    agent_id: Uuid
    events: list[Envelope]


class _Wrapper(msgspec.Struct, gc=False):
    agent_id: str = msgspec.field(name="agentId")
    events: list[Raw]


class _Raws(msgspec.Struct):
    payload: Raw = _ABSENT
    payload_encrypted: Raw = _ABSENT
    agent_signature_bundle: Raw = _ABSENT


_TYPED = frozenset(Wire.__struct_fields__) - frozenset(_Raws.__struct_fields__)

_decode_wrapper = msgspec.json.Decoder(_Wrapper).decode
_decode_event = msgspec.json.Decoder(Wire).decode
_decode_raws = msgspec.json.Decoder(_Raws).decode
_check_syntax = msgspec.json.Decoder(Raw).decode


class _Refuse(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.refusal = BodyRefused(status, code, message)


def read_request(body: bytes) -> Request | BodyRefused:
    """The typed request, or why the whole body is refused. Raises nothing, whatever the bytes."""
    try:
        wrapper = _read_wrapper(body)
        raws = [bytes(raw) for raw in wrapper.events]
        if any(exceeds_depth(raw, _EVENT_DEPTH_MAX) for raw in raws):
            raise _too_deep()
        _check_wrapper_members(body, wrapper, raws)
        agent_id = _uuid(wrapper.agent_id, "agentId")
        ids: dict[str, Uuid] = {}
        return Request(agent_id, [_read_event(raw, index, ids) for index, raw in enumerate(raws)])
    except _Refuse as refused:
        return refused.refusal


# The wrapper.


def _read_wrapper(body: bytes) -> _Wrapper:
    try:
        # Raw members are skipped without a look at their UTF-8.
        if not body.isascii():
            body.decode()
        return _decode_wrapper(body)
    except UnicodeDecodeError as wrong:
        raise _not_json(f"the body is not UTF-8 (byte {wrong.start})") from None
    except RecursionError:
        raise _too_deep() from None
    except msgspec.DecodeError as wrong:
        raise _explain_wrapper(body, wrong) from None


def _explain_wrapper(body: bytes, wrong: msgspec.DecodeError) -> _Refuse:
    # A type error may stand before a syntax error; that the body is no JSON comes first.
    try:
        _check_syntax(body)
    except RecursionError:
        return _too_deep()
    except msgspec.DecodeError as syntax:
        return _not_json(f"the body is not JSON: {syntax}")
    if isinstance(wrong, msgspec.ValidationError):
        return _wrong_type(str(wrong), "", _WRAPPER_TYPES)
    return _invalid("agentId", _WRAPPER_TYPES)  # the only text here: it holds half of a surrogate pair


def _check_wrapper_members(body: bytes, wrapper: _Wrapper, raws: list[bytes]) -> None:
    outside = body.count(b":") - sum(raw.count(b":") for raw in raws)
    if outside == 2 and ":" not in wrapper.agent_id:
        return
    if exceeds_depth(body, BODY_DEPTH_MAX):
        raise _too_deep()
    _members(body, "", _WRAPPER_TYPES)


# One event.


def _read_event(raw: bytes, index: int, ids: dict[str, Uuid]) -> Envelope:
    try:
        wire = _decode_event(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        wire = _read_slowly(raw, index)
    else:
        if may_escape_a_colon(raw) or raw.count(b":") != _colons(wire):
            wire = _read_slowly(raw, index)
    try:
        # One stream and one agent per request: their ids repeat.
        tenant_id = ids.get(wire.tenant_id) or ids.setdefault(wire.tenant_id, uuid_bytes(wire.tenant_id))
        store_id = ids.get(wire.store_id) or ids.setdefault(wire.store_id, uuid_bytes(wire.store_id))
        agent = wire.source_agent_id
        return Envelope(
            wire,
            uuid_bytes(wire.event_id),
            tenant_id,
            store_id,
            ids.get(agent) or ids.setdefault(agent, uuid_bytes(agent)),
            None if wire.command_id is UNSET or wire.command_id is None else uuid_bytes(wire.command_id),
            hex_bytes(wire.payload_plain_hash, 32),
            hex_bytes(wire.payload_cipher_hash, 32),
            hex_bytes(wire.agent_signature, 64),
        )
    except ValueError:
        raise _first_wrong_text(wire, index) from None


def _colons(wire: Wire) -> int:
    """Colons in an envelope's text whose members are those of ``wire``, once each, and nothing escaped.

    Ids, hashes and signature have none (an ``urn:uuid:`` makes the count differ, so it is read slowly).
    """
    colons = _REQUIRED + wire.created_at.count(":")
    colons += wire.entity_id.count(":") + wire.entity_type.count(":") + wire.event_type.count(":")
    for raw in (wire.payload, wire.payload_encrypted, wire.agent_signature_bundle):
        if raw is not _ABSENT:
            colons += 1 + bytes(raw).count(b":")
    return (
        colons
        + (wire.command_id is not UNSET)
        + (wire.base_version is not UNSET)
        + (wire.agent_signature_scheme is not UNSET)
    )


def _read_slowly(raw: bytes, index: int) -> Wire:
    path = f"events[{index}]"
    members = _members(raw, path + ".", _EVENT_TYPES)
    raws = _decode_raws(raw)
    typed = {name: members[name] for name in _TYPED if name in members}
    try:
        wire = msgspec.convert(typed, Wire)
    except msgspec.ValidationError as wrong:
        raise _wrong_type(str(wrong), path + ".", _EVENT_TYPES) from None
    wire.payload = raws.payload
    wire.payload_encrypted = raws.payload_encrypted
    wire.agent_signature_bundle = raws.agent_signature_bundle
    return wire


def _first_wrong_text(wire: Wire, index: int) -> _Refuse:
    for name in ("event_id", "tenant_id", "store_id", "source_agent_id", "command_id"):
        text = getattr(wire, name)
        try:
            if text is not None and text is not UNSET:
                uuid_bytes(text)
        except ValueError:
            return _invalid(f"events[{index}].{name}", _EVENT_TYPES)
    for name, length in (("payload_plain_hash", 32), ("payload_cipher_hash", 32), ("agent_signature", 64)):
        try:
            hex_bytes(getattr(wire, name), length)
        except ValueError:
            return _invalid(f"events[{index}].{name}", _EVENT_TYPES)
    raise AssertionError("every text is right")


def _uuid(text: str, path: str) -> Uuid:
    try:
        return uuid_bytes(text)
    except ValueError:
        raise _invalid(path, _WRAPPER_TYPES) from None


# The slow, strict look at one object, and what is said about what it finds.


_UUID = "a UUID, for example 0b9c8a2e-6b0f-4a53-9c0e-3d1f8f6f2b11"
_HASH = "64 hex digits, optionally after 0x"
_WRAPPER_TYPES = {"agentId": _UUID, "events": "an array of event objects"}
_EVENT_TYPES = {
    "ves_version": "the integer 1",
    "event_id": _UUID,
    "tenant_id": _UUID,
    "store_id": _UUID,
    "source_agent_id": _UUID,
    "agent_key_id": f"an integer from 0 to {U32_MAX}",
    "entity_type": "a string",
    "entity_id": "a string",
    "event_type": "a string",
    "created_at": "a string in RFC 3339, for example 2026-01-31T12:00:00.000Z",
    "payload_kind": "0 (plaintext) or 1 (encrypted)",
    "payload_plain_hash": _HASH,
    "payload_cipher_hash": _HASH,
    "agent_signature": "128 hex digits, optionally after 0x",
    "payload": "a JSON value",
    "payload_encrypted": "an object",
    "agent_signature_scheme": "an integer",
    "agent_signature_bundle": "an object",
    "command_id": _UUID + ", or left out",
    "base_version": f"an integer from 0 to {I64_MAX}, or left out",
}


def _integer(digits: str) -> int:
    # Out of every range here, and int() of thousands of digits is slow.
    return int(digits) if len(digits) < 40 else 10**40


_PAIRS = json.JSONDecoder(object_pairs_hook=tuple, parse_int=_integer)  # arrays are lists, objects tuples


def _members(raw: bytes, path: str, types: dict[str, str]) -> dict[str, Any]:
    """The members of one object of known syntax; 422 when it is no object or has a known member twice."""
    pairs = _PAIRS.decode(raw.decode())
    if not isinstance(pairs, tuple):
        raise _Refuse(422, "INVALID_FIELD_VALUE", f"{path.rstrip('.') or 'the body'} must be an object")
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members and name in types:
            raise _Refuse(422, "INVALID_FIELD_VALUE", f"{path}{name} is given twice; send it once")
        members[name] = value
    return members


_MISSING = re.compile(r"missing required field `(\w+)`")
_AT = re.compile(r"at `\$\.(\w+)")


def _wrong_type(text: str, path: str, types: dict[str, str]) -> _Refuse:
    if missing := _MISSING.search(text):
        name = missing.group(1)
        return _Refuse(422, "MISSING_REQUIRED_FIELD", f"{path}{name} is required: {types[name]}")
    if at := _AT.search(text):
        return _invalid(path + at.group(1), types)
    return _Refuse(422, "INVALID_FIELD_VALUE", f"{path.rstrip('.') or 'the body'} must be an object")


def _invalid(path: str, types: dict[str, str]) -> _Refuse:
    return _Refuse(422, "INVALID_FIELD_VALUE", f"{path} must be {types[path.rpartition('.')[2]]}")


def _not_json(message: str) -> _Refuse:
    return _Refuse(400, "INVALID_REQUEST_BODY", f"{message}; send one JSON object")


def _too_deep() -> _Refuse:
    return _Refuse(
        400,
        "INVALID_REQUEST_BODY",
        f"the body is nested deeper than {BODY_DEPTH_MAX} levels; send a flatter payload",
    )
