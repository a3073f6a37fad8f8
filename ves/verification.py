"""From an ingest body to verified events: the walk's second step (VES 3.5, wire 23.2 and 23.3).

    bytes -> Request -> in scope -> names, payload, hashes -> public keys -> signatures -> VerifiedBatch

It alone makes a ``VerifiedEvent``. Final refusals are decided here, per event; whatever depends on state
(replays, key status, command ids, versions) is not. Pure: keys and the time come in as arguments. Whatever
the bytes, it answers and raises nothing. ``verify_body`` is what the worker processes run all day: about
10 microseconds per event beside the signature's 54.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from ves.bodies import out_of_scope
from ves.canonical import NotCanonical, canonical_of_bounded
from ves.constants import (
    CREATED_AT_BYTES_MAX,
    ENTITY_ID_BYTES_MAX,
    ENTITY_TYPE_BYTES_MAX,
    EVENT_TYPE_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    PLAINTEXT,
    VES_VERSION,
    ZERO_HASH,
)
from ves.encoding import string, u32
from ves.envelopes import Envelope, Request, read_request
from ves.events import event_signing_hash, header_bytes, payload_aad, payload_plain_hash
from ves.payload_encryption import (
    EncryptedPayloadRefused,
    PayloadEncrypted,
    cipher_hash,
    parse_payload_encrypted,
)
from ves.policy import FUTURE_US_MAX, Judged
from ves.records import (
    BodyRefused,
    Finding,
    KeyName,
    NeedsKeys,
    NeedsPolicy,
    NeedsSchemas,
    Refusal,
    Scope,
    VerifiedBatch,
    VerifiedEvent,
)
from ves.signatures import verify_signature
from ves.timestamps import parse_rfc3339

RAW_PAYLOAD_BYTES_MAX = 2 * PAYLOAD_BYTES_MAX
"""As spelled in the body. Longer is refused before any work; the limit itself is on the canonical form."""
_TYPES_MAX = 1024
"""Names of entity types, and of event types, whose encoding is remembered: there are few. 1 MB."""
_ED25519_SCHEMES = (UNSET, None, 0, 1)
_NULL = b"null"


class Demands(NamedTuple):
    """What is demanded of a request's events beyond the protocol; objections become findings."""

    future_us_max: int = FUTURE_US_MAX
    judge: Callable[[Judged], tuple[Finding, ...]] | None = None
    """Asked about every event that was found right. None: nothing to object."""


_NO_MORE = Demands()


def _no_more(request: Request) -> Demands:
    return _NO_MORE


def verify_body(
    body: bytes,
    scope: Scope,
    public_key_of: Callable[[KeyName], bytes | None],
    *,
    now_us: int,
    demands_of: Callable[[Request], Demands | NeedsPolicy | NeedsSchemas] = _no_more,
) -> VerifiedBatch | BodyRefused | AwaitsKeys | NeedsPolicy | NeedsSchemas:
    """Verify one request; outcomes in request order, one per event.

    ``public_key_of`` answers the 32-byte key of a name, or None when it does not know it. Names without a key
    are asked for, all at once, before any signature is checked; what was read is kept in the answer.
    ``demands_of`` is asked once the request is typed and in scope; what it lacks is passed on.
    """
    request = read_request(body)
    if isinstance(request, BodyRefused):
        return request
    if refused := _out_of_scope(request, scope):
        return refused
    demands = demands_of(request)
    if not isinstance(demands, Demands):
        return demands
    outcomes = _Batch(request, now_us, demands.future_us_max).outcomes()
    keys, missing = _public_keys(request, outcomes, public_key_of)
    if missing:
        return AwaitsKeys(NeedsKeys(missing), request, outcomes, keys, demands)
    return _check_signatures(request, outcomes, keys, demands)


class AwaitsKeys(NamedTuple):
    """A request that was read: nothing is missing but some public keys. To be used once."""

    needs: NeedsKeys
    request: Request
    outcomes: list[VerifiedEvent | Refusal]
    keys: dict[int, bytes | None]
    demands: Demands

    def with_keys(self, found: Mapping[KeyName, bytes]) -> VerifiedBatch:
        """``found``: what is registered of ``needs``, 32 bytes each; the events of others are refused."""
        for name in self.needs.keys:
            self.keys[name.key_id] = found.get(name)
        return _check_signatures(self.request, self.outcomes, self.keys, self.demands)


