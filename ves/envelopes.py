"""Reading an ingest body (VES 3.4): from bytes to typed envelopes, or to the refusal of the whole body.

It alone knows the envelope's members and types. 422 is for members that are missing, given twice or of the
wrong type; ``ves.bodies`` says what no body may be. What stands inside a payload or a name is not judged
here.

The fast way is msgspec straight into structs, the whole body at once. msgspec keeps the last of two members
of the same name, so the body's colons are counted too: every member brings one, and when there are more than
the decoded members account for, or anything else is unusual, the body is read once more: wrapper first, then
event by event, and those with more colons than their members slowly and strictly.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ves.bodies import EVENT_DEPTH_MAX, read_body, read_wrapper
from ves.canonical import exceeds_depth, may_escape_a_colon
from ves.constants import INTEGER_MAX, U32_MAX, ZERO_HASH
from ves.encoding import hex_bytes, prefixed_hex, uuid_bytes
from ves.records import BodyRefused, Uuid
from ves.unreadable import EVENT_TYPES, WRAPPER_TYPES, Unreadable, invalid, members_once, wrong_type

_U32 = Annotated[int, Meta(ge=0, le=U32_MAX)]
_I32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
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
    base_version: Annotated[int, Meta(ge=0, le=INTEGER_MAX)] | UnsetType | None = UNSET


_MEMBER_DEPTH_MAX = EVENT_DEPTH_MAX - 1
_REPEATED_IDS_MAX = 4096
"""Texts of tenants, stores and agents whose bytes are remembered: they come again and again. 1 MB."""
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
    payload: bytes
    """As the body spells it; empty when it is absent."""
    payload_encrypted: bytes
    """Likewise."""


class Request(msgspec.Struct):
    """A whole ingest body, typed; ``events`` may be empty or too many, the caller judges that."""

    agent_id: Uuid
    events: list[Envelope]
    half_pair: str = ""
    """When not empty: what stands in place of each half of a surrogate pair; nothing accepted may hold it."""


class _Wrapper(msgspec.Struct, gc=False):
    agent_id: str = msgspec.field(name="agentId")
    events: list[Raw]


class _Whole(msgspec.Struct, gc=False):
    agent_id: str = msgspec.field(name="agentId")
    events: list[Wire]


_WHOLE_MEMBERS = 2


class _Raws(msgspec.Struct):
    payload: Raw = _ABSENT
    payload_encrypted: Raw = _ABSENT
    agent_signature_bundle: Raw = _ABSENT


_TYPED = frozenset(Wire.__struct_fields__) - frozenset(_Raws.__struct_fields__)

_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_wrapper = msgspec.json.Decoder(_Wrapper).decode
_decode_event = msgspec.json.Decoder(Wire).decode
_decode_raws = msgspec.json.Decoder(_Raws).decode


def read_request(body: bytes) -> Request | BodyRefused:
    """The typed request, or why the whole body is refused. Raises nothing, whatever the bytes."""
    return read_body(body, _read)


def _read(body: bytes, half_pair: str) -> Request:
    whole = _whole(body)
    if whole is None:
        return read_by_events(body, half_pair)
    agent_id = _uuid(whole.agent_id, "agentId")
    events = [_envelope(wire, index) for index, wire in enumerate(whole.events)]
    return Request(agent_id, events, half_pair)


def _whole(body: bytes) -> _Whole | None:
    """All of a body that has nothing but known members, once each, of the right types and bearable depth.
    None for every other body, and for some of these that are spelled unusually."""
    try:
        # Raw members are skipped without a look at their UTF-8.
        if not body.isascii():
            body.decode()
        whole = _decode_whole(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # No text has fewer colons than its members account for, so a right sum is right in each summand.
    colons = _WHOLE_MEMBERS + sum(map(_colons, whole.events))
    if body.count(b":") != colons or may_escape_a_colon(body):
        return None
    return None if any(map(_too_deep, whole.events)) else whole


def _too_deep(wire: Wire) -> bool:
    """Of an event that has no members but the known ones."""
    if exceeds_depth(bytes(wire.payload), _MEMBER_DEPTH_MAX):
        return True
    if wire.payload_encrypted is _ABSENT and wire.agent_signature_bundle is _ABSENT:
        return False
    others = (wire.payload_encrypted, wire.agent_signature_bundle)
    return any(exceeds_depth(bytes(raw), _MEMBER_DEPTH_MAX) for raw in others)


def read_by_events(body: bytes, half_pair: str) -> Request:
    """The wrapper first, then each event by itself: the slow way, which has a reason for every refusal."""
    wrapper, raws = read_wrapper(body, _decode_wrapper, WRAPPER_TYPES)
    agent_id = _uuid(wrapper.agent_id, "agentId")
    events = [_envelope(_read_event(raw, index), index) for index, raw in enumerate(raws)]
    return Request(agent_id, events, half_pair)


# One event.

_repeated_id = lru_cache(_REPEATED_IDS_MAX)(uuid_bytes)
_ZERO_HASH_TEXT = prefixed_hex(ZERO_HASH)


def _read_event(raw: bytes, index: int) -> Wire:
    try:
        wire = _decode_event(raw)
    except msgspec.ValidationError:
        return _read_slowly(raw, index)
    if may_escape_a_colon(raw) or raw.count(b":") != _colons(wire):
        return _read_slowly(raw, index)
    return wire


def _envelope(wire: Wire, index: int) -> Envelope:
    command_id, cipher_hash = wire.command_id, wire.payload_cipher_hash
    try:
        return Envelope(
            wire,
            uuid_bytes(wire.event_id),
            _repeated_id(wire.tenant_id),
            _repeated_id(wire.store_id),
            _repeated_id(wire.source_agent_id),
            None if command_id is UNSET or command_id is None else uuid_bytes(command_id),
            hex_bytes(wire.payload_plain_hash, 32),
            ZERO_HASH if cipher_hash == _ZERO_HASH_TEXT else hex_bytes(cipher_hash, 32),
            hex_bytes(wire.agent_signature, 64),
            bytes(wire.payload),
            bytes(wire.payload_encrypted),
        )
    except ValueError:
        raise _first_wrong_text(wire, index) from None


def _colons(wire: Wire) -> int:
    """Colons in an envelope's text whose members are those of ``wire``, once each, and nothing escaped.

    Ids, hashes and signature have none (an ``urn:uuid:`` makes the count differ, so it is read slowly).
    """
    colons = _REQUIRED + wire.created_at.count(":") + wire.entity_id.count(":")
    colons += wire.entity_type.count(":") + wire.event_type.count(":")
    if wire.payload is not _ABSENT:
        colons += 1 + bytes(wire.payload).count(b":")
    if wire.payload_encrypted is not _ABSENT:
        colons += 1 + bytes(wire.payload_encrypted).count(b":")
    if wire.agent_signature_bundle is not _ABSENT:
        colons += 1 + bytes(wire.agent_signature_bundle).count(b":")
    if wire.command_id is not UNSET:
        colons += 1
    if wire.base_version is not UNSET:
        colons += 1
    if wire.agent_signature_scheme is not UNSET:
        colons += 1
    return colons


def _read_slowly(raw: bytes, index: int) -> Wire:
    path = f"events[{index}]"
    members = members_once(raw, path + ".", EVENT_TYPES)
    raws = _decode_raws(raw)
    typed = {name: members[name] for name in _TYPED if name in members}
    try:
        wire = msgspec.convert(typed, Wire)
    except msgspec.ValidationError as wrong:
        raise wrong_type(str(wrong), path + ".", EVENT_TYPES) from None
    wire.payload = raws.payload
    wire.payload_encrypted = raws.payload_encrypted
    wire.agent_signature_bundle = raws.agent_signature_bundle
    return wire


def _first_wrong_text(wire: Wire, index: int) -> Unreadable:
    for name in ("event_id", "tenant_id", "store_id", "source_agent_id", "command_id"):
        text = getattr(wire, name)
        try:
            if text is not None and text is not UNSET:
                uuid_bytes(text)
        except ValueError:
            return invalid(f"events[{index}].{name}", EVENT_TYPES)
    for name, length in (("payload_plain_hash", 32), ("payload_cipher_hash", 32), ("agent_signature", 64)):
        try:
            hex_bytes(getattr(wire, name), length)
        except ValueError:
            return invalid(f"events[{index}].{name}", EVENT_TYPES)
    raise AssertionError("every text is right")


def _uuid(text: str, path: str) -> Uuid:
    try:
        return uuid_bytes(text)
    except ValueError:
        raise invalid(path, WRAPPER_TYPES) from None
