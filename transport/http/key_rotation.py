"""An agent's signing key gives way to a new one: both sign for a while, then only the new one does.

Who may administer keys may do it for any agent. An agent's own credential may do it for that agent's key, if
the key that goes signs for the one that comes; it gains no time by it, and a key has one successor that way.
"""

from __future__ import annotations

import msgspec

from journal.port import AgentKey, KeyConflict, KeyEnded, KeyRotated, KeyRotation
from transport.http.agent_keys import conflict, key_name, subject
from transport.http.callers import denied
from transport.http.errors import ApiError, Code
from transport.http.key_shapes import KeyRotatedReply, RotateKeyBody
from transport.http.new_keys import key_of, signature_bytes
from transport.http.permissions import holds
from transport.http.routing import Route
from transport.http.visit import Visit
from ves.encoding import prefixed_hex, uuid_text
from ves.records import KeyName
from ves.signatures import rotation_hash, verify_signature
from ves.timestamps import utc_text

ADMINISTERS = ("agent_keys:write",)
HOW_TO_CONTINUE = (
    'sign with the key that is replaced the 32 bytes SHA-256("VES_KEY_ROTATION_V1" || tenantId (16 bytes) || '
    "agentId (16) || replaces (4, big-endian) || its public key (32) || keyId (4) || publicKey (32))"
)


async def rotate_key(visit: Visit) -> KeyRotatedReply:
    body = await visit.json(RotateKeyBody)
    by_holder = not holds(visit.who.permissions, ADMINISTERS)
    name = _own_key_name(visit, body) if by_holder else key_name(visit, body, body.key_id)
    if by_holder:
        visit.door.rates.rotating(visit, name)
    if body.replaces == name.key_id:
        raise ApiError(Code.INVALID_FIELD_VALUE, "replaces: the same as keyId; give the new key another one")
    key = key_of(body, name, visit.house.settings.require_pop)
    old = await _replaced(visit, name._replace(key_id=body.replaces))
    rotation = KeyRotation(
        key=_no_longer_than(old, key, body) if by_holder else key,
        replaces=body.replaces,
        grace_s=body.grace_period_secs,
        rotation_signature=_continuity(body, old, key),
        by_holder=by_holder,
    )
    if old.public_key == key.public_key:
        text = "publicKey: that of the key it replaces; make a new pair"
        raise ApiError(Code.INVALID_PUBLIC_KEY, text)
    entry = visit.act(
        "agent_key.rotate",
        subject(name),
        name.tenant_id,
        replaces=body.replaces,
        grace_period_secs=body.grace_period_secs,
        public_key=key.public_key.hex(),
        proof_of_possession=key.proof_of_possession,
        rotation_signature=rotation.rotation_signature.hex() if rotation.rotation_signature else None,
    )
    rotated = await visit.house.journal.rotate_agent_key(rotation, entry)
    return _told(visit, _done(rotated, name))


def _own_key_name(visit: Visit, body: RotateKeyBody) -> KeyName:
    """The agent's own key, which its own credential may replace. All of this before anything is looked up."""
    name = KeyName(visit.uuid(body, "tenant_id"), visit.uuid(body, "agent_id"), body.key_id)
    if visit.who.agent_id != name.agent_id:
        raise denied("agent_keys:write permission required")
    if body.previous_signature is None:
        raise denied(f"without previousSignature ({HOW_TO_CONTINUE}) agent_keys:write permission required")
    if body.proof_of_possession is None and body.proof_of_possession_bundle is None:
        raise denied("without proofOfPossession agent_keys:write permission required")
    visit.who.must_reach_tenant(name.tenant_id)
    return name


async def _replaced(visit: Visit, name: KeyName) -> AgentKey:
    found = await visit.house.journal.list_agent_keys(
        name.tenant_id, name.agent_id, from_key_id=name.key_id, limit=1
    )
    if not found or found[0].name != name:
        raise ApiError(Code.AGENT_KEY_NOT_FOUND, "replaces: this agent has no such key")
    return found[0]


def _no_longer_than(old: AgentKey, key: AgentKey, body: RotateKeyBody) -> AgentKey:
    """Whoever set an end to the old key meant it: its holder cannot move it."""
    if old.valid_to_us is None:
        return key
    if key.valid_to_us is None:
        if key.valid_from_us is not None and key.valid_from_us > old.valid_to_us:
            raise denied("validFrom: after the end that was set to the replaced key")
        return msgspec.structs.replace(key, valid_to_us=old.valid_to_us)
    if key.valid_to_us > old.valid_to_us:
        raise denied(
            "validTo: later than that of the replaced key, which needs agent_keys:write permission; at most "
            + utc_text(old.valid_to_us)
        )
    return key


def _continuity(body: RotateKeyBody, old: AgentKey, key: AgentKey) -> bytes | None:
    """The old key's word for the new one. A wrong one is refused also where none is needed."""
    if body.previous_signature is None:
        return None
    signature = signature_bytes(body.previous_signature, "previousSignature")
    message = rotation_hash(old.name, old.public_key, key.name.key_id, key.public_key)
    if not verify_signature(old.public_key, message, signature):
        text = f"previousSignature: not the replaced key's signature; {HOW_TO_CONTINUE}"
        raise ApiError(Code.SIGNATURE_VERIFICATION_FAILED, text)
    return signature


def _done(rotated: KeyRotated | KeyConflict | KeyEnded | None, name: KeyName) -> KeyRotated:
    if isinstance(rotated, KeyRotated):
        return rotated
    if isinstance(rotated, KeyConflict):
        raise conflict(rotated, name)
    if isinstance(rotated, KeyEnded):
        text = (
            f"keyId {rotated.name.key_id} of this agent is revoked, retired, expired, replaced already or "
            "not valid yet; register a new key instead (POST /api/v1/agents/keys)"
        )
        raise ApiError(Code.CONFLICT, text)
    raise ApiError(Code.AGENT_KEY_NOT_FOUND, "replaces: this agent has no such key")


def _told(visit: Visit, rotated: KeyRotated) -> KeyRotatedReply:
    key, old = rotated.key, rotated.replaced
    assert old.retires_at_us is not None, "that is what was done"
    names = uuid_text(key.name.tenant_id), uuid_text(key.name.agent_id)
    if not rotated.already:
        tenant, agent = names
        visit.alert(
            "agent_key_registered",
            tenant=tenant,
            agent=agent,
            key_id=key.name.key_id,
            replaces=old.name.key_id,
        )
    return KeyRotatedReply(
        True,
        f"Agent key rotated; keyId {old.name.key_id} may sign until retiresAt",
        *names,
        key.name.key_id,
        prefixed_hex(key.public_key),
        utc_text(key.registered_at_us),
        key.proof_of_possession,
        old.name.key_id,
        utc_text(old.retires_at_us),
        old.rotation_signature is not None and old.replaced_by == key.name.key_id,
        rotated.already,
    )


ROUTES = [
    Route(
        "POST",
        "/api/v1/agents/keys/rotate",
        rotate_key,
        "Register an agent's new signing key and let an old one end after a grace period, in one step",
        KeyRotatedReply,
        body_shape=RotateKeyBody,
        refuses=(
            Code.AGENT_KEY_NOT_FOUND,
            Code.ALREADY_EXISTS,
            Code.CONFLICT,
            Code.INVALID_PUBLIC_KEY,
            Code.SIGNATURE_VERIFICATION_FAILED,
        ),
    ),
]