def _out_of_scope(request: Request, scope: Scope) -> BodyRefused | None:
    """Wire 23.2, rows 3 to 8, in that order."""
    if not request.events:
        return BodyRefused(400, "INVALID_FIELD_VALUE", "events must not be empty")
    return out_of_scope(request.agent_id, request.events, scope, member="agentId", source="source_agent_id")


class InvalidMember(Exception):
    """One event is refused for this member of it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class _Batch:
    """Everything about a request's events that needs no key."""

    def __init__(self, request: Request, now_us: int, future_us_max: int) -> None:
        first = request.events[0]
        self._events = request.events
        self._stream = first.tenant_id + first.store_id
        self._agent_id = request.agent_id
        self._half_pair = request.half_pair
        self._future_us_max = future_us_max
        self._latest_us = now_us + future_us_max

    def outcomes(self) -> list[VerifiedEvent | Refusal]:
        """Events whose names and hashes are right, signatures not yet looked at; refusals for the others."""
        return [self._outcome(event) for event in self._events]

    def _outcome(self, event: Envelope) -> VerifiedEvent | Refusal:
        wire = event.wire
        if wire.ves_version != VES_VERSION:
            return Refusal(
                event.event_id, "unsupported_version", f"Expected VES version 1, got {wire.ves_version}"
            )
        try:
            if self._half_pair:
                refuse_half_pairs(wire, self._half_pair, "payload", "payload_encrypted")
            entity_type = _entity_type(wire.entity_type)
            entity_id = _sized(name_bytes(wire.entity_id, "entity_id", ENTITY_ID_BYTES_MAX))
            event_type = _event_type(wire.event_type)
            if wire.payload_kind == PLAINTEXT:
                payload, sealed = _plaintext(event), None
            else:
                sealed = _ciphertext(event)
                payload = sealed.text()
            if len(payload) > PAYLOAD_BYTES_MAX:
                field = "payload_encrypted" if sealed else "payload"
                raise InvalidMember(
                    field, f"{field} has {len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} fit"
                )
            created_at_us = _created_at_us(wire.created_at)
        except InvalidMember as wrong:
            return Refusal(event.event_id, f"schema_validation: {wrong.field}", str(wrong))
        agent_key = self._agent_id + u32(wire.agent_key_id)
        header = header_bytes(
            self._stream,
            event.event_id,
            agent_key,
            entity_type,
            entity_id,
            event_type,
            string(wire.created_at),
        )
        plain_hash = event.payload_plain_hash
        if sealed is None:
            if payload_plain_hash(payload) != plain_hash:
                return Refusal(event.event_id, "invalid_payload_hash", "Payload hash verification failed")
        elif cipher_hash(sealed, payload_aad(header, plain_hash)) != event.payload_cipher_hash:
            return Refusal(event.event_id, "invalid_cipher_hash", "Payload hash verification failed")
        return VerifiedEvent(
            event.event_id,
            self._agent_id,
            wire.agent_key_id,
            wire.entity_type,
            wire.entity_id,
            wire.event_type,
            wire.created_at,
            wire.payload_kind,
            payload,
            plain_hash,
            event.payload_cipher_hash,
            event.agent_signature,
            event_signing_hash(header, wire.payload_kind, plain_hash, event.payload_cipher_hash),
            event.command_id,
            None if wire.base_version is UNSET else wire.base_version,
            () if created_at_us <= self._latest_us else (from_the_future(self._future_us_max),),
        )


def from_the_future(future_us_max: int, *, again: str = "sign") -> Finding:
    """The objection to a ``created_at`` that lies further ahead."""
    return Finding(
        "schema_validation: created_at",
        f"created_at is more than {future_us_max / 1_000_000:g} s in the future; set the agent's clock and "
        f"{again} the event again",
    )


def refuse_half_pairs(wire: object, mark: str, *payloads: str) -> None:
    """``mark`` stands in place of each; ``payloads`` are the names of the members that are kept raw."""
    for field in ("entity_type", "entity_id", "event_type"):
        if mark in getattr(wire, field):
            raise InvalidMember(field, f"{field} holds half of a surrogate pair")
    for field in payloads:
        if mark.encode() in bytes(getattr(wire, field)):
            raise InvalidMember(field, f"{field} holds half of a surrogate pair")


def name_bytes(text: str, field: str, bytes_max: int) -> bytes:
    """Raises InvalidMember."""
    raw = text.encode()
    if not 0 < len(raw) <= bytes_max:
        raise InvalidMember(field, f"{field} must be 1 to {bytes_max} bytes of UTF-8, it has {len(raw)}")
    if b"\0" in raw:
        raise InvalidMember(field, f"{field} must not contain U+0000")
    return raw


