"""Why a whole ingest body is refused: the exception, the texts, and the slow, strict look at one object.

It alone words the 400s and 422s of a body that cannot be read. Every text names the member (``events[3].
created_at``) and says what it must be. It never repeats what was sent.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ves.constants import BODY_DEPTH_MAX, INTEGER_MAX, LEGACY_SIGNATURE_BYTES_MAX, U32_MAX
from ves.records import BodyRefused


class Unreadable(Exception):
    """Raised while reading a body; carries the refusal it becomes."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.refusal = BodyRefused(status, code, message)


_UUID = "a UUID, for example 0b9c8a2e-6b0f-4a53-9c0e-3d1f8f6f2b11"
_HASH = "64 hex digits, optionally after 0x"
WRAPPER_TYPES = {"agentId": _UUID, "events": "an array of event objects"}
EVENT_TYPES = {
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
    "base_version": f"an integer from 0 to {INTEGER_MAX}, or left out",
}
LEGACY_WRAPPER_TYPES = {"agent_id": _UUID, "events": "an array of event objects"}
LEGACY_EVENT_TYPES = {
    "envelope_version": f"an integer from 0 to {U32_MAX}, or left out",
    "event_id": _UUID,
    "command_id": _UUID + ", or left out",
    "tenant_id": _UUID,
    "store_id": _UUID,
    "entity_type": "a string",
    "entity_id": "a string",
    "event_type": "a string",
    "payload": "a JSON value",
    "payload_hash": "64 hex digits without 0x",
    "base_version": f"an integer from 0 to {INTEGER_MAX}, or left out",
    "created_at": "a time with its offset, for example 2026-01-31T12:00:00.000Z",
    "sequence_number": "an integer, or left out",
    "source_agent": _UUID,
    "signature": f"an array of at most {LEGACY_SIGNATURE_BYTES_MAX} integers from 0 to 255, or left out",
}


def _integer(digits: str) -> int:
    # Out of every range here, and int() of thousands of digits is slow.
    return int(digits) if len(digits) < 40 else 10**40


_PAIRS = json.JSONDecoder(object_pairs_hook=tuple, parse_int=_integer)  # arrays are lists, objects tuples


def members_once(raw: bytes, path: str, types: dict[str, str]) -> dict[str, Any]:
    """The members of one object of known syntax; 422 when it is no object or has a known member twice."""
    pairs = _PAIRS.decode(raw.decode())
    if not isinstance(pairs, tuple):
        raise Unreadable(422, "INVALID_FIELD_VALUE", f"{path.rstrip('.') or 'the body'} must be an object")
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members and name in types:
            raise Unreadable(422, "INVALID_FIELD_VALUE", f"{path}{name} is given twice; send it once")
        members[name] = value
    return members


_MISSING = re.compile(r"missing required field `(\w+)`")
_AT = re.compile(r"at `\$\.(\w+)")


def wrong_type(text: str, path: str, types: dict[str, str]) -> Unreadable:
    if missing := _MISSING.search(text):
        name = missing.group(1)
        return Unreadable(422, "MISSING_REQUIRED_FIELD", f"{path}{name} is required: {types[name]}")
    if at := _AT.search(text):
        return invalid(path + at.group(1), types)
    return Unreadable(422, "INVALID_FIELD_VALUE", f"{path.rstrip('.') or 'the body'} must be an object")


def invalid(path: str, types: dict[str, str]) -> Unreadable:
    return Unreadable(422, "INVALID_FIELD_VALUE", f"{path} must be {types[path.rpartition('.')[2]]}")


def not_json(message: str) -> Unreadable:
    return Unreadable(400, "INVALID_REQUEST_BODY", f"{message}; send one JSON object")


def too_deep() -> Unreadable:
    return Unreadable(
        400,
        "INVALID_REQUEST_BODY",
        f"the body is nested deeper than {BODY_DEPTH_MAX} levels; send a flatter payload",
    )
