"""Agents' signing keys: registering, listing, revoking. What a key may sign is judged inside the append."""

from __future__ import annotations

from journal.port import AgentKey, KeyConflict
from transport.http.errors import ApiError, Code
from transport.http.replies import agent_key_reply
from transport.http.routing import Route
from transport.http.shapes import (
    AgentKeysQuery,
    AgentKeysReply,
    AgentPath,
    KeyRegisteredReply,
    KeyRevokedReply,
    RegisterKeyBody,
    RevokeKeyBody,
)
from transport.http.visit import Visit
from ves.constants import U32_MAX
from ves.encoding import hex_bytes, prefixed_hex, uuid_text
from ves.records import KeyName
from ves.signatures import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, is_registrable, proven_possession
from ves.timestamps import parse_rfc3339, utc_text

ED25519 = 1


async def register_key(visit: Visit) -> KeyRegisteredReply:
    body = await visit.json(RegisterKeyBody)
    name = _key_name(visit, body)
    if body.key_algorithm not in (None, 0, ED25519):
        raise ApiError(Code.INVALID_FIELD_VALUE, "keyAlgorithm: only Ed25519 (0 or 1) is supported")
    public_key = _hex(body.public_key, "publicKey", PUBLIC_KEY_BYTES)
    if not is_registrable(public_key):
        text = "publicKey: not a canonical Ed25519 point of the prime-order group"
        raise ApiError(Code.INVALID_PUBLIC_KEY, text)
    key = AgentKey(
        name=name,
        public_key=public_key,
        key_algorithm=ED25519,
        valid_from_us=_time(body.valid_from, "validFrom"),
        valid_to_us=_time(body.valid_to, "validTo"),
        proof_of_possession=_possession(body, name, public_key),
    )
    if key.valid_from_us is not None and key.valid_to_us is not None and key.valid_from_us > key.valid_to_us:
        raise ApiError(Code.INVALID_FIELD_VALUE, "validTo: earlier than validFrom")
    entry = visit.act(
        "agent_key.register",
        _subject(name),
        name.tenant_id,
        public_key=public_key.hex(),
        proof_of_possession=key.proof_of_possession,
    )
    outcome = await visit.house.journal.register_agent_key(key, entry)
    if isinstance(outcome, KeyConflict):
        raise ApiError(
            Code.ALREADY_EXISTS,
            f"keyId {name.key_id} of this agent is registered already, with another key or validity"
            if outcome.same_name
            else "this public key is in use already; generate a new one",
        )
    return KeyRegisteredReply(
        True,
        "Agent key registered successfully",
        uuid_text(name.tenant_id),
        uuid_text(name.agent_id),
        name.key_id,
        body.key_algorithm or 0,
        prefixed_hex(public_key),
        utc_text(outcome.key.registered_at_us),
        outcome.already,
    )


async def revoke_key(visit: Visit) -> KeyRevokedReply:
    body = await visit.json(RevokeKeyBody)
    name = _key_name(visit, body)
    reason = body.reason or "revoked by request"
    entry = visit.act("agent_key.revoke", _subject(name), name.tenant_id, reason=reason)
    revoked = await visit.house.journal.revoke_agent_key(name, reason, entry)
    if revoked is None:
        raise ApiError(Code.AGENT_KEY_NOT_FOUND, "no such agent key")
    at_us = revoked.key.revoked_at_us
    return KeyRevokedReply(
        True,
        "Agent key revoked",
        uuid_text(name.tenant_id),
        uuid_text(name.agent_id),
        name.key_id,
        None if at_us is None else utc_text(at_us),
        revoked.key.revocation_reason,
        revoked.already,
    )


async def list_keys(visit: Visit) -> AgentKeysReply:
    agent_id = visit.uuid(visit.path(AgentPath), "agent_id")
    query = visit.query(AgentKeysQuery)
    tenant_id = visit.who.tenant_named(visit.optional_uuid(query, "tenant_id"))
    found = await visit.house.journal.list_agent_keys(
        tenant_id, agent_id, from_key_id=query.from_, limit=query.limit + 1
    )
    keys = found[: query.limit]
    next_from = min(keys[-1].name.key_id + 1, U32_MAX) if keys else query.from_
    replies = [agent_key_reply(key) for key in keys]
    return AgentKeysReply(replies, len(replies), len(found) > query.limit, next_from)


def _key_name(visit: Visit, body: RegisterKeyBody | RevokeKeyBody) -> KeyName:
    """The key's name, within the caller's scope: a key belongs to an agent in all stores of its tenant."""
    name = KeyName(visit.uuid(body, "tenant_id"), visit.uuid(body, "agent_id"), body.key_id)
    visit.who.must_reach_whole_tenant(name.tenant_id)
    visit.who.must_be(name.agent_id)
    return name


def _subject(name: KeyName) -> str:
    return f"{uuid_text(name.agent_id)}/{name.key_id}"


def _possession(body: RegisterKeyBody, name: KeyName, public_key: bytes) -> int | None:
    """Which challenge was answered, None when no proof was sent. A wrong proof is refused."""
    bundle = body.proof_of_possession_bundle
    proof = body.proof_of_possession or (bundle.ed25519_pop if bundle else None)
    if proof is None:
        return None
    version = proven_possession(name, public_key, _hex(proof, "proofOfPossession", SIGNATURE_BYTES))
    if version is None:
        text = "proofOfPossession: not this key's signature over its challenge"
        raise ApiError(Code.SIGNATURE_VERIFICATION_FAILED, text)
    return version


def _hex(text: str, field: str, length: int) -> bytes:
    try:
        return hex_bytes(text, length)
    except ValueError as wrong:
        raise ApiError(Code.INVALID_FIELD_VALUE, f"{field}: {wrong}", status=422) from None


def _time(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    try:
        moment_us = parse_rfc3339(text)
        utc_text(moment_us)  # what cannot be written could never be listed again
    except (ValueError, OverflowError) as wrong:
        raise ApiError(Code.INVALID_FIELD_VALUE, f"{field}: {wrong}") from None
    return moment_us


ROUTES = [
    Route(
        "POST",
        "/api/v1/agents/keys",
        register_key,
        "Register an agent's signing key; the same registration again changes nothing",
        KeyRegisteredReply,
        body_shape=RegisterKeyBody,
        refuses=(Code.ALREADY_EXISTS, Code.INVALID_PUBLIC_KEY, Code.SIGNATURE_VERIFICATION_FAILED),
    ),
    Route(
        "POST",
        "/api/v1/agents/keys/revoke",
        revoke_key,
        "Revoke an agent's signing key: no event of it is sequenced afterwards",
        KeyRevokedReply,
        body_shape=RevokeKeyBody,
        refuses=(Code.AGENT_KEY_NOT_FOUND,),
    ),
    Route(
        "GET",
        "/api/v1/agents/{agent_id}/keys",
        list_keys,
        "An agent's signing keys by keyId, revoked ones too",
        AgentKeysReply,
        path_shape=AgentPath,
        query_shape=AgentKeysQuery,
    ),
]