def _sized(name: bytes) -> bytes:
    return u32(len(name)) + name


@lru_cache(_TYPES_MAX)
def _entity_type(text: str) -> bytes:
    return _sized(name_bytes(text, "entity_type", ENTITY_TYPE_BYTES_MAX))


@lru_cache(_TYPES_MAX)
def _event_type(text: str) -> bytes:
    return _sized(name_bytes(text, "event_type", EVENT_TYPE_BYTES_MAX))


def _created_at_us(text: str) -> int:
    if len(text.encode()) > CREATED_AT_BYTES_MAX:
        raise InvalidMember(
            "created_at", f"created_at must be RFC 3339 of at most {CREATED_AT_BYTES_MAX} bytes"
        )
    try:
        return parse_rfc3339(text)
    except ValueError as wrong:
        raise InvalidMember("created_at", f"created_at {wrong}") from None


def _plaintext(event: Envelope) -> bytes:
    """V3 to V5, then the canonical payload."""
    raw = event.payload
    if not raw or raw == _NULL:
        raise InvalidMember("payload", "payload is required for plaintext events")
    if len(raw) > RAW_PAYLOAD_BYTES_MAX:
        raise InvalidMember("payload", f"payload exceeds {PAYLOAD_BYTES_MAX} bytes by far")
    if event.payload_encrypted and event.payload_encrypted != _NULL:
        raise InvalidMember("payload_encrypted", "payload_encrypted must be omitted for plaintext events")
    if event.payload_cipher_hash != ZERO_HASH:
        raise InvalidMember("payload_cipher_hash", "payload_cipher_hash must be zero for plaintext events")
    try:
        return canonical_of_bounded(raw)  # the whole body's nesting is bounded already
    except NotCanonical as wrong:
        raise InvalidMember("payload", f"payload: {wrong}") from None


def _ciphertext(event: Envelope) -> PayloadEncrypted:
    """V6 to V8."""
    if event.payload and event.payload != _NULL:
        raise InvalidMember("payload", "payload must be omitted for encrypted events")
    raw = event.payload_encrypted
    if not raw or raw == _NULL:
        raise InvalidMember("payload_encrypted", "payload_encrypted is required for encrypted events")
    try:
        return parse_payload_encrypted(raw)
    except EncryptedPayloadRefused as wrong:
        raise InvalidMember(wrong.field, str(wrong)) from None


def _public_keys(
    request: Request,
    outcomes: list[VerifiedEvent | Refusal],
    public_key_of: Callable[[KeyName], bytes | None],
) -> tuple[dict[int, bytes | None], list[KeyName]]:
    """The keys by their ids, and the names of those that are not known."""
    tenant_id, agent_id = request.events[0].tenant_id, request.agent_id
    keys: dict[int, bytes | None] = {}
    missing = []
    for event in outcomes:
        if type(event) is VerifiedEvent and event.agent_key_id not in keys:
            name = KeyName(tenant_id, agent_id, event.agent_key_id)
            keys[name.key_id] = public_key = public_key_of(name)
            if public_key is None:
                missing.append(name)
    return keys, missing


def _check_signatures(
    request: Request,
    outcomes: list[VerifiedEvent | Refusal],
    keys: dict[int, bytes | None],
    demands: Demands,
) -> VerifiedBatch:
    first, judge = request.events[0], demands.judge
    for index, event in enumerate(outcomes):
        if type(event) is not VerifiedEvent:
            continue
        public_key = keys[event.agent_key_id]
        if public_key is None:
            outcomes[index] = Refusal(
                event.event_id, "agent_key_invalid: Agent key not found", "Agent key not found"
            )
        elif request.events[index].wire.agent_signature_scheme not in _ED25519_SCHEMES:
            outcomes[index] = Refusal(
                event.event_id, "invalid_signature", "agent_signature_scheme must be 1 (Ed25519) or left out"
            )
        elif not verify_signature(public_key, event.event_signing_hash, event.agent_signature):
            outcomes[index] = Refusal(
                event.event_id, "invalid_signature", "Agent signature verification failed"
            )
        elif judge is not None and (findings := judge(event)):
            outcomes[index] = replace(event, findings=(*findings, *event.findings))
    return VerifiedBatch(first.tenant_id, first.store_id, request.agent_id, outcomes)
